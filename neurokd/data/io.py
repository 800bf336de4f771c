"""Volumes on disk: read and write by the file's suffix, always ``z y x``.

    file --read_volume--> z y x, values and type as stored --scale_intensity--> float32 in [0, 1] --> network

The formats are in `neurokd.data.tiff` (plain, ImageJ and OME), `neurokd.data.v3d` and `neurokd.data.v3dpbd`
(Vaa3D's); checks in `neurokd.data.volume`, the intensity scale in `neurokd.data.intensity`.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from neurokd.data.files import existing_file
from neurokd.data.intensity import scale_intensity as scale_intensity
from neurokd.data.tiff import read_tiff, read_tiff_spacing, write_tiff
from neurokd.data.v3d import read_v3draw, write_v3draw
from neurokd.data.v3dpbd import read_v3dpbd
from neurokd.data.volume import Spacing, check_volume

__all__ = ["check_volume", "read_spacing", "read_volume", "write_volume"]

_TIFF = (".tif", ".tiff")
_V3DRAW = (".v3draw", ".raw")
_V3DPBD = (".v3dpbd",)  # read only


def read_volume(path: str | os.PathLike, *, channel: int | None = None) -> NDArray[Any]:
    """Read one 3D stack.

    Parameters
    ----------
    path
        A ``.tif``/``.tiff`` file, or Vaa3D's ``.v3draw``/``.raw`` or ``.v3dpbd``.
    channel
        Which channel to take, from 0; needed when the file holds several (RGB counts as three).

    Returns
    -------
    NDArray
        (z, y, x) with the values and the type of the file.

    Raises
    ------
    FileNotFoundError
        There is no such file.
    ValueError
        An unknown suffix; a file that is damaged or cut short, 2D, a time series, or has several channels of which
        none was chosen.
    """
    path = existing_file(path)
    suffix = _format(path, _TIFF + _V3DRAW + _V3DPBD)
    if suffix in _TIFF:
        stack, axes = read_tiff(path)
    else:
        stack = read_v3draw(path) if suffix in _V3DRAW else read_v3dpbd(path)
        axes = "CZYX"[-stack.ndim :]
    return _one_stack(stack, axes, channel, path)


def read_spacing(path: str | os.PathLike) -> Spacing | None:
    """Read the voxel size, where the file states it (ImageJ and OME TIFF).

    Parameters
    ----------
    path
        As in :func:`read_volume`.

    Returns
    -------
    tuple of float or None
        ``(z, y, x)`` in µm; None where nothing is stated, as always in Vaa3D's formats.

    Raises
    ------
    FileNotFoundError
        There is no such file.
    ValueError
        An unknown suffix, or a damaged TIFF.
    """
    path = existing_file(path)
    return read_tiff_spacing(path) if _format(path, _TIFF + _V3DRAW + _V3DPBD) in _TIFF else None


def write_volume(
    path: str | os.PathLike, volume: ArrayLike, *, spacing: Spacing | None = None, overwrite: bool = False
) -> Path:
    """Write a volume as a TIFF that ImageJ opens as a calibrated stack, or as v3draw if the name ends so.

    Parameters
    ----------
    path
        Where to; its folder is made if need be. The file appears whole or not at all.
    volume
        Array ``z y x``. Masks become 0/255; other integers must fit uint16; floats become float32.
    spacing
        Voxel size ``(z, y, x)`` in µm. v3draw has no place for it and drops it.
    overwrite
        Replace an existing file.

    Returns
    -------
    Path
        Of the file.

    Raises
    ------
    FileExistsError
        The file is there and `overwrite` is False.
    ValueError
        An unknown suffix, not a volume, a single slice as TIFF, values that do not fit, a spacing that is not positive.
    """
    path = Path(path)
    if _format(path, _TIFF + _V3DRAW) in _TIFF:
        return write_tiff(path, volume, spacing=spacing, overwrite=overwrite)
    return write_v3draw(path, volume, overwrite=overwrite)


def _format(path: Path, known: tuple[str, ...]) -> str:
    suffix = path.suffix.lower()
    if suffix not in known:
        raise ValueError(f"{path}: unknown kind of volume; known here are {', '.join(known)}")
    return suffix


def _one_stack(stack: NDArray[Any], axes: str, channel: int | None, path: Path) -> NDArray[Any]:
    """Bring axes as tifffile names them to ``z y x``."""
    shape = ", ".join(f"{axis}={size}" for axis, size in zip(axes, stack.shape, strict=True))
    channels = [place for place, axis in enumerate(axes) if axis in "CS"]
    depth = stack.ndim - len(channels)
    if depth < 3:
        raise ValueError(f"{path}: a 2D image (axes {shape}), not a stack of slices")
    if depth > 3 or len(channels) > 1 or "T" in axes:
        raise ValueError(f"{path}: axes {shape} are not one z y x stack (time points or several images?)")
    if not channels:
        if channel not in (None, 0):
            raise ValueError(f"{path}: channel={channel}, but there is only one (axes {shape})")
        return stack
    count = stack.shape[channels[0]]
    if channel is None:
        raise ValueError(f"{path}: {count} channels (axes {shape}): choose channel=0 to {count - 1}")
    if not 0 <= channel < count:
        raise ValueError(f"{path}: channel={channel}, but there are {count} (axes {shape})")
    return np.ascontiguousarray(np.take(stack, channel, axis=channels[0]))
