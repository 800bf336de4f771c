r"""The distance from one tree to another, followed along the first: what ESA, DSA and PDS are means of.

distance |      ____        by length: pieces on which it changes linearly; halved where it does not
to other | ____/    \_      vaa3d:     samples about one voxel apart
         +------------- along the tree
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from neurokd.data.tree import Tree
from neurokd.evaluation.nearest import distance_to_tree, split_edges

__all__ = ["Profile", "length_profile", "vaa3d_profile"]

_PIECES = 5_000  # into which a tree is cut at first; edges that are shorter than these stay as they are
_ROUNDS = 6  # of halving pieces on which the distance is far from linear
_ACCURACY = 0.002  # of the integral, at which halving ends


@dataclass(frozen=True)
class Profile:
    """The distance from one tree to another along it: pieces on which it changes linearly, and their weights.

    Attributes
    ----------
    first, second
        (p,) distances at the two ends of each piece, unit of the trees; of a sample both are the same.
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

    def apart(self, threshold: float) -> tuple[float, float]:
        """The share that is at the threshold or beyond, and the mean distance there (0 if there is none)."""
        low, high = np.minimum(self.first, self.second), np.maximum(self.first, self.second)
        beyond = (low >= threshold).astype(float)
        share = np.divide(high - threshold, high - low, out=beyond, where=(low < threshold) & (threshold < high))
        weight = share * self.weight
        total = float(weight.sum())
        distance = (np.maximum(low, threshold) + high) / 2
        return total / float(self.weight.sum()), float((weight * distance).sum() / total) if total else 0.0


def length_profile(tree: Tree, other: Tree) -> Profile:
    """Weighted by length: pieces are halved until the distance on them is nearly linear."""
    if tree.length == 0:
        distance = distance_to_tree(tree.xyz[:1], other)
        return Profile(distance, distance, np.ones(1))
    points, first, second = split_edges(tree, tree.length / _PIECES)
    distance = distance_to_tree(points, other)
    a, b = points[first], points[second]
    at_a, at_b = distance[first], distance[second]
    done = []
    for _ in range(_ROUNDS):
        weight = np.linalg.norm(b - a, axis=1)
        middle = (a + b) / 2
        at_middle = distance_to_tree(middle, other)
        error = weight * abs(at_middle - (at_a + at_b) / 2)
        ends = np.concatenate([at_a, at_middle]), np.concatenate([at_middle, at_b]), np.tile(weight / 2, 2)
        total = sum(((part[0] + part[1]) / 2) @ part[2] for part in [*done, ends])
        rough = error > _ACCURACY * total / len(points)
        done.append(tuple(column[~np.tile(rough, 2)] for column in ends))
        a, b, at_a, at_b = (
            np.concatenate([start[rough], end[rough]])
            for start, end in ((a, middle), (middle, b), (at_a, at_middle), (at_middle, at_b))
        )
        if not len(a):
            break
    done.append((at_a, at_b, np.linalg.norm(b - a, axis=1)))
    return Profile(*(np.concatenate(column) for column in zip(*done, strict=True)))


def vaa3d_profile(tree: Tree, other: Tree) -> Profile:
    """Samples of equal weight, int(1 + length + 0.5) on each segment, from its child to its parent."""
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
