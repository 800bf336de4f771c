"""Where a tree branches and ends: are these places found, and how deep does the branching go?

Bifurcations and tips are counted on the tree without direction, so that it does not matter where the root is:

    o---o---o     three ends, one bifurcation, whichever node is the root
        |
        o
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import maximum_bipartite_matching
from scipy.spatial import cKDTree

from neurokd.data.tree import Tree

__all__ = ["bifurcation_scores", "strahler_order", "tip_scores"]


def bifurcation_scores(tree: Tree, reference: Tree, *, tolerance: float = 2.0) -> dict[str, float]:
    """Return the share of the traced bifurcations that are true, and of the true ones that are found.

    A bifurcation is a node with three or more neighbours. Each matches at most one of the other tree, closer
    than the tolerance. As many as possible are matched, so that the order of the nodes does not matter.

    Parameters
    ----------
    tree, reference
        The traced and the true tree, in the same unit.
    tolerance
        Distance below which two bifurcations may match, same unit, > 0.

    Returns
    -------
    dict
        `precision`, `recall`, `f1` in [0, 1]; 0 where only one of the trees has any, 1 where neither has.

    Raises
    ------
    ValueError
        `tolerance` is not > 0.
    """
    return _match(tree.xyz[_degree(tree) >= 3], reference.xyz[_degree(reference) >= 3], tolerance)


def tip_scores(tree: Tree, reference: Tree, *, tolerance: float = 2.0) -> dict[str, float]:
    """Return the share of the traced tips that are true, and of the true ones that are found.

    A tip is a node with one neighbour; a root in the middle of a neurite is none, a root at its end is one.

    Parameters
    ----------
    tree, reference, tolerance
        See :func:`bifurcation_scores`.

    Returns
    -------
    dict
        `precision`, `recall`, `f1` as in :func:`bifurcation_scores`.

    Raises
    ------
    ValueError
        `tolerance` is not > 0.
    """
    return _match(tree.xyz[_degree(tree) == 1], reference.xyz[_degree(reference) == 1], tolerance)


def strahler_order(tree: Tree) -> int:
    """Return the Strahler order of the root: 1 for a neurite that never branches.

    A tip has order 1; a node has the highest order among its children, and one more where two or more of them
    share it (Strahler 1957, doi:10.1029/TR038i006p00913). Unlike the scores above, it depends on the root.

    Parameters
    ----------
    tree
        Any tree.

    Returns
    -------
    int
        Order, >= 1.
    """
    order = np.ones(len(tree), dtype=np.int64)
    # For each node: the highest order among its children, and how many of them have it.
    highest, shared = np.zeros(len(tree), dtype=np.int64), np.zeros(len(tree), dtype=np.int64)
    for row in range(len(tree) - 1, -1, -1):  # children come before their parents
        if highest[row]:
            order[row] = highest[row] + (shared[row] > 1)
        parent = tree.parent[row]
        if parent >= 0:
            if order[row] > highest[parent]:
                highest[parent], shared[parent] = order[row], 0
            shared[parent] += order[row] == highest[parent]
    return int(order[0])


def _degree(tree: Tree) -> NDArray[np.int64]:
    """Return the number of neighbours of each node, (n,)."""
    return tree.n_children + (tree.parent >= 0)


def _match(points: NDArray[np.float64], others: NDArray[np.float64], tolerance: float) -> dict[str, float]:
    """Return precision, recall and F1 of a one-to-one match of as many points as possible."""
    if not tolerance > 0:
        raise ValueError(f"tolerance must be > 0, got {tolerance}")
    if not len(points) or not len(others):
        score = float(len(points) == len(others))
        return {"precision": score, "recall": score, "f1": score}
    near = cKDTree(points).sparse_distance_matrix(cKDTree(others), tolerance, output_type="coo_matrix")
    closer = near.data.round(9) < tolerance
    pairs = coo_array((closer[closer], (near.row[closer], near.col[closer])), shape=near.shape)
    matched = int((maximum_bipartite_matching(pairs.tocsr(), perm_type="column") >= 0).sum())
    return {
        "precision": matched / len(points),
        "recall": matched / len(others),
        "f1": 2 * matched / (len(points) + len(others)),
    }
