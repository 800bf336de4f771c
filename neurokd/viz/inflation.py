"""How 2D weights become 3D weights, drawn: kernels step by step, agreement, positions, errors block by block.

    plot_kernel_steps:   | red | green | blue | grey fold | 8 x 8 | z = 0 | z = 1 | ...   one row a channel

Every function returns a matplotlib figure and shows nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import matplotlib.pyplot as plt
import numpy as np
from einops import rearrange
from matplotlib.figure import Figure
from numpy.typing import NDArray

from neurokd.viz.frame import BLUE, GREEN, ORANGE, SKY

if TYPE_CHECKING:
    from neurokd.models.vit import ViT3D

__all__ = ["plot_agreement", "plot_block_errors", "plot_kernel_steps", "plot_positions"]

_LINES = ((BLUE, "-", "o"), (ORANGE, "--", "s"), (GREEN, "-.", "^"), ("0.45", ":", "v"), (SKY, "-", "D"))


def _numbers(values: Any) -> NDArray[np.float64]:
    """An array of floats from an array, a list or a tensor, whatever its device."""
    return np.asarray(values.detach().cpu().double() if hasattr(values, "detach") else values, dtype=float)


def plot_kernel_steps(
    steps: Mapping[str, Any], *, channels: Sequence[int], shared: bool = False, title: str = ""
) -> Figure:
    """Kernels on their way from 2D to 3D: one column a step, one row a channel.

    Parameters
    ----------
    steps
        By name: kernels ``dim y x``, arrays or tensors; sizes may differ from step to step.
    channels
        Which rows to show.
    shared
        One colour scale for all steps. Otherwise each has its own, and its limit stands below its name.
    title
        Over the figure.

    Returns
    -------
    matplotlib.figure.Figure
        White is zero.

    Raises
    ------
    ValueError
        A step of another form, or a channel that it does not have.
    """
    kernels = {name: _numbers(kernel) for name, kernel in steps.items()}
    for name, kernel in kernels.items():
        if kernel.ndim != 3 or not len(channels) or not all(0 <= channel < len(kernel) for channel in channels):
            raise ValueError(f"step {name!r} must be dim y x with channels {list(channels)}, got shape {kernel.shape}")
    limits = {name: np.abs(kernel[list(channels)]).max() for name, kernel in kernels.items()}
    if shared:
        limits = dict.fromkeys(limits, max(limits.values()))
    limits = {name: limit or 1.0 for name, limit in limits.items()}  # a kernel of zeros is white
    size = (1.25 * len(kernels) + (1.2 if shared else 0.4), 1.25 * len(channels) + 0.8)
    figure, grid = plt.subplots(len(channels), len(kernels), squeeze=False, figsize=size, layout="compressed")
    for column, (name, kernel) in zip(grid.T, kernels.items(), strict=True):
        for axes, channel in zip(column, channels, strict=True):
            drawn = axes.imshow(kernel[channel], cmap="PuOr", vmin=-limits[name], vmax=limits[name])
            axes.set(xticks=[], yticks=[])
        column[0].set_title(name if shared else f"{name}\n±{limits[name]:.2g}", fontsize="small")
    for axes, channel in zip(grid[:, 0], channels, strict=True):
        axes.set_ylabel(f"channel {channel}", fontsize="small")
    if shared:
        figure.colorbar(drawn, ax=grid, label="weight", shrink=0.8)
    figure.suptitle(title)
    return figure


def plot_agreement(truth: Any, others: Mapping[str, Any], *, label: str, points: int = 3000) -> Figure:
    """Values against those they should equal, one panel each; the diagonal is perfect.

    Parameters
    ----------
    truth
        Numbers of any shape.
    others
        By name: numbers of the same shape.
    label
        What the truth is.
    points
        How many are drawn, evenly spread.

    Returns
    -------
    matplotlib.figure.Figure
        One panel for each of the others, all with the same axes.

    Raises
    ------
    ValueError
        Shapes that differ.
    """
    truth, values = _numbers(truth), {name: _numbers(other) for name, other in others.items()}
    for name, value in values.items():
        if value.shape != truth.shape:
            raise ValueError(f"{name!r} has shape {value.shape}, the truth {truth.shape}")
    step = max(1, truth.size // points)
    low, high = (pick([pick(part) for part in (truth, *values.values())]) for pick in (np.min, np.max))
    figure, grid = plt.subplots(
        1, len(values), squeeze=False, sharey=True, figsize=(3.3 * len(values) + 0.4, 3.4), layout="compressed"
    )
    for k, (axes, (name, value)) in enumerate(zip(grid[0], values.items(), strict=True)):
        axes.plot((low, high), (low, high), color="0.6", linewidth=1)
        axes.plot(truth.ravel()[::step], value.ravel()[::step], ".", color=_LINES[k % len(_LINES)][0], markersize=2)
        axes.set(title=name, xlabel=label, aspect="equal")
    grid[0, 0].set_ylabel("value")
    return figure


def plot_positions(vit: ViT3D, grid: tuple[int, int, int], *, place: tuple[float, float] = (0.3, 0.6)) -> Figure:
    """How alike the position embeddings of one place and of all others are, before and after the way to 3D.

    Parameters
    ----------
    vit
        An inflated model with learned positions.
    grid
        Tokens (z, y, x) of the volume.
    place
        As shares (y, x) of the field, in [0, 1).

    Returns
    -------
    matplotlib.figure.Figure
        Cosine similarity on the grid the teacher was trained on, and in the first and the last slab of the volume;
        the place is marked.
    """
    planes = {f"trained grid, {vit.config.grid[0]} x {vit.config.grid[1]}": (1, *vit.config.grid)}
    maps = {}
    for name, size in (planes | {"volume": grid}).items():
        embedding = rearrange(_numbers(vit.positions(size)[1]), "1 (z y x) d -> z y x d", z=size[0], y=size[1])
        unit = embedding / np.linalg.norm(embedding, axis=-1, keepdims=True)
        row, column = (int(share * n) for share, n in zip(place, size[1:], strict=True))
        alike = unit @ unit[0, row, column]
        for slab in (0,) if name in planes else sorted({0, size[0] - 1}):
            where = name if name in planes else f"{size[1]} x {size[2]}, slab {slab + 1} of {size[0]}"
            maps[where] = alike[slab], (column, row)
    low = min(alike.min() for alike, _ in maps.values())
    figure, panels = plt.subplots(1, len(maps), squeeze=False, figsize=(2.9 * len(maps) + 1, 3.2), layout="compressed")
    for axes, (name, (alike, point)) in zip(panels[0], maps.items(), strict=True):
        drawn = axes.imshow(alike, cmap="cividis", vmin=low, vmax=1)
        axes.plot(*point, "o", color=ORANGE, markersize=5, markerfacecolor="none")
        axes.set(title=name, xlabel="token in x")
        axes.locator_params(integer=True, nbins=6)
    panels[0, 0].set_ylabel("token in y")
    figure.colorbar(drawn, ax=panels, label="cosine similarity", shrink=0.8)
    return figure


def plot_block_errors(errors: Mapping[str, Sequence[float]], *, label: str = "largest error / largest token") -> Figure:
    """Errors after each block on a logarithmic axis.

    Parameters
    ----------
    errors
        By name: one number a block. Zeros are drawn at 1e-17.
    label
        Of the axis.

    Returns
    -------
    matplotlib.figure.Figure
        One line a name.
    """
    figure, axes = plt.subplots(figsize=(6.4, 3.4), layout="constrained")
    for (name, values), (colour, style, marker) in zip(errors.items(), _LINES * len(errors), strict=False):
        axes.semilogy(np.maximum(values, 1e-17), color=colour, linestyle=style, marker=marker, markersize=4, label=name)
    axes.set(xlabel="after block (from 0)", ylabel=label)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, fontsize="small", loc="center left", bbox_to_anchor=(1, 0.5))
    return figure
