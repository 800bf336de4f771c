"""One coordinate system in which a stack, its mask, its tree and a scale bar are drawn."""

from __future__ import annotations

from typing import Any

import numpy as np
from einops import reduce
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.colors import PowerNorm, to_rgba
from mpl_toolkits.axes_grid1.anchored_artists import AnchoredSizeBar
from numpy.typing import ArrayLike, NDArray

from neurokd.data.tree import Tree
from neurokd.data.volume import Spacing, check_mask, check_spacing
from neurokd.viz.colours import COLOURS

__all__ = ["Frame"]


def bar_length(width: float) -> float:
    """Return the longest of 1, 2 or 5 times a power of ten that is at most a quarter of `width`."""
    step = 10.0 ** np.floor(np.log10(width / 4))
    return max(factor * step for factor in (1, 2, 5) if factor * step <= width / 4)


class Frame:
    """Draw a volume and its mask, tree and scale bar in any matplotlib axes.

    x points to the right and y down. Lengths are in `unit`; the centre of voxel k lies at k times the
    spacing. Most methods take a ``plane``, which names the horizontal and the vertical axis: "xy", "zy" or
    "xz".

    Parameters
    ----------
    shape
        Shape of the volume, ``(z, y, x)``.
    spacing
        Voxel size ``(z, y, x)`` in µm; None gives lengths in voxels.

    Attributes
    ----------
    unit : str
        "µm", or "voxels" if the spacing is None.
    lengths : tuple of float
        Size of the volume ``(z, y, x)`` in `unit`.

    Examples
    --------
    >>> figure, axes = plt.subplots()
    >>> frame = Frame(volume.shape, spacing=(0.4, 0.1, 0.1))
    >>> frame.draw_volume(axes, volume)
    >>> frame.draw_tree(axes, tree)
    >>> frame.draw_scale_bar(axes)
    """

    def __init__(self, shape: tuple[int, ...], spacing: Spacing | None) -> None:
        self.unit = "voxels" if spacing is None else "µm"
        self.spacing = (1.0, 1.0, 1.0) if spacing is None else check_spacing(spacing)
        self.lengths = tuple(n * s for n, s in zip(shape, self.spacing, strict=True))

    def draw_volume(
        self, axes: Axes, volume: NDArray[Any], plane: str = "xy", *, gamma: float = 0.5, dimmed: bool = False
    ) -> None:
        """Draw the maximum projection in grey; `dimmed` makes it half transparent, for drawing over it.

        The brightest 0.5 % of the pixels above zero are shown as white, because a soma is much brighter than
        its neurites. A `gamma` below one brightens dim voxels.
        """
        pixels = _project(volume, plane).astype(float)
        lit = pixels[pixels > 0]
        top = float(np.percentile(lit, 99.5)) if lit.size else 1.0
        norm = PowerNorm(gamma, vmin=min(0.0, float(pixels.min())), vmax=top, clip=True)
        axes.set_facecolor("black")
        self._draw(axes, pixels, plane, cmap="gray", norm=norm, alpha=0.5 if dimmed else 1.0)

    def draw_mask(
        self,
        axes: Axes,
        mask: ArrayLike,
        plane: str = "xy",
        *,
        colour: str = COLOURS["mask"],
        opacity: float = 1.0,
    ) -> None:
        """Draw the projection of a mask in one colour; the background stays transparent."""
        axes.set_facecolor("black")
        pixels = _project(check_mask(mask), plane)[..., None] * np.array(to_rgba(colour, opacity))  # y x rgba
        self._draw(axes, pixels, plane)

    def draw_verdict(self, axes: Axes, prediction: ArrayLike, truth: ArrayLike, plane: str = "xy") -> None:
        """Draw what a predicted mask found, missed and invented.

        A pixel counts as found if any voxel of its column is found, otherwise as missed if any is missed,
        otherwise as invented.
        """
        truth = check_mask(truth, name="truth")
        prediction = check_mask(prediction, shape=truth.shape, name="prediction")
        # Later masks cover earlier ones, so "found" comes last.
        self.draw_mask(axes, prediction & ~truth, plane, colour=COLOURS["invented"])
        self.draw_mask(axes, truth & ~prediction, plane, colour=COLOURS["missed"])
        self.draw_mask(axes, truth & prediction, plane, colour=COLOURS["found"])

    def draw_tree(self, axes: Axes, tree: Tree, plane: str = "xy") -> None:
        """Draw the edges of a tree in purple and its root as an orange dot."""
        columns = ["xyz".index(axis) for axis in plane]
        sizes = [self.spacing["zyx".index(axis)] for axis in plane]
        points = tree.xyz[:, columns] * sizes  # node 2
        segments = points[tree.edges]  # edge 2 2: both ends of each edge
        edges = LineCollection(list(segments), colors=COLOURS["tree"], linewidths=1.2)
        axes.add_collection(edges, autolim=False)
        root = points[tree.parent < 0].T  # 2 root
        axes.plot(*root, "o", color=COLOURS["root"], markersize=4, scalex=False, scaley=False)

    def draw_scale_bar(self, axes: Axes) -> None:
        """Draw a scale bar of 1, 2 or 5 times a power of ten, at most a quarter of the width."""
        length = bar_length(self.lengths[2])
        bar = AnchoredSizeBar(
            axes.transData, length, f"{length:g} {self.unit}", loc="lower right", color="white", pad=0.3,
            borderpad=0.3, size_vertical=self.lengths[1] / 150,
        )  # fmt: skip
        bar.patch.set(facecolor="black", edgecolor="none", alpha=0.6)
        axes.add_artist(bar)

    def _draw(self, axes: Axes, pixels: NDArray[Any], plane: str, **settings: Any) -> None:
        """Draw a projection; the edges of the image lie half a voxel outside the centres of its voxels."""
        horizontal, vertical = ("zyx".index(axis) for axis in plane)
        half_x, half_y = self.spacing[horizontal] / 2, self.spacing[vertical] / 2
        right, bottom = self.lengths[horizontal] - half_x, self.lengths[vertical] - half_y
        axes.imshow(pixels, extent=(-half_x, right, bottom, -half_y), **settings)


def _project(volume: NDArray[Any], plane: str) -> NDArray[Any]:
    """Return the maximum along the axis that is not in `plane`, with its second axis as rows."""
    return reduce(volume, f"z y x -> {plane[1]} {plane[0]}", "max")
