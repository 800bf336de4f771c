"""A histogram of raw voxels of any type that can be added up over blocks, its range not known in advance.

    voxel --> code, an integer of the same order --> bin = code >> shift, the lowest bits dropped

The code of an integer is the integer itself. The code of a floating-point number is its bits, read as an
integer that has the order of the numbers. The shift is 0, and the bins exact, until more than 65,536 bins are
occupied; then it grows bit by bit. Two histograms are added at the larger shift of the two, so neither the
order nor the size of the blocks matters.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from neurokd.data.volume import check_volume

__all__ = ["Histogram"]

_BINS = 65_536  # exact for all integers of 16 bits
_CHUNK = 1 << 20  # voxels that are sorted at a time


@dataclass(frozen=True, eq=False)
class Histogram:
    """Values of voxels and how often each occurs; ``a + b`` is the histogram of the voxels of both.

    Integers of up to 16 bits are counted exactly, and so is everything else with at most 65,536 different
    values. Otherwise a bin holds 2^shift neighbouring numbers of the type.

    Parameters
    ----------
    bins
        Occupied bins, ascending: the voxels' codes without their lowest `shift` bits.
    counts
        Voxels in each.
    shift
        How many bits were dropped.
    kind
        What the codes stand for: ``"integer"``, ``"float32"`` or ``"float64"``.

    Examples
    --------
    >>> seen = Histogram.from_volume(volume[:50]) + Histogram.from_volume(volume[50:])
    >>> seen.quantile(0.5)  # the median of the whole volume
    """

    bins: NDArray[np.int64]
    counts: NDArray[np.int64]
    shift: int
    kind: str

    @classmethod
    def from_volume(cls, volume: ArrayLike) -> Histogram:
        """Count the voxels of a volume (z, y, x) of any real type; ``ValueError`` where it is none."""
        voxels = check_volume(volume).ravel()  # z y x -> n
        if voxels.dtype.kind in "bui" and voxels.dtype.itemsize <= 2:
            least = int(voxels.min())
            counts = np.bincount(voxels.astype(np.int32) - least)
            occupied = np.flatnonzero(counts)
            return cls(occupied + least, counts[occupied], 0, "integer")
        kind, encode = _encoding(voxels.dtype)
        total = cls(np.empty(0, np.int64), np.empty(0, np.int64), 0, kind)
        for start in range(0, voxels.size, _CHUNK):
            codes = encode(voxels[start : start + _CHUNK]) >> total.shift
            bins, counts = np.unique(codes, return_counts=True)
            total = total + _coarsen(bins.astype(np.int64), counts, total.shift, kind)
        return total

    def __add__(self, other: Histogram) -> Histogram:
        """Return the histogram of both; ``ValueError`` where one counts integers and the other does not."""
        if other.kind != self.kind:
            raise ValueError(f"other must be a histogram of {self.kind}, got {other.kind}")
        shift = max(self.shift, other.shift)
        bins = np.concatenate([one.bins >> (shift - one.shift) for one in (self, other)])
        return _coarsen(bins, np.concatenate([self.counts, other.counts]), shift, self.kind)

    @property
    def size(self) -> int:
        """Return how many voxels were counted."""
        return int(self.counts.sum())

    @property
    def values(self) -> NDArray[np.float64]:
        """Return the value of each bin, the least that it holds; exact where `shift` is 0."""
        return _decode(self.bins << self.shift, self.kind)

    @property
    def tops(self) -> NDArray[np.float64]:
        """Return the largest value that each bin holds."""
        tops = _decode((self.bins << self.shift) | ((1 << self.shift) - 1), self.kind)
        return np.where((self.values <= 0) & (tops >= 0), 0.0, tops)  # numbers next to 0 are 0

    def quantile(self, share: float) -> float:
        """Return the least value that at least this share of the voxels does not exceed."""
        reached = int(np.searchsorted(np.cumsum(self.counts), share * self.size))
        return float(self.values[min(reached, len(self.bins) - 1)])

    def part(self, chosen: NDArray[np.bool_] | slice) -> Histogram:
        """Return the histogram of the voxels in some of the bins: a mask over them, or a slice."""
        return Histogram(self.bins[chosen], self.counts[chosen], self.shift, self.kind)


def _encoding(dtype: np.dtype) -> tuple[str, Callable[[NDArray], NDArray]]:
    """Return what the codes of a type stand for, and the function that makes codes of voxels."""
    if dtype.kind in "bui" and dtype != np.uint64:
        return "integer", lambda voxels: voxels.astype(np.int64)
    if dtype.kind == "f" and dtype.itemsize <= 4:
        # + 0.0 makes one zero of two
        return "float32", lambda voxels: _ordered((voxels.astype(np.float32) + np.float32(0)).view(np.int32))
    return "float64", lambda voxels: _ordered((voxels.astype(np.float64) + 0.0).view(np.int64))


def _ordered(bits: NDArray) -> NDArray:
    """Turn a number's bits into an integer of the same order, or back."""
    # a negative number is stored by its size, so its bits have the reverse order
    return bits ^ ((bits >> (bits.itemsize * 8 - 1)) & np.iinfo(bits.dtype).max)


def _decode(codes: NDArray[np.int64], kind: str) -> NDArray[np.float64]:
    """Return the numbers that codes stand for."""
    if kind == "integer":
        return codes.astype(np.float64)
    whole = {"float32": np.int32, "float64": np.int64}[kind]
    return _ordered(codes.astype(whole)).view(kind).astype(np.float64)


def _coarsen(bins: NDArray[np.int64], counts: NDArray[np.int64], shift: int, kind: str) -> Histogram:
    """Add up the counts of equal bins, and drop bits until few enough bins are left."""
    order = np.argsort(bins, kind="stable")
    bins, counts = bins[order], counts[order]
    first = _starts(bins)
    while len(first) > _BINS:
        bins, shift = bins >> 1, shift + 1
        first = _starts(bins)
    return Histogram(bins[first], np.add.reduceat(counts, first), shift, kind)


def _starts(ascending: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return where each run of equal numbers begins."""
    return np.flatnonzero(np.concatenate([[True], ascending[1:] != ascending[:-1]]))
