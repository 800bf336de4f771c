"""Training: losses and one readable loop."""
