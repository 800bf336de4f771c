"""Viewer of three planes of a volume with a common cursor and an adjustable threshold."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike

from neurokd.data.tree import Tree
from neurokd.data.volume import Spacing
from neurokd.viz.viewers.planes import Planes

if TYPE_CHECKING:
    from neurokd.viz.viewers.widget import Viewer

__all__ = ["view_volume"]


def view_volume(
    volume: ArrayLike,
    mask: ArrayLike | None = None,
    tree: Tree | None = None,
    *,
    truth: ArrayLike | None = None,
    spacing: Spacing | None = None,
    slab: int = 1,
    threshold: float | None = None,
    gamma: float = 0.5,
    width: int = 640,
) -> Viewer:
    """Show three orthogonal planes of a volume; click or drag in one to move the others.

    Sliders set the cursor, the slab, the opacity of the colours and the threshold. Each plane shows the
    maximum of a slab, which consists of some slices around the cursor. If the truth is known, the viewer
    shows the Dice at the threshold. A pixel counts as found if any voxel of its column in the slab is found.
    :func:`neurokd.viz.figures.projections.plot_projections` draws a static figure.

    Parameters
    ----------
    volume
        Intensities ``z y x``. The viewer holds two to eight copies as uint8; the number depends on the
        other arguments.
    mask
        Boolean ``z y x``, or floats such as a probability, which are cut at the threshold. None cuts the
        volume instead.
    tree
        Tree in voxels of `volume`. It is drawn where its tube cuts the slab.
    truth
        Boolean ``z y x``. With it, colours show what is found, missed and invented.
    spacing
        Voxel size ``(z, y, x)`` in µm; None gives lengths in voxels.
    slab
        Initial thickness of the slab in slices, at least 1.
    threshold
        Initial threshold; the slider starts at its nearest step. None takes 0.5 for a probability. For
        intensities, None takes the threshold with the best Dice, or marks nothing if there is no `truth`.
    gamma
        Exponent of the display, > 0; a value below one brightens dim voxels.
    width
        Width of the picture in pixels, at least 100.

    Returns
    -------
    Viewer
        A widget, shown if it is the last expression of a cell. ``controls`` holds its controls by name: z, y,
        x, slab, opacity, and threshold unless the mask is boolean.

    Raises
    ------
    ValueError
        `volume` is not a valid volume, `mask` or `truth` has another shape, a setting is out of range, or a
        threshold is given for a boolean mask.
    ImportError
        ipywidgets is not installed; ``neurokd[notebooks]`` installs it.

    Examples
    --------
    >>> view_volume(volume, probability, truth=mask, spacing=(0.4, 0.1, 0.1), slab=9)
    """
    from neurokd.viz.viewers.widget import Viewer, choice, cursor_sliders, place_text, slab_slider, slider

    planes = Planes(volume, mask, tree, truth=truth, spacing=spacing, gamma=gamma, width=width)
    controls = {
        **cursor_sliders(planes.shape, planes.brightest),
        "slab": slab_slider(slab, max(planes.shape.values())),
        "opacity": slider("opacity", 0.8, 0, 1, step=0.05),
    }
    if len(planes.levels) == 1 and threshold is not None:
        raise ValueError(f"threshold must be None for a boolean mask, got {threshold}")
    if len(planes.levels) > 1:
        options = [(f"{level:.4g}", k) for k, level in enumerate(planes.levels)]
        first = _first_level(planes, mask is not None, threshold)
        controls["threshold"] = choice("threshold", options, first)
    volume = np.asarray(volume)

    def draw(z: int, y: int, x: int, slab: int, opacity: float, threshold: int = 0) -> tuple[Any, str]:
        pixels = planes.draw(z, y, x, slab=slab, level=threshold, opacity=opacity)
        text = f"{place_text(spacing, z, y, x)}: intensity {volume[z, y, x]:.4g}"
        if planes.dice is not None:
            text += f" &nbsp; <b>Dice {planes.dice[threshold]:.3f}</b>"
        return pixels, text

    return Viewer(draw, controls, lambda stroke, x0, y0, x, y: planes.locate(x, y))


def _first_level(planes: Planes, is_probability: bool, threshold: float | None) -> int:
    """Return the index of the level that is nearest to the initial threshold."""
    if threshold is None and not is_probability:
        return len(planes.levels) - 1 if planes.dice is None else int(planes.dice.argmax())
    wanted = 0.5 if threshold is None else threshold
    return int(np.abs(planes.levels.astype(float) - wanted).argmin())
