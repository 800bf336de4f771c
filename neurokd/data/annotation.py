"""What people annotated: a mask, and which voxels they looked at.

    labels z y x --sparse_annotation--> mask, known --Sample--> Patches, train, evaluate_samples

A stack is seldom annotated as a whole. Often somebody draws every neurite in a few slices and leaves the rest. The
rest is not background: nothing is known of it, so training and scores ignore it.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from neurokd.data.intensity import IntensityScale, scale_intensity
from neurokd.data.volume import check_mask, check_volume

if TYPE_CHECKING:
    from neurokd.data.datasets import Sample

__all__ = ["sparse_annotation"]


def sparse_annotation(
    labels: ArrayLike, *, foreground: Collection[int] = (2,), unknown: Collection[int] = (0, 4)
) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Split a volume of labels into a mask and the voxels that are known.

    The defaults are the labels of TRAILMAP (Friedmann, Pun et al. 2020, doi:10.1073/pnas.1918465117): 0 not annotated,
    1 background, 2 axon, 3 artefact, 4 rim of an axon, which is neither surely axon nor surely background.

    Parameters
    ----------
    labels
        (z, y, x) whole numbers, one meaning each.
    foreground
        Labels of neurites.
    unknown
        Labels of voxels that nobody looked at, or that are too ambiguous to count. All labels that are neither in
        `foreground` nor here are background.

    Returns
    -------
    tuple of two arrays
        `mask` and `known`, boolean (z, y, x), as :class:`neurokd.data.datasets.Sample` takes them.

    Raises
    ------
    ValueError
        Labels that are not whole numbers, a label that is both foreground and unknown, or no known voxel.

    Examples
    --------
    >>> mask, known = sparse_annotation(np.array([[[0, 1, 2, 3, 4]]]))
    >>> mask.tolist(), known.tolist()
    ([[[False, False, True, False, False]]], [[[False, True, True, True, False]]])
    """
    labels = check_volume(labels, name="labels")
    if labels.dtype.kind == "f" and (labels != np.floor(labels)).any():
        raise ValueError(f"labels must be whole numbers, got {labels[labels != np.floor(labels)][0]}")
    both = sorted(set(foreground) & set(unknown))
    if both:
        raise ValueError(f"foreground and unknown must have no label in common, got {both} in both")
    mask, known = np.isin(labels, list(foreground)), ~np.isin(labels, list(unknown))
    if not known.any():
        raise ValueError(f"labels must hold known voxels, got only {np.unique(labels).tolist()}, which are unknown")
    return mask, known


def check_known(known: ArrayLike, *, shape: tuple[int, ...], name: str = "known") -> NDArray[np.bool_]:
    """Return `known` if it is a boolean array of that shape with at least one True; else raise ``ValueError``."""
    array = np.asarray(known)
    if array.dtype != bool or array.shape != tuple(shape):
        raise ValueError(f"{name} must be boolean of shape {tuple(shape)}, got {array.dtype} of {array.shape}")
    if not array.any():
        raise ValueError(f"{name} must be True somewhere, got no known voxel")
    return array


class Annotated(NamedTuple):
    """A checked sample: its scaled image, where that is fill, its mask (False where nothing is known), what is known.

    ``known`` is None where all is known.
    """

    image: NDArray[np.float32]
    fill: NDArray[np.bool_]
    mask: NDArray[np.bool_]
    known: NDArray[np.bool_] | None


def annotated(sample: Sample) -> Annotated:
    """Check a sample that is trained on or validated on, and scale its image; ``ValueError`` names the sample."""
    if sample.mask is None:
        raise ValueError(f"sample {sample.name!r} has no mask")
    shape = sample.volume.shape
    mask = check_mask(sample.mask, shape=shape, name=f"the mask of sample {sample.name!r}")
    known = sample.known
    if known is not None:
        known = check_known(known, shape=shape, name=f"known of sample {sample.name!r}")
        mask = mask & known
    try:
        scale = IntensityScale.from_volume(sample.volume)
    except ValueError as error:
        raise ValueError(f"sample {sample.name!r}: {error}") from error
    return Annotated(scale_intensity(sample.volume, scale=scale), scale.is_fill(sample.volume), mask, known)
