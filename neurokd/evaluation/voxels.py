"""How well a mask fits the true one, and the threshold baseline that stands beside every score.

Only the foreground counts. Of a neuron's volume, 99.8 % are background, and a score that averages over it is
near 1 for any mask.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from neurokd.data.annotation import check_known
from neurokd.data.volume import check_mask, check_volume

__all__ = ["best_threshold", "dice", "precision", "recall"]


def as_mask(mask: ArrayLike, name: str) -> NDArray[np.bool_]:
    """Return a mask as contiguous booleans, see :func:`neurokd.data.volume.check_mask`."""
    return np.ascontiguousarray(check_mask(mask, name=name))


def mask_pair(prediction: ArrayLike, truth: ArrayLike) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Return both masks as booleans of one shape; else ``ValueError``."""
    found, true = as_mask(prediction, "prediction"), as_mask(truth, "truth")
    if found.shape != true.shape:
        raise ValueError(f"prediction and truth must have one shape (z, y, x), got {found.shape} and {true.shape}")
    return found, true


def known_pair(
    prediction: ArrayLike, truth: ArrayLike, known: ArrayLike | None
) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Return the known voxels of both masks, ``n`` of each; with ``known=None`` see :func:`mask_pair`."""
    found, true = mask_pair(prediction, truth)
    if known is None:
        return found, true
    chosen = check_known(known, shape=true.shape)
    return found[chosen], true[chosen]  # z y x -> n


def dice(prediction: ArrayLike, truth: ArrayLike, *, known: ArrayLike | None = None) -> float:
    """Return the foreground Dice, ``2 |P and T| / (|P| + |T|)``.

    Parameters
    ----------
    prediction, truth
        (z, y, x) masks, see :func:`neurokd.data.volume.check_mask`.
    known
        (z, y, x) boolean, the voxels that count; None: all.

    Returns
    -------
    float
        In [0, 1]; both empty = 1.

    Raises
    ------
    ValueError
        Masks of different shapes, without three axes, without voxels, or such as are none (threshold
        probabilities first).
    """
    return _overlap(*known_pair(prediction, truth, known))["dice"]


def precision(prediction: ArrayLike, truth: ArrayLike, *, known: ArrayLike | None = None) -> float:
    """Return the share of the predicted voxels that are true.

    Parameters
    ----------
    prediction, truth
        (z, y, x) masks, see :func:`neurokd.data.volume.check_mask`.
    known
        (z, y, x) boolean, the voxels that count; None: all.

    Returns
    -------
    float
        In [0, 1]; 0 for an empty prediction, unless the truth is empty, too: then 1.

    Raises
    ------
    ValueError
        See :func:`dice`.
    """
    return _overlap(*known_pair(prediction, truth, known))["precision"]


def recall(prediction: ArrayLike, truth: ArrayLike, *, known: ArrayLike | None = None) -> float:
    """Return the share of the true voxels that are predicted.

    Parameters
    ----------
    prediction, truth
        (z, y, x) masks, see :func:`neurokd.data.volume.check_mask`.
    known
        (z, y, x) boolean, the voxels that count; None: all.

    Returns
    -------
    float
        In [0, 1]; 0 for an empty truth, unless the prediction is empty, too: then 1.

    Raises
    ------
    ValueError
        See :func:`dice`.
    """
    return _overlap(*known_pair(prediction, truth, known))["recall"]


def best_threshold(
    volumes: Sequence[NDArray],
    masks: Sequence[NDArray],
    *,
    known: Sequence[NDArray | None] | None = None,
    n_candidates: int = 4096,
) -> float:
    """Find the t for which "intensity > t" has the highest mean foreground Dice: the threshold baseline.

    Choose it on validation volumes, scaled like the volumes it will be used on.

    Parameters
    ----------
    volumes
        Finite volumes (z, y, x).
    masks
        The true masks, one for each volume, as in :func:`dice`.
    known
        For each volume the voxels that count, boolean (z, y, x), or None for all. None counts all voxels of
        all volumes.
    n_candidates
        Largest number of thresholds to try. Every intensity that occurs is tried; if there are more than
        this, that many quantiles of them.

    Returns
    -------
    float
        The threshold t; the lowest of equally good ones.

    Raises
    ------
    ValueError
        There are no volumes, or not as many masks or known; something is not a volume or has NaN or infinity;
        a mask or known has another shape or is refused by :func:`dice`.
    """
    if len(volumes) == 0 or len(volumes) != len(masks):
        raise ValueError(f"masks must be as many as volumes, at least 1, got {len(masks)} and {len(volumes)}")
    known = [None] * len(volumes) if known is None else known
    if len(known) != len(volumes):
        raise ValueError(f"known must have one entry for each of {len(volumes)} volumes, got {len(known)}")
    intensities, foregrounds = [], []
    for i, (volume, mask, seen) in enumerate(zip(volumes, masks, known, strict=True)):
        volume, mask = check_volume(volume, name=f"volume {i}"), as_mask(mask, f"mask {i}")
        if mask.shape != volume.shape:
            raise ValueError(f"mask {i} must have the shape of volume {i}, {volume.shape}, got {mask.shape}")
        if seen is not None:
            seen = check_known(seen, shape=volume.shape, name=f"known {i}")
            volume, mask = volume[seen], mask[seen]  # z y x -> n
        intensities.append(np.sort(volume, axis=None))
        foregrounds.append(np.sort(volume[mask], axis=None))
    candidates = np.unique(np.concatenate([np.unique(values) for values in intensities]))
    if len(candidates) > n_candidates:
        candidates = candidates[np.linspace(0, len(candidates) - 1, n_candidates).astype(int)]

    def count_above(values: NDArray) -> NDArray:
        """Return how many of the sorted values are above each candidate."""
        return len(values) - np.searchsorted(values, candidates, side="right")

    scores = [
        _ratio(2 * count_above(foreground), count_above(values) + len(foreground))
        for values, foreground in zip(intensities, foregrounds, strict=True)
    ]
    return float(candidates[np.argmax(np.mean(scores, axis=0))])


def _overlap(prediction: NDArray[np.bool_], truth: NDArray[np.bool_]) -> dict[str, float]:
    """Return Dice, precision and recall."""
    hits, predicted, true = (int(np.count_nonzero(mask)) for mask in (prediction & truth, prediction, truth))
    both_empty = predicted + true == 0
    return {
        "dice": float(_ratio(2 * hits, predicted + true)),
        "precision": 1.0 if both_empty else hits / max(predicted, 1),
        "recall": 1.0 if both_empty else hits / max(true, 1),
    }


def _ratio(part: ArrayLike, whole: ArrayLike) -> NDArray[np.float64]:
    """Divide part by whole, where 0 / 0 is 1: nothing to find, nothing found."""
    part, whole = np.asarray(part, dtype=np.float64), np.asarray(whole, dtype=np.float64)
    return np.divide(part, whole, out=np.ones_like(whole), where=whole > 0)
