"""What a teacher sees: maps of tokens in false colours, attention and scores beside the image they belong to.

    tokens b d y x --TokenPCA--> b y x 3 components --rgb--> colours
    plot_maps:   | image, scale bar | map | map | ... | colour bar |

Every function returns a matplotlib figure and shows nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import matplotlib.pyplot as plt
import numpy as np
import torch
from einops import einsum, rearrange, reduce
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import ArrayLike, NDArray
from torch import Tensor
from torch.nn import functional as F

from neurokd.data.volume import Spacing, check_mask, check_volume, scale_intensity
from neurokd.evaluation.probe import average_precision, precision_recall
from neurokd.viz.frame import BLUE, GREEN, ORANGE, SKY, Frame

if TYPE_CHECKING:
    from neurokd.models.teacher import Teacher

__all__ = ["TokenPCA", "plot_maps", "plot_probes", "plot_slice_features", "plot_views"]

_LINES = (ORANGE, BLUE, GREEN, "0.45", SKY)


@dataclass(frozen=True, eq=False)
class TokenPCA:
    """Principal components of tokens, kept so that other images get the same colours.

    Attributes
    ----------
    mean
        ``d y x`` where the mean of each place was taken off, else ``d 1 1``.
    axes
        ``k d``, unit vectors of falling variance, signed so that the rarer tokens come out positive (by the skewness).
    share
        (k,) of the variance that is left after the mean is taken off.
    low, high
        (k,) the components' 2nd and 98th percentiles, which become 0 and 1 in colours.
    """

    mean: Tensor
    axes: Tensor
    share: Tensor
    low: Tensor
    high: Tensor

    @classmethod
    def fit(cls, maps: Tensor, *, components: int = 3, per_place: bool = False) -> TokenPCA:
        """Find the components of token maps.

        Parameters
        ----------
        maps
            ``b d y x``.
        components
            How many, at most d.
        per_place
            Take off the mean over the batch at each place instead of the mean of all. A ViT's tokens know where they
            are, and that may be most of their variance; it takes a few dozen different images to average it out.

        Raises
        ------
        ValueError
            Not maps, or more components than channels.
        """
        if maps.ndim != 4 or not 1 <= components <= maps.shape[1]:
            raise ValueError(f"maps must be b d y x with d of at least {components}, got shape {tuple(maps.shape)}")
        maps = maps.double()
        mean = reduce(maps, "b d y x -> d y x" if per_place else "b d y x -> d 1 1", "mean")
        tokens = rearrange(maps - mean, "b d y x -> (b y x) d")
        values, vectors = torch.linalg.eigh(tokens.T @ tokens)  # ascending
        axes = rearrange(vectors.flip(1)[:, :components], "d k -> k d")
        found = tokens @ axes.T
        flip = torch.where(reduce(found**3, "n k -> k", "mean") < 0, -1.0, 1.0)
        found, axes = found * flip, axes * flip[:, None]
        low, high = np.percentile(found.numpy(), (2, 98), axis=0)  # torch's quantile refuses large inputs
        share = values.flip(0)[:components] / values.sum()
        return cls(mean, axes, share, torch.from_numpy(low), torch.from_numpy(high))

    def __call__(self, maps: Tensor) -> Tensor:
        """Return the components ``b k y x`` of maps ``b d y x``, on whatever grid."""
        mean = self.mean
        if mean.shape[1:] not in (maps.shape[2:], (1, 1)):  # the places of another magnification
            mean = F.interpolate(mean[None], size=maps.shape[2:], mode="bicubic", antialias=True)[0]
        return einsum(maps.double() - mean, self.axes, "b d y x, k d -> b k y x")

    def rgb(self, maps: Tensor) -> NDArray[np.float64]:
        """Return colours ``b y x 3`` in [0, 1]: the first three components as red, green and blue."""
        found = rearrange(self(maps)[:, :3], "b k y x -> b y x k")
        return ((found - self.low[:3]) / (self.high - self.low)[:3]).clamp(0, 1).numpy()


def plot_maps(
    image: ArrayLike,
    maps: Mapping[str, Any],
    *,
    mask: ArrayLike | None = None,
    mark: tuple[int, int] | None = None,
    spacing: Spacing | None = None,
    label: str = "",
    limits: tuple[float, float] | None = None,
    columns: int = 4,
    gamma: float = 0.5,
    title: str = "slice",
) -> Figure:
    """An image and maps of the same field, each on its own grid.

    Parameters
    ----------
    image
        Intensities ``y x``, one slice or projection.
    maps
        By title: numbers ``y x``, drawn in cividis, or colours ``y x 3`` in [0, 1]. Arrays or tensors.
    mask
        Boolean ``y x`` on the image's grid, outlined in orange on the image.
    mark
        Row and column of one patch of the maps, boxed everywhere; all maps must then have one grid.
    spacing
        Voxel size ``(z, y, x)`` in µm, for axes and scale bar; None counts voxels.
    label
        Of the colour bar: what the numbers are. Without it there is none, and each map has a scale of its own.
    limits
        Of the colour bar; None takes the least and the greatest 1 % of all maps.
    columns
        Panels in a row.
    gamma
        Exponent of the image's display; below one lifts what is dim.
    title
        Of the image.

    Returns
    -------
    matplotlib.figure.Figure
        The image first, then the maps.

    Raises
    ------
    ValueError
        Not an image, a mask of another shape, or a map of another form.
    """
    image = check_volume(np.asarray(image)[None], name="image")
    fields = {name: np.asarray(field) for name, field in maps.items()}
    for name, field in fields.items():
        if not (field.ndim == 2 or (field.ndim == 3 and field.shape[2] == 3)):
            raise ValueError(f"map {name!r} must be y x, or y x 3 for colours, got shape {field.shape}")
    frame = Frame(image.shape, spacing)
    columns = min(columns, len(fields) + 1)
    rows = -(-(len(fields) + 1) // columns)
    height = 2.3 * frame.lengths[1] / frame.lengths[2] + 0.35
    figure, grid = plt.subplots(
        rows, columns, squeeze=False, figsize=(2.4 * columns + 0.6 + bool(label), height * rows + 0.4),
        layout="compressed",
    )  # fmt: skip
    first, *others = grid.flat
    frame.show(first, image, gamma=gamma)
    if mask is not None:
        _outline(first, frame, check_mask(np.asarray(mask)[None], shape=image.shape)[0])
    frame.scale_bar(first)
    first.set(title=title, xlabel=f"x ({frame.unit})", ylabel=f"y ({frame.unit})")

    left, right, bottom, top = (*first.get_xlim(), *first.get_ylim())
    numbers = [field.ravel() for field in fields.values() if field.ndim == 2]
    if label and limits is None and numbers:
        limits = tuple(np.percentile(np.concatenate(numbers), (1, 99)).tolist())
    low, high = limits if label and limits is not None else (None, None)
    drawn = None
    for axes, (name, field) in zip(others, fields.items(), strict=False):
        shown = axes.imshow(
            field, extent=(left, right, bottom, top), cmap="cividis", vmin=low, vmax=high, interpolation="nearest"
        )
        drawn = shown if field.ndim == 2 else drawn
        axes.set(title=name, xticks=[], yticks=[])
    for axes in others[len(fields) :]:
        axes.set_axis_off()
    if label and drawn is not None:
        figure.colorbar(drawn, ax=grid, label=label, shrink=0.8, extend="both" if limits else "neither")
    if mark is not None:
        patches_down, patches_across = next(iter(fields.values())).shape[:2]
        width, height = (right - left) / patches_across, (bottom - top) / patches_down
        for axes in (first, *others[: len(fields)]):
            corner = (left + mark[1] * width, top + mark[0] * height)
            axes.add_patch(plt.Rectangle(corner, width, height, fill=False, color=ORANGE, linewidth=1.5))
    return figure


def plot_views(
    volume: ArrayLike,
    mask: ArrayLike | None = None,
    *,
    z: int,
    thickness: int = 9,
    spacing: Spacing | None = None,
    gamma: float = 0.5,
) -> Figure:
    """The pictures that a 2D network can be shown of a volume: a slice, a slab around it, the whole projection.

    Parameters
    ----------
    volume
        Intensities ``z y x``.
    mask
        Boolean ``z y x``, outlined in orange; None for none.
    z
        The slice, from 0.
    thickness
        Slices of the slab, of which the maximum is taken; fewer at the ends of the volume.
    spacing
        Voxel size ``(z, y, x)`` in µm; None counts voxels.
    gamma
        Exponent of the display; below one lifts what is dim.

    Returns
    -------
    matplotlib.figure.Figure
        Three panels.

    Raises
    ------
    ValueError
        Not a volume, a mask of another shape, or a slice that the volume does not have.
    """
    volume = check_volume(volume)
    if not 0 <= z < len(volume) or thickness < 1:
        raise ValueError(f"z is {z} and thickness {thickness}; the volume has slices 0 to {len(volume) - 1}")
    slab = slice(max(0, z - thickness // 2), z + thickness // 2 + 1)
    views = {
        f"slice {z}": slice(z, z + 1),
        f"maximum of slices {slab.start} to {min(slab.stop, len(volume)) - 1}": slab,
    }
    views[f"maximum of all {len(volume)} slices"] = slice(None)
    frame = Frame(volume.shape, spacing)
    height = 3.2 * frame.lengths[1] / frame.lengths[2] + 0.7
    figure, grid = plt.subplots(1, 3, figsize=(10.4, height), layout="compressed")
    for axes, (name, part) in zip(grid, views.items(), strict=True):
        frame.show(axes, volume[part], gamma=gamma)
        if mask is not None:
            _outline(axes, frame, check_mask(mask, shape=volume.shape)[part].any(axis=0))
        frame.scale_bar(axes)
        axes.set(title=name, xlabel=f"x ({frame.unit})")
    grid[0].set_ylabel(f"y ({frame.unit})")
    return figure


def plot_slice_features(
    teacher: Teacher,
    pca: TokenPCA,
    volume: ArrayLike,
    *,
    z: int,
    thickness: int = 1,
    magnification: float = 1.75,
    block: int = 5,
    spacing: Spacing | None = None,
) -> Figure:
    """A slice of a volume, and what a teacher makes of it in the colours of a :class:`TokenPCA`.

    Parameters
    ----------
    teacher
        From :func:`neurokd.models.teacher.load_teacher`.
    pca
        Fitted on tokens of this block.
    volume
        Intensities ``z y x``, of any scale.
    z
        The slice, from 0.
    thickness
        Slices from `z` on that are projected (maximum) into one image.
    magnification
        As in :meth:`neurokd.models.teacher.Teacher.feature_maps`.
    block
        Number of the block, from 0.
    spacing
        Voxel size ``(z, y, x)`` in µm; None counts voxels.

    Returns
    -------
    matplotlib.figure.Figure
        The image, its tokens in colours, and the first components one by one.

    Raises
    ------
    ValueError
        Not a volume, or a slice that it does not have.
    """
    volume = check_volume(volume)
    if not 0 <= z < len(volume) or thickness < 1:
        raise ValueError(f"z is {z} and thickness {thickness}; the volume has slices 0 to {len(volume) - 1}")
    image = scale_intensity(volume)[z : z + thickness].max(axis=0)
    (tokens,) = teacher.feature_maps(torch.from_numpy(image)[None, None], [block], magnification=magnification)
    components = {f"component {k}": part for k, part in enumerate(pca(tokens)[0], 1)}
    covers = teacher.patch[1] / magnification
    where = f"slice {z}" if thickness == 1 else f"slices {z} to {min(z + thickness, len(volume)) - 1}"
    figure = plot_maps(
        image, {f"a token covers {covers:.1f} voxels": pca.rgb(tokens)[0], **components}, spacing=spacing,
        columns=2 + len(components), title=where,
    )  # fmt: skip
    return figure


def plot_probes(
    curves: Mapping[str, tuple[ArrayLike, ArrayLike]],
    by_block: Mapping[str, Mapping[int, float]] | None = None,
    *,
    held_out: str = "test",
) -> Figure:
    """Precision against recall of several scores, and average precision block by block.

    Parameters
    ----------
    curves
        By name: scores (n,) and boolean labels (n,).
    by_block
        By name: average precision by block; a single block is drawn as a level. None leaves that panel out.
    held_out
        What the labels of the curves are from, such as "test".

    Returns
    -------
    matplotlib.figure.Figure
        Blocks on the left, curves on the right, with their average precision and that of chance.

    Raises
    ------
    ValueError
        As :func:`neurokd.evaluation.probe.precision_recall`.
    """
    panels = 1 + bool(by_block)
    figure, grid = plt.subplots(1, panels, squeeze=False, figsize=(4.2 * panels, 3.4), layout="constrained")
    names = dict.fromkeys([*curves, *(by_block or {})])
    colours = {name: _LINES[k % len(_LINES)] for k, name in enumerate(names)}
    styles = {name: ("-", "--", "-.", ":")[k % 4] for k, name in enumerate(names)}
    if by_block:
        for name, series in by_block.items():
            blocks = sorted(series)
            values = [series[block] for block in blocks]
            if len(blocks) == 1:
                grid[0, 0].axhline(values[0], color=colours[name], linestyle=styles[name], label=name)
            else:
                grid[0, 0].plot(blocks, values, color=colours[name], linestyle=styles[name], marker="o", label=name)
        grid[0, 0].set(xlabel="block (from 0)", ylabel="average precision, validation", ylim=(0, None))
    chance = float(np.mean(np.concatenate([np.asarray(labels) for _, labels in curves.values()])))
    for name, (scores, labels) in curves.items():
        precision, recall = precision_recall(scores, labels)
        grid[0, -1].step(
            np.append(0, recall), np.append(precision[0], precision), where="pre", color=colours[name],
            linestyle=styles[name], label=f"{name}: {average_precision(scores, labels):.2f}",
        )  # fmt: skip
    grid[0, -1].axhline(chance, color="0.7", linewidth=1, zorder=0, label=f"chance: {chance:.2f}")
    grid[0, -1].set(xlabel=f"recall, {held_out}", ylabel="precision", xlim=(0, 1), ylim=(0, 1.02))
    for axes in grid[0]:
        axes.spines[["top", "right"]].set_visible(False)
        axes.legend(frameon=False, fontsize="small")
    return figure


def _outline(axes: Axes, frame: Frame, inside: NDArray[np.bool_]) -> None:
    """Draw the border of a mask ``y x`` in orange."""
    if inside.any():
        down, across = (np.arange(n) * step for n, step in zip(inside.shape, frame.spacing[1:], strict=True))
        axes.contour(across, down, inside, levels=[0.5], colors=[ORANGE], linewidths=0.8)
