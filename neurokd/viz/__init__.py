"""Pictures of volumes, trees, kernels and training runs, and viewers to click in."""
