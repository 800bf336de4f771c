"""The one intensity scale: it maps raw voxels to [0, 1], from the histogram of the whole stack.

                 fill   black                                white
    raw  ---------|-------|------- noise -------- neurites ----|----- soma, hot voxels
    scaled        0       0                                    1

Black and white must not depend on single voxels or on how much of the stack is empty. So hot and dead voxels
are replaced, and the fill (zeros around a cut-out neuron, the border of a rotated stack) is left out. The
mode of the background gives its level. The voxels below the mode, which hold no neurites, give its noise.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from neurokd.data.histogram import Histogram
from neurokd.data.repair import repair_voxels
from neurokd.data.volume import check_volume

__all__ = ["IntensityScale", "scale_intensity"]

_SIGMA = 1.4826  # standard deviation of a normal distribution / its median absolute deviation
_CUT = 0.9  # with this share of fill, the background was cut away; with less, the stack may have a border
_TYPICAL = 8  # largest height of white above the background, in heights of the median signal


@dataclass(frozen=True)
class IntensityScale:
    """The raw values that become 0 and 1. All blocks of a stack share one scale.

    Parameters
    ----------
    black, white
        Raw values that become 0 and 1; values outside are clipped.
    fill
        Value of the voxels at which nothing was recorded, not above `black`; None if there are none.
    low, high
        Percentiles 1 and 99 of all voxels. Only voxels below `low` can be dead, only voxels above `high` hot.

    Raises
    ------
    ValueError
        If `black` is not below `white`, or `fill` is above `black`.

    Examples
    --------
    A stack that does not fit into memory is read twice, here in two blocks of 50 slices. The second time,
    each block has a margin of two slices:

    >>> count = Histogram.from_volume
    >>> draft = IntensityScale.from_histogram(count(stack[:50]) + count(stack[50:]))
    >>> first = repair_voxels(stack[:52], low=draft.low, high=draft.high)[:50]
    >>> last = repair_voxels(stack[48:], low=draft.low, high=draft.high)[2:]
    >>> scale = IntensityScale.from_histogram(count(first) + count(last))
    >>> scaled = scale_intensity(stack[:52], scale=scale)[:50]
    """

    black: float
    white: float
    fill: float | None = None
    low: float = -np.inf
    high: float = np.inf

    def __post_init__(self) -> None:
        if not self.black < self.white:
            raise ValueError(f"black must be below white, got {self.black} and {self.white}")
        if self.fill is not None and self.fill > self.black:
            raise ValueError(f"fill must be at most black = {self.black}, got {self.fill}")

    @classmethod
    def from_volume(cls, volume: ArrayLike) -> IntensityScale:
        """Find the scale of a whole volume (z, y, x), without its hot and dead voxels.

        Raises ``ValueError`` if it is not a volume, or is constant. If only hot and dead voxels differ from a
        constant, black is that constant.
        """
        volume = check_volume(volume)
        draft = cls.from_histogram(Histogram.from_volume(volume))
        mended = Histogram.from_volume(repair_voxels(volume, low=draft.low, high=draft.high))
        if len(mended.bins) == 1:
            level = mended.quantile(1)
            return cls(level, max(float(volume.max()), level + 1), level, draft.low, draft.high)
        return cls.from_histogram(mended)

    @classmethod
    def from_histogram(cls, histogram: Histogram) -> IntensityScale:
        """Find the scale in the histogram of a whole stack whose hot and dead voxels were replaced.

        The mode of the voxels above the fill is the level of the background. The median distance of the
        voxels below the mode gives its standard deviation. Black is three standard deviations below the
        level. White is the 99.95th percentile, within two bounds. White is at most eight times as far above
        the level as the median signal (signal: all above 5 standard deviations), so that a bright soma does
        not make the neurites dark. White is at least 10 standard deviations above the level, so that noise
        alone does not look bright. If no background is left, black is the fill. Raises ``ValueError`` if all
        voxels are equal.
        """
        if len(histogram.bins) == 1:
            raise ValueError(f"volume is constant: every voxel is {histogram.quantile(1):g}")
        fill, rest = _split_fill(histogram)
        values = rest.values
        least = float(values[0]) if fill is None else fill
        low, high = histogram.quantile(0.01), histogram.quantile(0.99)
        if len(values) == 2 and fill is None:  # a mask
            return cls(float(values[0]), float(values[1]), low=low, high=high)
        empty = 1 - rest.size / histogram.size
        top = rest.quantile(0.9995 if empty < _CUT else 0.995)  # a cut-out neuron leaves few voxels
        level, noise = _background(rest)
        if fill is not None:
            no_lower_half = rest.part(values < level).size < 0.1 * rest.size
            nothing_higher = top <= level + 10 * noise
            if no_lower_half or (nothing_higher and (empty >= _CUT or level - 3 * noise <= fill)):
                level, noise = fill, 0.0  # no background is left, so all above the fill is signal
        signal = values > level + 5 * noise
        white = top
        if signal.any():
            white = min(top, level + _TYPICAL * (rest.part(signal).quantile(0.5) - level))
        return cls(max(least, level - 3 * noise), max(white, level + 10 * noise), fill, low, high)

    def is_fill(self, volume: ArrayLike) -> NDArray[np.bool_]:
        """Mark the raw voxels (z, y, x) at which nothing was recorded: those at or below the fill."""
        volume = np.asarray(volume)
        return np.zeros(volume.shape, bool) if self.fill is None else volume <= self.fill


def scale_intensity(volume: ArrayLike, *, scale: IntensityScale | None = None) -> NDArray[np.float32]:
    """Scale intensities to [0, 1]; training and inference both use this function.

    Hot and dead voxels are replaced (:func:`repair_voxels`). The result does not depend on an offset or a
    gain of the whole stack, on its type, or on a border. The fill becomes 0.

    Parameters
    ----------
    volume
        Raw voxels ``z y x`` of any real type.
    scale
        Scale of the whole stack if `volume` is a block of it; None if `volume` is the whole stack.

    Returns
    -------
    NDArray[float32]
        (z, y, x) in [0, 1].

    Raises
    ------
    ValueError
        If `volume` is not a volume, is not finite, or is constant.
    """
    volume = check_volume(volume)
    scale = scale or IntensityScale.from_volume(volume)
    mended = repair_voxels(volume, low=scale.low, high=scale.high)
    scaled = mended.astype(np.result_type(volume, np.float32))  # float64 only where float32 is too coarse
    scaled -= scale.black
    scaled /= scale.white - scale.black
    return np.clip(scaled, 0, 1, out=scaled).astype(np.float32, copy=False)


def _split_fill(histogram: Histogram) -> tuple[float | None, Histogram]:
    """Return the fill of a histogram (or None) and the histogram of all values above it.

    The fill is a value that many voxels have, while the next higher value is rare and at most one voxel in a
    thousand is lower. There may be two fills: a border (at least 1 % of the voxels) and, above it, a
    background that was set to zero (at least 10 %).
    """
    fill, rest = None, histogram
    for share in (0.01, 0.1):
        values, counts = rest.values, rest.counts
        lowest = int(np.searchsorted(np.cumsum(counts), rest.size / 1000, side="right"))
        if lowest + 1 >= len(values):
            break
        following = counts[lowest + 1] if values[lowest + 1] - values[lowest] < 1.5 * _step(histogram) else 0
        if counts[lowest] < max(share * histogram.size, 4 * following):
            break
        fill, rest = float(rest.tops[lowest]), rest.part(slice(lowest + 1, None))
    return fill, rest


def _step(histogram: Histogram) -> float:
    """Return the smallest distance of two values (a grey level in integer stacks); 0 for one value."""
    return float(np.diff(histogram.values).min()) if len(histogram.bins) > 1 else 0.0


def _background(histogram: Histogram) -> tuple[float, float]:
    """Return level and noise of the background: the mode, and the deviation of the voxels below it."""
    level = _mode(histogram.values, histogram.counts)
    lower = histogram.values < level
    noise = _SIGMA * (level - histogram.part(lower).quantile(0.5)) if lower.any() else 0.0
    return level, max(noise, _step(histogram))  # in dark 8-bit stacks most background voxels are equal


def _mode(values: NDArray[np.float64], counts: NDArray[np.int64]) -> float:
    """Return the mode: the median of the densest eighth of the voxels, found by halving three times.

    Each time, the shortest interval that holds half of the voxels is kept (the half-sample mode). This needs
    no bin width, so a gain or an offset of the stack changes the mode by exactly that.
    """
    for _ in range(3):
        reached = np.concatenate([[0], np.cumsum(counts)])  # voxels below each value, and all of them
        end = np.searchsorted(reached, reached[:-1] + reached[-1] / 2)
        start = np.flatnonzero(end < len(reached))
        end = end[start]
        best = np.lexsort((reached[start] - reached[end], values[end - 1] - values[start]))[0]
        values, counts = values[start[best] : end[best]], counts[start[best] : end[best]]
    return float(values[np.searchsorted(np.cumsum(counts), counts.sum() / 2)])
