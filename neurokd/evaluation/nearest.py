"""How far points are from a tree: from its segments, not only from its nodes.

    o                 the nearest node is far away, the nearest place on the tree is not
    |  . point
    o

Every edge is cut into short pieces, so that a k-d tree over their middles says which few of them can be nearest;
to these the distance is exact.
"""

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from neurokd.data.tree import Tree

__all__ = ["distance_to_tree", "split_edges"]

_CANDIDATES = 6  # pieces looked at first; more where these cannot exclude the others
_AT_ONCE = 4_000_000  # distances in memory at a time


def distance_to_tree(points: NDArray[np.float64], tree: Tree) -> NDArray[np.float64]:
    """Distance of each point to the nearest place on a tree.

    Parameters
    ----------
    points
        (n, 3) points `x y z`, unit of the tree.
    tree
        One node is enough; its edges are line segments.

    Returns
    -------
    NDArray[float64]
        (n,) >= 0, rounded to 1e-9: what is 2 on paper is not 1.9999999999999998.
    """
    if len(tree) == 1:
        return np.linalg.norm(points - tree.xyz[0], axis=1).round(9)
    corners, first, second = split_edges(tree, tree.length / (len(tree) - 1))
    middle, half = (corners[first] + corners[second]) / 2, (corners[second] - corners[first]) / 2
    square = (half**2).sum(axis=1)
    reach = np.sqrt(square.max())  # no piece comes nearer than its middle by more than this
    search = cKDTree(middle)

    nearest = np.empty(len(points))
    todo, k = np.arange(len(points)), min(_CANDIDATES, len(middle))
    while len(todo):
        unsure = []
        for part in np.array_split(todo, 1 + len(todo) * k // _AT_ONCE):
            to_middle, piece = search.query(points[part], k=np.arange(1, k + 1))
            offset = points[part, None] - middle[piece]
            dot = np.einsum("nkc,nkc->nk", offset, half[piece])
            along = np.divide(dot, square[piece], out=np.zeros_like(dot), where=square[piece] > 0).clip(-1, 1)
            nearest[part] = np.linalg.norm(offset - along[..., None] * half[piece], axis=-1).min(axis=1)
            unsure.append(part[to_middle[:, -1] < nearest[part] + reach])
        todo = np.concatenate(unsure) if k < len(middle) else []
        k = min(4 * k, len(middle))
    return nearest.round(9)


def split_edges(tree: Tree, longest: float) -> tuple[NDArray[np.float64], NDArray[np.int64], NDArray[np.int64]]:
    """Cut every edge into equal pieces.

    Parameters
    ----------
    tree
        Of at least two nodes.
    longest
        No piece is longer, unit of the tree; 0 for a tree of zero length.

    Returns
    -------
    tuple of NDArray
        (m, 3) points `x y z`, the tree's nodes first; (p,) and (p,) rows of the ends of each piece.
    """
    count = np.ones(len(tree) - 1, dtype=np.int64)
    if longest > 0:
        count = np.maximum(count, np.ceil(tree.edge_lengths / longest - 1e-9).astype(np.int64))
    edge = np.repeat(np.arange(len(count)), count)
    rank = np.arange(len(edge)) - np.repeat(np.cumsum(count) - count, count)  # of a piece within its edge
    inner = rank < count[edge] - 1  # its end lies inside the edge: a new point
    child, parent = tree.edges[edge].T
    share = ((rank + 1) / count[edge])[inner, None]
    points = tree.xyz[child[inner]] * (1 - share) + tree.xyz[parent[inner]] * share
    second = np.where(inner, len(tree) + np.cumsum(inner) - 1, parent)
    first = np.where(rank == 0, child, np.roll(second, 1))
    return np.concatenate([tree.xyz, points]), first, second
