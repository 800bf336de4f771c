"""One plane of a volume in a picture: its pixels, the voxel at each pixel, and the label of each pixel."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from neurokd.viz.viewers.canvas import NUMBER, judge
from neurokd.viz.viewers.slabs import Axis, Slabs, resample

__all__ = ["ALONG", "Overlay", "Panel", "around", "locate"]

ALONG: dict[str, Axis] = {"xy": "z", "zy": "x", "xz": "y"}  # the axis that each plane is seen along
_GAP = 6  # pixels of the cross left out around the cursor, so that what it points at stays in sight


@dataclass(frozen=True)
class Panel:
    """Hold where one plane lies in the picture.

    Parameters
    ----------
    plane
        Axes of the plane, across and down: "xy", "zy" or "xz".
    top, left, rows, columns
        Place and size in pixels.
    voxels
        Size of the volume across and down.
    """

    plane: str
    top: int
    left: int
    rows: int
    columns: int
    voxels: tuple[int, int]

    @property
    def along(self) -> Axis:
        """The axis that the plane is seen along."""
        return ALONG[self.plane]

    @property
    def size(self) -> tuple[int, int]:
        """Rows and columns."""
        return self.rows, self.columns

    @property
    def place(self) -> tuple[slice, slice]:
        """The pixels of the panel in the picture."""
        return slice(self.top, self.top + self.rows), slice(self.left, self.left + self.columns)

    def pixels(self, across: NDArray[np.float64], down: NDArray[np.float64]) -> tuple[NDArray[Any], NDArray[Any]]:
        """Return columns and rows of coordinates in voxels, from the corner of the panel and not rounded."""
        return (across + 0.5) * self.columns / self.voxels[0], (down + 0.5) * self.rows / self.voxels[1]

    def mark_cursor(self, labels: NDArray[np.uint8], cursor: Mapping[Axis, int]) -> None:
        """Label a cross around the cursor, in place."""
        column, row = (int(at) for at in self.pixels(*(np.float64(cursor[axis]) for axis in self.plane)))
        for line, at in ((labels[row], column), (labels[:, column], row)):
            line[: max(0, at - _GAP)] = line[at + _GAP + 1 :] = NUMBER["cursor"]


class Overlay:
    """Label what is marked on a volume, and whether it is true.

    Parameters
    ----------
    cut
        Codes to be cut at a level; a mask holds 0 and 1 and is cut at 0.
    truth
        Boolean, or None where it is not known.
    """

    def __init__(self, cut: Slabs, truth: Slabs | None) -> None:
        self._cut, self._truth = cut, truth
        self._inside = truth and Slabs(cut.codes * truth.codes)

    def labels(self, panel: Panel, low: int, high: int, level: int) -> NDArray[np.uint8]:
        """Return the label of each pixel of a panel that shows slices `low` to `high` - 1."""

        def seen(slabs: Slabs) -> NDArray[Any]:
            return resample(slabs.project(panel.along, low, high), panel.size)

        if self._truth is None or self._inside is None:
            return judge(seen(self._cut) > level, None, None)
        return judge(seen(self._cut) > level, seen(self._truth), seen(self._inside) > level)


def locate(panels: Iterable[Panel], column: float, row: float) -> dict[Axis, int]:
    """Return the two coordinates of a place in the picture, in voxels; none of them beside the panels."""
    for panel in panels:
        across, down = column - panel.left, row - panel.top
        if 0 <= down < panel.rows and 0 <= across < panel.columns:
            ways = zip(panel.plane, (across, down), (panel.columns, panel.rows), panel.voxels, strict=True)
            return {axis: int(at) * voxels // count for axis, at, count, voxels in ways}
    return {}


def around(at: int, slab: int, size: int) -> tuple[int, int]:
    """Return the range of `slab` slices around `at`, first and one after the last, within `size` slices."""
    return max(0, at - (slab - 1) // 2), min(size, at + slab // 2 + 1)
