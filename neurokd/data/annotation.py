"""What people annotated: a mask, and which voxels they looked at.

    labels z y x --sparse_annotation--> mask, known --Sample--> Patches, train, evaluate_samples

A stack is seldom annotated as a whole. Often somebody draws every neurite in a few slices and leaves the
rest. The rest is not background. Nobody looked at it, so training and scores ignore it.
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

    The defaults are the labels of TRAILMAP (Friedmann, Pun et al. 2020, doi:10.1073/pnas.1918465117): 0 not
    annotated, 1 background, 2 axon, 3 artefact, 4 rim of an axon. The rim may be axon or background.

    Parameters
    ----------
    labels
        Whole numbers (z, y, x); each number has one meaning.
    foreground
        Labels of neurites.
    unknown
        Labels of voxels that nobody looked at, or that are too ambiguous to count. Labels that are neither
        foreground nor unknown are background.

    Returns
    -------
    tuple of two arrays
        `mask` and `known`, boolean (z, y, x), for :class:`neurokd.data.datasets.Sample`.

    Raises
    ------
    ValueError
        If labels are not whole numbers, a label is both foreground and unknown, or no voxel is known.

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
        found = np.unique(labels).tolist()
        raise ValueError(f"labels must hold known voxels, got only {found}, which are unknown")
    return mask, known


def check_known(known: ArrayLike, *, shape: tuple[int, ...], name: str = "known") -> NDArray[np.bool_]:
    """Return `known` as an array; ``ValueError`` unless it is boolean, has that shape and holds a True."""
    array, shape = np.asarray(known), tuple(shape)
    if array.dtype != bool or array.shape != shape:
        raise ValueError(f"{name} must be boolean of shape {shape}, got {array.dtype} of {array.shape}")
    if not array.any():
        raise ValueError(f"{name} must be True somewhere, got no known voxel")
    return array


class Annotated(NamedTuple):
    """A checked sample with a scaled image; all arrays are (z, y, x).

    Parameters
    ----------
    image
        Intensities in [0, 1].
    fill
        Voxels at which nothing was recorded.
    mask
        Neurite voxels; False where nothing is known.
    known
        Voxels that somebody looked at; None if all are known.
    """

    image: NDArray[np.float32]
    fill: NDArray[np.bool_]
    mask: NDArray[np.bool_]
    known: NDArray[np.bool_] | None


def annotated(sample: Sample) -> Annotated:
    """Check a sample with a mask and scale its image; a ``ValueError`` names the sample."""
    if sample.mask is None:
        raise ValueError(f"sample {sample.name!r} must have a mask, got None")
    shape = sample.volume.shape
    mask = check_mask(sample.mask, shape=shape, name=f"the mask of sample {sample.name!r}")
    known = sample.known
    if known is not None:
        known = check_known(known, shape=shape, name=f"known of sample {sample.name!r}")
        mask = mask & known
    try:
        scale = IntensityScale.from_volume(sample.volume)
    except ValueError as error:
        raise ValueError(f"the volume of sample {sample.name!r} cannot be used: {error}") from error
    return Annotated(scale_intensity(sample.volume, scale=scale), scale.is_fill(sample.volume), mask, known)
