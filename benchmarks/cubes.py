"""Put cubes that were cut from one volume, and overlap, back where they were.

The axons annotated by people come as ten cubes of 64 voxels a side. They show one volume, and where they
overlap they hold the same annotated slices: counted cube by cube, a slice would be judged up to nine times.
Here each cube is placed by its content, so that every annotated voxel exists once.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

RUN = 8  # bytes that identify a place: four 16-bit voxels in a row


def offset(a: NDArray, b: NDArray) -> tuple[int, int, int] | None:
    """Return where the origin of cube b lies in cube a (z, y, x), or None where the two do not overlap.

    Runs of four voxels that occur in both vote for an offset. It counts only if the cubes are then equal in
    every voxel that they share.
    """
    keys, places = zip(*(_runs(cube) for cube in (a, b)), strict=True)
    _, i, j = np.intersect1d(*keys, assume_unique=True, return_indices=True)
    if not len(i):
        return None
    shifts, votes = np.unique(places[0][i] - places[1][j], axis=0, return_counts=True)
    shift = shifts[votes.argmax()]
    here, there = _shared(a.shape, b.shape, shift)
    if a[here].size and np.array_equal(a[here], b[there]):
        return tuple(shift.tolist())
    return None


def corners(cubes: Sequence[NDArray]) -> NDArray[np.int64]:
    """Return where each cube's origin (z, y, x) lies in the smallest box that holds them all.

    Raises
    ------
    ValueError
        If a cube overlaps none of the others that are placed.
    """
    found = {0: np.zeros(3, dtype=int)}
    waiting = [0]
    while waiting:
        i = waiting.pop()
        for j in range(len(cubes)):
            if j not in found and (shift := offset(cubes[i], cubes[j])) is not None:
                found[j] = found[i] + shift
                waiting.append(j)
    if alone := sorted(set(range(len(cubes))) - set(found)):
        raise ValueError(f"cubes must overlap, got {alone} that share no voxels with the others")
    places = np.array([found[i] for i in range(len(cubes))])
    return places - places.min(axis=0)


def assemble(cubes: Sequence[NDArray], labels: Sequence[NDArray]) -> tuple[NDArray, NDArray[np.uint8]]:
    """Return the volume that cubes were cut from, and its labels.

    A voxel that no cube holds takes label 0 and the value of the nearest one held, so that no edge arises.

    Raises
    ------
    ValueError
        If cubes do not hang together, or two of them label a voxel differently.
    """
    places = corners(cubes)
    shape = tuple(np.max([place + cube.shape for place, cube in zip(places, cubes, strict=True)], axis=0))
    volume, label = np.zeros(shape, dtype=cubes[0].dtype), np.zeros(shape, dtype=np.uint8)
    held = np.zeros(shape, dtype=bool)
    for place, cube, marks in zip(places, cubes, labels, strict=True):
        box = tuple(slice(start, start + n) for start, n in zip(place, cube.shape, strict=True))
        if (label[box] != marks)[held[box]].any():
            raise ValueError("labels of overlapping cubes must agree, got two labels for one voxel")
        volume[box], label[box], held[box] = cube, marks, True
    nearest = ndimage.distance_transform_edt(~held, return_distances=False, return_indices=True)
    return volume[tuple(nearest)], label


def _runs(cube: NDArray) -> tuple[NDArray[np.uint64], NDArray[np.int64]]:
    """Return the runs of a cube that occur in it once, as numbers in order, and where they begin."""
    length = RUN // cube.dtype.itemsize
    windows = np.lib.stride_tricks.sliding_window_view(cube, length, axis=2)  # z y x -> z y places length
    numbers = np.ascontiguousarray(windows).view(np.uint64)[..., 0]
    keys, first, counts = np.unique(numbers, return_index=True, return_counts=True)
    once = counts == 1
    return keys[once], np.stack(np.unravel_index(first[once], numbers.shape), axis=1)


def _shared(a: Sequence[int], b: Sequence[int], shift: NDArray) -> tuple[tuple[slice, ...], ...]:
    """Return the slices of a and of b that show the same place, where b's origin lies at `shift` in a."""
    low = np.maximum(shift, 0)
    high = np.maximum(np.minimum(a, shift + b), low)
    return tuple(tuple(map(slice, low - origin, high - origin)) for origin in (0, shift))
