"""Is one method better than another? The mean of paired differences, and how far chance may have moved it.

Some neurons are hard for every method, so two means swing together; their difference, volume by volume, does not::

    a (seeds, volumes) --+
                         +--> a - b --mean--> difference
    b (seeds, volumes) --+      |
                                +--draw seeds and volumes anew--> interval
"""

import numpy as np
from numpy.typing import ArrayLike

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

    Seeds and volumes are drawn anew together, which errs to the wide side (the pigeonhole bootstrap, Owen 2007,
    doi:10.1214/07-AOAS122). With fewer than about ten volumes percentiles are too narrow all the same, and with one
    seed the interval knows nothing of seeds.

    Parameters
    ----------
    a, b
        Scores (volumes,) or (seeds, volumes), finite; the same place in both is the same volume and seed. Of a method
        without seeds (volumes,) or (1, volumes), which is compared with every seed of the other.
    relative
        In per cent of the mean of b, ``100 (mean a / mean b - 1)``, instead of in the scores' own unit.
    confidence
        Of the interval, in (0, 1).
    n_bootstrap
        How often is drawn, at least 1.
    seed
        Of the draws.

    Returns
    -------
    mean, low, high
        The difference and the bounds of its interval (percentiles of the draws).

    Raises
    ------
    ValueError
        Shapes that do not pair, fewer than two pairs, scores that are not finite, a setting out of range, or a
        relative difference to scores that are not all positive.

    Examples
    --------
    >>> paired_difference([3, 5, 9], [2, 4, 8])  # always 1, whatever is drawn
    (1.0, 1.0, 1.0)
    """
    a, b = (np.atleast_2d(np.asarray(scores, dtype=np.float64)) for scores in (a, b))
    if a.ndim != 2 or b.ndim != 2 or a.shape[1] != b.shape[1] or (len(a) != len(b) and 1 not in (len(a), len(b))):
        raise ValueError(f"a and b must be (seeds, volumes) of the same volumes and seeds, got {a.shape} and {b.shape}")
    a, b = np.broadcast_arrays(a, b)
    if a.size < 2:
        raise ValueError(f"a difference needs at least two pairs to have an interval, got {a.size}")
    if not (np.isfinite(a).all() and np.isfinite(b).all()):
        raise ValueError("scores must be finite; count a volume in which nothing was found with its worst score")
    if not 0 < confidence < 1 or n_bootstrap < 1:
        raise ValueError(f"confidence must be in (0, 1) and n_bootstrap >= 1, got {confidence} and {n_bootstrap}")
    if relative and not (b > 0).all():
        raise ValueError(f"a relative difference needs scores b that are all positive, got {b.min():g}")
    rng = np.random.default_rng(seed)
    # How often each seed and each volume is drawn: the mean of a draw is a product of counts.
    seeds, volumes = (rng.multinomial(n, np.full(n, 1 / n), size=n_bootstrap) / n for n in a.shape)

    def means(scores: np.ndarray) -> np.ndarray:
        return ((seeds @ scores) * volumes).sum(axis=1)

    if relative:
        middle, drawn = 100 * (a.mean() / b.mean() - 1), 100 * (means(a) / means(b) - 1)
    else:
        middle, drawn = (a - b).mean(), means(a - b)
    tail = 50 * (1 - confidence)
    low, high = np.percentile(drawn, (tail, 100 - tail))
    return float(middle), float(low), float(high)
