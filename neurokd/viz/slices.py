"""One slice of a stack with a tree over it: plain where it passes through the slice, pale where it is elsewhere."""

import matplotlib.pyplot as plt
from matplotlib.figure import Figure
from numpy.typing import ArrayLike

from neurokd.data.swc import Tree
from neurokd.data.volume import Spacing, check_mask, check_volume
from neurokd.viz.frame import ORANGE, Frame

__all__ = ["plot_slice"]


def plot_slice(
    volume: ArrayLike,
    z: int,
    tree: Tree | None = None,
    mask: ArrayLike | None = None,
    *,
    spacing: Spacing | None = None,
    reach: float = 2.0,
    gamma: float = 0.5,
) -> Figure:
    """Draw slice `z`; made for a slider, so black and white are those of the whole volume.

    Parameters
    ----------
    volume
        Intensities ``z y x``.
    z
        Number of the slice, from 0.
    tree
        In voxels of `volume`: blue where an edge comes within `reach` of the slice, pale elsewhere.
    mask
        Boolean ``z y x``; its slice is laid over in orange.
    spacing
        Voxel size ``(z, y, x)`` in µm, for axes and scale bar; None counts voxels.
    reach
        Slices above and below that count as this one, at least 0.
    gamma
        Exponent of the display; below one lifts what is dim.

    Returns
    -------
    matplotlib.figure.Figure
        One panel; its title says where the slice is.

    Raises
    ------
    ValueError
        Not a volume, a mask of another shape or with more than two values, a slice that is not there, or a negative
        reach.
    """
    volume = check_volume(volume)
    if not 0 <= z < len(volume):
        raise ValueError(f"z is {z}; the volume has slices 0 to {len(volume) - 1}")
    if not reach >= 0:
        raise ValueError(f"reach is {reach}; it must be at least 0 slices")
    frame = Frame(volume.shape, spacing)
    _, height, width = frame.lengths
    figure, axes = plt.subplots(figsize=(6.0, min(12.0, 6.0 * height / width + 0.6)), layout="constrained")
    here = slice(z, z + 1)
    frame.show(axes, volume[here], gamma=gamma, like=volume)
    if mask is not None:
        frame.overlay(axes, check_mask(mask, shape=volume.shape)[here], "xy", ORANGE, alpha=0.6)
    if tree is not None:
        ends = tree.zyx[tree.edges][..., 0]
        near = (ends.min(axis=1) <= z + reach) & (ends.max(axis=1) >= z - reach)
        frame.trace(axes, tree, edges=tree.edges[~near], alpha=0.4)
        frame.trace(axes, tree, edges=tree.edges[near])
    frame.scale_bar(axes)
    depth = "" if spacing is None else f", {z * frame.spacing[0]:.1f} µm deep"
    axes.set(
        xlabel=f"x ({frame.unit})", ylabel=f"y ({frame.unit})", title=f"slice {z} of 0 to {len(volume) - 1}{depth}"
    )
    return figure
