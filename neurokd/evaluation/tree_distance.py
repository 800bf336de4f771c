r"""The distance between trees: from a point to the segments of a tree, and from one tree to another along it.

    o                 the nearest node is far away, the nearest place on the tree is not
    |  . point
    o

distance |      ____        by length: pieces on which it changes linearly; halved where it does not
to other | ____/    \_      vaa3d:     samples about one voxel apart
         +------------- along the tree

Every edge is cut into short pieces, so that a k-d tree over their middles says which few of them can be
nearest; to these the distance is exact. ESA, DSA and PDS are means of the distance along a tree.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from neurokd.data.tree import Tree

__all__ = ["Profile", "distance_to_tree", "length_profile", "split_edges", "vaa3d_profile"]

_CANDIDATES = 6  # pieces looked at first; more where these cannot exclude the others
_AT_ONCE = 4_000_000  # distances in memory at a time
_PIECES = 5_000  # number of pieces at first; edges that are shorter than these stay as they are
_ROUNDS = 6  # how often pieces are halved on which the distance is far from linear
_ACCURACY = 0.002  # relative error of the integral at which halving ends


def distance_to_tree(points: NDArray[np.float64], tree: Tree) -> NDArray[np.float64]:
    """Return the distance of each point to the nearest place on a tree.

    Parameters
    ----------
    points
        (n, 3) points `x y z`, unit of the tree.
    tree
        Tree of at least one node; its edges are line segments.

    Returns
    -------
    NDArray[float64]
        (n,) >= 0, rounded to 1e-9, so that 2 on paper does not become 1.9999999999999998.
    """
    if len(tree) == 1:
        return np.linalg.norm(points - tree.xyz[0], axis=1).round(9)
    corners, first, second = split_edges(tree, tree.length / (len(tree) - 1))
    middle = (corners[first] + corners[second]) / 2  # (p, 3)
    half = (corners[second] - corners[first]) / 2  # (p, 3) from the middle to the second end
    square = (half**2).sum(axis=1)  # (p,)
    reach = np.sqrt(square.max())  # no piece comes nearer than its middle by more than this
    search = cKDTree(middle)

    nearest = np.empty(len(points))
    todo, k = np.arange(len(points)), min(_CANDIDATES, len(middle))
    while len(todo):
        unsure = []
        for part in np.array_split(todo, 1 + len(todo) * k // _AT_ONCE):
            # The k pieces whose middles are nearest; on each, the place nearest to the point. c: x y z.
            middle_distance, piece = search.query(points[part], k=np.arange(1, k + 1))  # (n, k) each
            offset = points[part, None] - middle[piece]  # (n, k, c)
            dot = np.einsum("nkc,nkc->nk", offset, half[piece])
            place = np.divide(dot, square[piece], out=np.zeros_like(dot), where=square[piece] > 0).clip(-1, 1)
            nearest[part] = np.linalg.norm(offset - place[..., None] * half[piece], axis=-1).min(axis=1)
            # A piece that was not looked at could still be nearer.
            unsure.append(part[middle_distance[:, -1] < nearest[part] + reach])
        todo = np.concatenate(unsure) if k < len(middle) else todo[:0]
        k = min(4 * k, len(middle))
    return nearest.round(9)


def split_edges(tree: Tree, longest: float) -> tuple[NDArray[np.float64], NDArray[np.int64], NDArray[np.int64]]:
    """Cut every edge into equal pieces.

    Parameters
    ----------
    tree
        Tree of at least two nodes.
    longest
        Largest length of a piece, unit of the tree; 0 for a tree of zero length.

    Returns
    -------
    tuple of NDArray
        (m, 3) points `x y z`, the tree's nodes first; (p,) and (p,) rows of the ends of each piece.
    """
    count = np.ones(len(tree) - 1, dtype=np.int64)
    if longest > 0:
        count = np.maximum(count, np.ceil(tree.edge_lengths / longest - 1e-9).astype(np.int64))
    edge = np.repeat(np.arange(len(count)), count)
    rank = np.arange(len(edge)) - np.repeat(np.cumsum(count) - count, count)  # of a piece in its edge
    inner = rank < count[edge] - 1  # pieces whose end lies inside the edge: a new point
    child, parent = tree.edges[edge].T
    share = ((rank + 1) / count[edge])[inner, None]
    points = tree.xyz[child[inner]] * (1 - share) + tree.xyz[parent[inner]] * share
    second = np.where(inner, len(tree) + np.cumsum(inner) - 1, parent)
    first = np.where(rank == 0, child, np.roll(second, 1))
    return np.concatenate([tree.xyz, points]), first, second


@dataclass(frozen=True)
class Profile:
    """The distance from one tree to another along it: pieces on which it changes linearly, and their weights.

    Parameters
    ----------
    first, second
        (p,) distances at the two ends of each piece, unit of the trees; both are the same for a sample.
    weight
        (p,) lengths of the pieces, or 1 for a sample.
    """

    first: NDArray[np.float64]
    second: NDArray[np.float64]
    weight: NDArray[np.float64]

    @property
    def mean(self) -> float:
        """Mean distance, weighted."""
        return float(np.average((self.first + self.second) / 2, weights=self.weight))

    def apart(self, tolerance: float) -> tuple[float, float]:
        """Return the share at the tolerance or further, and the mean distance there (0 if there is none)."""
        low, high = np.minimum(self.first, self.second), np.maximum(self.first, self.second)
        # Share of each piece that is apart: all, nothing, or the part beyond the tolerance.
        share = (low >= tolerance).astype(float)
        np.divide(high - tolerance, high - low, out=share, where=(low < tolerance) & (tolerance < high))
        weight = share * self.weight
        total = float(weight.sum())
        distance = (np.maximum(low, tolerance) + high) / 2
        return total / float(self.weight.sum()), float((weight * distance).sum() / total) if total else 0.0


def length_profile(tree: Tree, other: Tree) -> Profile:
    """Return the distance weighted by length. Pieces are halved until it is nearly linear on them."""
    if tree.length == 0:
        distance = distance_to_tree(tree.xyz[:1], other)
        return Profile(distance, distance, np.ones(1))
    points, first, second = split_edges(tree, tree.length / _PIECES)
    distance = distance_to_tree(points, other)
    a, b = points[first], points[second]  # (p, 3) ends of the pieces
    d_a, d_b = distance[first], distance[second]  # (p,) distances there
    done: list[tuple[NDArray[np.float64], ...]] = []
    for _ in range(_ROUNDS):
        weight = np.linalg.norm(b - a, axis=1)
        middle = (a + b) / 2
        d_middle = distance_to_tree(middle, other)
        error = weight * abs(d_middle - (d_a + d_b) / 2)
        # Columns (2 p,) of the halves: distances at both ends, and lengths.
        halves = np.concatenate([d_a, d_middle]), np.concatenate([d_middle, d_b]), np.tile(weight / 2, 2)
        total = sum(((part[0] + part[1]) / 2) @ part[2] for part in [*done, halves])
        rough = error > _ACCURACY * total / len(points)
        done.append(tuple(column[~np.tile(rough, 2)] for column in halves))  # nearly linear
        a, b, d_a, d_b = (
            np.concatenate([start[rough], end[rough]])
            for start, end in ((a, middle), (middle, b), (d_a, d_middle), (d_middle, d_b))
        )
        if not len(a):
            break
    done.append((d_a, d_b, np.linalg.norm(b - a, axis=1)))
    return Profile(*(np.concatenate(column) for column in zip(*done, strict=True)))


def vaa3d_profile(tree: Tree, other: Tree) -> Profile:
    """Return samples of equal weight, int(1 + length + 0.5) on each segment, from its child to its parent."""
    if len(tree) == 1:
        points = tree.xyz
    else:
        child, parent = tree.edges.T
        count = (1 + tree.edge_lengths + 0.5).astype(np.int64)
        edge = np.repeat(np.arange(len(count)), count)
        rank = np.arange(len(edge)) - np.repeat(np.cumsum(count) - count, count)
        share = (rank / np.maximum(count[edge] - 1, 1))[:, None]
        points = tree.xyz[child[edge]] * (1 - share) + tree.xyz[parent[edge]] * share
    distance = distance_to_tree(points, other)
    return Profile(distance, distance, np.ones(len(points)))
