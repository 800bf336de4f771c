"""A picture with controls below it, for JupyterLab, Notebook 7, Colab and VS Code::

    controls --draw--> pixels, text --> Image, HTML          a drag on the picture --moved--> controls

The functions `draw` and `moved` are plain Python, so they can be called and tested without a browser.
"""

from __future__ import annotations

import base64
import importlib.util
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from neurokd.data.volume import Spacing
from neurokd.viz.viewers.canvas import png

try:
    import ipywidgets
except ImportError as error:
    raise ImportError(
        "viewers need ipywidgets, which neurokd[notebooks] installs; the plot_... functions work without it"
    ) from error

_WITHIN = "calc(100% - 4px)"  # full width without the margins of a widget

__all__ = ["Viewer", "choice", "cursor_sliders", "place_text", "slab_slider", "slider"]


class Viewer(ipywidgets.VBox):
    """Show a picture that follows its controls.

    A page without widgets, such as a notebook on GitHub, shows the last picture instead.

    Parameters
    ----------
    draw
        Function that takes the values of the controls by name and returns the picture ``y x 3`` and a line of
        HTML text.
    controls
        Widgets with a value by name, in the order in which they are shown.
    moved
        Function that takes a drag (stroke, x0, y0, x, y) and returns new values of some controls, see
        :class:`neurokd.viz.viewers.mouse.Mouse`. None disables dragging. Without anywidget the picture does
        not react to the mouse, but the controls still work.

    Attributes
    ----------
    controls : dict
        The controls by name. Setting a value redraws, in Python as in the browser.
    picture, text
        The widgets that show the picture and the text.
    """

    def __init__(
        self,
        draw: Callable[..., tuple[NDArray[np.uint8], str]],
        controls: Mapping[str, Any],
        moved: Callable[[float, float, float, float, float], Mapping[str, Any]] | None = None,
    ) -> None:
        self._draw, self._moved, self._held = draw, moved, False
        self.controls = dict(controls)
        self.picture, self.text = ipywidgets.Image(format="png"), ipywidgets.HTML()
        self.redraw()
        for control in self.controls.values():
            control.observe(self._changed, "value")
        shown = [*self.controls.values()]
        if moved is not None and importlib.util.find_spec("anywidget"):
            from neurokd.viz.viewers.mouse import Mouse

            mouse = Mouse()
            mouse.observe(lambda change: self.drag(*change["new"]), "drag")
            shown.append(mouse)
        self.picture.layout = ipywidgets.Layout(align_self="flex-start", max_width=_WITHIN)
        super().__init__([self.picture, self.text, *shown])

    def redraw(self) -> None:
        """Draw the picture for the present values of the controls."""
        pixels, text = self._draw(**{name: control.value for name, control in self.controls.items()})
        self.picture.value, self.text.value = png(pixels), text

    def drag(self, stroke: float, x0: float, y0: float, x: float, y: float) -> None:
        """Set the controls as a drag of the mouse over the picture does, then draw once."""
        if self._moved is None:
            raise ValueError("moved must be a function for a viewer that is dragged, got None")
        self._held = True
        try:
            for name, value in self._moved(stroke, x0, y0, x, y).items():
                self.controls[name].value = value
        finally:
            self._held = False
        self.redraw()

    def _changed(self, change: Any) -> None:
        """Redraw when a control changes, unless a drag is changing several controls."""
        if not self._held:
            self.redraw()

    def _repr_mimebundle_(self, **settings: Any) -> Any:
        """Return the widget and, for pages without widgets, the picture."""
        bundle = super()._repr_mimebundle_(**settings)
        if isinstance(bundle, dict):
            bundle["image/png"] = base64.b64encode(self.picture.value).decode()
        return bundle


def slider(name: str, value: float, low: float, high: float, *, step: float = 1) -> Any:
    """Return a slider of integers, or of floats if `step` is a float."""
    kind = ipywidgets.IntSlider if isinstance(step, int) else ipywidgets.FloatSlider
    return kind(value, min=low, max=high, step=step, description=name, layout=_wide())


def choice(name: str, options: Sequence[Any], value: Any = None) -> Any:
    """Return a slider over options, or buttons if they are words; None as `value` selects the first."""
    first = options[0][1] if isinstance(options[0], tuple) else options[0]
    kind = ipywidgets.ToggleButtons if isinstance(options[0], str) else ipywidgets.SelectionSlider
    value = first if value is None else value
    return kind(options=options, value=value, description=name, layout=_wide())


def cursor_sliders(shape: Mapping[str, int], start: Mapping[str, int]) -> dict[str, Any]:
    """Return sliders z, y, x for a volume of this `shape`, set to the voxel `start`."""
    return {axis: slider(axis, start[axis], 0, size - 1) for axis, size in shape.items()}


def slab_slider(slab: int | None, longest: int) -> Any:
    """Return a slider for the thickness of a slab, set to `slab` or, if this is None, to `longest`."""
    slab = longest if slab is None else slab
    if slab < 1:
        raise ValueError(f"slab must be at least 1 slice, got {slab}")
    options = {min(slab, longest), longest, *(2**k - 1 for k in range(1, longest.bit_length()))}
    return choice("slab", sorted(options), min(slab, longest))


def place_text(spacing: Spacing | None, *cursor: int) -> str:
    """Return the place of the cursor (z, y, x) as text, in voxels and, if the spacing is known, in µm."""
    text = "voxel " + ", ".join(f"{axis} {index}" for axis, index in zip("zyx", cursor, strict=True))
    if spacing is not None:
        microns = (index * size for index, size in zip(cursor, spacing, strict=True))
        text += " = " + ", ".join(f"{length:.1f}" for length in microns) + " µm"
    return text


def _wide() -> Any:
    """Return the layout of a control."""
    return ipywidgets.Layout(width="480px", max_width=_WITHIN)
