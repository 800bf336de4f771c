r"""How well a traced tree fits the true one: distances, lengths, branching.

    true  o-----o-----o          ESA  mean distance from one tree to the other (entire structure average)
    traced \o-----o---o-\        DSA  mean distance where they are apart: 2 or more (different structure)
                         o       PDS  share of the trees that is apart (percentage of different structure)

Each is the mean of both directions. Two conventions give two numbers:

`length` (default)
    Every piece of a tree weighs as much as it is long. Where nodes lie does not matter: a tree that is
    resampled without changing its course keeps its score.
`vaa3d`
    As the plugin `neuron_distance` of Vaa3D counts: every segment is sampled about one voxel apart, both ends
    included, and every sample weighs the same. Nodes shared by segments count several times, so a tree with
    many short segments weighs them more, and resampling changes the score. For comparison with published
    numbers.

The three go back to Peng et al. 2010, doi:10.1038/nbt.1612.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np

from neurokd.data.tree import Tree
from neurokd.evaluation.branching import bifurcation_scores, tip_scores
from neurokd.evaluation.tree_distance import Profile, length_profile, vaa3d_profile

__all__ = ["dsa", "esa", "length_scores", "pds"]

Convention = Literal["length", "vaa3d"]


def esa(tree: Tree, reference: Tree, *, convention: Convention = "length") -> float:
    """Return the entire structure average: the mean distance between two trees, over both directions.

    Parameters
    ----------
    tree, reference
        Trees in the same unit. A tree of zero length counts as its one point.
    convention
        "length" or "vaa3d", see the top of this module. Vaa3D itself refuses trees of one node; here they are
        one sample.

    Returns
    -------
    float
        >= 0, unit of the trees; symmetric.

    Raises
    ------
    ValueError
        Another convention.
    """
    return TreePair(tree, reference, convention=convention).esa


def dsa(tree: Tree, reference: Tree, *, tolerance: float = 2.0, convention: Convention = "length") -> float:
    """Return the different structure average: the mean distance where the trees are apart.

    Parameters
    ----------
    tree, reference, convention
        See :func:`esa`.
    tolerance
        Distance from which on they are apart, unit of the trees, > 0.

    Returns
    -------
    float
        0 if they are nowhere apart, else >= `tolerance`. The mean of both directions; where only one of the
        trees has places apart from the other (a branch is missing), that direction alone.

    Raises
    ------
    ValueError
        A tolerance that is not > 0, or another convention.
    """
    return TreePair(tree, reference, tolerance, convention).dsa


def pds(tree: Tree, reference: Tree, *, tolerance: float = 2.0, convention: Convention = "length") -> float:
    """Return the percentage of different structure, as a share: how much of the trees is apart.

    Parameters
    ----------
    tree, reference, convention
        See :func:`esa`.
    tolerance
        Distance from which on they are apart, unit of the trees, > 0.

    Returns
    -------
    float
        In [0, 1], the mean of the two shares. In convention `length` it is 1 minus the mean of length
        precision and recall.

    Raises
    ------
    ValueError
        A tolerance that is not > 0, or another convention.
    """
    return TreePair(tree, reference, tolerance, convention).pds


def length_scores(tree: Tree, reference: Tree, *, tolerance: float = 2.0) -> dict[str, float]:
    """Return the share of the traced length that is true, and of the true length that was traced.

    Lengths, not nodes, are counted: a place on one tree agrees if the other passes closer than the tolerance.
    So a missing half begins to count one tolerance behind its end.

    Parameters
    ----------
    tree, reference
        The traced and the true tree, in the same unit. A tree of zero length counts as its one point.
    tolerance
        Distance below which the trees agree, same unit, > 0.

    Returns
    -------
    dict
        `precision`, `recall` and `f1`, their harmonic mean, in [0, 1].

    Raises
    ------
    ValueError
        `tolerance` is not > 0.
    """
    return TreePair(tree, reference, tolerance).length_scores


@dataclass(frozen=True, eq=False)
class TreePair:
    """A traced tree, the true one, and everything that scores are made of, each part computed once.

    Parameters
    ----------
    tree
        The traced tree. None where nothing was traced: then shares are at their worst, and `esa` and `dsa`
        are the diagonal of the box around the reference.
    reference
        The true tree, in the same unit.
    tolerance
        Distance from which on trees are apart, and below which they agree, same unit, > 0.
    convention
        "length" or "vaa3d"; the convention of ESA, DSA and PDS.
    """

    tree: Tree | None
    reference: Tree
    tolerance: float = 2.0
    convention: Convention = "length"

    def __post_init__(self) -> None:
        if not (self.tolerance > 0 and np.isfinite(self.tolerance)):
            raise ValueError(f"tolerance must be a finite number > 0, got {self.tolerance}")
        if self.convention not in ("length", "vaa3d"):
            raise ValueError(f"convention must be 'length' or 'vaa3d', got {self.convention!r}")

    @cached_property
    def esa(self) -> float:
        """Entire structure average."""
        if self.tree is None:
            return self._diagonal
        return sum(profile.mean for profile in self._profiles) / 2

    @cached_property
    def dsa(self) -> float:
        """Different structure average."""
        if self.tree is None:
            return self._diagonal
        apart = [profile.apart(self.tolerance) for profile in self._profiles]
        means = [distance for share, distance in apart if share > 0]
        return sum(means) / len(means) if means else 0.0

    @cached_property
    def pds(self) -> float:
        """Share of different structure."""
        if self.tree is None:
            return 1.0
        return sum(profile.apart(self.tolerance)[0] for profile in self._profiles) / 2

    @cached_property
    def length_scores(self) -> dict[str, float]:
        """Precision, recall and F1 of the length."""
        if self.tree is None:
            return dict.fromkeys(("precision", "recall", "f1"), 0.0)
        precision, recall = (1 - profile.apart(self.tolerance)[0] for profile in self._length_profiles)
        f1 = 2 * precision * recall / (precision + recall) if precision + recall else 0.0
        return {"precision": precision, "recall": recall, "f1": f1}

    @cached_property
    def bifurcation_scores(self) -> dict[str, float]:
        """Precision, recall and F1 of the bifurcations."""
        if self.tree is None:
            return dict.fromkeys(("precision", "recall", "f1"), 0.0)
        return bifurcation_scores(self.tree, self.reference, tolerance=self.tolerance)

    @cached_property
    def tip_scores(self) -> dict[str, float]:
        """Precision, recall and F1 of the tips."""
        if self.tree is None:
            return dict.fromkeys(("precision", "recall", "f1"), 0.0)
        return tip_scores(self.tree, self.reference, tolerance=self.tolerance)

    @cached_property
    def _length_profiles(self) -> tuple[Profile, Profile]:
        """Distances by length, from traced to true and from true to traced."""
        assert self.tree is not None
        return length_profile(self.tree, self.reference), length_profile(self.reference, self.tree)

    @cached_property
    def _profiles(self) -> tuple[Profile, Profile]:
        """The same in the convention asked for."""
        assert self.tree is not None
        if self.convention == "length":
            return self._length_profiles
        return vaa3d_profile(self.tree, self.reference), vaa3d_profile(self.reference, self.tree)

    @property
    def _diagonal(self) -> float:
        """Diagonal of the box around the reference."""
        return float(np.linalg.norm(np.ptp(self.reference.xyz, axis=0)))
