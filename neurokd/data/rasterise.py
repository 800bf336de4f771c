r"""From a tree back to the voxels it fills: every edge is a round cone.

(  o--------------o )     what a ball sweeps that moves from one node to the next
 \________________/      while its radius changes linearly
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from neurokd.data.tree import Tree
from neurokd.data.volume import check_spacing

__all__ = ["rasterise"]


def rasterise(
    tree: Tree,
    shape: Sequence[int],
    *,
    spacing: Sequence[float] | None = None,
    radius_scale: float = 1.0,
    min_radius: float = 0.0,
) -> NDArray[np.bool_]:
    """Return the voxels whose centres lie inside a tree: the union of its round cones.

    A round cone is what a ball sweeps that moves from node to node while its radius changes linearly. Parts
    outside the volume are cut off.

    Parameters
    ----------
    tree
        Points and radii in voxels of the volume or, with `spacing`, in its unit (µm).
    shape
        Size of the volume (z, y, x).
    spacing
        Voxel size (z, y, x), in the unit of the tree: a neurite that is round in µm is then round in µm, and flat in
        voxels that are taller than wide. None: the tree is in voxels, and the voxels are cubes.
    radius_scale
        Factor on all radii.
    min_radius
        Smallest radius drawn, in the unit of the tree, after scaling. In cubic voxels no neurite of radius
        sqrt(3) / 2 = 0.87 voxels or more slips between voxel centres.

    Returns
    -------
    NDArray[bool]
        (z, y, x) mask.

    Raises
    ------
    ValueError
        If `shape` is not three positive sizes, or `spacing` not three positive numbers.
    """
    if len(shape) != 3 or min(shape) < 1:
        raise ValueError(f"shape must be three sizes >= 1 (z, y, x), got {tuple(shape)}")
    unit = np.array(check_spacing((1, 1, 1) if spacing is None else spacing))
    mask = np.zeros(shape, dtype=bool)
    radius = np.maximum(tree.radius * radius_scale, min_radius)
    _draw_round_cone(mask, unit, tree.zyx[0], tree.zyx[0], radius[0], radius[0])
    for (child, parent), length in zip(tree.edges, tree.edge_lengths, strict=True):
        # Long oblique edges have huge bounding boxes; cut into pieces, they draw the same voxels sooner.
        cuts = np.linspace(0, 1, 1 + max(1, int(length // (12 * unit.min()))))[:, None]
        points = (1 - cuts) * tree.zyx[parent] + cuts * tree.zyx[child]
        radii = ((1 - cuts) * radius[parent] + cuts * radius[child])[:, 0]
        for i in range(len(cuts) - 1):
            _draw_round_cone(mask, unit, points[i], points[i + 1], radii[i], radii[i + 1])
    return mask


def _draw_round_cone(
    mask: NDArray[np.bool_], unit: NDArray, start: NDArray, end: NDArray, r_start: float, r_end: float
) -> None:
    """Set the voxels of one round cone, points `z y x` in the unit of the voxel size."""
    lowest, highest = np.minimum(start - r_start, end - r_end), np.maximum(start + r_start, end + r_end)
    low = np.maximum(np.ceil(lowest / unit), 0).astype(int)
    high = np.minimum(np.floor(highest / unit) + 1, mask.shape).astype(int)
    if (low >= high).any():
        return
    z, y, x = (np.arange(a, b) * u - s for a, b, u, s in zip(low, high, unit, start, strict=True))
    z, y = z[:, None, None], y[:, None]
    axis = end - start
    length = float(np.sqrt(axis @ axis))
    distance2 = z * z + y * y + x * x
    if length < 1e-9:
        inside = distance2 <= max(r_start, r_end) ** 2
    else:
        axis = axis / length
        along = z * axis[0] + y * axis[1] + x * axis[2]
        across2 = np.maximum(distance2 - along * along, 0)
        # The ball that reaches a point furthest is not the nearest one but lies towards the thick end:
        # maximise r(t) - |p - c(t)| over t, with slope = dr / dt along the axis.
        slope = (r_end - r_start) / length
        if abs(slope) < 1:
            t = along + np.sqrt(across2) * (slope / np.sqrt(1 - slope * slope))
        else:  # one ball holds the other
            t = np.full(along.shape, length if slope > 0 else 0.0)
        t = np.clip(t, 0, length)
        inside = across2 + (along - t) ** 2 <= (r_start + slope * t) ** 2
    mask[tuple(slice(a, b) for a, b in zip(low, high, strict=True))] |= inside
