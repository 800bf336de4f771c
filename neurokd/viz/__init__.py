"""Pictures of volumes, trees and training runs: ``plot_...`` returns a figure, ``view_...`` a viewer."""
