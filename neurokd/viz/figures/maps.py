"""Maps of what a network says of each token, beside the image: attention, scores, tokens in false colours.

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
    """Draw an image and maps of the same field, each map on a grid of its own.

    Parameters
    ----------
    image
        Intensities ``y x``, a slice or a projection.
    maps
        Maps by title: numbers ``y x``, drawn in cividis, or colours ``y x 3`` in [0, 1]. Arrays or tensors.
    mask
        Boolean ``y x`` on the image's grid, outlined in orange on the image.
    mark
        Row and column of one cell of the maps, boxed in orange in every panel; the maps must then have one
        grid.
    spacing
        Voxel size ``(z, y, x)`` in µm, for axes and scale bar; None counts voxels.
    label
        Name of the numbers. It gives all maps one colour scale and a colour bar; without it each map has a
        scale of its own.
    limits
        Ends of the colour bar; None takes the 1st and the 99th percentile of all numbers.
    columns
        Panels in a row.
    gamma
        Exponent of the image's display; below one lifts what is dim.
    title
        Title of the image.

    Returns
    -------
    matplotlib.figure.Figure
        The image, then the maps.

    Raises
    ------
    ValueError
        There is no image or no map, the mask has another shape, a map another form, or the mark lies outside.

    Examples
    --------
    >>> figure = plot_maps(np.random.rand(96, 96), {"a": np.random.rand(12, 12)}, label="score", limits=(0, 1))
    >>> [axes.get_title() for axes in figure.axes]  # the last are the axes of the colour bar
    ['image', 'a', '']
    """
    image = check_volume(np.asarray(image)[None], name="image")
    fields = {name: np.asarray(field) for name, field in maps.items()}
    for name, field in fields.items():
        if not (field.ndim == 2 or (field.ndim == 3 and field.shape[2] == 3)):
            raise ValueError(f"map {name!r} must be y x, or y x 3 for colours, got shape {field.shape}")
    if not fields:
        raise ValueError("maps must hold at least one map, got none")
    cells, *others = {field.shape[:2] for field in fields.values()}
    if mark is not None and (others or not all(0 <= at < n for at, n in zip(mark, cells, strict=True))):
        raise ValueError(f"mark must lie in maps that have one grid, got {mark} and grids of {[cells, *others]}")
    frame = Frame(image.shape, spacing)
    columns = min(columns, len(fields) + 1)
    rows = -(-(len(fields) + 1) // columns)
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
        inside = check_mask(np.asarray(mask)[None], shape=image.shape)[0]
        down, across = (np.arange(n) * step for n, step in zip(inside.shape, frame.spacing[1:], strict=True))
        if inside.any():
            panels[0].contour(across, down, inside, levels=[0.5], colors=[COLOURS["mask"]], linewidths=0.8)
    panels[0].set(title=title, xlabel=f"x ({frame.unit})", ylabel=f"y ({frame.unit})")

    left, right, bottom, top = (*panels[0].get_xlim(), *panels[0].get_ylim())
    numbers = np.concatenate([field.ravel() for field in fields.values() if field.ndim == 2] or [np.zeros(0)])
    low = high = drawn = None
    if label and numbers.size:
        low, high = np.percentile(numbers, (1, 99)) if limits is None else limits
    for axes, (name, field) in zip(panels[1:], fields.items(), strict=True):
        shown = axes.imshow(
            field, extent=(left, right, bottom, top), cmap="cividis", vmin=low, vmax=high, interpolation="nearest"
        )
        drawn = shown if field.ndim == 2 else drawn
        axes.set(title=name, xticks=[], yticks=[])
    if low is not None:
        beyond = (numbers.min() < low) + 2 * (numbers.max() > high)
        figure.colorbar(drawn, ax=grid, label=label, shrink=0.8, extend=("neither", "min", "max", "both")[beyond])
    if mark is not None:
        width, height = (right - left) / cells[1], (bottom - top) / cells[0]
        for axes in panels:
            corner = (left + mark[1] * width, top + mark[0] * height)
            axes.add_patch(plt.Rectangle(corner, width, height, fill=False, color=ORANGE, linewidth=1.5))
    return figure
