"""Figure of an image and of maps with one value per token, such as attention, scores or false colours.

The panels, from left to right::

    plot_maps:   | image, scale bar | map | map | ... | colour bar |
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure
from numpy.typing import ArrayLike

from neurokd.data.volume import Spacing, check_mask, check_volume
from neurokd.viz.colours import COLOURS, ORANGE
from neurokd.viz.frame import Frame

__all__ = ["plot_maps"]


def plot_maps(
    image: ArrayLike,
    maps: Mapping[str, Any],
    *,
    mask: ArrayLike | None = None,
    mark: tuple[int, int] | None = None,
    spacing: Spacing | None = None,
    label: str = "",
    limits: tuple[float, float] | None = None,
    columns: int = 4,
    gamma: float = 0.5,
    title: str = "image",
) -> Figure:
    """Draw an image and maps of the same field of view; each map may have its own grid.

    Parameters
    ----------
    image
        Intensities ``y x``, a slice or a projection.
    maps
        Arrays or tensors by title: numbers ``y x``, drawn in cividis, or colours ``y x 3`` in [0, 1].
    mask
        Boolean ``y x`` on the image's grid; the image shows its outline in orange.
    mark
        Row and column of one cell of the maps. Every panel shows it as an orange box. All maps must then have
        the same grid.
    spacing
        Voxel size ``(z, y, x)`` in µm, for axes and scale bar; None gives lengths in voxels.
    label
        Name of the numbers. With a label all maps share one colour scale and a colour bar; without it each
        map has its own scale.
    limits
        Lower and upper end of the colour bar; None takes the 1st and the 99th percentile of all numbers.
    columns
        Number of panels in a row.
    gamma
        Exponent of the image's display; a value below one brightens dim pixels.
    title
        Title of the image.

    Returns
    -------
    matplotlib.figure.Figure
        The image, then the maps.

    Raises
    ------
    ValueError
        `image` is not an image, `maps` is empty, a map or the mask has a wrong shape, or `mark` lies outside.

    Examples
    --------
    >>> image, scores = np.random.rand(96, 96), np.random.rand(12, 12)
    >>> figure = plot_maps(image, {"a": scores}, label="score", limits=(0, 1))
    >>> [axes.get_title() for axes in figure.axes]  # the last axes are the colour bar
    ['image', 'a', '']
    """
    image = check_volume(np.asarray(image)[None], name="image")  # 1 y x
    fields = {name: np.asarray(field) for name, field in maps.items()}
    for name, field in fields.items():
        if not (field.ndim == 2 or (field.ndim == 3 and field.shape[2] == 3)):
            raise ValueError(f"map {name!r} must be y x, or y x 3 for colours, got shape {field.shape}")
    if not fields:
        raise ValueError("maps must hold at least one map, got none")
    cells, *others = {field.shape[:2] for field in fields.values()}
    if mark is not None and (others or not all(0 <= index < n for index, n in zip(mark, cells, strict=True))):
        raise ValueError(f"mark must lie inside maps of one grid, got {mark} and grids {[cells, *others]}")
    frame = Frame(image.shape, spacing)
    columns = min(columns, len(fields) + 1)
    rows = -(-(len(fields) + 1) // columns)  # rounded up
    tall = 2.3 * frame.lengths[1] / frame.lengths[2] + 0.35
    figure, grid = plt.subplots(
        rows, columns, squeeze=False, figsize=(2.4 * columns + 0.6 + bool(label), tall * rows + 0.4),
        layout="compressed",
    )  # fmt: skip
    for axes in grid.flat[len(fields) + 1 :]:
        axes.set_axis_off()
    panels = grid.flat[: len(fields) + 1]

    frame.draw_volume(panels[0], image, gamma=gamma)
    frame.draw_scale_bar(panels[0])
    if mask is not None:
        inside = check_mask(np.asarray(mask)[None], shape=image.shape)[0]  # y x
        y, x = (np.arange(n) * step for n, step in zip(inside.shape, frame.spacing[1:], strict=True))
        if inside.any():
            panels[0].contour(x, y, inside, levels=[0.5], colors=[COLOURS["mask"]], linewidths=0.8)
    panels[0].set(title=title, xlabel=f"x ({frame.unit})", ylabel=f"y ({frame.unit})")

    left, right = panels[0].get_xlim()
    bottom, top = panels[0].get_ylim()
    flat = [field.ravel() for field in fields.values() if field.ndim == 2]
    numbers = np.concatenate(flat or [np.zeros(0)])
    low = high = None
    drawn: Any = None  # what the colour bar describes
    if label and numbers.size:
        low, high = np.percentile(numbers, (1, 99)) if limits is None else limits
    extent = (left, right, bottom, top)
    for axes, (name, field) in zip(panels[1:], fields.items(), strict=True):
        shown = axes.imshow(
            field, extent=extent, cmap="cividis", vmin=low, vmax=high, interpolation="nearest"
        )  # fmt: skip
        drawn = shown if field.ndim == 2 else drawn
        axes.set(title=name, xticks=[], yticks=[])
    if low is not None:
        # The colour bar ends in an arrow where numbers lie outside its limits.
        arrows = ("neither", "min", "max", "both")[(numbers.min() < low) + 2 * (numbers.max() > high)]
        figure.colorbar(drawn, ax=grid, label=label, shrink=0.8, extend=arrows)
    if mark is not None:
        width, height = (right - left) / cells[1], (bottom - top) / cells[0]
        for axes in panels:
            corner = (left + mark[1] * width, top + mark[0] * height)
            axes.add_patch(plt.Rectangle(corner, width, height, fill=False, color=ORANGE, linewidth=1.5))
    return figure
