"""Vaa3D's v3draw: an uncompressed stack behind a 43-byte header.

    24 bytes   the key "raw_image_stack_by_hpeng"
     1 byte    "L" or "B": little or big endian, for all that follows
     2 bytes   integer, bytes per sample: 1 (uint8), 2 (uint16) or 4 (float32)
    16 bytes   4 integers of 4 bytes: x, y, z, channels
               samples, x fastest, channel slowest

Early files have sizes of 2 bytes each, so a header of 35 bytes (TeraStitcher's reader knows them too). The
header that agrees with the size of the file is the right one; nothing is allocated before one does.
"""

from __future__ import annotations

import os
import struct
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from neurokd.data.files import existing_file, writing_to
from neurokd.data.volume import storable

__all__ = ["read_v3draw", "write_v3draw"]

_KEY = b"raw_image_stack_by_hpeng"
_HEADER = len(_KEY) + 3  # without the sizes
_TYPES = {1: "u1", 2: "u2", 4: "f4"}


def read_v3draw(path: str | os.PathLike[str]) -> NDArray[Any]:
    """Read a v3draw file.

    Parameters
    ----------
    path
        The file; the name does not matter.

    Returns
    -------
    NDArray
        (z, y, x), or (c, z, y, x) if it has several channels; uint8, uint16 or float32.

    Raises
    ------
    FileNotFoundError
        There is no such file.
    ValueError
        Another format, an unknown type, or a size that is not the one the header says.
    """
    path = existing_file(path)
    endian, width, sizes = read_head(path, _KEY)
    if width not in _TYPES:
        raise ValueError(f"{path}: bytes per sample must be 1, 2 or 4, got {width}")
    size = path.stat().st_size

    announced = []
    for code, header in (("4i", _HEADER + 16), ("4h", _HEADER + 8)):
        if len(sizes) < header - _HEADER:
            continue
        x, y, z, channels = struct.unpack_from(endian + code, sizes)
        if min(x, y, z, channels) > 0 and header + width * prod((x, y, z, channels)) == size:
            data = np.fromfile(path, dtype=endian + _TYPES[width], offset=header)
            stack = data.astype(data.dtype.newbyteorder("="), copy=False).reshape(channels, z, y, x)
            return stack[0] if channels == 1 else stack
        announced.append(f"x={x} y={y} z={z} channels={channels}")
    sizes_said = " or ".join(announced)
    raise ValueError(f"{path}: {size} bytes do not hold {width}-byte samples of {sizes_said}: cut short or damaged")


def read_head(path: Path, key: bytes) -> tuple[str, int, bytes]:
    """Read the part of the header that v3draw and v3dpbd share.

    Parameters
    ----------
    path
        The file.
    key
        First bytes of every file of the format.

    Returns
    -------
    str
        Byte order as `struct` writes it.
    int
        Bytes per sample, as the header states them.
    bytes
        The sizes, x first: 16 bytes, or what there is of them.

    Raises
    ------
    ValueError
        Another format, an unknown byte order, or not even 8 bytes of sizes.
    """
    with path.open("rb") as file:
        head = file.read(_HEADER + 16)
    if not head.startswith(key):
        kind = "v3draw" if key == _KEY else "v3dpbd"
        raise ValueError(f"{path}: not a {kind} file: it does not begin with {key.decode()!r}")
    mark, sizes = head[len(key) : len(key) + 1], head[_HEADER:]
    endian = {b"L": "<", b"B": ">"}.get(mark)
    if endian is None:
        raise ValueError(f"{path}: byte order must be b'L' or b'B', got {mark!r}")
    if len(sizes) < 8:
        raise ValueError(f"{path}: cut short within its header ({len(head)} bytes)")
    (width,) = struct.unpack_from(f"{endian}h", head, len(key) + 1)
    return endian, width, sizes


def write_v3draw(path: str | os.PathLike[str], volume: ArrayLike, *, overwrite: bool = False) -> Path:
    """Write one channel as little-endian v3draw.

    Parameters
    ----------
    path
        The file to write. It appears whole or not at all.
    volume
        Array ``z y x``. Masks become 0/255; other integers must fit uint16; floats become float32.
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
        Not a volume, or values that the format cannot hold.
    """
    path = Path(path)
    data = storable(volume)
    z, y, x = data.shape
    with writing_to(path, overwrite=overwrite) as part, part.open("wb") as file:
        file.write(_KEY + struct.pack("<ch4i", b"L", data.dtype.itemsize, x, y, z, 1))
        np.ascontiguousarray(data, dtype=data.dtype.newbyteorder("<")).tofile(file)
    return path
