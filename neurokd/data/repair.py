"""Hot and dead voxels of a detector: found by their neighbours and replaced."""

from __future__ import annotations

from itertools import product

import numpy as np
from numpy.typing import ArrayLike, NDArray

from neurokd.data.volume import check_volume

__all__ = ["repair_voxels"]

_NEIGHBOURS = np.array([step for step in product((-1, 0, 1), repeat=3) if any(step)])
_SIGMA = 1.4826  # standard deviation of a normal distribution / its median absolute deviation
_FAR = 12  # standard deviations; from 26 voxels they come out down to 0.4 of what they are


def repair_voxels(volume: ArrayLike, *, low: float, high: float) -> NDArray:
    """Replace isolated hot and dead voxels, single or in pairs, by the median of their neighbours.

    A voxel is hot if it lies 12 robust standard deviations above the median of its 26 neighbours and none of them
    reaches half of its height above that median; or one does, but none of that one's other neighbours. Dead is
    the same upside down. A neurite of one voxel's thickness stays, because more voxels along it are as bright. The
    result depends only on voxels at most two away, `low` and `high`, so a block with a margin of two voxels gives
    the same as the whole stack.

    Parameters
    ----------
    volume
        Raw voxels (z, y, x).
    low, high
        Only voxels below and above these are examined: those of the stack's :class:`neurokd.IntensityScale`.

    Returns
    -------
    NDArray
        (z, y, x) of the same type; the volume itself where nothing is replaced.

    Raises
    ------
    ValueError
        Not a volume.
    """
    volume, mended = check_volume(volume), None
    for sign, suspect in ((1, volume > high), (-1, volume < low)):
        places = np.argwhere(suspect)
        for some in np.array_split(places, 1 + len(places) // 100_000):  # bounds the memory
            around = sign * _around(volume, some)  # n 26
            height = sign * volume[tuple(some.T)].astype(np.float64)
            middle = _median(around)
            half = ((height + middle) / 2)[:, None]
            far = height > middle + _FAR * _SIGMA * _median(np.abs(around - middle[:, None]))
            as_high = (around > half).sum(axis=1)
            pair = np.flatnonzero(far & (as_high == 1))
            partner = some[pair] + _NEIGHBOURS[(around[pair] > half[pair]).argmax(axis=1)]
            # the partner's only high neighbour is the voxel itself
            pair = pair[(sign * _around(volume, partner) > half[pair]).sum(axis=1) == 1]
            wrong = np.union1d(np.flatnonzero(far & (as_high == 0)), pair)
            if len(wrong):
                mended = volume.copy() if mended is None else mended
                mended[tuple(some[wrong].T)] = sign * middle[wrong]
    return volume if mended is None else mended


def _around(volume: NDArray, places: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return the 26 neighbours of voxels, ``n 26``; NaN outside of the volume."""
    around = np.full((len(places), len(_NEIGHBOURS)), np.nan)
    for k, step in enumerate(_NEIGHBOURS):
        at = places + step
        inside = ((at >= 0) & (at < volume.shape)).all(axis=1)
        around[inside, k] = volume[tuple(at[inside].T)]
    return around


def _median(rows: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the lower median of each row, one of its values; NaN, which sorts last, does not count."""
    known = (~np.isnan(rows)).sum(axis=1)
    return np.take_along_axis(np.sort(rows, axis=1), np.maximum(known - 1, 0)[:, None] // 2, axis=1)[:, 0]
