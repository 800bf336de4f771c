"""Vaa3D's v3dpbd: v3draw's header with another key, then the samples as runs. Read only.

    24 bytes   the key "v3d_volume_pkbitdf_encod"
    19 bytes   as in v3draw: byte order, bytes per sample (1 or 2), x, y, z, channels
    runs       a first byte that says kind and number n of samples, then what they are made of

    first byte
    8 bits     16 bits    kind         n = first byte - lower end + 1; behind it stand
    0 - 32     0 - 31     literal      n samples
    33 - 127              difference   n steps of 2 bits, lowest bits of a byte first: 0 1 2, -1
               32 - 79    difference   n steps of 3 bits, highest bits first: 0 to 4, -1 to -3
               80 - 182   difference   n steps of 4 bits: 0 to 8, -1 to -7
               183 - 222  difference   n steps of 5 bits: 0 to 16, -1 to -15
    128 - 255  223 - 255  repeat       one sample, for n times

A step is added to the sample before it. Runs pass over the ends of lines, slices and channels. Two bytes make at
most 128 samples of 8 bits, three bytes 33 of 16 bits: a header that promises more than a file of its size can
hold is refused before memory is taken. Where a run begins is known only when the one before it has been read: that
is the one loop in Python, the rest is done for many runs at a time.

The format is described in Vaa3D's own reader, v3d_main/neuron_annotator/utility/ImageLoaderBasic.cpp.
"""

import os
import struct
from collections.abc import Iterator
from math import prod
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from neurokd.data.files import existing_file
from neurokd.data.v3d import read_head

__all__ = ["read_v3dpbd"]

_KEY = b"v3d_volume_pkbitdf_encod"
_HEADER = len(_KEY) + 19
_LITERAL, _REPEAT = -1, 0  # kinds of runs; differences go by their bits per step
_CHUNK = 1 << 18  # bytes decoded at a time


