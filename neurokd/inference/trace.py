"""From a probability or a mask to a tree: minimal paths from the soma, in the spirit of APP2 and FastTree.

    probability > threshold -> fragments -> gaps bridged -> graph of voxels -> minimal paths -> pruned ->
    smoothed
         . : . :               ==  == .     ======          steps between       from the        spurs     the
         tree
                                            neighbours       neighbours         soma            cut off

A step costs little in the middle of a neurite and much at its wall, so the cheapest way from any voxel to the
soma first finds the centreline and then follows it. All these ways together are one tree, with a twig for
every voxel. Pruning keeps the longest way, then the longest that leads to voxels not yet covered by it, and
so on.

Sources: APP2, Xiao and Peng 2013, doi:10.1093/bioinformatics/btt170 (grey-weighted distance, soma by
radius, coverage pruning); TEASAR, Sato et al. 2000, doi:10.1109/PCCGA.2000.883951 (longest path first). The
code and every constant are ours.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import ndimage
from scipy.sparse.csgraph import dijkstra

from neurokd import __version__
from neurokd.data.tree import Tree
from neurokd.data.volume import check_mask, check_spacing, check_volume
from neurokd.inference.gaps import DETOUR, join_fragments
from neurokd.inference.paths import prune, smooth, voxel_graph

__all__ = ["Soma", "find_soma", "trace"]

_MOST_VOXELS = 300_000_000  # in the box around the candidates: at about 55 bytes a voxel, 16 GB of memory
_MOST_CANDIDATES = 10_000_000


class Soma(NamedTuple):
    """A soma: its centre and its radius.

    Parameters
    ----------
    z, y, x
        Centre, voxels.
    radius
        Radius, mean voxels (the cube root of a voxel's volume).
    """

    z: float
    y: float
    x: float
    radius: float


def trace(
    probability: ArrayLike,
    *,
    threshold: float = 0.5,
    spacing: Sequence[float] | None = None,
    soma: Sequence[float] | None = None,
    max_gap: float = 20.0,
    min_fragment: int = 5,
    min_branch: float = 2.0,
    step: float = 2.0,
) -> Tree:
    """Trace one neuron.

    Parameters
    ----------
    probability
        (z, y, x) probabilities in [0, 1], or a mask: boolean, or 0 and one other integer.
    threshold
        Voxels with probability > `threshold` and the holes that they enclose are candidates. It has no effect
        on a mask.
    spacing
        Voxel size `(z, y, x)` in any unit; only the ratios count. None stands for cubic voxels. Lengths below
        are in mean voxels, the cube root of a voxel's volume; for cubic voxels these are voxels.
    soma
        `(z, y, x)` in voxels, or a :class:`Soma`, see :func:`find_soma`. The root is there, a ball of that
        radius counts as found, and the neuron is the group of fragments that holds it. None puts the root at
        the thickest place of the group with most voxels, which is the soma only where the soma was segmented.
    max_gap
        Widest gap, between nearest voxels, over which fragments are joined. The narrowest and least empty
        gaps come first, and a bridge keeps to what little probability there is. ``math.inf`` joins all. A
        branch that is longer in gaps than in candidates is pruned in any case.
    min_fragment
        Smallest number of voxels of a fragment. Smaller ones are dropped as specks before fragments are
        joined; if all are specks, the largest stay.
    min_branch
        Length that a branch must stick out from what its stem covers; shorter branches are pruned.
    step
        Largest distance between nodes along the tree, voxels.

    Returns
    -------
    Tree
        Points are in voxels. The root has type 1 (soma), all other nodes type 0 (undefined), because a mask
        does not tell axons from dendrites. Radii are in mean voxels, so that ``tree.to_microns(spacing)``
        gives points and radii in µm. The comments, which :func:`write_swc` writes as header, hold the
        version, the parameters, and how much was left out because it lay too far away. A single candidate
        voxel gives a tree of one node. The same input always gives the same tree.

    Raises
    ------
    ValueError
        `probability` does not have three axes, is empty, not finite, outside [0, 1] or integer and no mask;
        no voxel is above the threshold, or more than can be traced at once; the soma is outside the volume or
        further than `max_gap` from all fragments; a parameter is out of range.
    """
    grey, mask = _candidates(probability, threshold)
    unit = _unit(spacing)
    for name, value in (("max_gap", max_gap), ("min_fragment", min_fragment), ("min_branch", min_branch)):
        if not value >= 0:
            raise ValueError(f"{name} must be >= 0, got {value}")
    if not step > 0:
        raise ValueError(f"step must be > 0, got {step}")

    found, place = mask, None
    if soma is not None:
        place, ball = _ball(soma, mask.shape, unit)
        mask = mask | ball
    box = _box(mask)
    mask, found, grey = np.pad(mask[box], 1), np.pad(found[box], 1), np.pad(grey[box], 1)
    mask = ndimage.binary_fill_holes(mask)  # a soma is often hollow in a prediction
    grey[mask & ~found] = 1
    corner = np.array([axis.start for axis in box]) - 1  # of the padded box, in voxels of the volume
    soma_index = None if place is None else int(np.ravel_multi_index(tuple(place - corner), mask.shape))

    joined = join_fragments(mask, grey, unit, max_gap=max_gap, min_fragment=min_fragment, soma=soma_index)
    if not (joined.voxels & found).any():
        raise ValueError(f"soma must be within max_gap {max_gap} of a fragment, got {soma}; is it in voxels?")
    radius = ndimage.distance_transform_edt(mask, sampling=unit)
    steps, voxels = voxel_graph(joined.voxels, radius * grey, unit)
    points = np.stack(np.unravel_index(voxels, mask.shape), axis=1) * unit  # (n, 3), z y x in mean voxels
    radius, is_candidate = radius.ravel()[voxels], mask.ravel()[voxels]  # z y x -> (n,)
    root = int(radius.argmax() if soma_index is None else np.searchsorted(voxels, soma_index))
    _, parent = dijkstra(steps, directed=False, indices=root, return_predecessors=True)
    kept = prune(points, radius, parent, root, is_candidate, min_branch=min_branch)

    # Within the soma there are no branches: its neurites begin at its surface and hang on its middle.
    in_soma = np.linalg.norm(points - points[root], axis=1) < radius[root]
    kept = kept[~in_soma[kept] | (kept == root)]
    row = np.full(len(voxels), -1)  # row of each node in the tree
    row[kept] = np.arange(len(kept))
    row[in_soma] = row[root]
    parent_row = np.where(kept == root, -1, row[np.maximum(parent[kept], 0)])
    xyz = (points[kept] / unit + corner)[:, ::-1]
    radius = np.maximum(radius[kept], 0.5)  # bridges have no radius
    tree = Tree.from_nodes(xyz, radius, parent_row, np.where(kept == root, 1, 0))
    given = soma if soma is None else tuple(np.asarray(soma).tolist())  # plain numbers
    settings = {"threshold": threshold, "spacing": spacing, "soma": given, "max_gap": max_gap}
    settings |= {"min_fragment": min_fragment, "min_branch": min_branch, "step": step}
    left_out = f"{joined.others} left out ({joined.other_voxels:.1%} of the voxels)"
    stated = ", ".join(f"{name} {value}" for name, value in settings.items())
    comments = (
        f"traced by neurokd {__version__}: {stated}",
        f"x y z in voxels of a volume of {np.shape(probability)} (z, y, x), radii in mean voxels",
        f"{joined.fragments} fragments joined, {left_out}",
    )
    return replace(smooth(tree).resample(step), comments=comments)


def find_soma(mask: ArrayLike, *, spacing: Sequence[float] | None = None) -> Soma:
    """Find the soma by its radius: the largest ball that fits into a mask, whose holes are filled.

    Networks that learnt thin neurites often miss the soma. Then look for it where the *image* is bright, and
    tell the tracer: ``trace(probability, soma=find_soma(volume > level))``.

    Parameters
    ----------
    mask
        (z, y, x) boolean, or 0 and one other whole number.
    spacing
        Voxel size `(z, y, x)` in any unit; None stands for cubic voxels.

    Returns
    -------
    Soma
        The centre `z, y, x` in voxels, and the `radius` in mean voxels.

    Raises
    ------
    ValueError
        `mask` does not have three axes, is no mask, is empty, or is more than can be traced at once.
    """
    mask = _one_mask(mask, "mask")
    if not mask.any():
        raise ValueError(f"mask must have foreground to find a soma in, got none in {mask.shape}")
    box = _box(mask)
    filled = ndimage.binary_fill_holes(np.pad(mask[box], 1))
    radius = ndimage.distance_transform_edt(filled, sampling=_unit(spacing))
    place = np.unravel_index(radius.argmax(), radius.shape)
    z, y, x = (float(i + axis.start - 1) for i, axis in zip(place, box, strict=True))
    return Soma(z, y, x, float(radius.max()))


def _candidates(probability: ArrayLike, threshold: float) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Return checked probabilities (0 and 1 for a mask) and the candidate voxels."""
    volume = check_volume(probability, name="probability")
    if volume.dtype.kind == "f":
        if volume.min() < 0 or volume.max() > 1:
            raise ValueError(f"probability must be in [0, 1], got {volume.min()} to {volume.max()}")
        if not 0 <= threshold < 1:
            raise ValueError(f"threshold must be in [0, 1), got {threshold}")
        mask = volume > threshold
    else:
        mask = volume = _one_mask(volume, "probability")
    if not mask.any():
        raise ValueError(f"nothing to trace: no voxel above the threshold {threshold} in a volume of {volume.shape}")
    return volume.astype(np.float32, copy=False), mask


def _one_mask(mask: ArrayLike, name: str) -> NDArray[np.bool_]:
    """Return a mask of one thing; refuse stored probabilities (0 to 255) and labels of several neurons."""
    checked = check_mask(mask, name=name)
    values = np.asarray(mask)[checked]
    if values.size and (values != values[0]).any():
        raise ValueError(
            f"{name} must be a mask of one value beside 0, got {values.min()} to {values.max()}; divide stored "
            "probabilities by their maximum, and choose one neuron of several, labels == k"
        )
    return checked


def _unit(spacing: Sequence[float] | None) -> NDArray[np.float64]:
    """Return the voxel size (z, y, x) in mean voxels."""
    unit = np.array(check_spacing((1, 1, 1) if spacing is None else spacing))
    return unit / np.prod(unit) ** (1 / 3)


def _box(mask: NDArray[np.bool_]) -> tuple[slice, ...]:
    """Return the box around the candidates, with room for detours: nothing happens outside of it."""
    tight = ndimage.find_objects(mask.astype(np.uint8))[0]
    box = tuple(
        slice(max(axis.start - DETOUR, 0), min(axis.stop + DETOUR, n))
        for axis, n in zip(tight, mask.shape, strict=True)
    )
    voxels = math.prod(axis.stop - axis.start for axis in box)
    for what, size, most in (
        ("candidate voxels", np.count_nonzero(mask), _MOST_CANDIDATES),
        ("voxels in the box around the candidates", voxels, _MOST_VOXELS),
    ):
        if size > most:
            raise ValueError(
                f"{what} must be at most {most:,} to be traced at once, got {size:,}: raise the threshold, "
                "cut out one neuron, or trace a coarser copy, skimage.measure.block_reduce(probability, 2, "
                "np.max), and scale the tree by 2"
            )
    return box


def _ball(
    soma: Sequence[float], shape: tuple[int, ...], unit: NDArray[np.float64]
) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Return the voxel in the middle of a soma, checked to lie in the volume, and the mask of its ball."""
    numbers = np.asarray(soma, dtype=np.float64)
    if numbers.shape not in ((3,), (4,)) or not np.isfinite(numbers).all() or (numbers[3:] < 0).any():
        raise ValueError(f"soma must be (z, y, x) or (z, y, x, radius), got {soma}")
    place = np.rint(numbers[:3]).astype(int)
    if (place < 0).any() or (place >= shape).any():
        raise ValueError(f"soma must be (z, y, x) in voxels within the volume of {shape}, got {tuple(soma)}")
    z, y, x = ((np.arange(n) - c) * u for n, c, u in zip(shape, place, unit, strict=True))
    radius = numbers[3] if len(numbers) == 4 else 0.0
    return place, z[:, None, None] ** 2 + y[:, None] ** 2 + x**2 <= radius**2
