"""Maximum projections of a stack, alone, with a mask and a tree over it, or beside the truth.

Lengths are in µm where the spacing is known, else in voxels. Stacks are grey, with a gamma below one because neurites
are much dimmer than the soma.

    plot_comparison:   | stack | truth | hit / missed / invented | trace |
"""

from __future__ import annotations

from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure, SubFigure
from matplotlib.patches import Patch
from numpy.typing import ArrayLike, NDArray

from neurokd.data.swc import Tree
from neurokd.data.volume import Spacing, check_mask, check_volume
from neurokd.viz.colours import ORANGE, SKY, WHITE
from neurokd.viz.frame import Frame

__all__ = ["plot_comparison", "plot_projections"]

_PAD = 20  # points between panel and title of a comparison: the legend's line


def plot_projections(
    volume: ArrayLike,
    mask: ArrayLike | None = None,
    tree: Tree | None = None,
    *,
    spacing: Spacing | None = None,
    orthogonal: bool = False,
    gamma: float = 0.5,
    title: str = "",
) -> Figure:
    """Maximum projections of a volume, with mask (orange) and tree (blue) over it.

    Parameters
    ----------
    volume
        Intensities or probabilities ``z y x``.
    mask
        Boolean ``z y x``, or None.
    tree
        In voxels of `volume`, or None.
    spacing
        Voxel size ``(z, y, x)`` in µm; None draws voxels.
    orthogonal
        Show y-z and x-z beside x-y.
    gamma
        Exponent of the display; below one lifts what is dim.
    title
        Over the figure.

    Returns
    -------
    matplotlib.figure.Figure
        One panel, or three around an empty corner; axes in µm or voxels.

    Raises
    ------
    ValueError
        Not a volume, or a mask of another shape or with more than two values.
    """
    volume, masks = _checked(volume, mask=mask)
    frame = Frame(volume.shape, spacing)
    z, y, x = frame.lengths
    if not orthogonal:
        figure, axes = plt.subplots(figsize=_size(x, y, width=6.0), layout="constrained")
        panels = {"xy": axes}
    else:
        figure, grid = plt.subplots(
            2, 2, figsize=_size(x + z, y + z, width=7.0), width_ratios=(x, z), height_ratios=(y, z),
            layout="constrained",
        )  # fmt: skip
        panels = {"xy": grid[0, 0], "zy": grid[0, 1], "xz": grid[1, 0]}
        grid[1, 1].set_axis_off()
    for plane, axes in panels.items():
        frame.show(axes, volume, plane, gamma=gamma, dimmed=bool(masks) or tree is not None)
        if mask is not None:
            frame.overlay(axes, masks["mask"], plane, ORANGE, alpha=0.6)
        if tree is not None:
            frame.trace(axes, tree, plane)
        axes.set(xlabel=f"{plane[0]} ({frame.unit})", ylabel=f"{plane[1]} ({frame.unit})")
    panels["xy"].set_title(title)
    return figure


def plot_comparison(
    volume: ArrayLike,
    truth: ArrayLike | None = None,
    prediction: ArrayLike | None = None,
    tree: Tree | None = None,
    *,
    spacing: Spacing | None = None,
    gamma: float = 0.5,
    title: str = "",
    truth_name: str = "truth",
    figure: Figure | SubFigure | None = None,
) -> Figure | SubFigure:
    """One row: the stack, the truth, the prediction against it, the trace; all as projections along z.

    A pixel of the third panel counts as a hit if any voxel of its column is one, else as missed or invented; so
    a rim one voxel off above or below a neurite does not hide that it was found. Scores belong in a table.

    Parameters
    ----------
    volume
        Intensities ``z y x``.
    truth, prediction
        Boolean ``z y x``; the panel of what is None is left out. Without `truth` the prediction is plain.
    tree
        The trace, in voxels of `volume`.
    spacing
        Voxel size ``(z, y, x)`` in µm, for the scale bar; None counts voxels.
    gamma
        Exponent of the display; below one lifts what is dim.
    title
        Beside the row.
    truth_name
        What the truth is called, such as "automatic trace".
    figure
        Where to draw; a subfigure makes rows stack. None makes a new figure.

    Returns
    -------
    matplotlib.figure.Figure or SubFigure
        `figure`, or a new one; one panel for each thing given.

    Raises
    ------
    ValueError
        Not a volume, or masks of another shape or with more than two values (a probability: threshold it).
    """
    volume, masks = _checked(volume, truth=truth, prediction=prediction)
    frame = Frame(volume.shape, spacing)
    shown = ["stack", *masks, *(["trace"] if tree is not None else [])]
    if figure is None:
        width, height = _size(frame.lengths[2], frame.lengths[1], width=2.5)
        figure = plt.figure(figsize=(width * len(shown), height), layout="constrained")
    panels = dict(zip(shown, figure.subplots(1, len(shown), squeeze=False)[0], strict=True))

    for name, axes in panels.items():
        # Anchored to the top, where titles and legend are: with square panels matplotlib's layout would else
        # need several rounds to make room for them, and does two.
        axes.set(xticks=[], yticks=[], anchor="N")
        axes.set_title(truth_name if name == "truth" else name, pad=_PAD if len(masks) == 2 else None)
    frame.show(panels["stack"], volume, gamma=gamma)
    frame.scale_bar(panels["stack"])
    if "truth" in masks:
        frame.overlay(panels["truth"], masks["truth"], "xy", WHITE)
    if "prediction" in masks and "truth" in masks:
        _judge(panels["prediction"], frame, masks["prediction"], masks["truth"])
    elif "prediction" in masks:
        frame.overlay(panels["prediction"], masks["prediction"], "xy", WHITE)
    if tree is not None:
        frame.show(panels["trace"], volume, gamma=gamma, dimmed=True)
        frame.trace(panels["trace"], tree)
    panels["stack"].set_ylabel(title)
    return figure


def _judge(axes: Axes, frame: Frame, prediction: NDArray[np.bool_], truth: NDArray[np.bool_]) -> None:
    """Draw what was missed, what was invented, and on top of both what was hit, with the legend above."""
    kinds = {
        "invented": (prediction & ~truth, SKY),
        "missed": (truth & ~prediction, ORANGE),
        "hit": (truth & prediction, WHITE),
    }
    for where, colour in kinds.values():
        frame.overlay(axes, where, "xy", colour)
    axes.legend(
        handles=[Patch(facecolor=kinds[kind][1], edgecolor="0.4", label=kind) for kind in reversed(kinds)],
        loc="lower center", bbox_to_anchor=(0.5, 1.0), borderaxespad=0.2, borderpad=0, ncols=3, frameon=False,
        fontsize="small", handlelength=1, columnspacing=1,
    )  # fmt: skip


def _checked(volume: ArrayLike, **masks: ArrayLike | None) -> tuple[NDArray[Any], dict[str, NDArray[np.bool_]]]:
    volume = check_volume(volume)
    return volume, {
        name: check_mask(mask, shape=volume.shape, name=name) for name, mask in masks.items() if mask is not None
    }


def _size(across: float, down: float, *, width: float) -> tuple[float, float]:
    """Inches of a figure of this shape, with room for titles and labels, not taller than twice its width."""
    return width, min(2 * width, width * down / across + 0.6)
