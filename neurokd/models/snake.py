"""Sampling a volume along tubes that bend: the geometry of the tubular embedding and the snake convolution.

A tube lies along one axis. Its taps move sideways only, each relative to its inner neighbour. The middle
stays:

    lateral                 o---o           D_{m+2} = d_{m+1} + d_{m+2}
       ^            o---o--/                D_{m+1} = d_{m+1}
       |       o---/                        D_m     = 0
       |   ---/                             D_{m-1} = d_{m-1}   and so on
       +----------------------> axis        tap k at  c + t_k e_axis + D_k,   t_k = step (k - (K - 1) / 2)

An even number of taps has two taps in the middle, and both stay. The sums make a connected curve, whatever
the steps are. This is the idea of dynamic snake convolution (Qi et al. 2023, arXiv:2307.08388), here for any
axis and any number of taps.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import get_args

import torch
from einops import rearrange
from torch import Tensor
from torch.nn import functional as F

from neurokd.models.choices import Axis, check_choice

__all__ = ["snake_coordinates", "snake_sample"]

AXES = "".join(get_args(Axis))  # "zyx"


def axis_number(axis: str) -> int:
    """Return 0, 1 or 2 for ``"z"``, ``"y"`` or ``"x"``; any other word is a ValueError."""
    check_choice("axis", axis, Axis)
    return AXES.index(axis)


def check_axes(axes: str) -> None:
    """Raise a ValueError unless ``axes`` consists of some of the letters z, y and x, each at most once."""
    if not axes or len(set(axes)) != len(axes) or not set(axes) <= set(AXES):
        raise ValueError(f"axes must be some of the letters of {AXES!r}, each once, got {axes!r}")


def lateral_axes(axis: str) -> tuple[int, int]:
    """Return the numbers of the other two axes, ascending."""
    first, second = (number for number in range(3) if number != axis_number(axis))
    return first, second


def accumulate(steps: Tensor) -> Tensor:
    """Sum the steps ``b 2 n z y x`` of the moving taps outward from the middle; return the displacements."""
    if steps.ndim != 6 or steps.shape[1] != 2 or steps.shape[2] % 2:
        raise ValueError(f"offsets must be b 2 n z y x with n even, got shape {tuple(steps.shape)}")
    left, right = steps.tensor_split(2, dim=2)  # b 2 n/2 z y x each
    # The taps left of the middle are summed from right to left: flip, sum, flip back.
    return torch.cat([left.flip(2).cumsum(2).flip(2), right.cumsum(2)], dim=2)


def snake_coordinates(
    offsets: Tensor,
    axis: str,
    *,
    taps: int | None = None,
    step: float = 1.0,
    start: Sequence[float] = (0.0, 0.0, 0.0),
    stride: Sequence[float] = (1.0, 1.0, 1.0),
) -> Tensor:
    """Return the places of the taps of every tube.

    Parameters
    ----------
    offsets
        Sideways steps d of the moving taps in voxels, ``b 2 n z y x``. The second dimension holds the two
        lateral axes, ascending (z before y before x); the third the moving taps, ascending, without the
        middle; the last three the grid of tube centres. ``n`` is ``taps - 1`` for an odd number of taps and
        ``taps - 2`` for an even one.
    axis
        Axis along which the tubes lie: ``"z"``, ``"y"`` or ``"x"``.
    taps
        Number K of taps, at least 1; ``n + 1`` by default.
    step
        Distance of neighbouring taps along the axis, in voxels.
    start, stride
        The tube of grid point (i, j, k) is centred at ``start + stride * (i, j, k)``, in voxels (z, y, x).

    Returns
    -------
    Tensor
        Coordinates (z, y, x) in voxels, ``b k z y x 3``. They are float32 or float64, because a coordinate of
        100 in half precision is wrong by up to a sixteenth of a voxel or more.

    Raises
    ------
    ValueError
        If the axis is unknown or the offsets do not fit the number of taps.

    Examples
    --------
    >>> snake_coordinates(torch.ones(1, 2, 2, 1, 1, 1), "z", start=(5, 5, 5))[0, :, 0, 0, 0]
    tensor([[4., 6., 6.],
            [5., 5., 5.],
            [6., 6., 6.]])
    """
    number, moving = axis_number(axis), offsets.shape[2] if offsets.ndim == 6 else 0
    taps = moving + 1 if taps is None else taps
    if offsets.ndim == 6 and moving % 2 == 0 and (taps < 1 or moving != 2 * ((taps - 1) // 2)):
        raise ValueError(f"taps must be {moving + 1} or {moving + 2} for {moving} moving taps, got {taps}")
    offsets = offsets.to(torch.promote_types(offsets.dtype, torch.float32))
    # The one or two taps in the middle are not displaced.
    left, right = accumulate(offsets).tensor_split(2, dim=2)
    middle = left.new_zeros(*left.shape[:2], taps - moving, *left.shape[3:])
    displaced = torch.cat([left, middle, right], dim=2)  # b 2 k z y x

    # One part of the coordinates per axis, in shapes that broadcast to b k z y x: the centre, plus t_k along
    # the tube, plus the displacement across it.
    places = []
    for other, (size, origin, spacing) in enumerate(zip(offsets.shape[3:], start, stride, strict=True)):
        centre = origin + spacing * torch.arange(size, dtype=offsets.dtype, device=offsets.device)
        shape = [-1 if i == other else 1 for i in range(3)]
        places.append(centre.reshape(shape))  # z 1 1, 1 y 1 or 1 1 x
    tap = torch.arange(taps, dtype=offsets.dtype, device=offsets.device)
    places[number] = places[number] + rearrange(step * (tap - (taps - 1) / 2), "k -> k 1 1 1")
    for lateral, displacement in zip(lateral_axes(axis), displaced.unbind(1), strict=True):
        places[lateral] = places[lateral] + displacement
    return torch.stack(torch.broadcast_tensors(*places), dim=-1)  # b k z y x 3


def sample_at(volume: Tensor, coordinates: Tensor) -> Tensor:
    """Interpolate trilinearly at coordinates in voxels. Beyond the border the outermost voxel is repeated.

    Parameters
    ----------
    volume
        ``b c z y x``.
    coordinates
        Any number of points (z, y, x), ``b ... 3``.

    Returns
    -------
    Tensor
        ``b c ...`` in the dtype of the volume. The finer of the two dtypes is used for the computation.
    """
    dtype = torch.promote_types(volume.dtype, coordinates.dtype)
    last = torch.tensor([max(size - 1, 1) for size in volume.shape[2:]], dtype=dtype, device=volume.device)
    # grid_sample counts from -1 at the first voxel to 1 at the last, and expects (x, y, z). Each axis is
    # scaled separately and voxels are addressed by integers, so the mantissa of a float does not limit the
    # size of a volume.
    grid = (coordinates * (2 / last) - 1).flip(-1).flatten(1, -2)  # b n xyz
    grid = rearrange(grid, "b n xyz -> b 1 1 n xyz")
    sampled = F.grid_sample(volume.to(dtype), grid, padding_mode="border", align_corners=True)  # b c 1 1 n
    return sampled.reshape(*volume.shape[:2], *coordinates.shape[1:-1]).to(volume.dtype)


def snake_sample(
    volume: Tensor,
    offsets: Tensor,
    axis: str,
    *,
    taps: int | None = None,
    step: float = 1.0,
    start: Sequence[float] = (0.0, 0.0, 0.0),
    stride: Sequence[float] = (1.0, 1.0, 1.0),
) -> Tensor:
    """Sample a volume at every tap of every tube.

    Parameters
    ----------
    volume
        ``b c z y x``, floating point.
    offsets, axis, taps, step, start, stride
        See :func:`snake_coordinates`.

    Returns
    -------
    Tensor
        All samples, ``b c k z y x``. This suits pictures, and few channels and tubes. To multiply the samples
        with a kernel, use :func:`neurokd.models.snake_conv.snake_conv3d`, whose memory does not grow with K.

    Raises
    ------
    ValueError
        If the axis is unknown, the offsets do not fit the number of taps, or the two batches differ.

    Notes
    -----
    Differentiable once in volume and offsets. The interpolation has a kink where a coordinate is a whole
    number; there the gradient is that of one side.
    """
    if volume.ndim != 5 or len(volume) != len(offsets):
        shapes = f"{tuple(volume.shape)} and {tuple(offsets.shape)}"
        raise ValueError(f"volume and offsets must be b c z y x and b 2 n z y x, got shapes {shapes}")
    places = snake_coordinates(offsets, axis, taps=taps, step=step, start=start, stride=stride)
    return sample_at(volume, places)
