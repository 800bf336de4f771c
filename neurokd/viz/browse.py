"""Leaf through a volume: three planes, a cursor, and what a threshold makes of it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike

from neurokd.data.tree import Tree
from neurokd.data.volume import Spacing
from neurokd.viz.planes import Planes

if TYPE_CHECKING:
    from neurokd.viz.widget import Viewer

__all__ = ["browse"]


def browse(
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
    """Show three orthogonal planes of a volume that share a cursor; click or drag in one to move the others.

    Sliders move the cursor, too, and set the thickness of the slab of which each plane shows the maximum, the
    opacity of what lies over the image, and the threshold, with its Dice where the truth is known. A pixel counts
    as found if any voxel of its column in the slab is.

    Parameters
    ----------
    volume
        Intensities ``z y x``. Held two to eight times over as uint8, depending on what else is given.
    mask
        Boolean ``z y x``; or floats such as a probability, which the threshold cuts. With None it cuts the volume.
    tree
        In voxels of `volume`; drawn where its tube cuts the slab.
    truth
        Boolean ``z y x``.
    spacing
        Voxel size ``(z, y, x)`` in µm; None counts voxels.
    slab
        Slices of the maximum to begin with, at least 1.
    threshold
        To begin with, rounded to the nearest step of its slider. None takes 0.5 of a probability, the best against
        `truth` of intensities, and marks none of them where there is no truth.
    gamma
        Exponent of the display, > 0; below one lifts what is dim.
    width
        Of the picture, pixels, at least 100.

    Returns
    -------
    Viewer
        As the last expression of a cell it shows itself. ``controls`` holds the sliders by name: z, y, x, slab,
        opacity, and threshold where there is something to cut.

    Raises
    ------
    ValueError
        Not a volume, a mask or truth of another shape, a setting out of range, or a threshold for a boolean mask.
    ImportError
        Without ipywidgets, which come with ``neurokd[notebooks]``.

    Examples
    --------
    >>> browse(volume, probability, truth=mask, spacing=(0.4, 0.1, 0.1), slab=9)
    """
    from neurokd.viz.widget import Viewer, choice, cursor_sliders, place_text, slab_slider, slider

    planes = Planes(volume, mask, tree, truth=truth, spacing=spacing, gamma=gamma, width=width)
    controls = {
        **cursor_sliders(planes.shape, planes.brightest),
        "slab": slab_slider(slab, max(planes.shape.values())),
        "opacity": slider("opacity", 0.8, 0, 1, step=0.05),
    }
    if len(planes.levels) == 1 and threshold is not None:
        raise ValueError(f"threshold is {threshold}, but there is nothing to cut: give a probability instead of a mask")
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
    """The number of the level that is nearest to the threshold to begin with."""
    if threshold is None and not is_probability:
        return len(planes.levels) - 1 if planes.dice is None else int(planes.dice.argmax())
    wanted = 0.5 if threshold is None else threshold
    return int(np.abs(planes.levels.astype(float) - wanted).argmin())
