"""Pictures of volumes, trees, kernels and training runs."""
