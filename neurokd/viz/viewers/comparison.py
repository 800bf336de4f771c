"""Viewer of several predictions side by side, which shows what each found, missed and invented."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike, NDArray

from neurokd.data.volume import Spacing, check_mask, check_volume
from neurokd.evaluation.voxels import dice
from neurokd.viz.colours import VERDICTS
from neurokd.viz.frame import Frame, bar_length
from neurokd.viz.viewers.canvas import Paper, grey_ramp, paint
from neurokd.viz.viewers.panel import NORMALS, Overlay, Panel, locate, slab_range
from neurokd.viz.viewers.slabs import Slabs, grey_levels, resample

if TYPE_CHECKING:
    from neurokd.viz.viewers.widget import Viewer

__all__ = ["view_comparison"]

_MARGIN = 20  # pixels around a panel, for its title and the labels of its axes


def view_comparison(
    volume: ArrayLike,
    truth: ArrayLike,
    predictions: Mapping[str, ArrayLike],
    *,
    spacing: Spacing | None = None,
    slab: int | None = None,
    columns: int = 3,
    gamma: float = 0.5,
    width: int = 900,
) -> Viewer:
    """Show one plane of a volume once for each prediction, coloured by found, missed and invented.

    All panels share a cursor: click or drag in one to move it. A pixel counts as found if any voxel of its
    column in the slab is found. :func:`neurokd.viz.figures.projections.plot_comparison` draws a static figure
    of one prediction.

    Parameters
    ----------
    volume
        Intensities ``z y x``. The viewer holds four copies as uint8, and four more for each prediction.
    truth
        Boolean ``z y x``.
    predictions
        Boolean masks ``z y x`` by name.
    spacing
        Voxel size ``(z, y, x)`` in µm; None gives lengths in voxels.
    slab
        Initial thickness in slices, at least 1, of the slab whose maximum is shown; None takes all slices.
    columns
        Number of panels in a row, at least 1.
    gamma
        Exponent of the display, > 0; a value below one brightens dim voxels.
    width
        Width of the picture in pixels, at least 100 per column.

    Returns
    -------
    Viewer
        A widget, shown if it is the last expression of a cell. ``controls`` holds its controls by name:
        plane, z, y, x, slab, opacity.

    Raises
    ------
    ValueError
        `volume` is not a valid volume, `predictions` is empty, a mask has another shape or more than two
        values, or a setting is out of range.
    ImportError
        ipywidgets is not installed; ``neurokd[notebooks]`` installs it.

    Examples
    --------
    >>> masks = {"scratch": first > 0.5, "from a teacher": second > 0.5}
    >>> view_comparison(volume, truth, masks, spacing=(0.4, 0.1, 0.1))
    """
    from neurokd.viz.viewers.widget import Viewer, choice, cursor_sliders, place_text, slab_slider, slider

    panels = Comparison(
        volume, truth, predictions, spacing=spacing, columns=columns, gamma=gamma, width=width
    )  # fmt: skip
    controls = {
        "plane": choice("plane", list(NORMALS)),
        **cursor_sliders(panels.shape, {axis: n // 2 for axis, n in panels.shape.items()}),
        "slab": slab_slider(slab, max(panels.shape.values())),
        "opacity": slider("opacity", 0.8, 0, 1, step=0.05),
    }

    def draw(plane: str, z: int, y: int, x: int, slab: int, opacity: float) -> tuple[NDArray[np.uint8], str]:
        return panels.draw(plane, z, y, x, slab=slab, opacity=opacity), place_text(spacing, z, y, x)

    return Viewer(draw, controls, lambda stroke, x0, y0, x, y: panels.locate(controls["plane"].value, x, y))


class Comparison:
    """Draw predictions at any cursor. The parameters are those of :func:`view_comparison`.

    Attributes
    ----------
    shape : dict
        Shape of the volume, by axis.
    panels : dict
        Lists of panels by plane, in the order of the predictions.
    """

    def __init__(
        self,
        volume: ArrayLike,
        truth: ArrayLike,
        predictions: Mapping[str, ArrayLike],
        *,
        spacing: Spacing | None,
        columns: int,
        gamma: float,
        width: int,
    ) -> None:
        volume = check_volume(volume)
        if not predictions:
            raise ValueError("predictions must hold at least one mask by name, got none")
        if columns < 1 or width < 100 * min(columns, len(predictions)):
            raise ValueError(f"columns must be 1 or more and width 100 per column, got {columns} and {width}")
        truth = check_mask(truth, shape=volume.shape, name="truth")
        masks = {name: check_mask(mask, shape=volume.shape, name=name) for name, mask in predictions.items()}
        self.shape: dict[str, int] = dict(zip("zyx", volume.shape, strict=True))
        codes, levels = grey_levels(volume)
        self._volume, known = Slabs(codes), Slabs(truth)
        self._ramp = grey_ramp(levels, self._volume.project("z", 0, len(volume)), gamma=gamma)
        self._overlays = [Overlay(Slabs(grey_levels(mask)[0]), known) for mask in masks.values()]
        titles = [f"Dice {dice(mask, truth):.3f}: {name}" for name, mask in masks.items()]
        frame = Frame(volume.shape, spacing)
        self.panels, self._papers = {}, {}
        for plane in NORMALS:
            self.panels[plane], self._papers[plane] = self._lay_out(frame, plane, titles, columns, width)

    def draw(self, plane: str, z: int, y: int, x: int, *, slab: int, opacity: float) -> NDArray[np.uint8]:
        """Draw one plane through a voxel as ``y x 3``, see :meth:`neurokd.viz.viewers.planes.Planes.draw`."""
        picture, cursor = self._papers[plane].pixels(), {"z": z, "y": y, "x": x}
        normal = NORMALS[plane]
        low, high = slab_range(cursor[normal], slab, self.shape[normal])
        codes = resample(self._volume.project(normal, low, high), self.panels[plane][0].size)
        for overlay, panel in zip(self._overlays, self.panels[plane], strict=True):
            labels = overlay.labels(panel, low, high, level=0)
            panel.mark_cursor(labels, cursor)
            picture[panel.place] = paint(codes, labels, self._ramp, opacity=opacity)
        return picture

    def locate(self, plane: str, column: float, row: float) -> dict[str, int]:
        """Return the two voxel coordinates of a place in the picture, by axis; nothing outside the panels."""
        return locate(self.panels[plane], column, row)

    def _lay_out(
        self, frame: Frame, plane: str, titles: list[str], columns: int, width: int
    ) -> tuple[list[Panel], Paper]:
        """Return the panels of one plane, and the sheet with titles, labels, legend and scale bar."""
        columns = min(columns, len(titles))
        rows = -(-len(titles) // columns)  # rounded up
        breadth, height = (frame.lengths["zyx".index(axis)] for axis in plane)
        voxels = self.shape[plane[0]], self.shape[plane[1]]
        pixel = max(columns * breadth / (width - (columns + 1) * _MARGIN), rows * height / (1.2 * width))
        wide, high = (max(1, round(length / pixel)) for length in (breadth, height))  # pixels of a panel
        panels = []
        for k in range(len(titles)):
            row, column = divmod(k, columns)
            top, left = _MARGIN + row * (high + 2 * _MARGIN), _MARGIN + column * (wide + _MARGIN)
            panels.append(Panel(plane, top, left, high, wide, voxels))
        bar = bar_length(breadth)
        paper = Paper(
            panels[columns - 1].left + wide + _MARGIN, panels[-1].top + high + _MARGIN,
            {name: name for name in VERDICTS}, (bar / pixel, f"{bar:g} {frame.unit}"),
        )  # fmt: skip
        for panel, title in zip(panels, titles, strict=True):
            paper.write(panel.left + wide / 2, panel.top - _MARGIN / 2, title, most=wide + _MARGIN)
            paper.write(panel.left + wide / 2, panel.top + high + _MARGIN / 2, plane[0])
            paper.write(panel.left - _MARGIN / 2, panel.top + high / 2, plane[1])
        return panels, paper
