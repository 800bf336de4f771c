"""Vaa3D's v3dpbd: v3draw's header with another key, then the samples as runs. Read only.

    24 bytes   the key "v3d_volume_pkbitdf_encod"
    19 bytes   as in v3draw: byte order, bytes per sample (1 or 2), x, y, z, channels
    runs       a first byte that says kind and number n of samples, then the payload they are made of

    first byte
    8 bits     16 bits    kind         n = first byte - lower end + 1; the payload is
    0 - 32     0 - 31     literal      n samples
    33 - 127              difference   n steps of 2 bits, lowest bits of a byte first: 0 1 2, -1
               32 - 79    difference   n steps of 3 bits, highest bits first: 0 to 4, -1 to -3
               80 - 182   difference   n steps of 4 bits: 0 to 8, -1 to -7
               183 - 222  difference   n steps of 5 bits: 0 to 16, -1 to -15
    128 - 255  223 - 255  repeat       one sample, for n times

A step is added to the sample before it. Runs pass over the ends of lines, slices and channels. Two bytes make
at most 128 samples of 8 bits, three bytes 33 of 16 bits: a header that promises more than a file of its size
can hold is refused before memory is taken. Where a run begins is known only when the previous one has been
read: that is the one loop in Python, the rest is done for many runs at a time.

The format is described in Vaa3D's own reader, v3d_main/neuron_annotator/utility/ImageLoaderBasic.cpp.
"""

from __future__ import annotations

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
        Order of the steps within a byte, as numpy calls it.
    """

    def __init__(self, width: int, kinds: dict[int, int], bit_order: Literal["big", "little"]) -> None:
        byte, lowest = np.arange(256), np.array(list(kinds))
        row = np.searchsorted(lowest, byte, side="right") - 1
        self.width, self.bit_order = width, bit_order
        self.kind = np.array(list(kinds.values()))[row]
        self.samples = byte - lowest[row] + 1
        steps = -(-self.samples * self.kind // 8)
        self.payload = np.select([self.kind == _LITERAL, self.kind == _REPEAT], [self.samples * width, width], steps)
        self.most = (self.samples / (1 + self.payload)).max()  # samples from one byte of a file


_CODINGS = {
    1: _Coding(1, {0: _LITERAL, 33: 2, 128: _REPEAT}, "little"),
    2: _Coding(2, {0: _LITERAL, 32: 3, 80: 4, 183: 5, 223: _REPEAT}, "big"),
}


def read_v3dpbd(path: str | os.PathLike[str]) -> NDArray[Any]:
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
        Another format, the lossy variant of 3 bits, or runs that do not make the samples that the header
        announces.
    """
    path = existing_file(path)
    endian, width, sizes = read_head(path, _KEY)
    if width == 33:
        raise ValueError(f"{path}: v3dpbd of the lossy kind with 3 bits per sample: save it from Vaa3D as v3draw")
    if width not in _CODINGS:
        raise ValueError(f"{path}: bytes per sample must be 1 or 2, got {width}")
    if len(sizes) < 16:
        raise ValueError(f"{path}: cut short within its header")
    x, y, z, channels = struct.unpack(f"{endian}4i", sizes)
    announced, total = f"x={x} y={y} z={z} channels={channels}", prod((x, y, z, channels))
    coding, left = _CODINGS[width], path.stat().st_size - _HEADER
    if min(x, y, z, channels) < 1 or total > coding.most * left:
        raise ValueError(f"{path}: {left} bytes of runs cannot make samples of {announced}: cut short or damaged")

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
        raise ValueError(f"{path}: {error} where {announced} are announced: cut short or damaged") from None
    stack = stack.reshape(channels, z, y, x)
    return stack[0] if channels == 1 else stack


def _decode(data: NDArray[np.uint8], coding: _Coding, endian: str) -> Iterator[NDArray[Any]]:
    """Yield the samples in order, those of many runs at a time."""
    raw, length = data.tobytes(), (1 + coding.payload).tolist()
    if coding.kind[raw[0]] > 0:
        raise ValueError("a difference without a sample before it")
    position, previous = 0, np.zeros(1, dtype=f"u{coding.width}")
    while position < len(raw):
        begin, stop, starts = position, min(position + _CHUNK, len(raw)), []
        while position < stop:
            starts.append(position)
            position += length[raw[position]]
        if position > len(raw):
            raise ValueError("a run that ends behind the file")
        samples = _expand(data[begin:position], np.array(starts) - begin, previous, coding, endian)
        previous = samples[-1:]
        yield samples


