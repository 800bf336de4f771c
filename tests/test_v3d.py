"""v3draw against files written by hand, byte for byte."""

import struct
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from neurokd.data.io import read_spacing, read_volume, write_volume
from neurokd.data.v3d import read_v3draw, write_v3draw

KEY = b"raw_image_stack_by_hpeng"
# x = 3, y = 2, z = 2, one channel, one byte a sample, little endian; then the samples 0 ... 11, x fastest.
BY_HAND = KEY + b"L" + b"\x01\x00" + b"\x03\0\0\0" + b"\x02\0\0\0" + b"\x02\0\0\0" + b"\x01\0\0\0" + bytes(range(12))
VALUES = np.arange(12).reshape(2, 2, 3)


def stored(folder: Path, raw: bytes) -> Path:
    path = folder / "stack.v3draw"
    path.write_bytes(raw)
    return path


def test_file_written_by_hand(tmp_path: Path) -> None:
    assert len(BY_HAND) == 43 + 12
    volume = read_v3draw(stored(tmp_path, BY_HAND))
    assert volume.dtype == np.uint8
    np.testing.assert_array_equal(volume, VALUES)  # z y x
    assert write_v3draw(tmp_path / "again.v3draw", volume).read_bytes() == BY_HAND


@pytest.mark.parametrize("endian", "LB")
@pytest.mark.parametrize(("width", "code", "dtype"), [(1, "B", "u1"), (2, "H", "u2"), (4, "f", "f4")])
@pytest.mark.parametrize("sizes", ["4i", "4h"])  # the second is the early header, of 35 bytes
def test_both_byte_orders_all_types_both_headers(tmp_path: Path, endian, width, code, dtype, sizes) -> None:
    order = {"L": "<", "B": ">"}[endian]
    values = [k * (1, 7, 1.5)[width // 2] for k in range(12)]
    raw = KEY + endian.encode() + struct.pack(f"{order}h{sizes}12{code}", width, 3, 2, 2, 1, *values)
    volume = read_v3draw(stored(tmp_path, raw))
    assert volume.dtype == np.dtype(dtype) and volume.dtype.isnative
    np.testing.assert_array_equal(volume, np.reshape(values, (2, 2, 3)))


def test_channels_come_first(tmp_path: Path) -> None:
    raw = KEY + b"L" + struct.pack("<h4i", 1, 3, 2, 1, 2) + bytes(range(12))
    path = stored(tmp_path, raw)
    np.testing.assert_array_equal(read_v3draw(path), VALUES[:, None])
    with pytest.raises(ValueError, match="channel must be 0 to 1, got None"):
        read_volume(path)
    np.testing.assert_array_equal(read_volume(path, channel=1), VALUES[1:])


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
def test_round_trip_through_io(tmp_path: Path, dtype: type) -> None:
    volume = np.random.default_rng(0).integers(0, 255, (3, 4, 5)).astype(dtype)
    path = write_volume(tmp_path / "out.v3draw", volume)
    assert read_volume(path).dtype == dtype and read_spacing(path) is None
    np.testing.assert_array_equal(read_volume(path), volume)
    np.testing.assert_array_equal(read_volume(write_volume(tmp_path / "turned.raw", volume.T)), volume.T)
    one = read_volume(write_volume(tmp_path / "one.v3draw", volume[:1] > 9))
    np.testing.assert_array_equal(one, (volume[:1] > 9) * np.uint8(255))
    with pytest.raises(FileExistsError):
        write_volume(path, volume)


@pytest.mark.parametrize(
    ("raw", "words"),
    [
        (b"", "does not begin with"),
        (b"II*\0 a TIFF", "does not begin with"),
        (KEY, "byte order must be b'L' or b'B', got b''"),
        (KEY + b"X" + BY_HAND[25:], "byte order must be b'L' or b'B', got b'X'"),
        (BY_HAND[:30], "cut short within its header"),
        (KEY + b"L" + struct.pack("<h4i", 3, 3, 2, 2, 1), "bytes per sample must be 1, 2 or 4, got 3"),
        (BY_HAND[:-1], "54 bytes do not hold 1-byte samples of x=3 y=2 z=2 channels=1"),
        (BY_HAND + b"\0", "56 bytes do not hold"),
        (KEY + b"L" + struct.pack("<h4i", 1, -3, -2, 2, 1) + bytes(12), "do not hold"),
        (KEY + b"L" + struct.pack("<h4i", 1, 0, 2, 2, 1), "do not hold"),
        (KEY + b"L" + struct.pack("<h4i", 4, 2**31 - 1, 2**31 - 1, 2**31 - 1, 9), "do not hold"),
    ],
)
def test_wrong_files(tmp_path: Path, raw: bytes, words: str) -> None:
    with pytest.raises(ValueError, match=words) as caught:
        read_v3draw(stored(tmp_path, raw))
    assert "stack.v3draw" in str(caught.value)


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no such file"):
        read_v3draw(tmp_path / "absent.v3draw")


@given(
    data=st.one_of(
        st.binary(max_size=80),
        st.binary(max_size=80).map(lambda tail: KEY + tail),
        st.tuples(st.sampled_from([b"L", b"B"]), st.binary(min_size=18, max_size=80)).map(lambda t: KEY + b"".join(t)),
        st.tuples(
            st.sampled_from([1, 2, 4]),
            st.tuples(*[st.integers(-2, 2**31 - 1) | st.integers(0, 4)] * 4),
            st.binary(max_size=64),
        ).map(lambda t: KEY + b"L" + struct.pack("<h4i", t[0], *t[1]) + t[2]),
    )
)
@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_nothing_but_value_errors_and_no_memory_beyond_the_file(tmp_path: Path, data: bytes) -> None:
    path = stored(tmp_path, data)
    tracemalloc.start()  # numpy's arrays are counted, touched or not
    try:
        volume = read_v3draw(path)
        assert 35 + volume.nbytes <= len(data) and volume.size > 0
    except ValueError:
        pass
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 200_000
