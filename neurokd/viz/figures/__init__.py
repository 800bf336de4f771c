"""Figures that stay as they are, drawn by matplotlib: ``plot_...`` return one and show nothing."""
