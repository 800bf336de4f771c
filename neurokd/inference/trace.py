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
from scipy.sparse import csr_array
from scipy.sparse.csgraph import dijkstra
from scipy.spatial import cKDTree

from neurokd import __version__
from neurokd.data.tree import Tree
from neurokd.data.volume import check_mask, check_spacing, check_volume
from neurokd.inference.gaps import DETOUR, join_fragments

__all__ = ["trace"]
import os
RATIO = float(os.environ.get("RATIO", "1"))



def trace(
    probability: ArrayLike,
    *,
    threshold: float = 0.5,
    spacing: Sequence[float] | None = None,
    soma: Sequence[float] | None = None,
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
    soma
        `(z, y, x)` of the soma in voxels, where it is known: the root is the candidate nearest to it, and the
        neuron is what hangs together with that. None: the neuron is the group with most voxels, and the root
        its thickest place.
    max_gap
        Fragments whose nearest voxels lie no further apart are joined, the narrowest and least empty gaps first,
        through what little probability there is between them. ``math.inf`` joins all. A branch that is longer in
        gaps than in candidates is pruned, however wide they may be.
    min_fragment
        Fragments with fewer voxels are dropped as specks before that; if all are specks, the largest stay.
    min_branch
        Branches that stick out less than this from what their stem covers are pruned.
    step
        Distance between nodes along the tree, voxels, at most.

    Returns
    -------
    Tree
        Points in voxels, the root of type 1 (soma), all others of type 0 (undefined): what is axon and what
        dendrite, a mask does not say. Radii are in mean voxels, so that ``tree.scale(spacing[::-1])`` gives points
        and radii in µm. The comments, which :func:`neurokd.data.swc.write_swc` writes as header, hold the version,
        the parameters, and how much was left out because it lay too far away. A single candidate voxel gives a
        tree of one node. The same input always gives the same tree.

    Raises
    ------
    ValueError
        Not three axes, no voxels, non-finite probabilities or ones outside [0, 1], integers that are no
        mask, no voxel above the threshold, too many to hold in memory, a soma outside the volume, a parameter
        out of range.
    """
    grey, mask = _candidates(probability, threshold)
    unit = np.array(check_spacing((1, 1, 1) if spacing is None else spacing))
    unit /= np.prod(unit) ** (1 / 3)
    for name, value in (("max_gap", max_gap), ("min_fragment", min_fragment), ("min_branch", min_branch)):
        if not value >= 0:
            raise ValueError(f"{name} must be >= 0, got {value}")
    if not step > 0:
        raise ValueError(f"step must be > 0, got {step}")
    place = None if soma is None else _inside(soma, mask.shape)

    # Nothing happens far from the candidates; a voxel of background around them is a wall for the distance transform.
    box = ndimage.find_objects(mask.astype(np.uint8))[0]
    box = tuple(slice(max(axis.start - DETOUR, 0), axis.stop + DETOUR) for axis in box)
    mask, grey = np.pad(mask[box], 1), np.pad(grey[box], 1)
    corner = np.array([axis.start for axis in box]) - 1
    place = None if place is None else place - corner

    joined = join_fragments(mask, grey, unit, max_gap=max_gap, min_fragment=min_fragment, soma=place)
    # A soma is often hollow in a prediction, and no less thick for that.
    radius = ndimage.distance_transform_edt(ndimage.binary_fill_holes(mask), sampling=unit)
    steps, voxels = _steps(joined.voxels, radius * grey, unit)
    points = np.stack(np.unravel_index(voxels, mask.shape), axis=1) * unit
    radius, is_candidate = radius.ravel()[voxels], mask.ravel()[voxels]
    root = radius.argmax() if place is None else np.linalg.norm(points - place * unit, axis=1).argmin()
    _, parent = dijkstra(steps, directed=False, indices=root, return_predecessors=True)
    kept = _prune(points, radius, parent, int(root), is_candidate, min_branch=min_branch)

    # Within the soma there are no branches: its neurites begin at its surface and hang on its middle.
    within = np.linalg.norm(points - points[root], axis=1) < radius[root]
    kept = kept[~within[kept] | (kept == root)]
    row = np.full(len(voxels), -1)
    row[kept] = np.arange(len(kept))
    row[within] = row[root]
    parent_row = np.where(kept == root, -1, row[np.maximum(parent[kept], 0)])
    xyz, radius = (points[kept] / unit + corner)[:, ::-1], np.maximum(radius[kept], 0.5)  # bridges have no radius
    tree = Tree.from_nodes(xyz, radius, parent_row, np.where(kept == root, 1, 0))
    settings = f"threshold {threshold}, spacing {spacing}, soma {soma}, max_gap {max_gap}, min_fragment {min_fragment}"
    comments = (
        f"traced by neurokd {__version__}: {settings}, min_branch {min_branch}, step {step}",
        f"points in voxels (x, y, z) of a volume of {np.shape(probability)} (z, y, x), radii in mean voxels",
        f"{joined.fragments} fragments joined; {joined.others} left out, {joined.other_voxels:.1%} of the voxels",
    )
    return replace(_smooth(tree).resample(step), comments=comments)


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


def _inside(soma: Sequence[float], shape: tuple[int, ...]) -> NDArray[np.float64]:
    """The place of a soma, checked to lie in the volume."""
    place = np.asarray(soma, dtype=np.float64)
    if place.shape != (3,) or not ((place >= -0.5) & (place <= np.array(shape) - 0.5)).all():
        raise ValueError(f"soma must be (z, y, x) in voxels of a volume of {shape}, got {soma}")
    return place


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
    points: NDArray[np.float64],
    radius: NDArray[np.float64],
    parent: NDArray[np.int64],
    root: int,
    is_candidate: NDArray[np.bool_],
    *,
    min_branch: float,
) -> NDArray[np.int64]:
    """The nodes worth keeping of the tree of minimal paths: the longest path first, then what it does not cover."""
    above = np.where(parent < 0, np.arange(len(parent)), parent)
    edge = np.linalg.norm(points - points[above], axis=1)
    length = _path_sums(edge, above)
    empty = _path_sums(edge * (2.0 - is_candidate - is_candidate[above]) / 2, above)
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
        long, bridged = length[tip] - length[node], empty[tip] - empty[node]
        if long - reach[node] < min_branch or bridged > RATIO * (long - bridged):
            continue
        covered[np.concatenate(nearby.query_ball_point(points[path], reach[path]))] = True
        # The path begins at the neurite's end wall, but the last node of a neurite lies one radius before it.
        outside = np.linalg.norm(points[path] - points[tip], axis=1) > radius[path]
        kept[path[outside.argmax() - 1 :]] = True
    return np.flatnonzero(kept)


def _path_sums(edge: NDArray[np.float64], above: NDArray[np.int64]) -> NDArray[np.float64]:
    """Sum of `edge` over the path from every node to the root, which is above itself and whose own edge is zero."""
    total = edge
    while (above != above[above]).any():  # twice as far up in each round
        total = total + total[above]
        above = above[above]
    return total


def _smooth(tree: Tree, *, sigma: float = 1.0) -> Tree:
    """Take the staircase out of every unbranched run; its ends stay."""
    xyz, radius = tree.xyz.copy(), tree.radius.copy()
    for run in tree.segments():
        xyz[run[1:-1]] = ndimage.gaussian_filter1d(tree.xyz[run], sigma, axis=0, mode="nearest")[1:-1]
        radius[run[1:-1]] = ndimage.gaussian_filter1d(tree.radius[run], sigma, mode="nearest")[1:-1]
    return replace(tree, xyz=xyz, radius=radius)
