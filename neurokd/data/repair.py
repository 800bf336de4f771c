"""Hot and dead voxels of a detector are found by their neighbours and replaced."""

from __future__ import annotations

from itertools import product

import numpy as np
from numpy.typing import ArrayLike, NDArray

from neurokd.data.volume import check_volume

__all__ = ["repair_voxels"]

_NEIGHBOURS = np.array([step for step in product((-1, 0, 1), repeat=3) if any(step)])
_SIGMA = 1.4826  # standard deviation of a normal distribution / its median absolute deviation
_FAR = 12  # standard deviations; estimated from 26 voxels, they can be as small as 0.4 of the true value


def repair_voxels(volume: ArrayLike, *, low: float, high: float) -> NDArray:
    """Replace isolated hot and dead voxels, single or in pairs, by the median of their neighbours.

    A voxel is hot if it lies 12 robust standard deviations above the median of its 26 neighbours, and no
    neighbour reaches half of its height above that median. Two hot voxels may be neighbours: one neighbour
    may reach that height if no other neighbour of that one does. Dead voxels are found in the same way below
    the median. A neurite that is one voxel thick stays, because more of its voxels are bright. The result for
    a voxel depends only on `low`, `high` and voxels at most two away. So a block with a margin of two voxels
    gives the same result as the whole stack.

    Parameters
    ----------
    volume
        Raw voxels (z, y, x).
    low, high
        Only voxels below `low` and above `high` are examined. Take them from the stack's
        :class:`neurokd.IntensityScale`.

    Returns
    -------
    NDArray
        Repaired volume (z, y, x) of the same type; the volume itself if nothing is replaced.

    Raises
    ------
    ValueError
        If `volume` is not a volume.
    """
    volume, mended = check_volume(volume), None
    # Dead voxels are hot in the negative of the volume.
    for sign, suspect in ((1, volume > high), (-1, volume < low)):
        places = np.argwhere(suspect)
        for some in np.array_split(places, 1 + len(places) // 100_000):  # bounds the memory
            near = sign * _neighbours(volume, some)  # n 26
            height = sign * volume[tuple(some.T)].astype(np.float64)
            middle = _median(near)
            half = ((height + middle) / 2)[:, None]
            far = height > middle + _FAR * _SIGMA * _median(np.abs(near - middle[:, None]))
            as_high = (near > half).sum(axis=1)
            pair = np.flatnonzero(far & (as_high == 1))
            partner = some[pair] + _NEIGHBOURS[(near[pair] > half[pair]).argmax(axis=1)]
            # The partner's only high neighbour must be the voxel itself.
            pair = pair[(sign * _neighbours(volume, partner) > half[pair]).sum(axis=1) == 1]
            wrong = np.union1d(np.flatnonzero(far & (as_high == 0)), pair)
            if len(wrong):
                mended = volume.copy() if mended is None else mended
                mended[tuple(some[wrong].T)] = sign * middle[wrong]
    return volume if mended is None else mended


def _neighbours(volume: NDArray, places: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return the values of the 26 neighbours of each voxel, ``n 26``; NaN outside the volume."""
    near = np.full((len(places), len(_NEIGHBOURS)), np.nan)
    for k, step in enumerate(_NEIGHBOURS):
        places_there = places + step
        inside = ((places_there >= 0) & (places_there < volume.shape)).all(axis=1)
        near[inside, k] = volume[tuple(places_there[inside].T)]
    return near


def _median(rows: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the lower median of each row, one of its values; NaN does not count."""
    known = (~np.isnan(rows)).sum(axis=1)
    middle = np.maximum(known - 1, 0)[:, None] // 2  # NaN sorts last
    return np.take_along_axis(np.sort(rows, axis=1), middle, axis=1)[:, 0]
