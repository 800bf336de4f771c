"""Volumes on disk: read and write by the file's suffix, always ``z y x``.

    file --read_volume--> z y x, values and type as stored --scale_intensity--> float32 in [0, 1] --> network

`neurokd.data.formats` lists the formats. Checks are in `neurokd.data.volume`, the intensity scale in
`neurokd.data.intensity`.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from neurokd.data.files import existing_file
from neurokd.data.formats import format_of
from neurokd.data.intensity import scale_intensity as scale_intensity
from neurokd.data.volume import Spacing, check_volume

__all__ = ["check_volume", "read_spacing", "read_volume", "write_volume"]


def read_volume(path: str | os.PathLike[str], *, channel: int | None = None) -> NDArray[Any]:
    """Read one 3D stack.

    Parameters
    ----------
    path
        A file in one of the `FORMATS`.
    channel
        Which channel to take, from 0. It is needed when the file holds several (RGB counts as three).

    Returns
    -------
    NDArray
        (z, y, x) with the values and the type of the file.

    Raises
    ------
    FileNotFoundError
        There is no such file.
    ValueError
        The suffix is unknown; the file is damaged or cut short, 2D or a time series; or `channel` does not
        choose one of its channels.
    """
    path = Path(path)
    stack = format_of(path).read(path)  # z y x, or c z y x
    if stack.ndim == 3:
        if channel not in (None, 0):
            raise ValueError(f"{path}: channel must be 0 or None where there is only one, got {channel}")
        return stack
    if channel is None or not 0 <= channel < len(stack):
        raise ValueError(f"{path}: channel must be 0 to {len(stack) - 1}, got {channel}; choose one")
    return np.ascontiguousarray(stack[channel])  # z y x


def read_spacing(path: str | os.PathLike[str]) -> Spacing | None:
    """Read the voxel size, where the file states it (ImageJ and OME TIFF).

    Parameters
    ----------
    path
        A file in one of the `FORMATS`.

    Returns
    -------
    tuple of float or None
        ``(z, y, x)`` in µm; None where nothing is stated, as always in Vaa3D's formats.

    Raises
    ------
    FileNotFoundError
        There is no such file.
    ValueError
        The suffix is unknown, or the file is damaged.
    """
    path = Path(path)
    kind = format_of(path)
    if kind.read_spacing is None:
        existing_file(path)
        return None
    return kind.read_spacing(path)


def write_volume(
    path: str | os.PathLike[str], volume: ArrayLike, *, spacing: Spacing | None = None, overwrite: bool = False
) -> Path:
    """Write a volume as a TIFF that ImageJ opens as a calibrated stack, or as v3draw if the name ends so.

    Parameters
    ----------
    path
        The file to write; its folder is made if need be. The file appears whole or not at all.
    volume
        Array ``z y x``. Masks become 0/255; other integers must fit uint16; floats become float32.
    spacing
        Voxel size ``(z, y, x)`` in µm. A format without a place for it, such as v3draw, drops it.
    overwrite
        Replace an existing file.

    Returns
    -------
    Path
        The file.

    Raises
    ------
    FileExistsError
        The file is there and `overwrite` is False.
    ValueError
        An unknown suffix, not a volume, a single slice as TIFF, values that do not fit, or a spacing that is
        not positive.
    """
    path = Path(path)
    kind = format_of(path, writing=True)
    assert kind.write is not None  # format_of saw to it
    calibration = {"spacing": spacing} if kind.read_spacing else {}
    return kind.write(path, volume, overwrite=overwrite, **calibration)
