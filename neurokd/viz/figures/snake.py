"""Tubes of taps in the volume that they look at: in space, and on its three projections.

The panels, from left to right::

    plot_snake:   | space: bright voxels, tubes | x-y | z-y | x-z |
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import PowerNorm
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import ArrayLike, NDArray

from neurokd.data.volume import Spacing, check_volume
from neurokd.viz.colours import GREEN, ORANGE, PURPLE, SKY
from neurokd.viz.frame import Frame

__all__ = ["plot_snake"]

# Told apart by colour, width and line: a later tube on top of an earlier one leaves the earlier one's rim in sight.
_STYLES = [(ORANGE, "-", 4.5), (SKY, "-", 2.0), (GREEN, "--", 1.5), (PURPLE, ":", 1.5)]


def plot_snake(
    volume: ArrayLike,
    tubes: Mapping[str, ArrayLike],
    *,
    spacing: Spacing | None = None,
    brightest: float = 0.03,
    gamma: float = 0.5,
    title: str = "",
) -> Figure:
    """Tubes of taps over a volume: in space, and on the maximum projections along z, x and y.

    Parameters
    ----------
    volume
        Intensities ``z y x``.
    tubes
        Up to four, by name: the taps' places ``k 3`` as (z, y, x) in voxels of `volume`, as of
        :func:`neurokd.models.snake.snake_coordinates`. A black ring marks the middle of each tube.
    spacing
        Voxel size ``(z, y, x)`` in µm; None draws voxels.
    brightest
        Share of the voxels that is drawn in space, from 0 to 1.
    gamma
        Exponent of the display; below one lifts what is dim.
    title
        Over the figure.

    Returns
    -------
    matplotlib.figure.Figure
        Four panels; axes in µm or voxels.

    Raises
    ------
    ValueError
        Not a volume, no tube or more than four, taps that are not ``k 3``, or a share out of range.

    Examples
    --------
    >>> line = np.stack([np.full(9, 5.0), np.full(9, 5.0), np.arange(1.0, 10)], axis=-1)
    >>> len(plot_snake(np.random.rand(11, 11, 11), {"a straight tube": line}).axes)
    4
    """
    volume = check_volume(volume)
    if not 1 <= len(tubes) <= len(_STYLES):
        raise ValueError(f"there are {len(tubes)} tubes; expected 1 to {len(_STYLES)}")
    if not 0 < brightest <= 1:
        raise ValueError(f"brightest is {brightest}; it must be above 0 and at most 1")
    frame = Frame(volume.shape, spacing)
    places = {name: _places(taps) * frame.spacing for name, taps in tubes.items()}
    figure, panels = plt.subplot_mosaic(
        [["space", "xy", "zy", "xz"]], figsize=(11.5, 3.4), width_ratios=(1.7, 1, 1, 1), layout="constrained",
        per_subplot_kw={"space": {"projection": "3d"}},
    )  # fmt: skip
    _cloud(panels["space"], frame, volume, brightest, gamma)
    for plane in ("xy", "zy", "xz"):
        frame.show(panels[plane], volume, plane, gamma=gamma, dimmed=True)
        panels[plane].set(xlabel=f"{plane[0]} ({frame.unit})", ylabel=f"{plane[1]} ({frame.unit})")
        panels[plane].autoscale(False)
    for (name, taps), style in zip(places.items(), _STYLES, strict=False):
        for shown, axes in panels.items():
            order = ["zyx".index(axis) for axis in ("xyz" if shown == "space" else shown)]
            _tube(axes, taps[:, order], style, name)
    figure.legend(*panels["xy"].get_legend_handles_labels(), loc="outside lower center", ncols=4, frameon=False)
    figure.suptitle(title)
    return figure


def _places(taps: Any) -> NDArray[np.float64]:
    taps = np.asarray(taps.detach().cpu() if hasattr(taps, "detach") else taps, dtype=float)
    if taps.ndim != 2 or taps.shape[1] != 3 or not len(taps):
        raise ValueError(f"a tube has shape {taps.shape}; expected k 3, the taps' (z, y, x)")
    return taps


def _cloud(axes: Any, frame: Frame, volume: NDArray[Any], brightest: float, gamma: float) -> None:
    """Draw the brightest voxels as dots in equal scale on all axes, darker where brighter."""
    count = max(1, round(brightest * volume.size))
    order = np.argsort(volume, axis=None, kind="stable")[-count:]
    bright = volume.ravel()[order].astype(float)
    norm = PowerNorm(gamma, vmin=min(0.0, bright.min()), vmax=bright.max() or 1.0)
    z, y, x = (index * size for index, size in zip(np.unravel_index(order, volume.shape), frame.spacing, strict=True))
    axes.scatter(x, y, z, c=bright, cmap="gray_r", norm=norm, s=14, alpha=0.3, linewidths=0)
    depth, height, width = frame.lengths
    axes.set(xlim=(0, width), ylim=(height, 0), zlim=(0, depth))
    axes.set(**{f"{axis}label": f"{axis} ({frame.unit})" for axis in "xyz"})
    for axis in (axes.xaxis, axes.yaxis, axes.zaxis):
        axis.set_major_locator(MaxNLocator(3))
    axes.set_box_aspect((width, height, depth), zoom=0.82)
    axes.view_init(elev=25, azim=-65)


def _tube(axes: Axes, taps: NDArray[np.float64], style: tuple[str, str, float], name: str) -> None:
    colour, line, linewidth = style
    axes.plot(*taps.T, color=colour, linestyle=line, linewidth=linewidth, label=name)
    middle = taps[(len(taps) - 1) // 2 : len(taps) // 2 + 1].mean(0, keepdims=True)
    axes.plot(*middle.T, "o", markersize=7, markerfacecolor="none", markeredgecolor="black", markeredgewidth=2)
    axes.plot(*middle.T, "o", markersize=6, markerfacecolor="none", markeredgecolor=colour, markeredgewidth=1)
