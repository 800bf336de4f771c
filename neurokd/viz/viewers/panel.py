"""One plane of a volume in a picture: where it lies, and which voxel and which label each pixel has."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from neurokd.viz.viewers.canvas import NUMBER, judge
from neurokd.viz.viewers.slabs import Slabs, resample

__all__ = ["NORMALS", "Overlay", "Panel", "locate", "slab_range"]

NORMALS: dict[str, str] = {"xy": "z", "zy": "x", "xz": "y"}  # the axis perpendicular to each plane
_GAP = 6  # pixels between the cursor and each arm of the cross, so that the voxel stays visible


@dataclass(frozen=True)
class Panel:
    """Describe where one plane lies in the picture.

    Parameters
    ----------
    plane
        Horizontal and vertical axis of the plane: "xy", "zy" or "xz".
    top, left, rows, columns
        Place and size in pixels.
    voxels
        Size of the volume along the horizontal and the vertical axis.
    """

    plane: str
    top: int
    left: int
    rows: int
    columns: int
    voxels: tuple[int, int]

    @property
    def normal(self) -> str:
        """The axis perpendicular to the plane."""
        return NORMALS[self.plane]

    @property
    def size(self) -> tuple[int, int]:
        """Number of rows and of columns."""
        return self.rows, self.columns

    @property
    def place(self) -> tuple[slice, slice]:
        """The pixels of the panel in the picture."""
        return slice(self.top, self.top + self.rows), slice(self.left, self.left + self.columns)

    def pixels(
        self, horizontal: NDArray[np.float64], vertical: NDArray[np.float64]
    ) -> tuple[NDArray[Any], NDArray[Any]]:
        """Return the unrounded columns and rows, within the panel, of coordinates in voxels."""
        # The centre of voxel 0 lies half a voxel from the corner of the panel.
        columns = (horizontal + 0.5) * self.columns / self.voxels[0]
        return columns, (vertical + 0.5) * self.rows / self.voxels[1]

    def mark_cursor(self, labels: NDArray[np.uint8], cursor: Mapping[str, int]) -> None:
        """Label a cross around the cursor, in place."""
        place = self.pixels(*(np.float64(cursor[axis]) for axis in self.plane))
        column, row = (int(pixel) for pixel in place)
        for line, centre in ((labels[row], column), (labels[:, column], row)):
            line[: max(0, centre - _GAP)] = line[centre + _GAP + 1 :] = NUMBER["cursor"]


class Overlay:
    """Label the marked voxels of a volume and, if the truth is known, whether they are right.

    Parameters
    ----------
    cut
        Codes that are cut at a level. A mask has the codes 0 and 1 and is cut at 0.
    truth
        Boolean volume, or None if the truth is not known.
    """

    def __init__(self, cut: Slabs, truth: Slabs | None) -> None:
        self._cut, self._truth = cut, truth
        # Codes inside the truth, 0 elsewhere: above a level they are the voxels that are found.
        self._inside = truth and Slabs(cut.codes * truth.codes)

    def labels(self, panel: Panel, low: int, high: int, level: int) -> NDArray[np.uint8]:
        """Return the label of each pixel of a panel that shows slices `low` to `high` - 1."""

        def seen(slabs: Slabs) -> NDArray[Any]:
            return resample(slabs.project(panel.normal, low, high), panel.size)

        if self._truth is None or self._inside is None:
            return judge(seen(self._cut) > level, None, None)
        return judge(seen(self._cut) > level, seen(self._truth), seen(self._inside) > level)


def locate(panels: Iterable[Panel], column: float, row: float) -> dict[str, int]:
    """Return the two voxel coordinates of a place in the picture, by axis; nothing outside the panels."""
    for panel in panels:
        x, y = column - panel.left, row - panel.top
        if 0 <= y < panel.rows and 0 <= x < panel.columns:
            axes = zip(panel.plane, (x, y), (panel.columns, panel.rows), panel.voxels, strict=True)
            return {axis: int(pixel) * voxels // count for axis, pixel, count, voxels in axes}
    return {}


def slab_range(centre: int, slab: int, size: int) -> tuple[int, int]:
    """Return the first and one after the last of `slab` slices around `centre`, clipped to `size` slices."""
    return max(0, centre - (slab - 1) // 2), min(size, centre + slab // 2 + 1)
