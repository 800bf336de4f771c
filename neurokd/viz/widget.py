"""A picture with controls below it, in JupyterLab, Notebook 7, Colab and VS Code.

    controls --draw--> pixels, text --> Image, HTML          a drag on the picture --moved--> controls

All that it computes is in two plain functions, which can be called and tested without a browser.
"""

import base64
import importlib.util
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from neurokd.viz.canvas import png

try:
    import ipywidgets
except ImportError as error:
    raise ImportError(
        "viewers need ipywidgets, which come with neurokd[notebooks]; plot_projections and plot_comparison draw "
        "without them"
    ) from error

__all__ = ["Viewer", "slider"]


class Viewer(ipywidgets.VBox):
    """A picture that follows its controls.

    Where a notebook is shown without widgets, as on a page of GitHub, the last picture stands in its place.

    Parameters
    ----------
    draw
        Called with the value of each control by its name; returns the picture ``y x 3`` and a line of text (HTML).
    controls
        Widgets with a value, by name, in the order in which they are shown.
    moved
        Called with a drag (x0, y0, x, y) in pixels of the picture; returns new values for some of the controls.
        None, or no anywidget: the picture does not listen to the mouse, and the controls do the same.

    Attributes
    ----------
    controls : dict
        As given. Setting the value of one redraws, here as in the browser.
    picture, text
        The widgets that show what was drawn.
    """

    def __init__(
        self,
        draw: Callable[..., tuple[NDArray[np.uint8], str]],
        controls: Mapping[str, Any],
        moved: Callable[[float, float, float, float], Mapping[str, Any]] | None = None,
    ) -> None:
        self._draw, self._moved, self._held = draw, moved, False
        self.controls = dict(controls)
        self.picture, self.text = ipywidgets.Image(format="png"), ipywidgets.HTML()
        self.redraw()
        for control in self.controls.values():
            control.observe(self._changed, "value")
        shown = [*self.controls.values()]
        if moved is not None and importlib.util.find_spec("anywidget"):
            from neurokd.viz.mouse import Mouse

            mouse = Mouse()
            mouse.observe(lambda change: self.drag(*change["new"]), "drag")
            shown.append(mouse)
        self.picture.layout = ipywidgets.Layout(align_self="flex-start", max_width="100%")
        super().__init__([self.picture, self.text, *shown])

    def redraw(self) -> None:
        """Draw for the present values of the controls."""
        pixels, text = self._draw(**{name: control.value for name, control in self.controls.items()})
        self.picture.value, self.text.value = png(pixels), text

    def drag(self, x0: float, y0: float, x: float, y: float) -> None:
        """Do what a drag of the mouse over the picture does; all controls move, then it is drawn once."""
        if self._moved is None:
            return
        self._held = True
        try:
            for name, value in self._moved(x0, y0, x, y).items():
                self.controls[name].value = value
        finally:
            self._held = False
        self.redraw()

    def _changed(self, change: Any) -> None:
        if not self._held:
            self.redraw()

    def _repr_mimebundle_(self, **settings: Any) -> Any:
        bundle = super()._repr_mimebundle_(**settings)
        if isinstance(bundle, dict):
            bundle["image/png"] = base64.b64encode(self.picture.value).decode()
        return bundle


def slider(name: str, value: float, low: float, high: float, *, step: float = 1) -> Any:
    """Return a slider of whole numbers, or of floats where `step` is one."""
    kind = ipywidgets.IntSlider if isinstance(step, int) else ipywidgets.FloatSlider
    return kind(value, min=low, max=high, step=step, description=name, layout=ipywidgets.Layout(width="480px"))
