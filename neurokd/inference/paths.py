"""Minimal paths over the voxels of a mask, and which of them make a neuron.

voxels o-o-o      every voxel's cheapest way to the soma:     the longest way covers what lies around it,
       |X|X|      one tree, with a twig for every voxel       and what is covered needs no way of its own
       o-o-o
"""

from __future__ import annotations

from dataclasses import replace
from itertools import product

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from scipy.sparse import csr_array
from scipy.spatial import cKDTree

from neurokd.data.tree import Tree

__all__ = ["prune", "smooth", "voxel_graph"]


def voxel_graph(
    mask: NDArray[np.bool_], ease: NDArray[np.float64], unit: NDArray[np.float64]
) -> tuple[csr_array, NDArray[np.int64]]:
    """Return the graph of steps between neighbouring voxels of a mask.

    Parameters
    ----------
    mask
        (z, y, x), the voxels to walk on; the outermost layer must be free.
    ease
        (z, y, x), high in the middle of a neurite. A step costs its length over the square of this, averaged
        over both ends.
    unit
        Voxel size (z, y, x).

    Returns
    -------
    steps
        (n, n) costs, each pair of neighbours once.
    voxels
        (n,) flat index of each node, rising.
    """
    voxels = np.flatnonzero(mask)
    cost = np.maximum(ease.ravel()[voxels], 0.05) ** -2.0  # (n,)
    node = np.full(mask.size, -1)  # number of the node at each flat index
    node[voxels] = np.arange(len(voxels))
    steps = []
    for offset in list(product((-1, 0, 1), repeat=3))[14:]:  # one of each pair of opposite neighbours
        there = node[voxels + np.dot(offset, (mask.shape[1] * mask.shape[2], mask.shape[2], 1))]
        here = np.flatnonzero(there >= 0)
        there = there[here]
        steps.append((np.linalg.norm(offset * unit) * (cost[here] + cost[there]) / 2, here, there))
    weight, here, there = (np.concatenate(column) for column in zip(*steps, strict=True))  # (steps,) each
    return csr_array((weight, (here, there)), shape=(len(voxels), len(voxels))), voxels


def prune(
    points: NDArray[np.float64],
    radius: NDArray[np.float64],
    parent: NDArray[np.int64],
    root: int,
    is_candidate: NDArray[np.bool_],
    *,
    min_branch: float,
) -> NDArray[np.int64]:
    """Return the nodes worth keeping of a tree of minimal paths.

    The longest path is kept first, then the longest path to a node that it does not cover, and so on. A kept
    path covers what lies within a neurite's radius or so of it.

    Parameters
    ----------
    points, radius
        (n, 3) and (n,), in one unit.
    parent
        (n,) rows, negative for the root.
    root
        Row of the root.
    is_candidate
        (n,) False for the voxels of bridges.
    min_branch
        Length that a branch must stick out from what is covered; a shorter one is a spur of the wall.

    Returns
    -------
    NDArray[int]
        Rows, rising; the parent of a kept row is kept too.
    """
    parent_row = np.where(parent < 0, np.arange(len(parent)), parent)  # (n,) the root is its own parent
    edge = np.linalg.norm(points - points[parent_row], axis=1)  # (n,) length to the parent
    length = _path_sums(edge, parent_row)  # (n,) length to the root
    is_tip = np.ones(len(points), dtype=bool)
    is_tip[parent[parent >= 0]] = False
    tips = np.flatnonzero(is_tip)
    nearby = cKDTree(points)
    reach = 2 * radius + 1  # neurites are not round: some walls are twice as far as the nearest
    covered, kept = np.zeros(len(points), dtype=bool), np.zeros(len(points), dtype=bool)
    covered[nearby.query_ball_point(points[root], reach[root])] = kept[root] = True
    for tip in tips[np.argsort(-length[tips], kind="stable")]:
        if covered[tip]:
            continue
        path, node = [], tip  # rows from the tip up to the first node that is kept already
        while not kept[node]:
            path.append(node)
            node = parent[node]
        if length[tip] - length[node] - reach[node] < min_branch:
            continue
        covered[np.concatenate(nearby.query_ball_point(points[path], reach[path]))] = True
        # The path begins at the neurite's end wall, but the last node of a neurite lies one radius before it.
        is_outside = np.linalg.norm(points[path] - points[tip], axis=1) > radius[path]
        kept[path[is_outside.argmax() - 1 :]] = True

    # What hangs on a bridge must be worth it: below every node that stays there is more neurite than gap. The
    # worth of an edge is its length, negative where it bridges a gap, plus all positive worth below it.
    nodes = np.flatnonzero(kept)
    nodes = nodes[np.argsort(-length[nodes], kind="stable")]  # children before their parents
    worth = edge * (is_candidate.astype(float) + is_candidate[parent_row] - 1)
    for node in nodes[:-1]:
        worth[parent_row[node]] += max(worth[node], 0)
    for node in nodes[-2::-1]:
        kept[node] = worth[node] > 0 and kept[parent_row[node]]
    return np.flatnonzero(kept)


def _path_sums(edge: NDArray[np.float64], parent_row: NDArray[np.int64]) -> NDArray[np.float64]:
    """Sum `edge` over the path from every node to the root, which is its own parent and has no edge."""
    total, ancestor = edge, parent_row
    while (ancestor != ancestor[ancestor]).any():  # twice as far up in each round
        total = total + total[ancestor]
        ancestor = ancestor[ancestor]
    return total


def smooth(tree: Tree, *, sigma: float = 1.0) -> Tree:
    """Smooth the staircase of every unbranched run with a Gaussian over its nodes; the ends of runs stay.

    Parameters
    ----------
    tree
        Tree with nodes about a voxel apart.
    sigma
        Standard deviation of the Gaussian, nodes.

    Returns
    -------
    Tree
        The same nodes, moved, with smoothed radii.
    """
    xyz, radius = tree.xyz.copy(), tree.radius.copy()
    for run in tree.segments():
        xyz[run[1:-1]] = ndimage.gaussian_filter1d(tree.xyz[run], sigma, axis=0, mode="nearest")[1:-1]
        radius[run[1:-1]] = ndimage.gaussian_filter1d(tree.radius[run], sigma, mode="nearest")[1:-1]
    return replace(tree, xyz=xyz, radius=radius)
