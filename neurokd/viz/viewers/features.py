"""Slices of a volume, leafed through as a teacher sees them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike, NDArray

from neurokd.data.volume import Spacing
from neurokd.viz.viewers.token_views import TokenViews

if TYPE_CHECKING:
    from neurokd.models.teacher import Teacher
    from neurokd.viz.viewers.widget import Viewer

__all__ = ["view_features"]


def view_features(
    teacher: Teacher,
    volume: ArrayLike,
    *,
    block: int | None = None,
    magnification: float = 1.75,
    slab: int = 1,
    spacing: Spacing | None = None,
    gamma: float = 0.5,
    width: int = 640,
) -> Viewer:
    """Show slices of a volume as a 2D teacher sees them; click to see which tokens are like the one there.

    The colours are the first three principal components of the tokens of eight slices, the same for every
    slice. Tokens differ mostly by position, so the tokens of a black image are subtracted first. The
    attention is that of the class token; without a class token there is no such panel. A new slice takes two
    passes through the teacher; the last 32 are kept.

    Parameters
    ----------
    teacher
        A 2D teacher, see :func:`neurokd.models.teacher.load_teacher`.
    volume
        Intensities ``z y x``, not constant; scaled as in training.
    block
        Number of the block whose tokens are shown, from 0; None takes the middle one.
    magnification
        Magnification of the slice, see :meth:`neurokd.models.teacher.Teacher.feature_maps`.
    slab
        First thickness of the slab of which the teacher sees the maximum, in slices, at least 1.
    spacing
        Voxel size ``(z, y, x)`` in µm; None counts voxels.
    gamma
        Exponent of the display, > 0; below one lifts what is dim. The teacher does not see it.
    width
        Width of the picture in pixels, at least 100.

    Returns
    -------
    Viewer
        A widget; as the last expression of a cell it is shown. ``controls`` holds its controls by name: z, y,
        x, slab, and head where there is attention.

    Raises
    ------
    ValueError
        The volume is no volume or is constant, the teacher does not have the block, or a setting is out of
        range.
    ImportError
        ipywidgets are not installed; they come with ``neurokd[notebooks]``.

    Examples
    --------
    >>> view_features(load_teacher(), volume, spacing=(0.4, 0.1, 0.1), slab=9)
    """
    from neurokd.viz.viewers.widget import Viewer, choice, cursor_sliders, place_text, slab_slider

    views = TokenViews(
        teacher, volume, block=block, magnification=magnification, slab=slab, spacing=spacing, gamma=gamma, width=width
    )
    controls = {
        **cursor_sliders(views.shape, views.brightest),
        "slab": slab_slider(slab, views.shape["z"]),
    }
    for name in ("z", "slab"):
        controls[name].continuous_update = False  # each value costs passes through the teacher
    if views.heads:
        heads = [("mean of all", -1), *((str(head), head) for head in range(views.heads))]
        controls["head"] = choice("head", heads)

    def draw(z: int, y: int, x: int, slab: int, head: int = -1) -> tuple[NDArray[np.uint8], str]:
        return views.draw(z, y, x, slab=slab, head=None if head < 0 else head), place_text(spacing, z, y, x)

    return Viewer(draw, controls, lambda stroke, x0, y0, x, y: views.locate(x, y))
