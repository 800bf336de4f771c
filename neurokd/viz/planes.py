"""Three orthogonal planes of a volume as one picture, made anew in a few milliseconds for every place of the cursor.

x              z
┌────────┐      ┌─────┐
y│   xy   │     y│ zy  │     all planes in one scale (pixels a µm), so a voxel that is longer in z looks longer
└────────┘      └─────┘
x
┌────────┐
z│   xz   │                  the cross marks the cursor in all three
└────────┘
▬ 10 µm  ■ mask  ▬ tree
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from neurokd.data.swc import Tree
from neurokd.data.volume import Spacing, check_mask, check_volume
from neurokd.viz.canvas import NUMBER, Paper, grey_ramp, judge, paint
from neurokd.viz.frame import Frame, bar_length
from neurokd.viz.slabs import Axis, Slabs, dice_by_level, grey_levels, resample

__all__ = ["Panel", "Planes", "brightest_code"]

_MARGIN = 20  # pixels around a plane, for the names of its axes
_GAP = 6  # pixels of the cross left out around the cursor, so that what it points at stays in sight


@dataclass(frozen=True)
class Panel:
    """Where one plane lies in the picture, in pixels.

    Attributes
    ----------
    plane
        Its axes, across and down: "xy", "zy" or "xz".
    along
        The axis that it is seen along.
    top, left, rows, columns
        Place and size.
    """

    plane: str
    along: Axis
    top: int
    left: int
    rows: int
    columns: int


class Planes:
    """Volume, mask and tree, ready to be drawn at any cursor.

    Parameters
    ----------
    volume
        Intensities ``z y x``.
    mask
        Boolean ``z y x``; or floats (a probability), to be cut at a threshold; None cuts the volume itself.
    tree
        In voxels of `volume`.
    truth
        Boolean ``z y x``: colours what is found, missed and invented, and gives the Dice.
    spacing
        Voxel size ``(z, y, x)`` in µm; None counts voxels.
    gamma
        Exponent of the display, > 0.
    width
        Of the picture, pixels, at least 100; a volume that is long in z or y gets a narrower one.

    Attributes
    ----------
    levels : NDArray
        (n,) the thresholds; one alone for a boolean mask.
    dice : NDArray or None
        (n,) foreground Dice against the truth at each of them.
    panels : tuple of Panel
        xy, zy, xz.

    Raises
    ------
    ValueError
        Not a volume, a mask or truth of another shape, or gamma or width out of range.
    """

    def __init__(
        self,
        volume: ArrayLike,
        mask: ArrayLike | None = None,
        tree: Tree | None = None,
        *,
        truth: ArrayLike | None = None,
        spacing: Spacing | None = None,
        gamma: float = 0.5,
        width: int = 720,
    ) -> None:
        volume = check_volume(volume)
        if not gamma > 0:
            raise ValueError(f"gamma is {gamma}; it must be above 0")
        if width < 100:
            raise ValueError(f"width is {width}; it must be at least 100 pixels")
        self.shape: dict[Axis, int] = dict(zip("zyx", volume.shape, strict=True))
        self.frame = Frame(volume.shape, spacing)
        codes, levels = grey_levels(volume)
        self._volume = Slabs(codes)
        self._ramp = grey_ramp(levels, brightest_code(self._volume.project("z", 0, len(volume))), gamma=gamma)
        self.brightest = np.unravel_index(int(codes.argmax()), codes.shape)

        self._cut, self.levels = self._volume, levels
        if mask is not None:
            cut = np.asarray(mask)
            if cut.dtype.kind == "f":
                cut = check_volume(cut, name="mask")
                if cut.shape != volume.shape:
                    raise ValueError(f"mask has shape {cut.shape}, its volume {volume.shape}")
            else:
                cut = check_mask(cut, shape=volume.shape)
            codes, self.levels = grey_levels(cut)
            self._cut = Slabs(codes)
        self.dice: NDArray[np.float64] | None = None
        self._truth: Slabs | None = None
        if truth is not None:
            truth = check_mask(truth, shape=volume.shape, name="truth")
            self.dice = dice_by_level(codes, truth, len(self.levels))
            self._truth, self._inside = Slabs(truth), Slabs(codes * truth)
        self._lay_out(width, tree is not None)
        self._nodes = None if tree is None else self._dense(tree)

    def draw(
        self, z: int, y: int, x: int, *, slab: int = 1, level: int | None = None, opacity: float = 0.6
    ) -> NDArray[np.uint8]:
        """Draw the planes through a voxel.

        Parameters
        ----------
        z, y, x
            The cursor, a voxel.
        slab
            Slices around the cursor of which each plane shows the maximum, at least 1; fewer at the borders.
        level
            What is brighter than ``levels[level]`` is marked; None marks nothing.
        opacity
            Of mask and tree, from 0 to 1.

        Returns
        -------
        NDArray[uint8]
            ``y x 3``, the picture.
        """
        picture, cursor = self._paper.pixels(), {"z": z, "y": y, "x": x}
        for panel in self.panels:
            size = panel.rows, panel.columns
            low = max(0, cursor[panel.along] - (slab - 1) // 2)
            place = panel.along, low, min(self.shape[panel.along], cursor[panel.along] + slab // 2 + 1)
            labels = np.zeros(size, np.uint8)
            if level is not None:
                truth = hit = None
                if self._truth is not None:
                    truth = resample(self._truth.project(*place), size)
                    hit = resample(self._inside.project(*place), size) > level
                labels = judge(resample(self._cut.project(*place), size) > level, truth, hit)
            self._mark_tree(labels, panel, *place[1:])
            self._mark_cursor(labels, panel, cursor)
            codes = resample(self._volume.project(*place), size)
            inside = slice(panel.top, panel.top + panel.rows), slice(panel.left, panel.left + panel.columns)
            picture[inside] = paint(codes, labels, self._ramp, opacity=opacity)
        return picture

    def locate(self, column: float, row: float) -> dict[Axis, int]:
        """Return the two coordinates that a place in the picture means, in voxels; none of them beside the planes."""
        for panel in self.panels:
            down, across = row - panel.top, column - panel.left
            if 0 <= down < panel.rows and 0 <= across < panel.columns:
                sizes = (panel.plane[0], across, panel.columns), (panel.plane[1], down, panel.rows)
                return {axis: int(int(at) * self.shape[axis] // count) for axis, at, count in sizes}
        return {}

    def _lay_out(self, width: int, has_tree: bool) -> None:
        depth, height, across = self.frame.lengths
        pixel = max((across + depth) / (width - 4 * _MARGIN), (height + depth) / (1.2 * width))  # µm
        z, y, x = (max(1, round(length / pixel)) for length in self.frame.lengths)
        second_left, second_top = 3 * _MARGIN + x, 2 * _MARGIN + y
        self.panels = (
            Panel("xy", "z", _MARGIN, _MARGIN, y, x),
            Panel("zy", "x", _MARGIN, second_left, y, z),
            Panel("xz", "y", second_top, _MARGIN, z, x),
        )
        entries = {"mask": "mask" if len(self.levels) == 1 else "above threshold"}
        if self._truth is not None:
            entries = {name: name for name in ("found", "missed", "invented")}
        if has_tree:
            entries["tree"] = "tree"
        bar = bar_length(across)
        self._paper = Paper(
            second_left + z + _MARGIN, second_top + z, entries, (bar / pixel, f"{bar:g} {self.frame.unit}")
        )
        for panel in self.panels:
            self._paper.write(panel.left + panel.columns / 2, panel.top - _MARGIN / 2, panel.plane[0])
            self._paper.write(panel.left - _MARGIN / 2, panel.top + panel.rows / 2, panel.plane[1])

    def _dense(self, tree: Tree) -> dict[str, NDArray[np.float64]]:
        """Points of the tree so close that they touch in the picture, and their radii, all in voxels."""
        xy = self.panels[0]
        step = 0.7 * min(
            self.shape["x"] / xy.columns, self.shape["y"] / xy.rows, self.shape["z"] / self.panels[1].columns
        )
        fine = tree.resample(step) if len(tree) > 1 else tree
        return {**dict(zip("xyz", fine.xyz.T, strict=True)), "radius": np.maximum(fine.radius, 0.5)}

    def _mark_tree(self, labels: NDArray[np.uint8], panel: Panel, low: int, high: int) -> None:
        """Mark the tree, two pixels wide, where its tube cuts the slab."""
        if self._nodes is None:
            return
        depth = self._nodes[panel.along]
        seen = np.abs(depth - np.clip(depth, low, high - 1)) <= self._nodes["radius"]
        across, down = (
            np.floor((self._nodes[axis][seen] + 0.5) * count / self.shape[axis] - 0.5).astype(int)
            for axis, count in zip(panel.plane, (panel.columns, panel.rows), strict=True)
        )
        for right, below in ((0, 0), (0, 1), (1, 0), (1, 1)):
            column, row = across + right, down + below
            there = (column >= 0) & (column < panel.columns) & (row >= 0) & (row < panel.rows)
            labels[row[there], column[there]] = NUMBER["tree"]

    def _mark_cursor(self, labels: NDArray[np.uint8], panel: Panel, cursor: dict[Axis, int]) -> None:
        counts = zip(panel.plane, (panel.columns, panel.rows), strict=True)
        column, row = (int((cursor[axis] + 0.5) * count / self.shape[axis]) for axis, count in counts)
        for line, at in ((labels[row], column), (labels[:, column], row)):
            line[: max(0, at - _GAP)] = line[at + _GAP + 1 :] = NUMBER["cursor"]


def brightest_code(projection: NDArray[np.uint8]) -> int:
    """Return the code that is shown white: the brightest 0.5 % of what is not black are cut, as in `Frame.show`."""
    lit = projection[projection > 0]
    return int(np.percentile(lit, 99.5)) if lit.size else 0
