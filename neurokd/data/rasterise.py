r"""Draw a tree into voxels: every edge is a round cone.

(  o--------------o )     A ball moves from one node to the next while its radius changes linearly.
 \________________/      The round cone is all that it touches.
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
    """Return the voxels whose centres lie inside a tree, the union of its round cones.

    A ball that moves from node to node while its radius changes linearly sweeps a round cone. Parts outside
    the volume are cut off.

    Parameters
    ----------
    tree
        Tree with points and radii in voxels or, with `spacing`, in the unit of the spacing (µm).
    shape
        Size (z, y, x) of the volume in voxels.
    spacing
        Voxel size (z, y, x) in the unit of the tree. A round neurite is then drawn round in µm, so it covers
        fewer voxels along an axis with larger steps. None means that the tree is in voxels and the voxels are
        cubes.
    radius_scale
        Factor on all radii.
    min_radius
        Smallest radius that is drawn, in the unit of the tree, after scaling. In cubic voxels, a neurite with
        a radius of at least sqrt(3) / 2 = 0.87 voxels always covers voxel centres.

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
        # Long oblique edges have huge bounding boxes. Short pieces give the same voxels in less time.
        cuts = np.linspace(0, 1, 1 + max(1, int(length // (12 * unit.min()))))[:, None]
        points = (1 - cuts) * tree.zyx[parent] + cuts * tree.zyx[child]
        radii = ((1 - cuts) * radius[parent] + cuts * radius[child])[:, 0]
        for i in range(len(cuts) - 1):
            _draw_round_cone(mask, unit, points[i], points[i + 1], radii[i], radii[i + 1])
    return mask


def _draw_round_cone(
    mask: NDArray[np.bool_], unit: NDArray, start: NDArray, end: NDArray, r_start: float, r_end: float
) -> None:
    """Set the voxels of one round cone; its points are `z y x` in the unit of the voxel size."""
    lowest, highest = np.minimum(start - r_start, end - r_end), np.maximum(start + r_start, end + r_end)
    low = np.maximum(np.ceil(lowest / unit), 0).astype(int)
    high = np.minimum(np.floor(highest / unit) + 1, mask.shape).astype(int)
    if (low >= high).any():
        return
    z, y, x = (np.arange(a, b) * u - s for a, b, u, s in zip(low, high, unit, start, strict=True))
    z, y = z[:, None, None], y[:, None]  # broadcast to z y x
    axis = end - start
    length = float(np.sqrt(axis @ axis))
    distance2 = z * z + y * y + x * x
    if length < 1e-9:
        inside = distance2 <= max(r_start, r_end) ** 2
    else:
        axis = axis / length
        axial = z * axis[0] + y * axis[1] + x * axis[2]  # distance along the axis from `start`
        radial2 = np.maximum(distance2 - axial * axial, 0)  # squared distance from the axis
        # A point is inside if it is inside any ball, t from `start`. The best ball is not the nearest but
        # lies towards the thick end: it maximises r(t) - |p - c(t)|, with slope = dr / dt along the axis.
        slope = (r_end - r_start) / length
        if abs(slope) < 1:
            t = axial + np.sqrt(radial2) * (slope / np.sqrt(1 - slope * slope))
        else:  # one ball contains the other
            t = np.full(axial.shape, length if slope > 0 else 0.0)
        t = np.clip(t, 0, length)
        inside = radial2 + (axial - t) ** 2 <= (r_start + slope * t) ** 2
    mask[tuple(slice(a, b) for a, b in zip(low, high, strict=True))] |= inside
