"""What a flattened 2D kernel becomes along a tube: four readings, as settings and as kernels.

DINeuro's abstract and public summaries (Cheng et al. 2024, arXiv:2410.22078) do not say how a flattened
kernel lies in a finite crop, so there are four readings. Below, t is the size of the token along the tube,
and (u, v) are its sizes across. The teacher's kernel is first resized to the token:

=========  ==========================================  =======================================================
reading    taps along the tube                         what is kept of the kernel
=========  ==========================================  =======================================================
literal    K = y * x of the token, one voxel apart     all weights, but not their geometry; in a shallow crop
                                                       most taps lie on the clamped border
patch      the same K within one token, t / K apart    roughly the row sums: neighbouring taps read the same
                                                       two voxels, so most of the kernel's energy cancels
lines      t, one voxel apart                          its sums over columns
grid       t slices of u x v, each shifted as a whole  everything: at zero offset it is plain inflation
=========  ==========================================  =======================================================
"""

from __future__ import annotations

from dataclasses import dataclass

from einops import rearrange
from torch import Tensor

from neurokd.models.choices import Inflation, Reading, Role, check_choice
from neurokd.models.inflate import inflate_depth, resize_kernel
from neurokd.models.snake import AXES, axis_number, check_axes, lateral_axes

__all__ = ["TubeConfig", "tube_kernel"]


@dataclass(frozen=True)
class TubeConfig:
    """Settings of a :class:`DeformableTubularEmbed`.

    Parameters
    ----------
    reading
        ``"literal"``, ``"patch"``, ``"lines"`` or ``"grid"``, see the table of this module.
    role
        ``"beside"``: the tubes are added to the inflated patch embedding, behind a gate that starts at zero;
        ``"instead"``: they replace it.
    axes
        Directions of the tubes, some of the letters ``z``, ``y`` and ``x``.
    slope
        Largest sideways step per voxel along the tube, in voxels.
    inflation
        Inflation of the kernel in the reading ``grid``: ``"average"`` or ``"center"``. Under center, all
        slices but the middle one are zero at first. Shifting them then changes nothing, and the offsets learn
        nothing until the slices change. Average avoids this.

    Raises
    ------
    ValueError
        If a setting has a value that is not allowed.
    """

    reading: Reading = "grid"
    role: Role = "beside"
    axes: str = AXES
    slope: float = 1.0
    inflation: Inflation = "average"

    def __post_init__(self) -> None:
        """Check the settings."""
        check_choice("reading", self.reading, Reading)
        check_choice("role", self.role, Role)
        check_choice("inflation", self.inflation, Inflation)
        check_axes(self.axes)
        if not self.slope >= 0:
            raise ValueError(f"slope must be at least 0, got {self.slope}")


def tube_kernel(weight: Tensor, axis: str, *, token: tuple[int, int, int], config: TubeConfig) -> Tensor:
    """Lay a 2D kernel along an axis.

    Parameters
    ----------
    weight
        Grey kernel ``d 1 y x``, from :func:`neurokd.models.inflate.grey_fold`.
    axis
        ``"z"``, ``"y"`` or ``"x"``.
    token
        Size (z, y, x) of a token in voxels. :func:`neurokd.models.inflate.resize_kernel` first resizes the
        kernel: to the token's (y, x) for ``literal`` and ``patch``; to its length along the axis for
        ``lines``; to its two sizes across the axis, ascending, for ``grid``.
    config
        Settings.

    Returns
    -------
    Tensor
        ``d k q``: K taps along the tube, and ``q`` points across it at each tap (more than one only for
        ``grid``). Where nothing is enlarged, its sum is the sum of ``weight``.
    """
    length = token[axis_number(axis)]
    if config.reading in ("literal", "patch"):
        plane = resize_kernel(weight, (token[1], token[2]))  # d 1 y x
        return rearrange(plane, "d 1 y x -> d (y x) 1")
    if config.reading == "lines":
        # Sums, not means: a volume that is constant across the tube then gets the teacher's response.
        line = resize_kernel(weight, (length, length)).sum(-1)  # d 1 k
        return rearrange(line, "d 1 k -> d k 1")
    first, second = lateral_axes(axis)
    plane = resize_kernel(weight, (token[first], token[second]))  # d 1 u v
    # The tube's axis takes the place of the depth: slice k of the inflated kernel lies at tap k.
    slices = inflate_depth(plane, length, inflation=config.inflation)  # d 1 k u v
    return rearrange(slices, "d 1 k u v -> d k (u v)")
