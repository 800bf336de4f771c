"""Figure of the kernels of a patch embedding, slice by slice."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from einops import reduce
from matplotlib.figure import Figure

__all__ = ["plot_kernels"]


def plot_kernels(weight: Any, *, channels: Sequence[int] | None = None) -> Figure:
    """Draw an inflated patch embedding slice by slice: one row per channel, one column per slice.

    Parameters
    ----------
    weight
        Array or tensor ``dim 1 z y x`` (or ``dim z y x``), as in ``conv.weight``.
    channels
        Channels to show; None takes the six with the largest norm.

    Returns
    -------
    matplotlib.figure.Figure
        One panel per channel and slice, and a colour bar; white is zero.

    Raises
    ------
    ValueError
        `weight` has another shape, or one of the `channels` does not exist.
    """
    weight = np.asarray(weight.detach().cpu().float() if hasattr(weight, "detach") else weight, dtype=float)
    if weight.ndim not in (4, 5) or (weight.ndim == 5 and weight.shape[1] != 1):
        raise ValueError(f"weight must be dim 1 z y x (or dim z y x), got shape {weight.shape}")
    weight = weight.reshape(weight.shape[0], *weight.shape[-3:])  # dim z y x
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
