"""The coordinates of a volume on paper, and what is drawn in them: a projection, a mask, a tree, a scale bar."""

from typing import Any

import numpy as np
from einops import reduce
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.colors import PowerNorm, to_rgba
from mpl_toolkits.axes_grid1.anchored_artists import AnchoredSizeBar
from numpy.typing import NDArray

from neurokd.data.tree import Tree
from neurokd.data.volume import Spacing, check_spacing

__all__ = ["BLUE", "GREEN", "ORANGE", "PURPLE", "SKY", "WHITE", "YELLOW", "Frame", "bar_length"]

# Okabe and Ito's colours (jfly.uni-koeln.de/color): people with any colour vision can tell them apart.
ORANGE, SKY, GREEN, BLUE, WHITE = "#E69F00", "#56B4E9", "#009E73", "#0072B2", "#F2F2F2"
PURPLE, YELLOW = "#CC79A7", "#F0E442"


def bar_length(width: float) -> float:
    """Return the length of a scale bar: 1, 2 or 5 times a power of ten, at most a quarter of `width`."""
    step = 10.0 ** np.floor(np.log10(width / 4))
    return max(factor * step for factor in (1, 2, 5) if factor * step <= width / 4)


class Frame:
    """x to the right, y down, in `unit`; voxel centres at whole numbers of voxels.

    Parameters
    ----------
    shape
        Of the volume, ``(z, y, x)``.
    spacing
        Voxel size ``(z, y, x)`` in µm; None counts voxels.
    """

    def __init__(self, shape: tuple[int, ...], spacing: Spacing | None) -> None:
        self.unit = "voxels" if spacing is None else "µm"
        self.spacing = (1.0, 1.0, 1.0) if spacing is None else check_spacing(spacing)
        self.lengths = tuple(n * s for n, s in zip(shape, self.spacing, strict=True))

    def show(self, axes: Axes, volume: NDArray[Any], plane: str = "xy", *, gamma: float, dimmed: bool = False) -> None:
        """Draw the maximum projection in grey; dimmed where something else goes on top.

        The brightest 0.5 % of what is not black are cut, for a soma is far brighter than its neurites.
        """
        pixels = _project(volume, plane).astype(float)
        lit = pixels[pixels > 0]
        top = float(np.percentile(lit, 99.5)) if lit.size else 1.0
        norm = PowerNorm(gamma, vmin=min(0.0, float(pixels.min())), vmax=top, clip=True)
        axes.set_facecolor("black")
        self._draw(axes, pixels, plane, cmap="gray", norm=norm, alpha=0.5 if dimmed else 1.0)

    def overlay(self, axes: Axes, mask: NDArray[np.bool_], plane: str, colour: str, alpha: float = 1.0) -> None:
        """Draw the projection of a mask in one colour, transparent elsewhere."""
        axes.set_facecolor("black")
        self._draw(axes, _project(mask, plane)[..., None] * np.array(to_rgba(colour, alpha)), plane)

    def trace(self, axes: Axes, tree: Tree, plane: str = "xy") -> None:
        """Draw the edges of a tree in blue and its root as an orange dot."""
        columns = ["xyz".index(axis) for axis in plane]
        points = tree.xyz[:, columns] * [self.spacing["zyx".index(axis)] for axis in plane]
        axes.add_collection(LineCollection(points[tree.edges], colors=SKY, linewidths=1.2), autolim=False)
        axes.plot(*points[tree.parent < 0].T, "o", color=ORANGE, markersize=4, scalex=False, scaley=False)

    def scale_bar(self, axes: Axes) -> None:
        """Draw a bar of 1, 2 or 5 times a power of ten, at most a quarter of the width."""
        length = bar_length(self.lengths[2])
        bar = AnchoredSizeBar(
            axes.transData, length, f"{length:g} {self.unit}", loc="lower right", color="white", pad=0.3,
            borderpad=0.3, size_vertical=self.lengths[1] / 150,
        )  # fmt: skip
        bar.patch.set(facecolor="black", edgecolor="none", alpha=0.6)
        axes.add_artist(bar)

    def _draw(self, axes: Axes, pixels: NDArray[Any], plane: str, **settings: Any) -> None:
        across, down = ("zyx".index(axis) for axis in plane)
        half_x, half_y = self.spacing[across] / 2, self.spacing[down] / 2
        right, bottom = self.lengths[across] - half_x, self.lengths[down] - half_y
        axes.imshow(pixels, extent=(-half_x, right, bottom, -half_y), **settings)


def _project(volume: NDArray[Any], plane: str) -> NDArray[Any]:
    """Maximum along the axis that is not in `plane` (across, down), as rows x columns."""
    return reduce(volume, f"z y x -> {plane[1]} {plane[0]}", "max")
