"""A figure with controls below it: any function that draws one, in a notebook.

ipywidgets' own ``interactive`` sends what is drawn through an output widget, in which errors pass unseen and on which
programs that execute notebooks now and then wait for ever. Here the figure is a picture like that of all viewers.
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
    """Draw a figure anew whenever one of its controls changes.

    Parameters
    ----------
    draw
        Takes the values of the controls by name and returns a figure, which is closed once it is shown.
    controls
        An ipywidget with a value for each argument. One with ``continuous_update=False`` draws when it is let go; one
        without description gets the argument's name as its label.

    Returns
    -------
    Viewer
        A widget: picture and controls. As the last expression of a cell it is shown.

    Raises
    ------
    ImportError
        ipywidgets are not there; they come with ``neurokd[notebooks]``.

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
        return np.array(canvas.buffer_rgba())[..., :3], ""

    for name, control in controls.items():
        control.description = control.description or name.replace("_", " ")
    longest = max((len(control.description) for control in controls.values()), default=0)
    for control in controls.values():
        control.style.description_width = f"max(80px, {longest}ch)"  # none is cut, and all begin in one line
    return Viewer(picture, controls)
