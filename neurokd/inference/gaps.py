"""Fragments of a mask, and the gaps between them: which belong to one neuron, and the way across a gap.

    ====   ===    .  ==        specks dropped      ======~~===~~~====     bridged, the least empty first:
       fragments  speck                              gap      gap         a minimum spanning tree of fragments

Every voxel of background belongs to the fragment nearest to it; where the regions of two fragments meet, so
do their nearest voxels. That finds all gaps between neighbours in one distance transform, however wide they
are.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from scipy.cluster.hierarchy import DisjointSet
from skimage.graph import MCP_Geometric

__all__ = ["DETOUR", "Joined", "join_fragments"]

_TOUCHING = np.ones((3, 3, 3), dtype=bool)  # faces, edges and corners
DETOUR = 5  # how far a bridge may stray from the straight line, voxels


class Joined(NamedTuple):
    """The fragments of one neuron, and what was left of the others.

    Parameters
    ----------
    voxels
        (z, y, x) bool, the fragments and their bridges.
    fragments
        Number of fragments that were joined.
    others
        Number of fragments that were left, because no gap to them was narrow enough.
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
    soma: int | None = None,
) -> Joined:
    """Drop specks, join fragments over the least empty gaps first, keep one group.

    Parameters
    ----------
    mask
        (z, y, x) candidates, none of them in the outermost layer of voxels.
    grey
        (z, y, x) probabilities in [0, 1].
    unit
        Voxel size (z, y, x).
    max_gap
        Widest gap that is bridged, between nearest voxels, in units of `unit`; infinity bridges all.
    min_fragment
        Fragments with fewer voxels are specks and dropped; if all are specks, the largest stay.
    soma
        Flat index of a candidate. Its fragment is never a speck, and the group that holds it is kept. None
        keeps the group with most voxels.

    Returns
    -------
    Joined
        The group, and the count of the rest.
    """
    fragment, n = ndimage.label(mask, _TOUCHING)  # z y x, 0 is background
    size = np.bincount(fragment.ravel())  # (n + 1,) voxels of each fragment
    size[0] = 0
    soma_fragment = 0 if soma is None else fragment.ravel()[soma]
    size[(size < min(min_fragment, size.max())) & (np.arange(n + 1) != soma_fragment)] = 0
    fragment = np.where(size > 0, np.arange(n + 1, dtype=np.int32), 0)[fragment]

    # Kruskal's minimum spanning tree: take the gaps by their empty length, skip those within a group.
    groups, bridges = DisjointSet(np.flatnonzero(size).tolist()), []
    if np.count_nonzero(size) > 1:
        ends, empty = _gaps(fragment, grey, unit, max_gap)
        for number in np.argsort(empty, kind="stable"):
            if groups.merge(*fragment.ravel()[ends[number]].tolist()):
                bridges.append(ends[number])
    group = np.array([groups[f] if size[f] else 0 for f in range(n + 1)])  # (n + 1,) one of the group
    chosen = group[soma_fragment] if soma_fragment else np.bincount(group, weights=size).argmax()
    voxels = (group == chosen)[fragment]  # z y x
    for start, end in bridges:
        if voxels.ravel()[start]:
            voxels[_bridge(grey, unit, *np.transpose(np.unravel_index((start, end), mask.shape)))] = True
    others = (size > 0) & (group != chosen)
    count = np.count_nonzero(size)
    return Joined(voxels, count - others.sum(), int(others.sum()), float(size[others].sum() / size.sum()))


def _gaps(
    fragment: NDArray[np.int32], grey: NDArray[np.float32], unit: NDArray[np.float64], max_gap: float
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Return the least empty gap between each two neighbouring fragments.

    A voxel of probability p on the straight way between the ends counts as 1 - p voxels of gap.

    Returns
    -------
    ends
        (n, 2) flat indices of the ends of each gap.
    empty
        (n,) empty length of each gap, in units of `unit`.
    """
    # For every voxel the flat index of the nearest candidate: 3 z y x -> z y x.
    indices = ndimage.distance_transform_edt(fragment == 0, sampling=unit, return_distances=False, return_indices=True)
    nearest = np.ravel_multi_index(tuple(indices), fragment.shape)
    region = fragment.ravel()[nearest]  # z y x, the fragment of that candidate

    # Where the regions of two fragments meet, the nearest candidates on both sides face each other.
    pairs = []
    for axis in range(3):
        here, there = [slice(None)] * 3, [slice(None)] * 3
        here[axis], there[axis] = slice(-1), slice(1, None)
        border = region[tuple(here)] != region[tuple(there)]
        pairs.append(np.stack([nearest[tuple(here)][border], nearest[tuple(there)][border]], axis=1))
    facing = np.unique(np.sort(np.concatenate(pairs), axis=1), axis=0)  # (p, 2) flat indices
    zyx = np.stack(np.unravel_index(facing, fragment.shape), axis=-1)  # (p, 2, 3)
    gap = np.linalg.norm((zyx[:, 0] - zyx[:, 1]) * unit, axis=1)  # (p,)
    narrow = gap <= max_gap
    facing, zyx, gap = facing[narrow], zyx[narrow], gap[narrow]

    # Mean probability on the straight way, from eight samples.
    start, end = zyx[:, 0], zyx[:, 1]  # (p, 3)
    samples = [
        ndimage.map_coordinates(grey, (start + share * (end - start)).T, order=1) for share in np.arange(0.5, 8) / 8
    ]
    empty = gap * (1 - sum(samples) / 8)

    # Of all gaps between the same two fragments the least empty one: the first of each pair in this order.
    order = np.argsort(empty, kind="stable")
    fragments = np.sort(fragment.ravel()[facing[order]], axis=1)  # (p, 2)
    best = order[np.unique(fragments, axis=0, return_index=True)[1]]
    return facing[best], empty[best]


def _bridge(
    grey: NDArray[np.float32], unit: NDArray[np.float64], start: NDArray[np.int64], end: NDArray[np.int64]
) -> tuple[NDArray[np.int64], ...]:
    """Return the indices of the way between two voxels that keeps to what little probability there is."""
    low = np.maximum(np.minimum(start, end) - DETOUR, 1)  # the outermost voxels stay free
    high = np.minimum(np.maximum(start, end) + DETOUR + 1, np.array(grey.shape) - 1)
    box = tuple(slice(a, b) for a, b in zip(low, high, strict=True))
    axes = [np.arange(a, b) for a, b in zip(low, high, strict=True)]
    here = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1)  # z y x 3
    # Share of the straight way at the place nearest to each voxel, and the voxel's distance from there.
    share = np.clip((here - start) @ (end - start) / np.dot(end - start, end - start), 0, 1)  # z y x
    stray = np.linalg.norm(here - start - share[..., None] * (end - start), axis=-1)  # z y x
    cost = np.where(stray <= DETOUR, 1 / (grey[box] + 0.05), -1)  # negative: no way through
    way = MCP_Geometric(cost, sampling=tuple(unit))
    way.find_costs([start - low], [end - low])
    return tuple(np.transpose(way.traceback(end - low)) + low[:, None])
