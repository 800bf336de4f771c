"""How well scores rank, before any threshold is chosen."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from neurokd.data.annotation import check_known
from neurokd.data.volume import foreground

__all__ = ["average_precision"]


def average_precision(scores: ArrayLike, truth: ArrayLike, *, known: ArrayLike | None = None) -> float:
    """Return the average precision, ``sum_k (R_k - R_{k-1}) P_k`` over all thresholds.

    This is the area under the steps of precision over recall. Unlike accuracy, it does not count the
    background: scores without information get the share of what is true.

    Parameters
    ----------
    scores
        Finite numbers of any shape, higher where "yes" is likelier: probabilities, logits, intensities. Equal
        scores count as one step, in whatever order they stand.
    truth
        Booleans of the same shape, or whole numbers of which 0 is "no"; at least one of them true.
    known
        Booleans of the same shape, True for the numbers that count; None counts all.

    Returns
    -------
    float
        In (0, 1]; 1 where all that is true comes first.

    Raises
    ------
    ValueError
        Shapes that differ, scores that are not finite, a truth that is no mask, a known that is not boolean,
        or either of them nowhere true.

    Examples
    --------
    >>> average_precision([0.9, 0.8, 0.1], np.array([True, False, True]))  # (1/1 + 2/3) / 2
    0.8333333333333333
    """
    scores, truth = np.asarray(scores), foreground(np.asarray(truth), name="truth")
    if truth.shape != scores.shape:
        raise ValueError(f"truth must have the shape of scores {scores.shape}, got {truth.shape}")
    if not np.isfinite(scores).all():
        raise ValueError(f"scores must be finite, got {np.count_nonzero(~np.isfinite(scores))} that are not")
    if known is not None:
        known = check_known(known, shape=truth.shape)
        scores, truth = scores[known], truth[known]  # any shape -> n
    if not truth.any():
        raise ValueError("truth must be true somewhere, got none: precision and recall are not defined")
    order = np.argsort(scores, axis=None)[::-1]
    ranked = scores.ravel()[order]  # highest first
    last = np.append(np.flatnonzero(ranked[1:] != ranked[:-1]), ranked.size - 1)  # ends of equal scores
    hits = np.cumsum(truth.ravel()[order])[last]
    return float(np.sum(np.diff(hits, prepend=0) * hits / (last + 1)) / hits[-1])
