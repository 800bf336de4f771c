"""Fragments of a mask, and the gaps between them: which belong to one neuron, and the way across a gap.

    ====   ===    .  ==        specks dropped      ======~~===~~~====     bridged, the narrowest gaps first:
       fragments  speck                              gap      gap         a minimum spanning tree of fragments

Every voxel of background belongs to the fragment nearest to it; where the regions of two fragments meet, so do
their nearest voxels. That finds all gaps between neighbours in one distance transform, however wide they are.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from scipy.cluster.hierarchy import DisjointSet
from scipy.spatial import cKDTree
from skimage.graph import MCP_Geometric

__all__ = ["DETOUR", "Joined", "join_fragments"]

TOUCHING = np.ones((3, 3, 3), dtype=bool)  # faces, edges and corners
DETOUR = 5  # how far a bridge may stray from the straight line, voxels


class Joined(NamedTuple):
    """The fragments of one neuron, and what was left of the others.

    Attributes
    ----------
    voxels
        (z, y, x) bool, the fragments and their bridges.
    fragments, others
        How many were joined, and how many were left because no gap to them was narrow enough.
    other_voxels
        Share of the candidates in the fragments that were left, in [0, 1).
    """

    voxels: NDArray[np.bool_]
    fragments: int
    others: int
    other_voxels: float


def join_fragments(
    mask: NDArray[np.bool_],
    grey: NDArray[np.float32],
    unit: NDArray[np.float64],
    *,
    max_gap: float,
    min_fragment: int,
    soma: NDArray[np.float64] | None = None,
) -> Joined:
    """Drop specks, join fragments over the narrowest gaps first, keep one group.

    Parameters
    ----------
    mask
        (z, y, x) candidates, none of them in the outermost layer of voxels.
    grey
        (z, y, x) probabilities in [0, 1].
    unit
        Voxel size (z, y, x).
    max_gap
        Widest gap that is bridged, between nearest voxels, in units of `unit`; infinite for any.
    min_fragment
        Fragments with fewer voxels are specks; if all are, the largest stay.
    soma
        (z, y, x) in voxels: the group with the fragment nearest to it is kept. None: the group with most voxels.

    Returns
    -------
    Joined
        The group, and the count of the rest.
    """
    fragment, n = ndimage.label(mask, TOUCHING)
    size = np.bincount(fragment.ravel())
    size[0] = 0
    size[size < min(min_fragment, size.max())] = 0
    fragment = np.where(size > 0, np.arange(n + 1, dtype=np.int32), 0)[fragment]

    groups, bridges = DisjointSet(np.flatnonzero(size).tolist()), []
    if np.count_nonzero(size) > 1:
        ends, empty = _gaps(fragment, grey, unit, max_gap)
        for number in np.argsort(empty, kind="stable"):
            if groups.merge(*fragment.ravel()[ends[number]].tolist()):
                bridges.append(ends[number])
    group = np.array([groups[f] if size[f] else 0 for f in range(n + 1)])
    if soma is None:
        chosen = np.bincount(group, weights=size).argmax()
    else:
        places = np.argwhere(fragment)
        chosen = group[fragment[tuple(places[cKDTree(places * unit).query(soma * unit)[1]])]]
    voxels = (group == chosen)[fragment]
    for start, end in bridges:
        if voxels.ravel()[start]:
            voxels[_bridge(grey, unit, *np.transpose(np.unravel_index((start, end), mask.shape)))] = True
    others = (size > 0) & (group != chosen)
    count = np.count_nonzero(size)
    return Joined(voxels, count - others.sum(), int(others.sum()), float(size[others].sum() / size.sum()))


def _gaps(
    fragment: NDArray[np.int32], grey: NDArray[np.float32], unit: NDArray[np.float64], max_gap: float
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """The narrowest gap between each two neighbouring fragments: (n, 2) flat indices of its ends, and its empty length.

    A voxel of probability p in the straight way between the ends counts as 1 - p voxels of gap.
    """
    nearest = ndimage.distance_transform_edt(fragment == 0, sampling=unit, return_distances=False, return_indices=True)
    nearest = np.ravel_multi_index(tuple(nearest), fragment.shape)
    region = fragment.ravel()[nearest]
    facing = []
    for axis in range(3):
        here, there = [slice(None)] * 3, [slice(None)] * 3
        here[axis], there[axis] = slice(-1), slice(1, None)
        border = region[tuple(here)] != region[tuple(there)]
        facing.append(np.stack([nearest[tuple(here)][border], nearest[tuple(there)][border]], axis=1))
    facing = np.concatenate(facing)
    zyx = np.stack(np.unravel_index(facing, fragment.shape), axis=-1)
    gap = np.linalg.norm((zyx[:, 0] - zyx[:, 1]) * unit, axis=1)
    order = np.argsort(gap, kind="stable")
    order = order[: np.searchsorted(gap[order], max_gap, side="right")]
    pairs = np.sort(fragment.ravel()[facing[order]], axis=1)
    narrowest = order[np.unique(pairs, axis=0, return_index=True)[1]]  # where each pair of fragments first occurs
    start, end = zyx[narrowest, 0], zyx[narrowest, 1]
    along = np.linspace(0, 1, 18)[1:-1, None, None]
    between = np.moveaxis(start + along * (end - start), -1, 0)
    evidence = ndimage.map_coordinates(grey, between, order=1).mean(axis=0)
    return facing[narrowest], gap[narrowest] * (1 - evidence)


def _bridge(
    grey: NDArray[np.float32], unit: NDArray[np.float64], start: NDArray[np.int64], end: NDArray[np.int64]
) -> tuple[NDArray[np.int64], ...]:
    """Indices of the way between two voxels that keeps to what little probability there is."""
    low = np.maximum(np.minimum(start, end) - DETOUR, 1)  # the outermost voxels stay free
    high = np.minimum(np.maximum(start, end) + DETOUR + 1, np.array(grey.shape) - 1)
    box = tuple(slice(a, b) for a, b in zip(low, high, strict=True))
    here = np.stack(np.meshgrid(*(np.arange(a, b) for a, b in zip(low, high, strict=True)), indexing="ij"), axis=-1)
    along = np.clip((here - start) @ (end - start) / np.dot(end - start, end - start), 0, 1)
    stray = np.linalg.norm(here - start - along[..., None] * (end - start), axis=-1)
    cost = np.where(stray <= DETOUR, 1 / (grey[box] + 0.05), -1)  # negative: no way through
    way = MCP_Geometric(cost, sampling=tuple(unit))
    way.find_costs([start - low], [end - low])
    return tuple(np.transpose(way.traceback(end - low)) + low[:, None])
