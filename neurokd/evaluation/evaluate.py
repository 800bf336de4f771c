"""Every score of a mask, of a tree, and of a set of samples.

    masks --MaskPair--+
                      +--functions of SCORES--> a row: a dict with a value for each key
    trees --TreePair--+

A `Report` is made of rows. Where only some voxels are annotated, only the scores that count voxels are given.
Surface distances, skeletons and Betti numbers depend on the course of a neurite beyond the annotated slices,
which nobody drew: cut to the slices they would be numbers of other objects.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import ArrayLike

from neurokd.data.datasets import Sample
from neurokd.data.tree import Tree
from neurokd.data.volume import check_spacing
from neurokd.evaluation.report import Report
from neurokd.evaluation.scores import SCORES, MaskPair
from neurokd.evaluation.trees import Convention, TreePair
from neurokd.evaluation.voxels import known_pair, mask_pair

__all__ = ["compare_trees", "evaluate_masks", "evaluate_samples"]


def evaluate_masks(
    prediction: ArrayLike, truth: ArrayLike, *, spacing: Sequence[float], known: ArrayLike | None = None
) -> dict[str, float | int | bool]:
    """Return every score of the mask of one volume.

    Parameters
    ----------
    prediction, truth
        (z, y, x) masks as in :func:`dice`.
    spacing
        Voxel size `(z, y, x)`, µm.
    known
        (z, y, x) boolean, the voxels that somebody annotated; None takes all.

    Returns
    -------
    dict
        One entry for each of the `SCORES` that compares masks: `dice`, `precision`, `recall` and `cldice` in
        [0, 1]; `hd95` in µm, as :func:`hd95` defines it; `betti0_error`, `betti1_error` of
        :func:`betti_errors`. Besides, `failed`: exactly one of the masks is empty, so that `hd95` is the
        volume's diagonal. Where `known` is False anywhere: `dice`, `precision`, `recall` and `failed` of the
        known voxels alone.

    Raises
    ------
    ValueError
        A mask that :func:`dice` refuses, a spacing that is not three positive numbers, or a `known` that is
        not boolean, of another shape or nowhere true.
    """
    return _mask_row(prediction, truth, spacing, known, sparse=_is_sparse(known))


def compare_trees(
    tree: Tree | None,
    reference: Tree,
    *,
    spacing: Sequence[float] | None = None,
    tolerance: float = 2.0,
    convention: Convention = "length",
) -> dict[str, float | int | str | bool]:
    """Return every score of one tree.

    Parameters
    ----------
    tree
        The traced tree, in voxels. None where nothing was traced: a missed neuron counts.
    reference
        The true tree, in voxels of the same volume.
    spacing
        Voxel size `(z, y, x)`, µm. With it all lengths, the tolerance included, are in µm; without, in
        voxels.
    tolerance
        Distance from which on trees are apart, and below which they agree, > 0. Two voxels are usual.
    convention
        "length" or "vaa3d", the convention of ESA, DSA and PDS; see :mod:`neurokd.evaluation.trees`. All
        other scores are the same in both.

    Returns
    -------
    dict
        One entry for each of the `SCORES` that compares trees: `esa`, `dsa` in `unit`; `pds` in [0, 1];
        `length_precision`, `length_recall`, `length_f1` of :func:`length_scores`; `bifurcation_precision` and
        so on, `tip_precision` and so on, of :func:`bifurcation_scores` and :func:`tip_scores`; `length`,
        `reference_length` in `unit`; `strahler`, `reference_strahler`. Besides, `unit` ("voxels" or "µm"),
        `tolerance`, `convention`, and `failed`: there is no tree, so that every share is at its worst,
        lengths are 0, and `esa` and `dsa` are the diagonal of the box around the reference.

    Raises
    ------
    ValueError
        A tolerance that is not > 0, a spacing that is not three positive numbers, another convention, or a
        spacing with `vaa3d`, which samples in voxels (:meth:`Tree.scale` the trees where that is what you
        want).
    """
    if spacing is not None:
        if convention == "vaa3d":
            raise ValueError(f"spacing must be None in convention 'vaa3d' (voxels), got {spacing}")
        tree, reference = None if tree is None else tree.to_microns(spacing), reference.to_microns(spacing)
    pair = TreePair(tree, reference, tolerance, convention)
    scores = {key: score.function(pair) for key, score in SCORES.items() if score.compares == "trees"}
    unit = "voxels" if spacing is None else "µm"
    return {**scores, "unit": unit, "tolerance": tolerance, "convention": convention, "failed": tree is None}


def evaluate_samples(samples: Sequence[Sample], predictions: Mapping[str, ArrayLike], *, title: str = "") -> Report:
    """Return every score of the mask of every sample.

    If any sample has voxels that are not known, the report holds the scores that count voxels, for all
    samples.

    Parameters
    ----------
    samples
        Samples with masks and spacing.
    predictions
        A mask for each sample, by its name; an empty one where nothing was found.
    title
        Title of the report, such as the method's name.

    Returns
    -------
    Report
        One row for each sample, in their order.

    Raises
    ------
    ValueError
        There are no samples; two have one name; one has no mask, spacing or prediction; a prediction belongs
        to none; or an error of :func:`evaluate_masks`.
    """
    names = [sample.name for sample in samples]
    if set(names) != set(predictions):
        missing, surplus = sorted(set(names) - set(predictions)), sorted(set(predictions) - set(names))
        raise ValueError(f"predictions must be of the samples, got none of {missing}, surplus {surplus}")
    sparse = any(_is_sparse(sample.known) for sample in samples)
    rows = []
    for sample in samples:
        if sample.mask is None or sample.spacing is None:
            raise ValueError(f"sample {sample.name!r} must have a mask and a spacing, got None")
        scores = _mask_row(predictions[sample.name], sample.mask, sample.spacing, sample.known, sparse=sparse)
        rows.append({"name": sample.name, **scores})
    return Report(rows, title=title)


def _is_sparse(known: ArrayLike | None) -> bool:
    """Return True if there are voxels of which nothing is known."""
    return known is not None and not np.all(known)


def _mask_row(
    prediction: ArrayLike, truth: ArrayLike, spacing: Sequence[float], known: ArrayLike | None, *, sparse: bool
) -> dict[str, float | int | bool]:
    """Return the scores of a mask; if `sparse`, only those that count the known voxels."""
    found, true = mask_pair(prediction, truth)
    pair = MaskPair(found, true, check_spacing(spacing), known)
    scores = {
        key: score.function(pair)
        for key, score in SCORES.items()
        if score.compares == "masks" and (score.counts_voxels or not sparse)
    }
    found, true = known_pair(found, true, known)
    return {**scores, "failed": bool(found.any() != true.any())}
