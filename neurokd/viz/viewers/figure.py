"""Any matplotlib figure with controls below it.

ipywidgets' own ``interactive`` sends its figure through an output widget. There errors pass unseen, and
programs that execute notebooks sometimes wait for ever. Here the figure is a picture, as in all viewers.
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
    """Show a figure that is drawn again whenever one of its controls changes.

    Parameters
    ----------
    draw
        Function that takes the values of the controls by name and returns a figure, which is closed once it
        is shown.
    controls
        An ipywidget with a value for each argument. With ``continuous_update=False`` it draws when it is let
        go. Without a description it is labelled with the argument's name.

    Returns
    -------
    Viewer
        A widget; as the last expression of a cell it is shown.

    Raises
    ------
    ImportError
        ipywidgets are not installed; they come with ``neurokd[notebooks]``.

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
        control.style.description_width = f"max(80px, {longest}ch)"  # none is cut, all are aligned
    return Viewer(picture, controls)
