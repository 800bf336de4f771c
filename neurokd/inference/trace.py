"""From a probability or a mask to a tree: minimal paths from the soma, in the spirit of APP2 and FastTree.

    probability > threshold -> fragments -> gaps bridged -> graph of voxels -> minimal paths -> pruned -> smoothed
         . : . :               ==  == .     ======          steps between       from the        spurs     the tree
                                            neighbours       neighbours         soma            cut off

Walking is cheap in the middle of a neurite and dear at its wall, so the cheapest way from any voxel to the
soma first finds the centreline and then follows it. All these ways together are one tree, with a twig for
every voxel; pruning keeps the longest way, then the longest that leads to voxels not yet covered by it, and
so on.

Sources: APP2, Xiao and Peng 2013, doi:10.1093/bioinformatics/btt170 (grey-weighted distance, soma by
radius, coverage pruning); TEASAR, Sato et al. 2000, doi:10.1109/PCCGA.2000.883951 (longest path first). The
code and every constant are ours.
"""

from collections.abc import Sequence
from dataclasses import replace
from itertools import product

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import ndimage
from scipy.cluster.hierarchy import DisjointSet
from scipy.sparse import csr_array
from scipy.sparse.csgraph import dijkstra
from scipy.spatial import cKDTree
from skimage.graph import route_through_array

from neurokd.data.tree import Tree
from neurokd.data.volume import check_mask, check_spacing, check_volume

__all__ = ["trace"]

TOUCHING = np.ones((3, 3, 3), dtype=bool)  # faces, edges and corners
DETOUR = 5  # how far a bridge may stray from the box around its ends, voxels


def trace(
    probability: ArrayLike,
    *,
    threshold: float = 0.5,
    spacing: Sequence[float] | None = None,
    max_gap: float = 10.0,
    min_fragment: int = 5,
    min_branch: float = 2.0,
    step: float = 2.0,
) -> Tree:
    """Trace one neuron.

    Parameters
    ----------
    probability
        (z, y, x) probabilities in [0, 1], or a mask: boolean, or integers of which 0 is the background.
    threshold
        Voxels with probability > `threshold` are candidates. Without effect on a mask.
    spacing
        Voxel size `(z, y, x)`, any unit; only the ratios count. None: cubic voxels. Lengths below are in
        mean voxels, the cube root of a voxel's volume, which in cubic voxels is just voxels.
    max_gap
        Fragments whose nearest voxels lie no further apart are joined, the nearest first, through what little
        probability there is between them; of the groups that remain apart, the one with most voxels is traced.
    min_fragment
        Fragments with fewer voxels are dropped as specks before that; if all are specks, the largest stay.
    min_branch
        Branches that stick out less than this from what their stem covers are pruned.
    step
        Distance between nodes along the tree, voxels, at most.

    Returns
    -------
    Tree
        Points in voxels, root at the thickest place and of type 1 (soma), all others of type 0 (undefined).
        Radii are in mean voxels, so that ``tree.scale(spacing[::-1])`` gives points and radii in µm. A
        single candidate voxel gives a tree of one node. The same input always gives the same tree.

    Raises
    ------
    ValueError
        Not three axes, no voxels, non-finite probabilities or ones outside [0, 1], integers that are no
        mask, no voxel above the threshold, a parameter out of range.
    """
    grey, mask = _candidates(probability, threshold)
    unit = np.array(check_spacing((1, 1, 1) if spacing is None else spacing))
    unit /= np.prod(unit) ** (1 / 3)
    for name, value in (("max_gap", max_gap), ("min_fragment", min_fragment), ("min_branch", min_branch)):
        if not value >= 0:
            raise ValueError(f"{name} must be >= 0, got {value}")
    if not step > 0:
        raise ValueError(f"step must be > 0, got {step}")

    # Nothing happens far from the candidates; a voxel of background around them is a wall for the distance transform.
    box = ndimage.find_objects(mask.astype(np.uint8))[0]
    box = tuple(slice(max(axis.start - DETOUR, 0), axis.stop + DETOUR) for axis in box)
    mask, grey = np.pad(mask[box], 1), np.pad(grey[box], 1)
    corner = np.array([axis.start for axis in box]) - 1

    radius = ndimage.distance_transform_edt(mask, sampling=unit)
    neuron = _one_neuron(mask, grey, unit, max_gap=max_gap, min_fragment=min_fragment)
    steps, voxels = _steps(neuron, radius * grey, unit)
    zyx = np.stack(np.unravel_index(voxels, mask.shape), axis=1)
    radius = radius.ravel()[voxels]
    soma = int(radius.argmax())
    _, parent = dijkstra(steps, directed=False, indices=soma, return_predecessors=True)
    kept = _prune(zyx * unit, radius, parent, soma, min_branch=min_branch)

    row = np.full(len(voxels), -1)
    row[kept] = np.arange(len(kept))
    parent_row = np.where(kept == soma, -1, row[np.maximum(parent[kept], 0)])
    xyz, radius = (zyx[kept] + corner)[:, ::-1], np.maximum(radius[kept], 0.5)  # bridges have no radius
    tree = Tree.from_nodes(xyz, radius, parent_row, np.where(kept == soma, 1, 0))
    note = f"traced by neurokd: threshold {threshold}, max_gap {max_gap}, min_branch {min_branch}, step {step}; voxels"
    return replace(_smooth(tree).resample(step), comments=(note,))