class _Coding:
    """What the 256 first bytes of a run mean, for samples of one size.

    Parameters
    ----------
    width
        Bytes per sample.
    kinds
        The kind of run by its lowest first byte.
    bit_order
        Of the steps within a byte, as numpy calls it.
    """

    def __init__(self, width: int, kinds: dict[int, int], bit_order: Literal["big", "little"]) -> None:
        byte, lowest = np.arange(256), np.array(list(kinds))
        row = np.searchsorted(lowest, byte, side="right") - 1
        self.width, self.bit_order = width, bit_order
        self.kind = np.array(list(kinds.values()))[row]
        self.samples = byte - lowest[row] + 1
        steps = -(-self.samples * self.kind // 8)
        self.behind = np.select([self.kind == _LITERAL, self.kind == _REPEAT], [self.samples * width, width], steps)
        self.most = (self.samples / (1 + self.behind)).max()  # samples from one byte of a file


_CODINGS = {
    1: _Coding(1, {0: _LITERAL, 33: 2, 128: _REPEAT}, "little"),
    2: _Coding(2, {0: _LITERAL, 32: 3, 80: 4, 183: 5, 223: _REPEAT}, "big"),
}


def read_v3dpbd(path: str | os.PathLike) -> NDArray[Any]:
    """Read a v3dpbd file.

    Parameters
    ----------
    path
        The file; the name does not matter.

    Returns
    -------
    NDArray
        (z, y, x), or (c, z, y, x) if it has several channels; uint8 or uint16.

    Raises
    ------
    FileNotFoundError
        There is no such file.
    ValueError
        Another format, the lossy variant of 3 bits, or runs that do not make the samples that the header announces.
    """
    path = existing_file(path)
    endian, width, sizes = read_head(path, _KEY)
    if width == 33:
        raise ValueError(f"{path}: v3dpbd of the lossy kind with 3 bits per sample: save it from Vaa3D as v3draw")
    if width not in _CODINGS:
        raise ValueError(f"{path}: {width} bytes per sample, should be 1 or 2")
    if len(sizes) < 16:
        raise ValueError(f"{path}: cut short within its header")
    x, y, z, channels = struct.unpack(f"{endian}4i", sizes)
    says, total = f"x={x} y={y} z={z} channels={channels}", prod((x, y, z, channels))
    coding, left = _CODINGS[width], path.stat().st_size - _HEADER
    if min(x, y, z, channels) < 1 or total > coding.most * left:
        raise ValueError(f"{path}: {left} bytes of runs cannot make samples of {says}: cut short or damaged")

    stack = np.empty(total, dtype=f"u{width}")
    filled = 0
    try:
        for samples in _decode(np.fromfile(path, dtype=np.uint8, offset=_HEADER), coding, endian):
            if filled + len(samples) > total:
                raise ValueError("more samples")
            stack[filled : filled + len(samples)] = samples
            filled += len(samples)
        if filled < total:
            raise ValueError(f"only {filled} samples")
    except ValueError as error:
        raise ValueError(f"{path}: {error} where {says} are announced: cut short or damaged") from None
    stack = stack.reshape(channels, z, y, x)
    return stack[0] if channels == 1 else stack


def _decode(data: NDArray[np.uint8], coding: _Coding, endian: str) -> Iterator[NDArray[Any]]:
    """The samples in order, those of many runs at a time."""
    raw, length = data.tobytes(), (1 + coding.behind).tolist()
    if coding.kind[raw[0]] > 0:
        raise ValueError("a difference without a sample before it")
    at, before = 0, np.zeros(1, dtype=f"u{coding.width}")
    while at < len(raw):
        begin, stop, starts = at, min(at + _CHUNK, len(raw)), []
        while at < stop:
            starts.append(at)
            at += length[raw[at]]
        if at > len(raw):
            raise ValueError("a run that ends behind the file")
        samples = _expand(data[begin:at], np.array(starts) - begin, before, coding, endian)
        before = samples[-1:]
        yield samples


def _expand(
    data: NDArray[np.uint8], starts: NDArray[np.int64], before: NDArray[Any], coding: _Coding, endian: str
) -> NDArray[Any]:
    """The samples of all runs in `data`, which begin at `starts`; `before` is the sample before them."""
    native, stored = before.dtype, f"{endian}u{coding.width}"
    kind, count, behind = (table[data[starts]] for table in (coding.kind, coding.samples, coding.behind))
    kind = kind.astype(np.int8)
    kind_of_byte, kind_of_sample = np.repeat(kind, 1 + behind), np.repeat(kind, count)
    kind_of_byte[starts] = 127  # the first bytes belong to no kind

    # Every run as if it were a repeat of the last sample stored in it: right for repeats.
    last = (starts + 1 + behind - coding.width)[:, None] + np.arange(coding.width)
    fixed = data[last].view(stored)[:, 0].astype(native)
    samples = np.repeat(fixed, count)
    samples[kind_of_sample == _LITERAL] = data[kind_of_byte == _LITERAL].view(stored)
    stepped = kind > 0
    if not stepped.any():
        return samples

    steps = np.empty(count[stepped].sum(), dtype=native)
    bits_of_step = np.repeat(kind[stepped], count[stepped])
    for bits in np.unique(kind[stepped]).tolist():
        own = kind == bits
        steps[bits_of_step == bits] = _steps(data[kind_of_byte == bits], count[own], behind[own], bits, coding)
    summed = np.cumsum(steps, dtype=native)  # over all runs; like everything here it wraps around
    until = np.r_[native.type(0), summed[np.cumsum(count[stepped]) - 1]]
    # The sample that each run ends with: of the last literal or repeat at or before it, plus the steps since.
    fixed, climbed = np.r_[before, fixed], np.zeros(len(kind) + 1, dtype=native)
    climbed[1:][stepped] = np.diff(until)
    climbed = np.cumsum(climbed, dtype=native)
    anchor = np.maximum.accumulate(np.where(np.r_[False, stepped], 0, np.arange(len(fixed))))
    ends = fixed[anchor] + climbed - climbed[anchor]
    samples[kind_of_sample > 0] = summed + np.repeat(ends[:-1][stepped] - until[:-1], count[stepped])
    return samples


def _steps(
    data: NDArray[np.uint8], count: NDArray[np.int64], behind: NDArray[np.int64], bits: int, coding: _Coding
) -> NDArray[Any]:
    """Unpack the steps of difference runs: each fills whole bytes, and what is left of its last byte is void."""
    used = count * bits
    valid = np.repeat(np.tile([True, False], len(used)), np.stack([used, 8 * behind - used], axis=1).ravel())
    places = 1 << np.arange(bits, dtype=np.uint8)
    places = places if coding.bit_order == "little" else places[::-1]
    codes = np.unpackbits(data, bitorder=coding.bit_order)[valid].reshape(-1, bits) @ places
    highest, code = 1 << (bits - 1), np.arange(1 << bits)
    return np.where(code > highest, highest - code, code).astype(f"u{coding.width}")[codes]
