"""Every voxel score of one volume, and of a set of samples.

Where only some voxels are annotated, only the scores that count voxels are given. Surface distances, skeletons and
Betti numbers depend on a neurite's course beyond the annotated slices, which nobody drew: cut to the slices they
would be numbers of other objects.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import ArrayLike

from neurokd.data.datasets import Sample
from neurokd.data.volume import check_spacing
from neurokd.evaluation.report import Report
from neurokd.evaluation.surface import hd95
from neurokd.evaluation.topology import betti_errors, cldice
from neurokd.evaluation.voxels import dice, known_pair, mask_pair, precision, recall

__all__ = ["evaluate_masks", "evaluate_samples"]


def evaluate_masks(
    prediction: ArrayLike, truth: ArrayLike, *, spacing: Sequence[float], known: ArrayLike | None = None
) -> dict[str, float | int | bool]:
    """Return every voxel score of one volume.

    Parameters
    ----------
    prediction, truth
        (z, y, x) masks as in :func:`dice`.
    spacing
        Voxel size `(z, y, x)`, µm.
    known
        (z, y, x) boolean, the voxels that somebody annotated; None: all.

    Returns
    -------
    dict
        `dice`, `precision`, `recall`, `cldice` in [0, 1]; `hd95` in µm, as :func:`hd95` defines it; `betti0_error`,
        `betti1_error` of :func:`betti_errors`; `failed`: exactly one of the masks is empty, so that `hd95` is the
        volume's diagonal. Where `known` is False anywhere: `dice`, `precision`, `recall` and `failed` of the known
        voxels alone.

    Raises
    ------
    ValueError
        See :func:`hd95`; a `known` that is not boolean, of another shape or nowhere true.
    """
    prediction, truth = mask_pair(prediction, truth)
    spacing, voxels = check_spacing(spacing), _voxel_scores(prediction, truth, known)
    if _is_sparse(known):
        return voxels
    components, tunnels = betti_errors(prediction, truth)
    failed = voxels.pop("failed")
    return {
        **voxels,
        "cldice": cldice(prediction, truth),
        "hd95": hd95(prediction, truth, spacing=spacing),
        "betti0_error": components,
        "betti1_error": tunnels,
        "failed": failed,
    }


def evaluate_samples(samples: Sequence[Sample], predictions: Mapping[str, ArrayLike], *, title: str = "") -> Report:
    """Return every voxel score of every sample.

    If any sample has voxels that are not known, the report holds the scores that count voxels, for all of them.

    Parameters
    ----------
    samples
        With masks and spacing.
    predictions
        A mask for each sample, by its name; an empty one where nothing was found.
    title
        Of the report, such as the method's name.

    Returns
    -------
    Report
        One row for each sample, in their order.

    Raises
    ------
    ValueError
        No samples, two of one name, one without mask, spacing or prediction, a prediction that belongs to none, or as
        :func:`evaluate_masks`.
    """
    names = [sample.name for sample in samples]
    if set(names) != set(predictions):
        missing, surplus = sorted(set(names) - set(predictions)), sorted(set(predictions) - set(names))
        raise ValueError(f"samples and predictions differ: no prediction for {missing}, no sample for {surplus}")
    sparse = any(_is_sparse(sample.known) for sample in samples)
    rows = []
    for sample in samples:
        if sample.mask is None or sample.spacing is None:
            raise ValueError(f"sample {sample.name!r} needs a mask and a spacing to be evaluated")
        prediction = predictions[sample.name]
        if sparse:
            scores = _voxel_scores(prediction, sample.mask, sample.known)
        else:
            scores = evaluate_masks(prediction, sample.mask, spacing=sample.spacing)
        rows.append({"name": sample.name, **scores})
    return Report(rows, title=title)


def _is_sparse(known: ArrayLike | None) -> bool:
    """Return whether there are voxels of which nothing is known."""
    return known is not None and not np.all(known)


def _voxel_scores(prediction: ArrayLike, truth: ArrayLike, known: ArrayLike | None) -> dict[str, float | bool]:
    """Return the scores that count voxels, of the known voxels alone, and whether exactly one mask is empty there."""
    seen, true = known_pair(prediction, truth, known)
    scores = {score.__name__: score(prediction, truth, known=known) for score in (dice, precision, recall)}
    return {**scores, "failed": bool(seen.any() != true.any())}
