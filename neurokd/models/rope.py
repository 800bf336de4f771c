"""Rotary position embedding in the plane, the one of DINOv3 (Siméoni et al. 2025, arXiv:2508.10104).

No position is added to a token; queries and keys are turned instead. Channels ``i`` and ``i + d/2`` of a head
are the two coordinates of a point, which is turned by an angle that grows with the token's position. The
product of a turned query and a turned key then depends on the difference of the two positions only.

    channels of a head   | 0 ... d/4 - 1 | d/4 ... d/2 - 1 |   and their partners d/2 further on
    are turned by        |       y       |        x        |   times 2 pi / period, periods from 1 up

The directions y and x use all channels, so none is left for z: in a volume every slab is turned alike.
"""

from __future__ import annotations

import math

import torch
from einops import rearrange, repeat
from torch import Tensor
from torch.nn import functional as F

__all__ = ["rotary_angles", "rotate"]


def rotary_angles(
    grid: tuple[int, int, int], *, head_dim: int, temperature: float, prefix: int, like: Tensor
) -> Tensor:
    """Return the angles by which the queries and keys of every token are turned.

    Parameters
    ----------
    grid
        Number of tokens ``(z, y, x)``.
    head_dim
        Channels of one head, a multiple of 4.
    temperature
        Periods are ``temperature ** (4 i / head_dim)`` for i from 0 to head_dim / 4 - 1. Coordinates run from
        -1 to 1 over a grid of any size.
    prefix
        Number of tokens before the patch tokens. They are not turned.
    like
        Tensor whose device and dtype the result takes; the dtype is at least float32.

    Returns
    -------
    Tensor
        Angles in radians, ``n d`` with n = prefix + z y x and d = head_dim / 2.
    """
    # timm computes in this order and in float32, so both round alike.
    frequency = torch.arange(head_dim // 4, device=like.device, dtype=torch.float32)
    periods = temperature ** (2 * frequency / (head_dim // 2))

    def angles(size: int) -> Tensor:
        """Return the angles along one axis, ``size f``, from the middles of its patches."""
        middles = (torch.arange(size, device=like.device, dtype=torch.float32) + 0.5) / size
        dtype = torch.promote_types(like.dtype, torch.float32)
        return 2 * math.pi * rearrange(2 * middles - 1, "n -> n 1").to(dtype) / periods.to(dtype)

    by_y = repeat(angles(grid[1]), "y f -> y x f", x=grid[2])
    by_x = repeat(angles(grid[2]), "x f -> y x f", y=grid[1])
    patches = repeat(torch.cat([by_y, by_x], dim=-1), "y x d -> (z y x) d", z=grid[0])
    return F.pad(patches, [0, 0, prefix, 0])  # n d: angles of zero for the prefix


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Turn the queries or keys ``b h n d`` of every token, given cosine and sine ``n d/2`` of its angles.

    Returns
    -------
    Tensor
        ``b h n d``, in the dtype of ``x``.
    """
    # (left, right) are the coordinates of a point in the plane, turned by the matrix (cos -sin; sin cos).
    left, right = rearrange(x, "b h n (half d) -> half b h n d", half=2)
    return torch.cat([left * cos - right * sin, right * cos + left * sin], dim=-1).to(x.dtype)
