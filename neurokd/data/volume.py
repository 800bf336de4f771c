"""Volumes in memory: what counts as one.

A volume is a numpy array with axes ``z y x``; its spacing is ``(z, y, x)`` in µm.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

__all__ = ["Spacing", "check_mask", "check_spacing", "check_volume", "storable"]

Spacing = tuple[float, float, float]


def check_volume(volume: ArrayLike, *, name: str = "volume") -> NDArray[Any]:
    """Check that a volume is one: three axes, not empty, real and finite numbers.

    Parameters
    ----------
    volume
        Anything numpy makes an array of.
    name
        What the errors call it.

    Returns
    -------
    NDArray
        (z, y, x) the same values in the same type; not a copy if it was an array.

    Raises
    ------
    ValueError
        It is none; the message says what is wrong.
    """
    array = np.asarray(volume)
    if array.dtype.kind not in "buif":
        raise ValueError(f"{name} must hold real numbers, got {array.dtype}")
    if array.ndim != 3:
        raise ValueError(f"{name} must have 3 axes (z, y, x), got {array.ndim}: shape {array.shape}")
    if array.size == 0:
        raise ValueError(f"{name} is empty: shape {array.shape}")
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        bad = np.count_nonzero(~np.isfinite(array))
        raise ValueError(f"{name} has {bad} voxels that are NaN or infinite")
    return array


def check_mask(mask: ArrayLike, *, shape: tuple[int, ...] | None = None, name: str = "mask") -> NDArray[np.bool_]:
    """Return a mask as booleans; the one definition of a mask in this package.

    Parameters
    ----------
    mask
        (z, y, x) booleans, or whole numbers of any type of which 0 is background and all others are foreground.
    shape
        Shape of the volume that the mask belongs to; None: any.
    name
        What the errors call it.

    Returns
    -------
    NDArray[bool]
        (z, y, x), True for foreground.

    Raises
    ------
    ValueError
        Not three axes, another shape, or numbers that are no mask: probabilities, negative numbers, NaN.
    """
    array = check_volume(mask, name=name)
    if shape is not None and array.shape != tuple(shape):
        raise ValueError(f"{name} has shape {array.shape}, its volume {tuple(shape)}")
    return foreground(array, name=name)


def foreground(array: NDArray[Any], *, name: str) -> NDArray[np.bool_]:
    """Return where the numbers of a mask of any shape are not 0; see :func:`check_mask` for what is a mask."""
    if array.dtype.kind in "bu":
        return array != 0
    odd = array[(array < 0) | (array != np.floor(array))]
    if odd.size:
        raise ValueError(
            f"{name} must be boolean, or hold whole numbers of which 0 is background, "
            f"got {array.dtype} with {odd[0]}; compare probabilities with a threshold first"
        )
    return array != 0


def check_spacing(spacing: Sequence[float]) -> Spacing:
    """Return three positive floats ``(z, y, x)``; else ``ValueError``."""
    try:
        z, y, x = (float(size) for size in spacing)
    except (TypeError, ValueError):
        z = y = x = np.nan
    if not all(np.isfinite(size) and size > 0 for size in (z, y, x)):
        raise ValueError(f"spacing must be three positive numbers (z, y, x) in µm, got {spacing!r}")
    return z, y, x


def storable(volume: ArrayLike) -> NDArray[Any]:
    """Return the volume in a type that microscopy formats hold: uint8, uint16 or float32.

    Masks become 0/255, floats float32, other integers uint16 if they fit; ``ValueError`` if they do not.
    """
    data = check_volume(volume)
    if data.dtype == bool:
        return data.astype(np.uint8) * 255
    if data.dtype in (np.uint8, np.uint16, np.float32):
        return data
    least, most = data.min(), data.max()
    if data.dtype.kind == "f":
        limit = float(np.finfo(np.float32).max)
        if least < -limit or most > limit:
            raise ValueError(f"{data.dtype} values {least} to {most} do not fit float32")
        return data.astype(np.float32)
    if least < 0 or most > 65535:
        raise ValueError(f"{data.dtype} values {least} to {most} do not fit uint16: convert to float32")
    return data.astype(np.uint16)
