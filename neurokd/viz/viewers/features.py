"""Viewer of the slices of a volume and the tokens that a teacher gives for them."""

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
    """Show slices of a volume and a 2D teacher's tokens; click to see which tokens resemble the one there.

    The colours are the first three principal components of the tokens of eight slices. All slices share these
    components. Tokens differ mostly by position, so the tokens of a black image are subtracted first. The
    attention panel shows the attention of the class token. A teacher without a class token has no such panel.
    A new slice needs two passes through the teacher; the results for the last 32 slices are kept.

    Parameters
    ----------
    teacher
        A 2D teacher, see :func:`neurokd.models.teacher.load_teacher`.
    volume
        Intensities ``z y x``, not constant. They are scaled as in training.
    block
        Number of the block whose tokens are shown, from 0; None takes the middle one.
    magnification
        Magnification of the slice, see :meth:`neurokd.models.teacher.Teacher.feature_maps`.
    slab
        Initial thickness of the slab in slices, at least 1. The teacher sees the maximum of the slab.
    spacing
        Voxel size ``(z, y, x)`` in µm; None gives lengths in voxels.
    gamma
        Exponent of the display, > 0; a value below one brightens dim voxels. The input of
        the teacher does not depend on it.
    width
        Width of the picture in pixels, at least 100.

    Returns
    -------
    Viewer
        A widget, shown if it is the last expression of a cell. ``controls`` holds its controls by name: z, y,
        x, slab, and head if there is an attention panel.

    Raises
    ------
    ValueError
        `volume` is not a valid volume or is constant, the teacher does not have the block, or a setting is
        out of range.
    ImportError
        ipywidgets is not installed; ``neurokd[notebooks]`` installs it.

    Examples
    --------
    >>> view_features(load_teacher(), volume, spacing=(0.4, 0.1, 0.1), slab=9)
    """
    from neurokd.viz.viewers.widget import Viewer, choice, cursor_sliders, place_text, slab_slider

    views = TokenViews(
        teacher, volume, block=block, magnification=magnification, slab=slab, spacing=spacing, gamma=gamma,
        width=width,
    )  # fmt: skip
    controls = {
        **cursor_sliders(views.shape, views.brightest),
        "slab": slab_slider(slab, views.shape["z"]),
    }
    for name in ("z", "slab"):
        controls[name].continuous_update = False  # each new value needs passes through the teacher
    if views.heads:
        heads = [("mean of all", -1), *((str(head), head) for head in range(views.heads))]
        controls["head"] = choice("head", heads)

    def draw(z: int, y: int, x: int, slab: int, head: int = -1) -> tuple[NDArray[np.uint8], str]:
        return views.draw(z, y, x, slab=slab, head=None if head < 0 else head), place_text(spacing, z, y, x)

    return Viewer(draw, controls, lambda stroke, x0, y0, x, y: views.locate(x, y))
