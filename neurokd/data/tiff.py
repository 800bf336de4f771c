"""TIFF stacks: plain, ImageJ and OME, any bit depth and compression that `tifffile` and `imagecodecs` know.

tifffile reads the pixels. This module judges them: is the file whole, is it one stack, and does its
resolution mean anything?
"""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import tifffile
from numpy.typing import ArrayLike, NDArray

from neurokd.data.files import existing_file, writing_to
from neurokd.data.volume import Spacing, check_spacing, storable

__all__ = ["read_tiff", "read_tiff_spacing", "write_tiff"]

logger = logging.getLogger(__name__)
# How ImageJ and OME spell lengths. "inch" is not among them: programs write it when nobody said anything.
_MICROMETRES = {
    **dict.fromkeys(["µm", "μm", "um", "micron", "microns", "micrometer", "micrometre", "\\u00b5m"], 1.0),
    **{"å": 1e-4, "nm": 1e-3, "mm": 1e3, "cm": 1e4, "m": 1e6},
}


def read_tiff(path: str | os.PathLike[str]) -> NDArray[Any]:
    """Read the first image of a TIFF.

    Parameters
    ----------
    path
        The file; the name does not matter.

    Returns
    -------
    NDArray
        (z, y, x), or (c, z, y, x) if it has several channels (RGB counts as three), in the type of the file.

    Raises
    ------
    FileNotFoundError
        There is no such file.
    ValueError
        Not a TIFF, damaged or cut short; a 2D image, a time series, or several images.
    """
    with _opened(path) as tif:
        if len(tif.series) > 1:
            logger.warning("%s holds %d images; the first is read", path, len(tif.series))
        series = tif.series[0]
        _check_complete(tif, series)
        stack = series.asarray()
        if stack.shape != series.shape:
            raise ValueError(f"pixels of shape {stack.shape} where {series.shape} was announced")
    return _channels_first(stack, series.axes, path)


def read_tiff_spacing(path: str | os.PathLike[str]) -> Spacing | None:
    """Read the voxel size that ImageJ or OME stored.

    A resolution without a depth (plain TIFF), in inches or in pixels is not taken for a voxel size.

    Parameters
    ----------
    path
        The file; the name does not matter.

    Returns
    -------
    tuple of float or None
        ``(z, y, x)`` in µm; None where it is not stated.

    Raises
    ------
    FileNotFoundError
        There is no such file.
    ValueError
        Not a TIFF, or damaged.
    """
    with _opened(path) as tif:
        xml = tif.ome_metadata
        sizes = _ome_sizes(xml) if xml else _imagej_sizes(tif) if tif.is_imagej else None
    return sizes if sizes and all(np.isfinite(size) and size > 0 for size in sizes) else None


def write_tiff(
    path: str | os.PathLike[str], volume: ArrayLike, *, spacing: Spacing | None = None, overwrite: bool = False
) -> Path:
    """Write a stack that ImageJ opens calibrated. Arguments and errors are those of :func:`write_volume`."""
    path = Path(path)
    data = storable(volume)
    if min(data.shape) < 2:
        # tifffile drops axes of length one, so the file would come back as a 2D image.
        raise ValueError(f"volume must have at least 2 voxels along each axis for a TIFF, got {data.shape}")
    calibration: dict[str, Any] = {"metadata": {"axes": "ZYX"}}
    if spacing is not None:
        z, y, x = check_spacing(spacing)
        notes = {"axes": "ZYX", "spacing": z, "unit": "um"}
        calibration = {"resolution": (1 / x, 1 / y), "metadata": notes}
    with writing_to(path, overwrite=overwrite) as part:
        tifffile.imwrite(part, data, imagej=True, **calibration)
    return path


@contextlib.contextmanager
def _opened(path: str | os.PathLike[str]) -> Iterator[tifffile.TiffFile]:
    """Open a TIFF. Any error that a damaged file causes becomes a ``ValueError`` that names the file."""
    path = existing_file(path)
    try:
        with tifffile.TiffFile(path) as tif:
            yield tif
    except Exception as error:  # tifffile, imagecodecs and zlib each have their own
        raise ValueError(f"{path}: not a complete, readable TIFF ({error!r})") from error


def _channels_first(stack: NDArray[Any], axes: str, path: str | os.PathLike[str]) -> NDArray[Any]:
    """Return ``z y x`` or ``c z y x``. Axes as tifffile names them: C, S channels; T time; Q, I unknown."""
    shape = ", ".join(f"{axis}={size}" for axis, size in zip(axes, stack.shape, strict=True))
    channel_axes = [number for number, axis in enumerate(axes) if axis in "CS"]
    depth = stack.ndim - len(channel_axes)
    if depth < 3:
        raise ValueError(f"{path}: a 2D image (axes {shape}), not a stack of slices")
    if depth > 3 or len(channel_axes) > 1 or "T" in axes:
        raise ValueError(f"{path}: axes {shape} are not one z y x stack (time points or several images?)")
    return np.moveaxis(stack, channel_axes, [0] * len(channel_axes))  # c z y x, or z y x


def _check_complete(tif: tifffile.TiffFile, series: tifffile.TiffPageSeries) -> None:
    """Refuse a file that was cut; tifffile itself takes the pages that it finds."""
    size, width = tif.filehandle.size, tif.tiff.offsetsize
    # The length walks the chain of pages; the last one must say that none follows.
    if len(tif.pages) and (next_page := tif.pages.next_page_offset) is not None:
        tif.filehandle.seek(next_page)
        if tif.filehandle.read(width) != bytes(width):
            raise ValueError(f"the chain of pages breaks after {len(tif.pages)}")
    needed = series.size * series.keyframe.bitspersample // 8
    if series.keyframe.compression == 1 and needed > size:  # before memory is taken for them
        raise ValueError(f"{needed} bytes of pixels cannot be in a file of {size}")


def _ome_sizes(xml: str) -> Spacing | None:
    pixels = ElementTree.fromstring(xml).find(".//{*}Pixels")
    if pixels is None or any(f"PhysicalSize{axis}" not in pixels.attrib for axis in "ZYX"):
        return None
    units = [pixels.get(f"PhysicalSize{axis}Unit", "µm") for axis in "ZYX"]  # µm is the schema's default
    return _in_micrometres([float(pixels.attrib[f"PhysicalSize{axis}"]) for axis in "ZYX"], units)


def _imagej_sizes(tif: tifffile.TiffFile) -> Spacing | None:
    notes = tif.imagej_metadata or {}
    unit = str(notes.get("unit", ""))
    per_x, per_y = tif.pages.first.resolution
    if not (per_x > 0 and per_y > 0):
        return None
    depth = float(notes.get("spacing", 1.0))  # ImageJ leaves it out when the depth is exactly one unit
    units = [str(notes.get("zunit", unit)), str(notes.get("yunit", unit)), unit]
    return _in_micrometres([depth, 1 / per_y, 1 / per_x], units)


def _in_micrometres(sizes: list[float], units: list[str]) -> Spacing | None:
    """Return sizes (z, y, x) in µm, None where a unit is none of length."""
    units = [unit.strip().lower() for unit in units]
    if not set(units) <= set(_MICROMETRES):
        return None
    z, y, x = (size * _MICROMETRES[unit] for size, unit in zip(sizes, units, strict=True))
    return z, y, x
