"""Curves of the loss and the validation Dice of a training run."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from neurokd.viz.colours import BLUE, GREEN, ORANGE

__all__ = ["plot_history"]


def plot_history(records: Iterable[Mapping[str, float]], *, title: str = "") -> Figure:
    """Draw loss and validation Dice against the training step.

    Parameters
    ----------
    records
        Dicts with ``step`` and with ``loss``, ``val_dice`` or both. See
        :class:`neurokd.training.config.TrainResult`.
    title
        Title of the figure.

    Returns
    -------
    matplotlib.figure.Figure
        Two panels, or one if only the loss or only the Dice was recorded.

    Raises
    ------
    ValueError
        No record contains a loss or a Dice.
    """
    records = list(records)
    loss, dice = (
        np.array(
            [(record["step"], record[key]) for record in records if key in record], dtype=float
        ).T  # 2 record: steps and values
        for key in ("loss", "val_dice")
    )
    # Losses fall and scores rise, so the legends lie in corners that the curves leave free.
    kinds = ((_draw_loss, loss, "upper right"), (_draw_dice, dice, "lower right"))
    drawn = [kind for kind in kinds if kind[1].size]
    if not drawn:
        raise ValueError(f"records must have a loss or a val_dice, got {len(records)} records with neither")
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
    """Draw every value and, for 40 or more values, a running mean over a twentieth of them."""
    axes.set_ylabel("loss")
    count = len(values) // 20
    if count < 2:
        axes.plot(steps, values, color=BLUE, linewidth=2, label="each step")
        return
    axes.plot(steps, values, color=BLUE, alpha=0.3, linewidth=1, label="each step")
    # mode="valid" keeps only the means over whole windows.
    means = (np.convolve(curve, np.full(count, 1 / count), mode="valid") for curve in (steps, values))
    axes.plot(*means, color=BLUE, linewidth=2, label=f"mean of {count}")


def _draw_dice(axes: Axes, steps: NDArray[np.float64], values: NDArray[np.float64]) -> None:
    """Draw every value and mark the highest."""
    best = int(np.argmax(values))
    axes.plot(steps, values, color=GREEN, marker="o", markersize=3)
    axes.plot(steps[best], values[best], "o", color=ORANGE, label=f"best {values[best]:.3f}")
    axes.set_ylim(0, 1.1 * max(values[best], 0.1))  # room for the marker
    axes.set_ylabel("validation Dice (foreground)")