def _candidates(probability: ArrayLike, threshold: float) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Checked probabilities (of a mask: 0 and 1) and the candidate voxels."""
    volume = check_volume(probability, name="probability")
    if volume.dtype.kind == "f":
        if volume.min() < 0 or volume.max() > 1:
            raise ValueError(f"probabilities must be in [0, 1], got {volume.min()} to {volume.max()}")
        if not 0 <= threshold < 1:
            raise ValueError(f"threshold must be in [0, 1), got {threshold}")
        mask = volume > threshold
    else:
        mask = volume = check_mask(volume, shape=volume.shape, name="probability")
    if not mask.any():
        raise ValueError(f"nothing to trace: no voxel above the threshold {threshold} in a volume of {volume.shape}")
    return volume.astype(np.float32, copy=False), mask


def _one_neuron(
    mask: NDArray[np.bool_], grey: NDArray[np.float32], unit: NDArray[np.float64], *, max_gap: float, min_fragment: int
) -> NDArray[np.bool_]:
    """Drop specks, join fragments over the narrowest gaps first, keep the largest group."""
    fragment, n = ndimage.label(mask, TOUCHING)
    size = np.bincount(fragment.ravel())
    size[0] = 0
    size[size < min(min_fragment, size.max())] = 0
    fragment = np.where(size > 0, np.arange(n + 1), 0)[fragment]

    several = np.count_nonzero(size) > 1
    facing = _facing_voxels(fragment, unit, max_gap) if several else np.empty((0, 2), dtype=np.int64)
    pairs = np.sort(fragment.ravel()[facing], axis=1)
    narrowest = np.sort(np.unique(pairs, axis=0, return_index=True)[1])  # where each pair of fragments first occurs
    groups, bridges = DisjointSet(np.flatnonzero(size).tolist()), []
    for pair, ends in zip(pairs[narrowest].tolist(), facing[narrowest], strict=True):
        if groups.merge(*pair):
            bridges.append(ends)
    group = np.array([groups[f] if size[f] else 0 for f in range(n + 1)])
    largest = np.bincount(group, weights=size).argmax()
    neuron = (group == largest)[fragment]
    for ends in bridges:
        if neuron.ravel()[ends[0]]:
            neuron[_bridge(grey, *np.transpose(np.unravel_index(ends, mask.shape)))] = True
    return neuron


def _facing_voxels(fragment: NDArray[np.int64], unit: NDArray[np.float64], max_gap: float) -> NDArray[np.int64]:
    """(n, 2) flat indices of voxels of different fragments that face each other over a gap, narrow gaps first.

    Every voxel belongs to the fragment nearest to it; where the regions of two fragments meet, so do their
    nearest voxels.
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
    zyx = np.stack(np.unravel_index(facing, fragment.shape), axis=-1) * unit
    gap = np.linalg.norm(zyx[:, 0] - zyx[:, 1], axis=1)
    order = np.argsort(gap, kind="stable")
    return facing[order][: np.searchsorted(gap[order], max_gap, side="right")]


