"""Three orthogonal planes of a volume in one picture, drawn in a few milliseconds::

         x             z
     ┌────────┐     ┌─────┐
    y│   xy   │    y│ zy  │     the cross in each plane marks the cursor
     └────────┘     └─────┘
         x
     ┌────────┐
    z│   xz   │
     └────────┘
    ▬ 10 µm  ■ mask  ▬ tree

All planes have the same scale in pixels per µm, so a voxel that is longer in z looks longer.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from neurokd.data.tree import Tree
from neurokd.data.volume import Spacing, check_mask, check_volume
from neurokd.viz.colours import VERDICTS
from neurokd.viz.frame import Frame, bar_length
from neurokd.viz.viewers.canvas import NUMBER, Paper, grey_ramp, paint
from neurokd.viz.viewers.panel import Overlay, Panel, locate, slab_range
from neurokd.viz.viewers.slabs import Slabs, dice_by_level, grey_levels, resample

__all__ = ["Planes"]

_MARGIN = 20  # pixels around a plane, for the labels of its axes


class Planes:
    """Draw volume, mask and tree at any cursor.

    Parameters
    ----------
    volume
        Intensities ``z y x``.
    mask
        Boolean ``z y x``, or floats such as a probability, which are cut at a threshold. None cuts the volume
        instead.
    tree
        Tree in voxels of `volume`.
    truth
        Boolean ``z y x``. With it, colours show what is found, missed and invented, and `dice` is computed.
    spacing
        Voxel size ``(z, y, x)`` in µm; None gives lengths in voxels.
    gamma
        Exponent of the display, > 0.
    width
        Largest width of the picture in pixels, at least 100. The picture is narrower for a volume that is
        long in z or y.

    Attributes
    ----------
    levels : NDArray
        Thresholds (n,). A boolean mask has one threshold.
    dice : NDArray or None
        Foreground Dice (n,) against the truth at each threshold.
    panels : tuple of Panel
        The panels xy, zy and xz.
    brightest : dict
        Coordinates of the brightest voxel by axis; the first one if several are equally bright.

    Raises
    ------
    ValueError
        `volume` is not a valid volume, `mask` or `truth` has another shape, or `gamma` or `width` is out of
        range.
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
        width: int = 640,
    ) -> None:
        volume = check_volume(volume)
        if width < 100:
            raise ValueError(f"width must be at least 100 pixels, got {width}")
        self.shape: dict[str, int] = dict(zip("zyx", volume.shape, strict=True))
        self.frame = Frame(volume.shape, spacing)
        codes, levels = grey_levels(volume)
        self._volume = Slabs(codes)
        self._ramp = grey_ramp(levels, self._volume.project("z", 0, len(volume)), gamma=gamma)
        brightest = np.unravel_index(codes.argmax(), codes.shape)
        self.brightest = dict(zip("zyx", map(int, brightest), strict=True))

        cut, self.levels = self._volume, levels
        if mask is not None:
            mask = np.asarray(mask)
            if mask.dtype.kind != "f":
                mask = check_mask(mask, shape=volume.shape)
            elif check_volume(mask, name="mask").shape != volume.shape:
                raise ValueError(f"mask must have the shape of the volume, {volume.shape}, got {mask.shape}")
            codes, self.levels = grey_levels(mask)
            cut = Slabs(codes)
        self.dice: NDArray[np.float64] | None = None
        if truth is not None:
            truth = check_mask(truth, shape=volume.shape, name="truth")
            self.dice = dice_by_level(codes, truth, len(self.levels))
        self._overlay = Overlay(cut, None if truth is None else Slabs(truth))
        self._lay_out(width, tree is not None)
        self._nodes = None if tree is None else self._dense(tree)

    def draw(
        self, z: int, y: int, x: int, *, slab: int = 1, level: int | None = None, opacity: float = 0.8
    ) -> NDArray[np.uint8]:
        """Draw the planes through a voxel.

        Parameters
        ----------
        z, y, x
            Voxel of the cursor.
        slab
            Number of slices around the cursor, at least 1. Each plane shows their maximum. There are fewer at
            the borders.
        level
            Index of the threshold. Voxels above ``levels[level]`` are marked; None marks nothing.
        opacity
            Opacity of mask and tree, from 0 to 1.

        Returns
        -------
        NDArray[uint8]
            The picture ``y x 3``.
        """
        picture, cursor = self._paper.pixels(), {"z": z, "y": y, "x": x}
        for panel in self.panels:
            low, high = slab_range(cursor[panel.normal], slab, self.shape[panel.normal])
            labels = np.zeros(panel.size, np.uint8)
            if level is not None:
                labels = self._overlay.labels(panel, low, high, level)
            self._mark_tree(labels, panel, low, high)
            panel.mark_cursor(labels, cursor)
            codes = resample(self._volume.project(panel.normal, low, high), panel.size)
            picture[panel.place] = paint(codes, labels, self._ramp, opacity=opacity)
        return picture

    def locate(self, column: float, row: float) -> dict[str, int]:
        """Return the two voxel coordinates of a place in the picture, by axis; nothing outside the planes."""
        return locate(self.panels, column, row)

    def _lay_out(self, width: int, has_tree: bool) -> None:
        """Place the panel of each plane, and draw the labels, the legend and the scale bar."""
        depth, height, breadth = self.frame.lengths
        # Size of a pixel; the planes are at most 1.2 times as high as the picture is wide.
        pixel = max((breadth + depth) / (width - 4 * _MARGIN), (height + depth) / (1.2 * width))
        z, y, x = (max(1, round(length / pixel)) for length in self.frame.lengths)
        second_left, second_top = 3 * _MARGIN + x, 2 * _MARGIN + y
        self.panels = (
            Panel("xy", _MARGIN, _MARGIN, y, x, (self.shape["x"], self.shape["y"])),
            Panel("zy", _MARGIN, second_left, y, z, (self.shape["z"], self.shape["y"])),
            Panel("xz", second_top, _MARGIN, z, x, (self.shape["x"], self.shape["z"])),
        )
        entries = {"mask": "mask" if len(self.levels) == 1 else "above threshold"}
        if self.dice is not None:
            entries = {name: name for name in VERDICTS}
        if has_tree:
            entries["tree"] = "tree"
        bar = bar_length(breadth)
        self._paper = Paper(
            second_left + z + _MARGIN, second_top + z, entries, (bar / pixel, f"{bar:g} {self.frame.unit}")
        )
        for panel in self.panels:
            self._paper.write(panel.left + panel.columns / 2, panel.top - _MARGIN / 2, panel.plane[0])
            self._paper.write(panel.left - _MARGIN / 2, panel.top + panel.rows / 2, panel.plane[1])

    def _dense(self, tree: Tree) -> dict[str, NDArray[np.float64]]:
        """Return points along the tree that touch in the picture, by axis, and their radii, in voxels."""
        step = 0.7 * min(
            voxels / n for one in self.panels for voxels, n in zip(one.voxels, one.size[::-1], strict=True)
        )
        fine = tree.resample(step) if len(tree) > 1 else tree
        return {**dict(zip("xyz", fine.xyz.T, strict=True)), "radius": np.maximum(fine.radius, 0.5)}

    def _mark_tree(self, labels: NDArray[np.uint8], panel: Panel, low: int, high: int) -> None:
        """Mark the tree with lines of two pixels where its tube cuts the slab."""
        if self._nodes is None:
            return
        depth = self._nodes[panel.normal]
        # The distance to the nearest slice of the slab is at most the radius.
        seen = np.abs(depth - np.clip(depth, low, high - 1)) <= self._nodes["radius"]
        places = panel.pixels(*(self._nodes[axis][seen] for axis in panel.plane))
        columns, rows = (np.floor(place - 0.5).astype(int) for place in places)
        for i, j in ((0, 0), (0, 1), (1, 0), (1, 1)):
            column, row = columns + i, rows + j
            inside = (column >= 0) & (column < panel.columns) & (row >= 0) & (row < panel.rows)
            labels[row[inside], column[inside]] = NUMBER["tree"]
