"""The formats of volumes on disk. A new format is a module of its own and one entry in `FORMATS`.

    cell1.tif --format_of--> VolumeFormat --read----------> z y x, or c z y x
                                   +--------read_spacing--> (z, y, x) in µm, or None

`read_volume`, `write_volume`, `read_spacing`, `index_stacks`, `index_gold166` and the book's page of formats
read it.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from neurokd.data.tiff import read_tiff, read_tiff_spacing, write_tiff
from neurokd.data.v3d import read_v3draw, write_v3draw
from neurokd.data.v3dpbd import read_v3dpbd
from neurokd.data.volume import Spacing

__all__ = ["FORMATS", "VolumeFormat"]


@dataclass(frozen=True)
class VolumeFormat:
    """One kind of file that holds a volume.

    Parameters
    ----------
    suffixes
        Endings of its file names, in small letters.
    read
        Function that reads a path and returns the pixels, ``z y x`` or ``c z y x``.
    reads
        What is read, in words.
    write
        Function that writes a path and a volume, with ``overwrite`` and, if there is `read_spacing`,
        ``spacing``; it returns the path. None if the format is read only.
    writes
        What is written, in words.
    read_spacing
        Function that reads a path and returns the voxel size ``(z, y, x)`` in µm, or None where the file does
        not state it. None if the format has no place for a voxel size.
    """

    suffixes: tuple[str, ...]
    read: Callable[[Path], NDArray[Any]]
    reads: str
    write: Callable[..., Path] | None = None
    writes: str = "no"
    read_spacing: Callable[[Path], Spacing | None] | None = None


FORMATS = (
    VolumeFormat(
        suffixes=(".tif", ".tiff", ".ome.tif", ".ome.tiff"),
        read=read_tiff,
        reads="plain, ImageJ and OME; any bit depth and compression that `tifffile` and `imagecodecs` know",
        write=write_tiff,
        writes="as ImageJ's calibrated stack",
        read_spacing=read_tiff_spacing,
    ),
    VolumeFormat(
        suffixes=(".v3draw", ".raw"),
        read=read_v3draw,
        reads="Vaa3D's uncompressed stacks, both byte orders",
        write=write_v3draw,
        writes="uint8, uint16, float32",
    ),
    VolumeFormat(
        suffixes=(".v3dpbd",),
        read=read_v3dpbd,
        reads="Vaa3D's run-length coding of 8 and 16 bits, not the lossy kind",
    ),
)
"""All formats of volumes that can be read. `index_gold166` prefers the last ones, which are Vaa3D's own."""


def format_of(path: str | os.PathLike[str], *, writing: bool = False) -> VolumeFormat:
    """Return the format that the suffix of a file name stands for.

    Parameters
    ----------
    path
        A file, which need not exist.
    writing
        Take only formats that can be written.

    Raises
    ------
    ValueError
        The suffix is unknown.
    """
    name = Path(path).name.lower()
    formats = [kind for kind in FORMATS if kind.write or not writing]
    for kind in formats:
        if name.endswith(kind.suffixes):
            return kind
    known = ", ".join(suffix for kind in formats for suffix in kind.suffixes)
    raise ValueError(f"suffix must be one of {known}, got {path}")