def _expand(
    data: NDArray[np.uint8], starts: NDArray[np.int64], previous: NDArray[Any], coding: _Coding, endian: str
) -> NDArray[Any]:
    """Return the samples of all runs in `data`. They begin at `starts`; `previous` is the sample before them.

    Shapes: r runs, b bytes in `data`, n samples, d samples that are steps of differences.
    """
    native, stored = previous.dtype, f"{endian}u{coding.width}"
    first_byte = data[starts]  # (r,), as the next three
    kind, count, payload = coding.kind[first_byte], coding.samples[first_byte], coding.payload[first_byte]
    kind = kind.astype(np.int8)
    kind_of_byte, kind_of_sample = np.repeat(kind, 1 + payload), np.repeat(kind, count)  # (b,), (n,)
    kind_of_byte[starts] = 127  # the first bytes belong to no kind

    # Every run as if it were a repeat of the last sample stored in it: right for repeats.
    last = (starts + 1 + payload - coding.width)[:, None] + np.arange(coding.width)  # (r, width) byte numbers
    fixed = data[last].view(stored)[:, 0].astype(native)  # (r, width) bytes become (r, 1) samples become (r,)
    samples = np.repeat(fixed, count)  # (n,)
    samples[kind_of_sample == _LITERAL] = data[kind_of_byte == _LITERAL].view(stored)
    stepped = kind > 0
    if not stepped.any():
        return samples

    # The steps of each number of bits are unpacked together and put where they belong.
    steps = np.empty(count[stepped].sum(), dtype=native)  # (d,)
    bits_of_step = np.repeat(kind[stepped], count[stepped])  # (d,)
    for bits in np.unique(kind[stepped]).tolist():
        own = kind == bits
        steps[bits_of_step == bits] = _steps(data[kind_of_byte == bits], count[own], payload[own], bits, coding)
    summed = np.cumsum(steps, dtype=native)  # (d,) over all runs; like everything here it wraps around
    # Sum of the steps up to the end of each run of differences, a zero in front: (runs of differences + 1,).
    sum_at_end = np.r_[native.type(0), summed[np.cumsum(count[stepped]) - 1]]

    # The sample that each run ends with: the last literal or repeat at or before it, plus the steps since.
    fixed, climbed = np.r_[previous, fixed], np.zeros(len(kind) + 1, dtype=native)  # both (r + 1,)
    climbed[1:][stepped] = np.diff(sum_at_end)
    climbed = np.cumsum(climbed, dtype=native)
    anchor = np.maximum.accumulate(np.where(np.r_[False, stepped], 0, np.arange(len(fixed))))  # (r + 1,) rows
    ends = fixed[anchor] + climbed - climbed[anchor]
    # A run of differences goes on from where the run before it ended.
    samples[kind_of_sample > 0] = summed + np.repeat(ends[:-1][stepped] - sum_at_end[:-1], count[stepped])
    return samples


def _steps(
    data: NDArray[np.uint8], count: NDArray[np.int64], payload: NDArray[np.int64], bits: int, coding: _Coding
) -> NDArray[Any]:
    """Unpack the steps of difference runs. Each run fills whole bytes; the rest of its last byte is void."""
    used = count * bits  # (r,) bits that hold steps
    # (8 b,) for each bit of the data: used bits of the first run, its void bits, used bits of the second, ...
    valid = np.repeat(np.tile([True, False], len(used)), np.stack([used, 8 * payload - used], axis=1).ravel())
    places = 1 << np.arange(bits, dtype=np.uint8)  # value of each bit
    places = places if coding.bit_order == "little" else places[::-1]
    stored = np.unpackbits(data, bitorder=coding.bit_order)[valid].reshape(-1, bits)  # (steps, bits)
    codes = stored @ places  # (steps,)
    highest, code = 1 << (bits - 1), np.arange(1 << bits)
    return np.where(code > highest, highest - code, code).astype(f"u{coding.width}")[codes]
