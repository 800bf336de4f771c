"""A picture with controls below it, in JupyterLab, Notebook 7, Colab and VS Code.

    controls --draw--> pixels, text --> Image, HTML          a drag on the picture --moved--> controls

Both functions are plain Python, which can be called and tested without a browser.
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
from neurokd.viz.viewers.slabs import Axis

try:
    import ipywidgets
except ImportError as error:
    raise ImportError(
        "viewers need ipywidgets, which come with neurokd[notebooks]; plot_projections and plot_comparison do not"
    ) from error

_WITHIN = "calc(100% - 4px)"  # all the width between the margins of a widget

__all__ = ["Viewer", "choice", "cursor_sliders", "place_text", "slab_slider", "slider"]


class Viewer(ipywidgets.VBox):
    """Show a picture that follows its controls.

    Where a notebook is shown without widgets, as on GitHub, the last picture stands in its place.

    Parameters
    ----------
    draw
        Function of the values of the controls by name; returns the picture ``y x 3`` and a line of text
        (HTML).
    controls
        Widgets with a value, by name, in the order in which they are shown.
    moved
        Function of a drag (stroke, x0, y0, x, y), see :class:`neurokd.viz.viewers.mouse.Mouse`; returns new
        values for some of the controls. None: there is nothing to drag. Without anywidget the picture does
        not listen to the mouse; the controls still do the same.

    Attributes
    ----------
    controls : dict
        The controls by name. Setting the value of one redraws, here as in the browser.
    picture, text
        The widgets that show what was drawn.
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
        """Draw for the present values of the controls."""
        pixels, text = self._draw(**{name: control.value for name, control in self.controls.items()})
        self.picture.value, self.text.value = png(pixels), text

    def drag(self, stroke: float, x0: float, y0: float, x: float, y: float) -> None:
        """Move the controls as a drag of the mouse over the picture does, then draw once."""
        self._held = True
        try:
            for name, value in self._moved(stroke, x0, y0, x, y).items():
                self.controls[name].value = value
        finally:
            self._held = False
        self.redraw()

    def _changed(self, change: Any) -> None:
        """Redraw when a control changes, unless a drag is moving several of them."""
        if not self._held:
            self.redraw()

    def _repr_mimebundle_(self, **settings: Any) -> Any:
        """Return the widget, and the picture for pages without widgets."""
        bundle = super()._repr_mimebundle_(**settings)
        if isinstance(bundle, dict):
            bundle["image/png"] = base64.b64encode(self.picture.value).decode()
        return bundle


def slider(name: str, value: float, low: float, high: float, *, step: float = 1) -> Any:
    """Return a slider of whole numbers, or of floats where `step` is one."""
    kind = ipywidgets.IntSlider if isinstance(step, int) else ipywidgets.FloatSlider
    return kind(value, min=low, max=high, step=step, description=name, layout=_wide())


def choice(name: str, options: Sequence[Any], value: Any = None) -> Any:
    """Return a slider over options, or buttons where these are words; None chooses the first option."""
    first = options[0][1] if isinstance(options[0], tuple) else options[0]
    kind = ipywidgets.ToggleButtons if isinstance(options[0], str) else ipywidgets.SelectionSlider
    value = first if value is None else value
    return kind(options=options, value=value, description=name, layout=_wide())


def cursor_sliders(shape: Mapping[Axis, int], at: Mapping[Axis, int]) -> dict[str, Any]:
    """Return sliders z, y, x over a volume of this shape, at this place."""
    return {axis: slider(axis, at[axis], 0, size - 1) for axis, size in shape.items()}


def slab_slider(slab: int | None, longest: int) -> Any:
    """Return a slider over thicknesses of slabs up to `longest`, at `slab` (None is `longest`)."""
    slab = longest if slab is None else slab
    if slab < 1:
        raise ValueError(f"slab must be at least 1 slice, got {slab}")
    options = {min(slab, longest), longest, *(2**k - 1 for k in range(1, longest.bit_length()))}
    return choice("slab", sorted(options), min(slab, longest))


def place_text(spacing: Spacing | None, *cursor: int) -> str:
    """Return the place of the cursor (z, y, x) as text, in voxels and, where the spacing is known, in µm."""
    text = "voxel " + ", ".join(f"{axis} {at}" for axis, at in zip("zyx", cursor, strict=True))
    if spacing is not None:
        text += " = " + ", ".join(f"{at * size:.1f}" for at, size in zip(cursor, spacing, strict=True)) + " µm"
    return text


def _wide() -> Any:
    return ipywidgets.Layout(width="480px", max_width=_WITHIN)