def _bridge(grey: NDArray[np.float32], start: NDArray[np.int64], end: NDArray[np.int64]) -> tuple[NDArray, ...]:
    """Indices of the way between two voxels that keeps to what little probability there is."""
    low = np.maximum(np.minimum(start, end) - DETOUR, 1)  # the outermost voxels stay free: see _steps
    high = np.minimum(np.maximum(start, end) + DETOUR + 1, np.array(grey.shape) - 1)
    box = tuple(slice(a, b) for a, b in zip(low, high, strict=True))
    way, _ = route_through_array(1 / (grey[box] + 0.05), start - low, end - low)
    return tuple(np.transpose(way) + low[:, None])


def _steps(mask: NDArray[np.bool_], ease: NDArray[np.float64], unit: NDArray[np.float64]) -> tuple[csr_array, NDArray]:
    """The graph of steps between neighbouring voxels of a mask, and the flat index of each of its nodes.

    A step costs its length over the square of `ease`, averaged over both ends. The outermost voxels must be free.
    """
    voxels = np.flatnonzero(mask)
    cost = np.maximum(ease.ravel()[voxels], 0.05) ** -2.0
    node = np.full(mask.size, -1)
    node[voxels] = np.arange(len(voxels))
    steps = []
    for offset in list(product((-1, 0, 1), repeat=3))[14:]:  # one of each pair of opposite neighbours
        there = node[voxels + np.dot(offset, (mask.shape[1] * mask.shape[2], mask.shape[2], 1))]
        here = np.flatnonzero(there >= 0)
        there = there[here]
        steps.append((np.linalg.norm(offset * unit) * (cost[here] + cost[there]) / 2, here, there))
    weight, here, there = (np.concatenate(column) for column in zip(*steps, strict=True))
    return csr_array((weight, (here, there)), shape=(len(voxels), len(voxels))), voxels


def _prune(
    points: NDArray[np.float64], radius: NDArray[np.float64], parent: NDArray[np.int64], root: int, *, min_branch: float
) -> NDArray[np.int64]:
    """The nodes worth keeping of the tree of minimal paths: the longest path first, then what it does not cover."""
    length = _path_lengths(points, parent)
    is_tip = np.ones(len(points), dtype=bool)
    is_tip[parent[parent >= 0]] = False
    tips = np.flatnonzero(is_tip)
    nearby = cKDTree(points)
    reach = 2 * radius + 1  # neurites are not round: some walls are twice as far as the nearest
    covered, kept = np.zeros((2, len(points)), dtype=bool)
    covered[nearby.query_ball_point(points[root], reach[root])] = kept[root] = True
    for tip in tips[np.argsort(-length[tips], kind="stable")]:
        if covered[tip]:
            continue
        path, node = [], tip
        while not kept[node]:
            path.append(node)
            node = parent[node]
        if length[tip] - length[node] - reach[node] < min_branch:
            continue
        covered[np.concatenate(nearby.query_ball_point(points[path], reach[path]))] = True
        # The path begins at the neurite's end wall, but the last node of a neurite lies one radius before it.
        outside = np.linalg.norm(points[path] - points[tip], axis=1) > radius[path]
        kept[path[outside.argmax() - 1 :]] = True
    return np.flatnonzero(kept)


def _path_lengths(points: NDArray[np.float64], parent: NDArray[np.int64]) -> NDArray[np.float64]:
    """Length of the path from every node to the root."""
    above = np.where(parent < 0, np.arange(len(parent)), parent)
    length = np.linalg.norm(points - points[above], axis=1)
    while (above != above[above]).any():  # twice as far up in each round
        length = length + length[above]
        above = above[above]
    return length


def _smooth(tree: Tree, *, sigma: float = 1.0) -> Tree:
    """Take the staircase out of every unbranched run; its ends stay."""
    xyz, radius = tree.xyz.copy(), tree.radius.copy()
    for run in tree.segments():
        xyz[run[1:-1]] = ndimage.gaussian_filter1d(tree.xyz[run], sigma, axis=0, mode="nearest")[1:-1]
        radius[run[1:-1]] = ndimage.gaussian_filter1d(tree.radius[run], sigma, mode="nearest")[1:-1]
    return replace(tree, xyz=xyz, radius=radius)
