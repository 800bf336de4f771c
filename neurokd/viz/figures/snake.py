"""Figure of tubes of kernel taps over a volume, in space and on three projections.

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

# Tubes differ in colour, line style and width. Later tubes are thinner, so the tubes below stay visible.
# Each style is (colour, line style, width in points).
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
    """Draw tubes of kernel taps over a volume: in space, and on the maximum projections along z, x and y.

    Parameters
    ----------
    volume
        Intensities ``z y x``.
    tubes
        One to four tubes by name. Each is an array ``k 3`` with the coordinates (z, y, x) of its taps in
        voxels of `volume`. See :func:`neurokd.models.snake.snake_coordinates`. A ring with a black rim marks
        the middle of each tube.
    spacing
        Voxel size ``(z, y, x)`` in µm; None gives lengths in voxels.
    brightest
        Share of the voxels, the brightest ones, that is drawn in space; above 0 and at most 1.
    gamma
        Exponent of the display; a value below one brightens dim voxels.
    title
        Title of the figure.

    Returns
    -------
    matplotlib.figure.Figure
        Four panels; axes in µm or voxels.

    Raises
    ------
    ValueError
        `volume` is not a valid volume, `tubes` holds none or more than four, the taps of a tube are not
        ``k 3``, or `brightest` is out of range.

    Examples
    --------
    >>> line = np.stack([np.full(9, 5.0), np.full(9, 5.0), np.arange(1.0, 10)], axis=-1)
    >>> len(plot_snake(np.random.rand(11, 11, 11), {"a straight tube": line}).axes)
    4
    """
    volume = check_volume(volume)
    if not 1 <= len(tubes) <= len(_STYLES):
        raise ValueError(f"tubes must hold 1 to {len(_STYLES)} tubes, got {len(tubes)}")
    if not 0 < brightest <= 1:
        raise ValueError(f"brightest must be above 0 and at most 1, got {brightest}")
    frame = Frame(volume.shape, spacing)
    places = {name: _places(taps) * frame.spacing for name, taps in tubes.items()}
    figure, panels = plt.subplot_mosaic(
        [["space", "xy", "zy", "xz"]], figsize=(11.5, 3.4), width_ratios=(1.7, 1, 1, 1), layout="constrained",
        per_subplot_kw={"space": {"projection": "3d"}},
    )  # fmt: skip
    _cloud(panels["space"], frame, volume, brightest, gamma)
    for plane in ("xy", "zy", "xz"):
        frame.draw_volume(panels[plane], volume, plane, gamma=gamma, dimmed=True)
        panels[plane].set(xlabel=f"{plane[0]} ({frame.unit})", ylabel=f"{plane[1]} ({frame.unit})")
        panels[plane].autoscale(False)
    for (name, taps), style in zip(places.items(), _STYLES, strict=False):
        for shown, axes in panels.items():
            order = ["zyx".index(axis) for axis in ("xyz" if shown == "space" else shown)]
            _tube(axes, taps[:, order], style, name)
    handles = panels["xy"].get_legend_handles_labels()
    figure.legend(*handles, loc="outside lower center", ncols=4, frameon=False)
    figure.suptitle(title)
    return figure


def _places(taps: Any) -> NDArray[np.float64]:
    """Return the checked coordinates of taps as an array ``k 3``."""
    taps = np.asarray(taps.detach().cpu() if hasattr(taps, "detach") else taps, dtype=float)
    if taps.ndim != 2 or taps.shape[1] != 3 or not len(taps):
        raise ValueError(f"a tube must be an array k 3, the (z, y, x) of its taps, got shape {taps.shape}")
    return taps


def _cloud(axes: Any, frame: Frame, volume: NDArray[Any], brightest: float, gamma: float) -> None:
    """Draw the brightest voxels as dots, the brighter the darker, with the same scale on all axes."""
    count = max(1, round(brightest * volume.size))
    order = np.argsort(volume, axis=None, kind="stable")[-count:]
    bright = volume.ravel()[order].astype(float)
    norm = PowerNorm(gamma, vmin=min(0.0, bright.min()), vmax=bright.max() or 1.0)
    indices = np.unravel_index(order, volume.shape)
    z, y, x = (index * size for index, size in zip(indices, frame.spacing, strict=True))
    axes.scatter(x, y, z, c=bright, cmap="gray_r", norm=norm, s=14, alpha=0.3, linewidths=0)
    depth, height, width = frame.lengths
    axes.set(xlim=(0, width), ylim=(height, 0), zlim=(0, depth))
    axes.set(**{f"{axis}label": f"{axis} ({frame.unit})" for axis in "xyz"})
    for axis in (axes.xaxis, axes.yaxis, axes.zaxis):
        axis.set_major_locator(MaxNLocator(3))
    axes.set_box_aspect((width, height, depth), zoom=0.82)
    axes.view_init(elev=25, azim=-65)


def _tube(axes: Axes, taps: NDArray[np.float64], style: tuple[str, str, float], name: str) -> None:
    """Draw one tube and a ring around its middle."""
    colour, line, linewidth = style
    axes.plot(*taps.T, color=colour, linestyle=line, linewidth=linewidth, label=name)
    # With an even number of taps, the middle is the mean of the two middle taps.
    middle = taps[(len(taps) - 1) // 2 : len(taps) // 2 + 1].mean(0, keepdims=True).T  # axis 1
    axes.plot(*middle, "o", markersize=7, markerfacecolor="none", markeredgecolor="black", markeredgewidth=2)
    axes.plot(*middle, "o", markersize=6, markerfacecolor="none", markeredgecolor=colour, markeredgewidth=1)
