"""Volumes as at most 256 grey levels, on which thresholds, Dice and projections of slabs are quick.

volume --grey_levels--> codes uint8, levels        codes > k  exactly where  volume > levels[k]
|--dice_by_level--> Dice at every level, from two histograms
+--Slabs--> maximum along z, y or x over some slices
"""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
from einops import rearrange
from numpy.typing import NDArray

__all__ = ["Axis", "Slabs", "dice_by_level", "grey_levels", "resample"]

Axis = Literal["z", "y", "x"]


def grey_levels(volume: NDArray[Any]) -> tuple[NDArray[np.uint8], NDArray[Any]]:
    """Round a volume up to the next of at most 256 levels, so that every level is an exact threshold.

    Parameters
    ----------
    volume
        Checked volume ``z y x``. uint8 and booleans are taken as they are, without a copy.

    Returns
    -------
    codes : NDArray[uint8]
        Codes ``z y x``; ``codes > k`` exactly where ``volume > levels[k]``.
    levels : NDArray
        Levels (n,), ascending, in the type of the volume, the last not below its maximum. Values in [0, 1]
        get steps of 0.005; others get finer steps where it is dim, for neurites are much dimmer than the
        soma.
    """
    if volume.dtype == bool:
        return volume.view(np.uint8), np.zeros(1, np.uint8)
    least, most = volume.min(), volume.max()
    if volume.dtype == np.uint8:
        return volume, np.arange(int(most) + 1, dtype=np.uint8)
    if volume.dtype.kind == "f" and least >= 0 and most <= 1:
        levels = np.linspace(0, 1, 201)
    else:
        levels = float(least) + (float(most) - float(least)) * np.linspace(0, 1, 255) ** 2
        levels[-1] = most
    levels = np.unique(levels.astype(volume.dtype))
    codes = np.empty(volume.shape, np.uint8)
    for place, part in zip(codes, volume, strict=True):  # by slices: the intermediate is 8 times larger
        place[:] = np.searchsorted(levels, part)
    return codes, levels


def dice_by_level(codes: NDArray[np.uint8], truth: NDArray[np.bool_], n_levels: int) -> NDArray[np.float64]:
    """Return the foreground Dice of ``codes > k`` for all k below `n_levels`; 1 if both masks are empty."""
    everywhere, inside = np.zeros(256, np.int64), np.zeros(256, np.int64)
    for part, true in zip(codes, truth, strict=True):
        everywhere += np.bincount(part.ravel(), minlength=256)
        inside += np.bincount(part[true], minlength=256)
    marked, found = (count.sum() - np.cumsum(count)[:n_levels] for count in (everywhere, inside))
    both = marked + inside.sum()
    return np.divide(2 * found, both, out=np.ones(n_levels), where=both > 0)


class Slabs:
    """Project slabs of one volume along any axis, by their maximum.

    It holds a second copy of the volume with x first, since a maximum along the last axis of an array is
    slow.

    Parameters
    ----------
    codes
        Volume ``z y x``, uint8 or boolean; also an attribute.
    """

    def __init__(self, codes: NDArray[Any]) -> None:
        self.codes = codes
        self._x_first = np.ascontiguousarray(rearrange(codes, "z y x -> x y z"))
        self._last: dict[Axis, tuple[tuple[int, int], NDArray[Any]]] = {}

    def project(self, axis: Axis, low: int, high: int) -> NDArray[Any]:
        """Return the maximum over slices `low` to `high` - 1, along z ``y x``, along y ``z x``, along x ``y z``."""
        if axis not in self._last or self._last[axis][0] != (low, high):
            if axis == "y":
                plane = self.codes[:, low:high].max(axis=1)
            else:
                plane = (self.codes if axis == "z" else self._x_first)[low:high].max(axis=0)
            self._last[axis] = (low, high), plane
        return self._last[axis][1]


def resample(array: NDArray[Any], shape: tuple[int, ...]) -> NDArray[Any]:
    """Return an array in another shape: it grows by repeated values, and shrinks to the maximum of each bin."""
    for axis, (old, new) in enumerate(zip(array.shape, shape, strict=True)):
        if old != new:
            array = np.maximum.reduceat(array, np.arange(new) * old // new, axis=axis)
    return array
