"""Figures: projections, comparisons, kernels, training curves.

Every function returns a matplotlib figure and shows nothing. Lengths are in µm where the spacing is known, else in
voxels. Stacks are grey, with a gamma below one because neurites are much dimmer than the soma; colours can be told
apart by people with any colour vision.

    plot_comparison:   | stack | truth | hit / missed / invented | trace |
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from einops import reduce
from matplotlib.axes import Axes
from matplotlib.figure import Figure, SubFigure
from matplotlib.patches import Patch
from numpy.typing import ArrayLike, NDArray

from neurokd.data.tree import Tree
from neurokd.data.volume import Spacing, check_mask, check_volume
from neurokd.viz.frame import BLUE, GREEN, ORANGE, SKY, WHITE, Frame

__all__ = ["plot_comparison", "plot_history", "plot_kernels", "plot_projections"]

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


def plot_kernels(weight: Any, *, channels: Sequence[int] | None = None) -> Figure:
    """An inflated patch embedding, slice by slice: one row a channel, one column a depth.

    Parameters
    ----------
    weight
        Array or tensor ``dim 1 z y x`` (or ``dim z y x``), as in ``conv.weight``.
    channels
        Which rows to show; None takes the six of largest norm.

    Returns
    -------
    matplotlib.figure.Figure
        One panel a channel and depth, and a colour bar; white is zero.

    Raises
    ------
    ValueError
        Not such a kernel, or a channel that it does not have.
    """
    weight = np.asarray(weight.detach().cpu().float() if hasattr(weight, "detach") else weight, dtype=float)
    if weight.ndim not in (4, 5) or (weight.ndim == 5 and weight.shape[1] != 1):
        raise ValueError(f"weight must be dim 1 z y x (or dim z y x), got shape {weight.shape}")
    weight = weight.reshape(weight.shape[0], *weight.shape[-3:])
    if channels is None:
        channels = np.argsort(-reduce(weight**2, "dim z y x -> dim", "sum"), kind="stable")[:6].tolist()
    if not len(channels) or not all(0 <= channel < len(weight) for channel in channels):
        raise ValueError(f"channels must be among 0 to {len(weight) - 1}, got {list(channels)}")
    depth = weight.shape[1]
    figure, grid = plt.subplots(
        len(channels), depth, squeeze=False, figsize=(1.2 * depth + 1.4, 1.2 * len(channels) + 0.4),
        layout="constrained",
    )  # fmt: skip
    limit = np.abs(weight[list(channels)]).max() or 1.0
    for row, channel in zip(grid, channels, strict=True):
        for z, axes in enumerate(row):
            drawn = axes.imshow(weight[channel, z], cmap="PuOr", vmin=-limit, vmax=limit)
            axes.set(xticks=[], yticks=[])
        row[0].set_ylabel(f"channel {channel}", fontsize="small")
    for z, axes in enumerate(grid[0]):
        axes.set_title(f"z = {z}", fontsize="small")
    figure.colorbar(drawn, ax=grid, label="weight", shrink=0.8)
    return figure


def plot_history(records: Iterable[Mapping[str, float]], *, title: str = "") -> Figure:
    """Loss and validation Dice against the training step.

    Parameters
    ----------
    records
        Dicts with ``step`` and ``loss`` or ``val_dice`` (or both), as `training.loop` writes them.
    title
        Over the figure.

    Returns
    -------
    matplotlib.figure.Figure
        Two panels, or one where only loss or only Dice was recorded.

    Raises
    ------
    ValueError
        Neither loss nor Dice in any record.
    """
    records = list(records)
    loss, dice = (
        np.array([(record["step"], record[key]) for record in records if key in record], dtype=float).T
        for key in ("loss", "val_dice")
    )
    kinds = ((_draw_loss, loss, "upper right"), (_draw_dice, dice, "lower right"))  # losses fall, scores rise
    drawn = [kind for kind in kinds if kind[1].size]
    if not drawn:
        raise ValueError(f"none of the {len(records)} records has a loss or a val_dice")
    figure, grid = plt.subplots(
        1, len(drawn), sharex=True, squeeze=False, figsize=(4.2 * len(drawn), 3), layout="constrained"
    )
    for axes, (draw, (steps, values), place) in zip(grid[0], drawn, strict=True):
        draw(axes, steps, values)
        axes.set_xlabel("step")
        axes.spines[["top", "right"]].set_visible(False)
        axes.legend(frameon=False, loc=place)
    figure.suptitle(title)
    return figure


def _draw_loss(axes: Axes, steps: NDArray[np.float64], values: NDArray[np.float64]) -> None:
    """Every value, and over a run of 40 or more, pale, the mean of a twentieth of it (whole windows only)."""
    axes.set_ylabel("loss")
    count = len(values) // 20
    if count < 2:
        axes.plot(steps, values, color=BLUE, linewidth=2, label="each step")
        return
    axes.plot(steps, values, color=BLUE, alpha=0.3, linewidth=1, label="each step")
    means = (np.convolve(curve, np.full(count, 1 / count), mode="valid") for curve in (steps, values))
    axes.plot(*means, color=BLUE, linewidth=2, label=f"mean of {count}")


def _draw_dice(axes: Axes, steps: NDArray[np.float64], values: NDArray[np.float64]) -> None:
    best = int(np.argmax(values))
    axes.plot(steps, values, color=GREEN, marker="o", markersize=3)
    axes.plot(steps[best], values[best], "o", color=ORANGE, label=f"best {values[best]:.3f}")
    axes.set_ylim(0, 1.1 * max(values[best], 0.1))  # room for the marker
    axes.set_ylabel("validation Dice (foreground)")


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
