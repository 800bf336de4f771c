"""Three planes of a volume that share a cursor, and a threshold to try on it."""

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

    Sliders also move the cursor. They set the thickness of the slab of which each plane shows the maximum,
    the opacity of the colours over the image, and the threshold, with its Dice where the truth is known. A
    pixel counts as found if any voxel of its column in the slab is found.
    :func:`neurokd.viz.figures.projections.plot_projections` is the static picture.

    Parameters
    ----------
    volume
        Intensities ``z y x``. Two to eight copies as uint8 are held, depending on what else is given.
    mask
        Boolean ``z y x``, or floats such as a probability, which the threshold cuts. None cuts the volume.
    tree
        Tree in voxels of `volume`; drawn where its tube cuts the slab.
    truth
        Boolean ``z y x``; colours what is found, missed and invented.
    spacing
        Voxel size ``(z, y, x)`` in µm; None counts voxels.
    slab
        First thickness of the slab of which the maximum is shown, in slices, at least 1.
    threshold
        First threshold, rounded to the nearest step of its slider. None takes 0.5 for a probability. For
        intensities it takes the best against `truth`; without a truth it marks nothing.
    gamma
        Exponent of the display, > 0; below one lifts what is dim.
    width
        Width of the picture in pixels, at least 100.

    Returns
    -------
    Viewer
        A widget; as the last expression of a cell it is shown. ``controls`` holds its controls by name: z, y,
        x, slab, opacity, and threshold where there is something to cut.

    Raises
    ------
    ValueError
        The volume is no volume, mask or truth has another shape, a setting is out of range, or a threshold is
        given for a boolean mask.
    ImportError
        ipywidgets are not installed; they come with ``neurokd[notebooks]``.

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
        raise ValueError(f"threshold must be None for a boolean mask, which it cannot cut, got {threshold}")
    if len(planes.levels) > 1:
        options = [(f"{level:.4g}", k) for k, level in enumerate(planes.levels)]
        controls["threshold"] = choice("threshold", options, _first_level(planes, mask is not None, threshold))
    volume = np.asarray(volume)

    def draw(z: int, y: int, x: int, slab: int, opacity: float, threshold: int = 0) -> tuple[Any, str]:
        pixels = planes.draw(z, y, x, slab=slab, level=threshold, opacity=opacity)
        text = f"{place_text(spacing, z, y, x)}: intensity {volume[z, y, x]:.4g}"
        if planes.dice is not None:
            text += f" &nbsp; <b>Dice {planes.dice[threshold]:.3f}</b>"
        return pixels, text

    return Viewer(draw, controls, lambda stroke, x0, y0, x, y: planes.locate(x, y))


def _first_level(planes: Planes, is_probability: bool, threshold: float | None) -> int:
    """Return the number of the level that is nearest to the first threshold."""
    if threshold is None and not is_probability:
        return len(planes.levels) - 1 if planes.dice is None else int(planes.dice.argmax())
    wanted = 0.5 if threshold is None else threshold
    return int(np.abs(planes.levels.astype(float) - wanted).argmin())
