"""Rotary position embedding in the plane, as DINOv3 has it (Siméoni et al. 2025, arXiv:2508.10104).

Instead of adding a position to a token, queries and keys are turned: channel ``i`` and channel ``i + d/2`` of a head
are the two coordinates of a point, turned by an angle that grows with the token's place. A product of a turned query
and a turned key then depends on how far apart the two tokens lie, not on where.

    channels of a head   | 0 ... d/4 - 1 | d/4 ... d/2 - 1 |   and their partners d/2 further on
    are turned by        |       y       |        x        |   times 2 pi / period, periods from 1 up

All channels are taken by y and x, none is free for z: in a volume every slab is turned alike.
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
    """Return by how much the queries and keys of every token are turned.

    Parameters
    ----------
    grid
        Tokens ``(z, y, x)``.
    head_dim
        Channels of one head, a multiple of 4.
    temperature
        Periods are ``temperature ** (4 i / head_dim)`` for i from 0 to head_dim / 4 - 1; coordinates run from -1 to 1
        over the grid, whatever its size.
    prefix
        Number of tokens before the patch tokens; they are not turned.
    like
        A tensor on the device of the result; the result has its dtype, and at least float32.

    Returns
    -------
    Tensor
        Angles in radians, ``n d`` with n = prefix + z y x and d = head_dim / 2.
    """
    # In this order and in float32, as timm does it, so that both round alike.
    frequency = torch.arange(head_dim // 4, device=like.device, dtype=torch.float32)
    periods = temperature ** (2 * frequency / (head_dim // 2))

    def turned(size: int) -> Tensor:
        middles = (torch.arange(size, device=like.device, dtype=torch.float32) + 0.5) / size
        dtype = torch.promote_types(like.dtype, torch.float32)
        return 2 * math.pi * rearrange(2 * middles - 1, "n -> n 1").to(dtype) / periods.to(dtype)

    by_y = repeat(turned(grid[1]), "y f -> y x f", x=grid[2])
    by_x = repeat(turned(grid[2]), "x f -> y x f", y=grid[1])
    patches = repeat(torch.cat([by_y, by_x], dim=-1), "y x d -> (z y x) d", z=grid[0])
    return F.pad(patches, [0, 0, prefix, 0])


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Turn the queries or keys ``b h n d`` of every token, given cosine and sine ``n d/2`` of its angles.

    Returns
    -------
    Tensor
        ``b h n d``, in the dtype of ``x``.
    """
    left, right = rearrange(x, "b h n (half d) -> half b h n d", half=2)
    return torch.cat([left * cos - right * sin, right * cos + left * sin], dim=-1).to(x.dtype)
