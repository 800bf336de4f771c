"""The two masks that a score compares: both are masks, and of one shape."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from neurokd.data.annotation import check_known
from neurokd.data.volume import check_mask

__all__ = ["as_mask", "known_pair", "mask_pair"]


def as_mask(mask: ArrayLike, name: str) -> NDArray[np.bool_]:
    """Return a mask as contiguous booleans, see :func:`neurokd.data.volume.check_mask`."""
    return np.ascontiguousarray(check_mask(mask, name=name))


def mask_pair(prediction: ArrayLike, truth: ArrayLike) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Return both masks as booleans of one shape; raise ``ValueError`` if they are not masks or differ in shape."""
    prediction, truth = as_mask(prediction, "prediction"), as_mask(truth, "truth")
    if prediction.shape != truth.shape:
        raise ValueError(
            f"prediction and truth must have one shape (z, y, x), got {prediction.shape} and {truth.shape}"
        )
    return prediction, truth


def known_pair(
    prediction: ArrayLike, truth: ArrayLike, known: ArrayLike | None
) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Return the known voxels of both masks, ``n`` of each; with ``known=None`` see :func:`mask_pair`."""
    prediction, truth = mask_pair(prediction, truth)
    if known is None:
        return prediction, truth
    known = check_known(known, shape=truth.shape)
    return prediction[known], truth[known]  # z y x -> n
