"""The one intensity scale: raw voxels of any stack to [0, 1], from one histogram of the whole stack.

                 fill   black                                white
    raw  ---------|-------|------- noise -------- neurites ----|----- soma, hot voxels
    scaled        0       0                                    1

Black and white must not depend on single voxels or on how much of the stack is empty. Hot and dead voxels are
replaced, and the fill (zeros around a cut-out neuron, the border of a rotated stack) is left out. Level and
noise of the background come from its mode and from the voxels below the mode, where there are no neurites.
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
_CUT = 0.9  # a fill of this share means that the background was cut away, not that the stack has a border
_TYPICAL = 8  # white is at most this many times as far above the background as the median signal


@dataclass(frozen=True)
class IntensityScale:
    """Which raw values become 0 and 1; one for a whole stack, however it is cut into blocks.

    Parameters
    ----------
    black, white
        The values that become 0 and 1; what lies outside is clipped.
    fill
        The value of voxels where nothing was recorded, not above `black`; None where there are none.
    low, high
        Only voxels below and above these can be dead or hot: the percentiles 1 and 99 of all voxels.

    Raises
    ------
    ValueError
        Black that is not below white, or a fill above black.

    Examples
    --------
    A stack that does not fit into memory is read twice, here in two blocks of 50 slices, the second time with
    a margin of two slices:

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
        """Find the scale of a whole volume (z, y, x); single hot and dead voxels do not count.

        ``ValueError`` where it is no volume, or constant. Where only hot and dead voxels differ from a
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

        The mode of the voxels above the fill is the level of the background; the median distance of the
        voxels below the mode gives its standard deviation. Black lies three standard deviations below the
        level. White is the 99.95th percentile, with two bounds. It is at most eight times as far above the
        level as the median signal (all above 5 standard deviations), so that a soma does not leave the
        neurites dark. It is at least 10 standard deviations above, so that noise alone does not become
        bright. Where nothing is left of the background, black is the fill. ``ValueError`` where all voxels
        are alike.
        """
        if len(histogram.bins) == 1:
            raise ValueError(f"volume is constant: every voxel is {histogram.quantile(1):g}")
        fill, rest = _split_fill(histogram)
        values = rest.values
        least = float(values[0]) if fill is None else fill
        low, high = histogram.quantile(0.01), histogram.quantile(0.99)
        if len(values) == 2 and fill is None:  # a mask
            return cls(*values.tolist(), low=low, high=high)
        empty = 1 - rest.size / histogram.size
        top = rest.quantile(0.9995 if empty < _CUT else 0.995)  # few voxels are left of a cut-out neuron
        level, noise = _background(rest)
        if fill is not None:
            no_lower_half = rest.part(values < level).size < 0.1 * rest.size
            nothing_higher = top <= level + 10 * noise
            if no_lower_half or (nothing_higher and (empty >= _CUT or level - 3 * noise <= fill)):
                level, noise = fill, 0.0  # no background is left: what is above the fill is signal
        signal = values > level + 5 * noise
        white = top
        if signal.any():
            white = min(top, level + _TYPICAL * (rest.part(signal).quantile(0.5) - level))
        return cls(max(least, level - 3 * noise), max(white, level + 10 * noise), fill, low, high)

    def is_fill(self, volume: ArrayLike) -> NDArray[np.bool_]:
        """Mark the raw voxels (z, y, x) at which nothing was recorded: those not above the fill."""
        volume = np.asarray(volume)
        return np.zeros(volume.shape, bool) if self.fill is None else volume <= self.fill


def scale_intensity(volume: ArrayLike, *, scale: IntensityScale | None = None) -> NDArray[np.float32]:
    """Scale intensities to [0, 1], in training and in inference alike.

    Hot and dead voxels are replaced (:func:`repair_voxels`). An offset or a gain of the whole stack, its type
    and a border do not change the result. What is at the fill becomes 0.

    Parameters
    ----------
    volume
        Raw voxels ``z y x`` of any real type.
    scale
        The scale of the stack that `volume` is a block of; None where it is the whole stack.

    Returns
    -------
    NDArray[float32]
        (z, y, x) in [0, 1].

    Raises
    ------
    ValueError
        Not a volume, not finite, or the same value everywhere.
    """
    volume = check_volume(volume)
    scale = scale or IntensityScale.from_volume(volume)
    mended = repair_voxels(volume, low=scale.low, high=scale.high)
    scaled = mended.astype(np.result_type(volume, np.float32))  # float64 only where float32 is too coarse
    scaled -= scale.black
    scaled /= scale.white - scale.black
    return np.clip(scaled, 0, 1, out=scaled).astype(np.float32, copy=False)


def _split_fill(histogram: Histogram) -> tuple[float | None, Histogram]:
    """Take the fill off a histogram: its value, or None, and the histogram of all that is above.

    Fill is a value that many voxels hold, that at most one voxel in a thousand is below, and whose next value
    is rare. Above a border (at least 1 % of the voxels) there may be a background set to zero (at least 10
    %).
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
    """Return the least distance of two values, in integer stacks a grey level; 0 where there is one value."""
    return float(np.diff(histogram.values).min()) if len(histogram.bins) > 1 else 0.0


def _background(histogram: Histogram) -> tuple[float, float]:
    """Return level and noise of the background: the mode, and the deviation of the voxels below it."""
    level = _mode(histogram.values, histogram.counts)
    below = histogram.values < level
    noise = _SIGMA * (level - histogram.part(below).quantile(0.5)) if below.any() else 0.0
    return level, max(noise, _step(histogram))  # in dark stacks of 8 bits, most background voxels are alike


def _mode(values: NDArray[np.float64], counts: NDArray[np.int64]) -> float:
    """Return the mode: the median of the densest eighth of the voxels, found by halving three times.

    Each time, the shortest interval that holds half of the voxels is kept (the half-sample mode). It needs no
    width of bins, so gain and offset carry over exactly.
    """
    for _ in range(3):
        reached = np.concatenate([[0], np.cumsum(counts)])  # voxels below each value, and all of them
        end = np.searchsorted(reached, reached[:-1] + reached[-1] / 2)
        start = np.flatnonzero(end < len(reached))
        end = end[start]
        best = np.lexsort((reached[start] - reached[end], values[end - 1] - values[start]))[0]
        values, counts = values[start[best] : end[best]], counts[start[best] : end[best]]
    return float(values[np.searchsorted(np.cumsum(counts), counts.sum() / 2)])
