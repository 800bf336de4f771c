"""Static figures, drawn by matplotlib. Each ``plot_...`` function returns a figure and does not show it."""
