r"""How well a traced tree fits the true one: distances, lengths, branching.

    true  o-----o-----o          ESA  mean distance from one tree to the other (entire structure average)
    traced \o-----o---o-\        DSA  mean distance where they are apart, that is 2 or more (different structure)
                         o       PDS  share of the trees that is apart (percentage of different structure, in [0, 1])

Each is the mean of both directions. Two conventions give two numbers:

`length` (default)
    Every piece of a tree weighs as much as it is long. Where nodes lie does not matter: a tree that is resampled
    without changing its course keeps its score.
`vaa3d`
    As the plugin `neuron_distance` of Vaa3D counts: every segment is sampled about one voxel apart, both ends
    included, and every sample weighs the same. Nodes shared by segments count several times, so a tree with
    many short segments weighs them more, and resampling changes the score. For comparison with published numbers.

The three go back to Peng et al. 2010, doi:10.1038/nbt.1612.
"""

from collections.abc import Sequence
from typing import Literal

import numpy as np

from neurokd.data.tree import Tree
from neurokd.evaluation.branching import bifurcation_scores, strahler_order, tip_scores
from neurokd.evaluation.tree_distance import Profile, length_profile, vaa3d_profile

__all__ = ["compare_trees", "dsa", "esa", "length_scores", "pds"]

Convention = Literal["length", "vaa3d"]


def compare_trees(
    tree: Tree | None,
    reference: Tree,
    *,
    spacing: Sequence[float] | None = None,
    tolerance: float = 2.0,
    convention: Convention = "length",
) -> dict[str, float | int | str | bool]:
    """Every score of one tree.

    Parameters
    ----------
    tree
        What was traced, in voxels. None where nothing was: a missed neuron counts.
    reference
        What is true, in voxels of the same volume.
    spacing
        Voxel size `(z, y, x)`, µm. With it all lengths, the tolerance included, are in µm; without, in voxels.
    tolerance
        Distance from which on trees are apart, and below which they agree, > 0; 2 voxels is the custom.
    convention
        Of ESA, DSA and PDS; all other scores are the same in both.

    Returns
    -------
    dict
        `esa`, `dsa` in `unit`; `pds` in [0, 1]; `length_precision`, `length_recall`, `length_f1` of
        :func:`length_scores`; `bifurcation_precision` and so on, `tip_precision` and so on, of
        :func:`bifurcation_scores` and :func:`tip_scores`; `length`, `reference_length` in `unit`; `strahler`,
        `reference_strahler`; `unit` ("voxels" or "µm"), `tolerance`, `convention`; `failed`: there is no tree, so
        that every share is at its worst, lengths are 0, and `esa` and `dsa` are the diagonal of the box around the
        reference.

    Raises
    ------
    ValueError
        A tolerance that is not > 0, a spacing that is not three numbers > 0, another convention, or a spacing with
        `vaa3d`, which samples in voxels (:meth:`Tree.scale` the trees where that is what you want).
    """
    _check(tolerance, convention)
    if spacing is not None:
        if convention == "vaa3d":
            raise ValueError(f"convention 'vaa3d' samples one voxel apart and takes no spacing, got {spacing}")
        tree, reference = None if tree is None else tree.to_microns(spacing), reference.to_microns(spacing)
    settings = {"unit": "voxels" if spacing is None else "µm", "tolerance": tolerance, "convention": convention}
    truth = {"reference_length": reference.length, "reference_strahler": strahler_order(reference)}
    kinds = ("length", "bifurcation", "tip")
    if tree is None:
        diagonal = float(np.linalg.norm(np.ptp(reference.xyz, axis=0)))
        shares = {f"{kind}_{score}": 0.0 for kind in kinds for score in ("precision", "recall", "f1")}
        distances = {"esa": diagonal, "dsa": diagonal, "pds": 1.0}
        return {**distances, **shares, "length": 0.0, "strahler": 0, **truth, **settings, "failed": True}

    both = _both(tree, reference, "length")
    distances = both if convention == "length" else _both(tree, reference, convention)
    scores = (
        _length_scores(both, tolerance),
        bifurcation_scores(tree, reference, tolerance=tolerance),
        tip_scores(tree, reference, tolerance=tolerance),
    )
    return {
        "esa": _esa(distances),
        "dsa": _dsa(distances, tolerance),
        "pds": _pds(distances, tolerance),
        **{f"{kind}_{name}": value for kind, part in zip(kinds, scores, strict=True) for name, value in part.items()},
        "length": tree.length,
        "strahler": strahler_order(tree),
        **truth,
        **settings,
        "failed": False,
    }


