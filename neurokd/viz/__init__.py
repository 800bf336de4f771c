"""Pictures of volumes, trees and training runs: ``plot_...`` return figures, ``view_...`` return viewers."""
