"""Pictures of volumes, trees, kernels and training runs: ``plot_...`` draw figures, ``view_...`` give viewers."""
