"""Figures of maximum projections: of a stack with its mask and tree, or of a prediction beside the truth.

Lengths are in µm if the spacing is known, otherwise in voxels. Stacks are grey. Gamma is below one because
neurites are much dimmer than the soma.

    plot_comparison:   | stack | truth | found / missed / invented | trace |
"""

from __future__ import annotations

from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure, SubFigure
from matplotlib.patches import Patch
from numpy.typing import ArrayLike, NDArray

from neurokd.data.tree import Tree
from neurokd.data.volume import Spacing, check_mask, check_volume
from neurokd.viz.colours import COLOURS, VERDICTS, WHITE
from neurokd.viz.frame import Frame

__all__ = ["plot_comparison", "plot_projections"]

_PAD = 20  # points between panel and title of a comparison; the legend fits in between


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
    """Draw maximum projections of a volume, with a mask (orange) and a tree (purple) over it.

    Parameters
    ----------
    volume
        Intensities or probabilities ``z y x``.
    mask
        Boolean ``z y x``, or None.
    tree
        Tree in voxels of `volume`, or None.
    spacing
        Voxel size ``(z, y, x)`` in µm; None gives lengths in voxels.
    orthogonal
        Whether to show the projections z-y and x-z beside x-y.
    gamma
        Exponent of the display; a value below one brightens dim voxels.
    title
        Title of the figure.

    Returns
    -------
    matplotlib.figure.Figure
        One panel, or three panels and an empty corner; axes in µm or voxels.

    Raises
    ------
    ValueError
        `volume` is not a valid volume, or `mask` has another shape or more than two values.
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
        frame.draw_volume(axes, volume, plane, gamma=gamma, dimmed=bool(masks) or tree is not None)
        if mask is not None:
            frame.draw_mask(axes, masks["mask"], plane, opacity=0.6)
        if tree is not None:
            frame.draw_tree(axes, tree, plane)
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
    """Draw a row of projections along z: the stack, the truth, the prediction and the trace.

    If the truth is known, the colours of the third panel show what the prediction found, missed and invented.
    A pixel counts as found if any voxel of its column is found, otherwise as missed or invented. An error of
    one voxel above or below a neurite therefore does not hide that the neurite was found. Scores are not
    shown; put them in a table.

    Parameters
    ----------
    volume
        Intensities ``z y x``.
    truth, prediction
        Boolean ``z y x``; None leaves the panel out. Without `truth` the prediction is white.
    tree
        The trace in voxels of `volume`; None leaves the panel out.
    spacing
        Voxel size ``(z, y, x)`` in µm, for the scale bar; None gives its length in voxels.
    gamma
        Exponent of the display; a value below one brightens dim voxels.
    title
        Text to the left of the row.
    truth_name
        Title of the panel of the truth, such as "automatic trace".
    figure
        Figure to draw in; None makes a new one. To draw several rows, pass a subfigure for each.

    Returns
    -------
    matplotlib.figure.Figure or SubFigure
        `figure` or a new figure, with one panel for each argument given.

    Raises
    ------
    ValueError
        `volume` is not a valid volume, or a mask has another shape or more than two values. Cut a probability
        at a threshold first.
    """
    volume, masks = _checked(volume, truth=truth, prediction=prediction)
    frame = Frame(volume.shape, spacing)
    shown = ["stack", *masks, *(["trace"] if tree is not None else [])]
    if figure is None:
        width, height = _size(frame.lengths[2], frame.lengths[1], width=2.5)
        figure = plt.figure(figsize=(width * len(shown), height), layout="constrained")
    panels = dict(zip(shown, figure.subplots(1, len(shown), squeeze=False)[0], strict=True))

    judged = len(masks) == 2
    for name, axes in panels.items():
        # Panels are anchored to the top, beside titles and legend. Otherwise matplotlib's layout would need
        # several rounds to make room above square panels, but it does only two.
        axes.set(xticks=[], yticks=[], anchor="N")
        axes.set_title(truth_name if name == "truth" else name, pad=_PAD if judged else None)
    frame.draw_volume(panels["stack"], volume, gamma=gamma)
    frame.draw_scale_bar(panels["stack"])
    for name, mask in masks.items():
        if name == "prediction" and judged:
            frame.draw_verdict(panels[name], mask, masks["truth"])
            _name_verdicts(panels[name])
        else:
            frame.draw_mask(panels[name], mask, colour=WHITE)
    if tree is not None:
        frame.draw_volume(panels["trace"], volume, gamma=gamma, dimmed=True)
        frame.draw_tree(panels["trace"], tree)
    panels["stack"].set_ylabel(title)
    return figure


def _name_verdicts(axes: Axes) -> None:
    """Draw the legend of what was found, missed and invented above a panel."""
    axes.legend(
        handles=[Patch(facecolor=COLOURS[name], edgecolor="0.4", label=name) for name in VERDICTS],
        loc="lower center", bbox_to_anchor=(0.5, 1.0), borderaxespad=0.2, borderpad=0, ncols=3, frameon=False,
        fontsize="small", handlelength=1, columnspacing=1,
    )  # fmt: skip


def _checked(
    volume: ArrayLike,
    **masks: ArrayLike | None,
) -> tuple[NDArray[Any], dict[str, NDArray[np.bool_]]]:
    """Return the checked volume and the checked masks that are not None."""
    volume = check_volume(volume)
    given = {name: mask for name, mask in masks.items() if mask is not None}
    return volume, {name: check_mask(mask, shape=volume.shape, name=name) for name, mask in given.items()}


def _size(horizontal: float, vertical: float, *, width: float) -> tuple[float, float]:
    """Return the width and height of a figure in inches; its height is at most twice its width."""
    return width, min(2 * width, width * vertical / horizontal + 0.6)  # 0.6 for title and labels
