"""Every voxel score of one volume, and of a set of samples."""

from collections.abc import Mapping, Sequence

from numpy.typing import ArrayLike

from neurokd.data.datasets import Sample
from neurokd.evaluation.report import Report
from neurokd.evaluation.surface import hd95
from neurokd.evaluation.topology import betti_errors, cldice
from neurokd.evaluation.voxels import dice, mask_pair, precision, recall

__all__ = ["evaluate_masks", "evaluate_samples"]


def evaluate_masks(
    prediction: ArrayLike, truth: ArrayLike, *, spacing: Sequence[float]
) -> dict[str, float | int | bool]:
    """Every voxel score of one volume.

    Parameters
    ----------
    prediction, truth
        (z, y, x) masks as in :func:`dice`.
    spacing
        Voxel size `(z, y, x)`, µm.

    Returns
    -------
    dict
        `dice`, `precision`, `recall`, `cldice` in [0, 1]; `hd95` in µm, as :func:`hd95` defines it; `betti0_error`,
        `betti1_error` of :func:`betti_errors`; `failed`: exactly one of the masks is empty, so that `hd95` is the
        volume's diagonal.

    Raises
    ------
    ValueError
        As :func:`hd95`.
    """
    prediction, truth = mask_pair(prediction, truth)
    components, tunnels = betti_errors(prediction, truth)
    return {
        "dice": dice(prediction, truth),
        "precision": precision(prediction, truth),
        "recall": recall(prediction, truth),
        "cldice": cldice(prediction, truth),
        "hd95": hd95(prediction, truth, spacing=spacing),
        "betti0_error": components,
        "betti1_error": tunnels,
        "failed": bool(prediction.any() != truth.any()),
    }


def evaluate_samples(samples: Sequence[Sample], predictions: Mapping[str, ArrayLike], *, title: str = "") -> Report:
    """Every voxel score of every sample.

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
    rows = []
    for sample in samples:
        if sample.mask is None or sample.spacing is None:
            raise ValueError(f"sample {sample.name!r} needs a mask and a spacing to be evaluated")
        scores = evaluate_masks(predictions[sample.name], sample.mask, spacing=sample.spacing)
        rows.append({"name": sample.name, **scores})
    return Report(rows, title=title)
