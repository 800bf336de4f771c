"""Checks of volumes, masks and spacings in memory.

A volume is a numpy array with axes ``z y x``. Its spacing is ``(z, y, x)`` in µm.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

__all__ = ["Spacing", "check_mask", "check_spacing", "check_volume", "storable"]

Spacing = tuple[float, float, float]


def check_volume(volume: ArrayLike, *, name: str = "volume") -> NDArray[Any]:
    """Check that a volume has three axes, is not empty and holds real, finite numbers.

    Parameters
    ----------
    volume
        Anything that numpy turns into an array.
    name
        Name of the volume in error messages.

    Returns
    -------
    NDArray
        Array (z, y, x) with the same values and type; an array is not copied.

    Raises
    ------
    ValueError
        If it is not a volume; the message says what is wrong.
    """
    array = np.asarray(volume)
    if array.dtype.kind not in "buif":
        raise ValueError(f"{name} must hold real numbers, got {array.dtype}")
    if array.ndim != 3:
        raise ValueError(f"{name} must have 3 axes (z, y, x), got {array.ndim}: shape {array.shape}")
    if array.size == 0:
        raise ValueError(f"{name} must not be empty, got shape {array.shape}")
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        bad = np.count_nonzero(~np.isfinite(array))
        raise ValueError(f"{name} must be finite, got {bad} voxels that are NaN or infinite")
    return array


def check_mask(
    mask: ArrayLike,
    *,
    shape: tuple[int, ...] | None = None,
    name: str = "mask",
) -> NDArray[np.bool_]:
    """Return a mask as booleans; this function defines what a mask is in the whole package.

    Parameters
    ----------
    mask
        Booleans (z, y, x), or whole numbers of any type: 0 is background, all others are foreground.
    shape
        Shape of the volume that the mask belongs to; None allows any shape.
    name
        Name of the mask in error messages.

    Returns
    -------
    NDArray[bool]
        Mask (z, y, x), True for foreground.

    Raises
    ------
    ValueError
        If it has not three axes or has another shape, or if it holds probabilities, negative numbers or NaN.
    """
    array = check_volume(mask, name=name)
    if shape is not None and array.shape != tuple(shape):
        raise ValueError(f"{name} must have the shape of its volume, {tuple(shape)}, got {array.shape}")
    return foreground(array, name=name)


def foreground(array: NDArray[Any], *, name: str) -> NDArray[np.bool_]:
    """Return where the numbers of a mask of any shape are not 0; :func:`check_mask` says what a mask is."""
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
    """Return a spacing as floats; raise ``ValueError`` unless it is three positive numbers (z, y, x)."""
    try:
        z, y, x = (float(size) for size in spacing)
    except (TypeError, ValueError):
        z = y = x = np.nan
    if not all(np.isfinite(size) and size > 0 for size in (z, y, x)):
        raise ValueError(f"spacing must be three positive numbers (z, y, x) in µm, got {spacing!r}")
    return z, y, x


def storable(volume: ArrayLike) -> NDArray[Any]:
    """Return the volume in a type that microscopy formats can store: uint8, uint16 or float32.

    Masks become 0 and 255, floats become float32, other integers uint16. Raises ``ValueError`` if values do
    not fit.
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
            raise ValueError(f"volume must fit float32, got {data.dtype} values {least} to {most}")
        return data.astype(np.float32)
    if least < 0 or most > 65535:
        raise ValueError(
            f"volume must fit uint16, got {data.dtype} values {least} to {most}; convert it to float32 first"
        )
    return data.astype(np.uint16)
