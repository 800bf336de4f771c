"""A v3dpbd file the simple way, for tests: repeats and literals of 8 or 16 bits, little endian."""

import struct
from itertools import groupby

import numpy as np

KEY = b"v3d_volume_pkbitdf_encod"


def header(width: int, x: int, y: int, z: int, channels: int = 1, endian: str = "L") -> bytes:
    return KEY + endian.encode() + struct.pack({"L": "<", "B": ">"}[endian] + "h4i", width, x, y, z, channels)


def encode(volume: np.ndarray) -> bytes:
    width = volume.dtype.itemsize
    longest, first_repeat = {1: (128, 128), 2: (33, 223)}[width]
    runs = [header(width, *volume.shape[::-1])]
    for value, same in groupby(volume.ravel().tolist()):
        count = len(list(same))
        for done in range(0, count, longest):
            n = min(longest, count - done)
            runs.append(bytes([first_repeat + n - 1 if n > 1 else 0]) + value.to_bytes(width, "little"))
    return b"".join(runs)
