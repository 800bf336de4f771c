"""Volumes with at most 256 grey levels, for fast thresholds, Dice scores and projections of slabs::

    volume --grey_levels--> codes (uint8), levels
                              |--dice_by_level--> Dice at every level, from two histograms
                              +--Slabs--> maximum along z, y or x over some slices

The expression ``codes > k`` is true exactly where ``volume > levels[k]`` is.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from einops import rearrange
from numpy.typing import NDArray

__all__ = ["Slabs", "dice_by_level", "grey_levels", "resample"]


def grey_levels(volume: NDArray[Any]) -> tuple[NDArray[np.uint8], NDArray[Any]]:
    """Round a volume up to at most 256 levels, so that every level is an exact threshold.

    Parameters
    ----------
    volume
        Checked volume ``z y x``. uint8 and boolean volumes are neither rounded nor copied.

    Returns
    -------
    codes : NDArray[uint8]
        Codes ``z y x``; ``codes > k`` exactly where ``volume > levels[k]``.
    levels : NDArray
        Ascending levels (n,) in the type of the volume; the last one is not below its maximum. Floats in
        [0, 1] get steps of 0.005. Other values get finer steps for dim voxels, because neurites are much
        dimmer than the soma.
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
    for place, part in zip(codes, volume, strict=True):  # one slice at a time, because the indices are int64
        place[:] = np.searchsorted(levels, part)
    return codes, levels


def dice_by_level(codes: NDArray[np.uint8], truth: NDArray[np.bool_], n_levels: int) -> NDArray[np.float64]:
    """Return the foreground Dice of ``codes > k`` for all k below `n_levels`; 1 if both masks are empty."""
    everywhere, inside = np.zeros(256, np.int64), np.zeros(256, np.int64)
    for part, true in zip(codes, truth, strict=True):
        everywhere += np.bincount(part.ravel(), minlength=256)
        inside += np.bincount(part[true], minlength=256)
    # Numbers of voxels above each level, anywhere and inside the truth.
    marked, found = (count.sum() - np.cumsum(count)[:n_levels] for count in (everywhere, inside))
    both = marked + inside.sum()
    return np.divide(2 * found, both, out=np.ones(n_levels), where=both > 0)


class Slabs:
    """Project slabs of one volume along any axis by their maximum.

    A second copy of the volume has x as its first axis, because a maximum along the last axis is slow. The
    last projection along each axis is kept.

    Parameters
    ----------
    codes
        Volume ``z y x``, uint8 or boolean. It is also an attribute.
    """

    def __init__(self, codes: NDArray[Any]) -> None:
        self.codes = codes
        self._x_first = np.ascontiguousarray(rearrange(codes, "z y x -> x y z"))
        self._last: dict[str, tuple[tuple[int, int], NDArray[Any]]] = {}

    def project(self, axis: str, low: int, high: int) -> NDArray[Any]:
        """Return the maximum over slices `low` to `high` - 1: ``y x`` for z, ``z x`` for y, ``y z`` for x."""
        if axis not in self._last or self._last[axis][0] != (low, high):
            if axis == "y":
                plane = self.codes[:, low:high].max(axis=1)  # z x
            else:
                plane = (self.codes if axis == "z" else self._x_first)[low:high].max(axis=0)  # y x or y z
            self._last[axis] = (low, high), plane
        return self._last[axis][1]


def resample(array: NDArray[Any], shape: tuple[int, ...]) -> NDArray[Any]:
    """Resize an array: an axis grows by repeating values and shrinks to the maximum of each bin."""
    for axis, (old, new) in enumerate(zip(array.shape, shape, strict=True)):
        if old != new:
            # reduceat repeats a value where two bins start at the same index.
            array = np.maximum.reduceat(array, np.arange(new) * old // new, axis=axis)
    return array
