"""Viewer of any matplotlib figure with controls below it.

The function ``interactive`` of ipywidgets sends its figure through an output widget. An output widget hides
errors, and programs that execute notebooks sometimes wait for it for ever. Here the figure is a picture, as
in all viewers.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from numpy.typing import NDArray

if TYPE_CHECKING:
    from neurokd.viz.viewers.widget import Viewer

__all__ = ["view_figure"]


def view_figure(draw: Callable[..., Figure], **controls: Any) -> Viewer:
    """Show a figure that is drawn again when a control changes.

    Parameters
    ----------
    draw
        Function that takes the values of the controls by name and returns a figure. The figure is closed
        after it is shown.
    controls
        One ipywidget with a value for each argument of `draw`. A widget with ``continuous_update=False``
        redraws when the mouse is released. A widget without a description gets the argument's name.

    Returns
    -------
    Viewer
        A widget, shown if it is the last expression of a cell.

    Raises
    ------
    ImportError
        ipywidgets is not installed; ``neurokd[notebooks]`` installs it.

    Examples
    --------
    >>> z = ipywidgets.IntSlider(40, min=0, max=len(volume) - 9, continuous_update=False)
    >>> view_figure(lambda z: plot_projections(volume[z : z + 9]), z=z)
    """
    from neurokd.viz.viewers.widget import Viewer

    def picture(**values: Any) -> tuple[NDArray[np.uint8], str]:
        figure = draw(**values)
        canvas = FigureCanvasAgg(figure)
        canvas.draw()
        plt.close(figure)
        return np.array(canvas.buffer_rgba())[..., :3], ""  # y x 3

    for name, control in controls.items():
        control.description = control.description or name.replace("_", " ")
    longest = max((len(control.description) for control in controls.values()), default=0)
    for control in controls.values():
        # No description is cut, and all controls are aligned.
        control.style.description_width = f"max(80px, {longest}ch)"
    return Viewer(picture, controls)
