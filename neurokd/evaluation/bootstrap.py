"""How far chance may have moved a mean: bootstrap intervals of means and of differences between methods.

Some neurons are hard for every method, so two means swing together; their difference, volume by volume, does
not::

    a (seeds, volumes) --+
                         +--> a - b --mean--> difference
    b (seeds, volumes) --+      |
                                +--draw seeds and volumes anew--> interval
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

__all__ = ["paired_difference"]


def paired_difference(
    a: ArrayLike,
    b: ArrayLike,
    *,
    relative: bool = False,
    confidence: float = 0.95,
    n_bootstrap: int = 10_000,
    seed: int = 0,
) -> tuple[float, float, float]:
    """Return the mean paired difference a - b and its bootstrap interval.

    Seeds and volumes are drawn anew together, which errs to the wide side (the pigeonhole bootstrap, Owen
    2007, doi:10.1214/07-AOAS122). With fewer than about ten volumes percentiles are too narrow all the same,
    and with one seed the interval knows nothing of seeds.

    Parameters
    ----------
    a, b
        Scores (volumes,) or (seeds, volumes), finite; the same place in both is the same volume and seed. A
        method without seeds has the shape (volumes,) or (1, volumes) and is compared with every seed of the
        other.
    relative
        Return the difference in per cent of the mean of b, ``100 (mean a / mean b - 1)``, instead of in the
        scores' own unit.
    confidence
        Confidence of the interval, in (0, 1).
    n_bootstrap
        Number of draws, at least 1.
    seed
        Seed of the draws.

    Returns
    -------
    mean, low, high
        The difference and the bounds of its interval (percentiles of the draws).

    Raises
    ------
    ValueError
        Shapes that do not pair, fewer than two pairs, scores that are not finite, a setting out of range, or
        a relative difference to scores that are not all positive.

    Examples
    --------
    >>> paired_difference([3, 5, 9], [2, 4, 8])  # always 1, whatever is drawn
    (1.0, 1.0, 1.0)
    """
    a, b = np.atleast_2d(np.asarray(a, dtype=np.float64)), np.atleast_2d(np.asarray(b, dtype=np.float64))
    seeds_differ = len(a) != len(b) and 1 not in (len(a), len(b))
    if a.ndim != 2 or b.ndim != 2 or a.shape[1] != b.shape[1] or seeds_differ:
        raise ValueError(f"a and b must have the same volumes and seeds, got shapes {a.shape} and {b.shape}")
    a, b = np.broadcast_arrays(a, b)
    if a.size < 2:
        raise ValueError(f"a and b must have at least two pairs for an interval, got {a.size}")
    if not (np.isfinite(a).all() and np.isfinite(b).all()):
        raise ValueError("a and b must be finite, got NaN or infinity; give a failed volume its worst score")
    check_draws(confidence, n_bootstrap)
    if relative and not (b > 0).all():
        raise ValueError(f"b must be all positive for a relative difference, got {b.min():g}")
    rng = np.random.default_rng(seed)
    seeds, volumes = (draw_weights(rng, n, n_bootstrap) for n in a.shape)  # (draws, seeds), (draws, volumes)

    def means(scores: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the mean of each draw: both kinds of weights multiply."""
        return ((seeds @ scores) * volumes).sum(axis=1)

    if relative:
        middle, drawn = 100 * (a.mean() / b.mean() - 1), 100 * (means(a) / means(b) - 1)
    else:
        middle, drawn = (a - b).mean(), means(a - b)
    low, high = percentile_interval(drawn, confidence)
    return float(middle), float(low), float(high)


def check_draws(confidence: float, n_bootstrap: int) -> None:
    """Raise ``ValueError`` if one of the two settings of a bootstrap is out of range."""
    if not 0 < confidence < 1:
        raise ValueError(f"confidence must be in (0, 1), got {confidence}")
    if n_bootstrap < 1:
        raise ValueError(f"n_bootstrap must be >= 1, got {n_bootstrap}")


def draw_weights(rng: np.random.Generator, n: int, n_bootstrap: int) -> NDArray[np.float64]:
    """Draw n things with replacement, many times; return their weights in each mean, (draws, n)."""
    return rng.multinomial(n, np.full(n, 1 / n), size=n_bootstrap) / n


def percentile_interval(drawn: NDArray[np.float64], confidence: float) -> NDArray[np.float64]:
    """Return the two bounds between which this share of the draws lies, (2, ...) from (draws, ...)."""
    tail = 50 * (1 - confidence)
    return np.percentile(drawn, (tail, 100 - tail), axis=0)
