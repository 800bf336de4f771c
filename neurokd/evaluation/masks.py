"""What counts as a mask: three axes, boolean or integer, both of one shape."""

import numpy as np
from numpy.typing import ArrayLike, NDArray

from neurokd.data.volume import check_volume

__all__ = ["as_mask", "mask_pair"]


def as_mask(mask: ArrayLike, name: str) -> NDArray[np.bool_]:
    """A mask as a boolean array; a segmentation with several labels is one, a probability is not (``ValueError``)."""
    array = check_volume(mask, name=name)
    if array.dtype.kind == "f":
        raise ValueError(f"{name} must be a boolean or integer mask, got {array.dtype}; threshold probabilities first")
    return np.ascontiguousarray(array != 0)


def mask_pair(prediction: ArrayLike, truth: ArrayLike) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Both masks as boolean arrays of one shape; else ``ValueError``."""
    prediction, truth = as_mask(prediction, "prediction"), as_mask(truth, "truth")
    if prediction.shape != truth.shape:
        raise ValueError(f"prediction and truth differ in shape (z, y, x): {prediction.shape} and {truth.shape}")
    return prediction, truth