def esa(tree: Tree, reference: Tree, *, convention: Convention = "length") -> float:
    """Entire structure average: the mean distance between two trees, averaged over both directions.

    Parameters
    ----------
    tree, reference
        In the same unit. A tree of zero length counts as its one point.
    convention
        See the top of this module. Vaa3D itself refuses trees of one node; here they are one sample.

    Returns
    -------
    float
        >= 0, unit of the trees; symmetric.

    Raises
    ------
    ValueError
        Another convention.
    """
    _check(1.0, convention)
    return _esa(_both(tree, reference, convention))


def dsa(tree: Tree, reference: Tree, *, threshold: float = 2.0, convention: Convention = "length") -> float:
    """Different structure average: the mean distance where the trees are apart.

    Parameters
    ----------
    tree, reference, convention
        As of :func:`esa`.
    threshold
        Distance from which on they are apart, unit of the trees, > 0.

    Returns
    -------
    float
        0 if they are nowhere apart, else >= `threshold`. The mean of both directions; where only one of the trees
        has places apart from the other (a branch is missing), that direction alone.

    Raises
    ------
    ValueError
        A threshold that is not > 0, another convention.
    """
    _check(threshold, convention)
    return _dsa(_both(tree, reference, convention), threshold)


def pds(tree: Tree, reference: Tree, *, threshold: float = 2.0, convention: Convention = "length") -> float:
    """Percentage of different structure, as a share: how much of the trees is apart.

    Parameters
    ----------
    tree, reference, convention
        As of :func:`esa`.
    threshold
        Distance from which on they are apart, unit of the trees, > 0.

    Returns
    -------
    float
        In [0, 1], the mean of the two shares; in convention `length` 1 minus the mean of length precision and recall.

    Raises
    ------
    ValueError
        A threshold that is not > 0, another convention.
    """
    _check(threshold, convention)
    return _pds(_both(tree, reference, convention), threshold)


def length_scores(tree: Tree, reference: Tree, *, tolerance: float = 2.0) -> dict[str, float]:
    """Share of the traced length that is true, and of the true length that was traced.

    Lengths, not nodes, are counted: a place on one tree agrees if the other passes closer than the tolerance.
    So a missing half begins to count one tolerance behind its end.

    Parameters
    ----------
    tree, reference
        What was traced and what is true, in the same unit. A tree of zero length counts as its one point.
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
    _check(tolerance, "length")
    return _length_scores(_both(tree, reference, "length"), tolerance)


def _both(tree: Tree, reference: Tree, convention: Convention) -> tuple[Profile, Profile]:
    """Traced to true, true to traced."""
    profile = length_profile if convention == "length" else vaa3d_profile
    return profile(tree, reference), profile(reference, tree)


def _esa(both: tuple[Profile, Profile]) -> float:
    return (both[0].mean + both[1].mean) / 2


def _dsa(both: tuple[Profile, Profile], threshold: float) -> float:
    means = [distance for share, distance in (profile.apart(threshold) for profile in both) if share > 0]
    return sum(means) / len(means) if means else 0.0


def _pds(both: tuple[Profile, Profile], threshold: float) -> float:
    return (both[0].apart(threshold)[0] + both[1].apart(threshold)[0]) / 2


def _length_scores(both: tuple[Profile, Profile], tolerance: float) -> dict[str, float]:
    precision, recall = (1 - profile.apart(tolerance)[0] for profile in both)
    f1 = 2 * precision * recall / (precision + recall) if precision + recall else 0.0
    return {"precision": precision, "recall": recall, "f1": f1}


def _check(tolerance: float, convention: str) -> None:
    if not (tolerance > 0 and np.isfinite(tolerance)):
        raise ValueError(f"tolerance or threshold must be a finite number > 0, got {tolerance}")
    if convention not in ("length", "vaa3d"):
        raise ValueError(f"convention must be 'length' or 'vaa3d', got {convention!r}")
