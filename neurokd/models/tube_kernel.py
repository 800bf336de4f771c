"""What a flattened 2D kernel is along a tube: four readings, as settings and as kernels.

How a flattened kernel lies in a finite crop is not told by DINeuro's abstract and public summaries (Cheng et al. 2024,
arXiv:2410.22078), so there are four readings. With t the token's voxels along the tube and (u, v) those across, and
the teacher's kernel first resized to the token:

=========  ==========================================  =======================================================
reading    taps along the tube                         what is kept of the kernel
=========  ==========================================  =======================================================
literal    K = y * x of the token, one voxel apart     all weights, in a row: the plane's geometry is lost, and
                                                       in a shallow crop most taps lie on the clamped border
patch      the same K within one token, t / K apart    close to its row sums: neighbouring taps read the same two
                                                       voxels, so most of the kernel's energy cancels
lines      t, one voxel apart                          its sums over columns (or rows)
grid       t slices of u x v, each shifted as a whole  everything: at zero offset it is plain inflation
=========  ==========================================  =======================================================
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from einops import rearrange
from torch import Tensor

from neurokd.models.inflate import inflate_depth, resize_kernel
from neurokd.models.snake import AXES, axis_number, lateral_axes

__all__ = ["TubeConfig", "tube_kernel"]

READINGS = ("literal", "patch", "lines", "grid")
CHOICES = {
    "reading": READINGS,
    "fusion": ("mean", "gate", "concat"),
    "mode": ("beside", "instead"),
    "inflation": ("average", "center"),
    "summed": ("columns", "rows"),
}


@dataclass(frozen=True)
class TubeConfig:
    """Settings of a :class:`DeformableTubularEmbed`.

    Parameters
    ----------
    reading
        ``"literal"``, ``"patch"``, ``"lines"`` or ``"grid"``, see the table of this module.
    fusion
        ``"mean"`` of the views; ``"gate"``: a softmax over the views, computed from their tokens; ``"concat"``: a
        linear layer on the views side by side. All start as the mean.
    mode
        ``"beside"`` the inflated patch embedding, behind a gate that starts at zero, or ``"instead"`` of it.
    axes
        Directions of the tubes, some of the letters ``z``, ``y`` and ``x``.
    slope
        Largest step aside per voxel along the tube, in voxels.
    inflation
        ``grid`` only: ``"average"`` or ``"center"``. Average by default: under center all but the middle slice are
        zero at first, so that shifting them changes nothing and the offsets learn nothing until they are not.
    summed
        ``lines`` only: whether the kernel's ``"columns"`` or ``"rows"`` are summed. (Summed, not averaged: a volume
        that is constant across the tube then gets the teacher's own response.)
    """

    reading: str = "grid"
    fusion: str = "mean"
    mode: str = "beside"
    axes: str = AXES
    slope: float = 1.0
    inflation: str = "average"
    summed: str = "columns"

    def __post_init__(self) -> None:
        """Check the choices."""
        for name, choices in CHOICES.items():
            if getattr(self, name) not in choices:
                raise ValueError(f"{name} is {getattr(self, name)!r}; it must be one of {list(choices)}")
        if not self.axes or len(set(self.axes)) != len(self.axes) or not set(self.axes) <= set(AXES):
            raise ValueError(f"axes is {self.axes!r}; it must be some of 'zyx', each once")
        if not self.slope >= 0:
            raise ValueError(f"slope is {self.slope}; it must be 0 or more")


def tube_kernel(weight: Tensor, axis: str, *, token: Sequence[int], config: TubeConfig) -> Tensor:
    """Lay a 2D kernel along an axis.

    Parameters
    ----------
    weight
        Grey kernel ``d 1 y x``, from :func:`neurokd.models.inflate.grey_fold`.
    axis
        ``"z"``, ``"y"`` or ``"x"``.
    token
        Size (z, y, x) of a token in voxels. The kernel is resized to it by the rule of
        :func:`neurokd.models.inflate.resize_kernel`: to (y, x) for ``literal`` and ``patch``; to the token's length
        along the axis for ``lines``; to its two sizes across the axis, ascending, for ``grid``.
    config
        Settings.

    Returns
    -------
    Tensor
        ``d k q``: K taps along the tube, and ``q`` points across it at each tap (1 but for ``grid``). Where nothing is
        enlarged, it sums to the sum of ``weight``.
    """
    length = token[axis_number(axis)]
    if config.reading in ("literal", "patch"):
        return rearrange(resize_kernel(weight, tuple(token[1:])), "d 1 y x -> d (y x) 1")
    if config.reading == "lines":
        line = resize_kernel(weight, (length, length)).sum(-1 if config.summed == "columns" else -2)
        return rearrange(line, "d 1 k -> d k 1")
    across = tuple(token[lateral] for lateral in lateral_axes(axis))
    slices = inflate_depth(resize_kernel(weight, across), length, mode=config.inflation)
    return rearrange(slices, "d 1 k u v -> d k (u v)")
