"""Sliders for figures, in JupyterLab and Colab.

A widget hides what goes wrong inside it, and a book or GitHub page shows none. So what a slider calls is a plain
function that returns a figure; call it plainly once, too.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import matplotlib.pyplot as plt
from matplotlib.figure import Figure

if TYPE_CHECKING:
    from ipywidgets import VBox

__all__ = ["explore"]


def explore(draw: Callable[..., Figure], **controls: Any) -> VBox:
    """Put sliders over a function that draws.

    Parameters
    ----------
    draw
        Returns a figure; called with one keyword argument a control. It is drawn anew when a slider is let go.
    controls
        For each argument ``(low, high)`` or ``(low, high, step)`` for a slider, a list for a menu, or an ipywidget.

    Returns
    -------
    ipywidgets.VBox
        As the last expression of a cell it shows itself.

    Raises
    ------
    ImportError
        Without ipywidgets, which come with ``neurokd[notebooks]``.
    Exception
        What `draw` raises for the first values of the controls: a widget would hide it.

    Examples
    --------
    >>> explore(lambda z: plot_projections(volume[z : z + 5]), z=(0, len(volume) - 5))
    """
    import ipywidgets
    from IPython.display import display

    failures: list[Exception] = []

    def show(**values: Any) -> None:
        try:
            figure = draw(**values)
        except Exception as error:
            failures.append(error)
            raise
        display(figure)
        plt.close(figure)  # else the notebook shows it a second time below the cell

    widget = ipywidgets.interactive(show, **controls)  # draws once
    if failures:
        raise failures[0]
    for control in widget.kwargs_widgets:
        if control.has_trait("continuous_update"):
            control.continuous_update = False
    return widget
