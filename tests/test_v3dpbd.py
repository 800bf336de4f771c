"""v3dpbd against files written by hand, a plain decoder, and v3d-py-helper where it installs."""

import struct
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pbd import KEY, encode, header

import neurokd.data.v3dpbd
from neurokd.data.io import read_spacing, read_volume, write_volume
from neurokd.data.v3dpbd import read_v3dpbd

FIXTURES = [HealthCheck.function_scoped_fixture]
# First bytes of the kinds of runs, with the bits of a step, as the format's description has them.
KINDS = {
    1: {"literal": (0, 32), 2: (33, 127), "repeat": (128, 255)},
    2: {"literal": (0, 31), 3: (32, 79), 4: (80, 182), 5: (183, 222), "repeat": (223, 255)},
}


def stored(folder: Path, raw: bytes) -> Path:
    path = folder / "stack.v3dpbd"
    path.write_bytes(raw)
    return path


def test_8_bits_by_hand(tmp_path: Path) -> None:
    runs = bytes([1, 10, 20])  # literals 10, 20
    runs += bytes([33 + 4, 0b11_01_10_00, 0b01])  # five steps 0, 2, 1, -1 and 1: 20, 22, 23, 22, 23
    runs += bytes([128 + 3, 255])  # 255 four times
    runs += bytes([33, 0b10])  # 255 + 2 wraps around
    volume = read_v3dpbd(stored(tmp_path, header(1, 3, 2, 2) + runs))
    assert volume.dtype == np.uint8
    np.testing.assert_array_equal(volume, np.reshape([10, 20, 20, 22, 23, 22, 23, 255, 255, 255, 255, 1], (2, 2, 3)))


@pytest.mark.parametrize("endian", "LB")
def test_16_bits_by_hand(tmp_path: Path, endian: str) -> None:
    order = {"L": "<", "B": ">"}[endian]
    runs = bytes([1]) + struct.pack(f"{order}2H", 300, 1000)
    runs += bytes([32 + 3, 0b001_101_10, 0b0_111_0000])  # steps of 3 bits: 1, -1, 4, -3
    runs += bytes([80 + 2, 0b1000_1001, 0b1111_0000])  # of 4 bits: 8, -1, -7
    runs += bytes([183 + 2, 0b10000_100, 0b01_11111_0])  # of 5 bits: 16, -1, -15
    runs += bytes([223 + 2]) + struct.pack(f"{order}H", 513)
    volume = read_v3dpbd(stored(tmp_path, header(2, 5, 3, 1, endian=endian) + runs))
    expected = [300, 1000, 1001, 1000, 1004, 1001, 1009, 1008, 1001, 1017, 1016, 1001, 513, 513, 513]
    assert volume.dtype == np.uint16 and volume.dtype.isnative
    np.testing.assert_array_equal(volume, np.reshape(expected, (1, 3, 5)))


def test_channels_come_first_and_runs_go_on(tmp_path: Path) -> None:
    path = stored(tmp_path, header(1, 3, 2, 1, 2) + bytes([128 + 7, 9, 3, 1, 2, 3, 4]))
    np.testing.assert_array_equal(read_v3dpbd(path), np.reshape([9] * 8 + [1, 2, 3, 4], (2, 1, 2, 3)))
    with pytest.raises(ValueError, match="channel must be 0 to 1"):
        read_volume(path)
    np.testing.assert_array_equal(read_volume(path, channel=1), [[[9, 9, 1], [2, 3, 4]]])


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_through_io(tmp_path: Path, dtype: type) -> None:
    volume = np.random.default_rng(0).choice(np.array([0, 0, 0, 7, 250], dtype=dtype), (5, 6, 70))
    volume[2:4] = 3
    path = stored(tmp_path, encode(volume))
    np.testing.assert_array_equal(read_volume(path), volume)
    assert read_volume(path).dtype == dtype and read_spacing(path) is None
    with pytest.raises(ValueError, match=r"suffix must be one of .*\.v3draw, \.raw, got"):
        write_volume(tmp_path / "out.v3dpbd", volume)


# --- against a plain decoder: one sample, one bit at a time


@st.composite
def files(draw: st.DrawFn) -> tuple[bytes, int, str, list[int]]:
    """Runs of all kinds in any order, and the samples they stand for."""
    width, endian = draw(st.sampled_from([1, 2])), draw(st.sampled_from(["little", "big"]))
    sample = st.integers(0, 256**width - 1)
    raw, samples = b"", []
    for _ in range(draw(st.integers(1, 12))):
        kind = draw(st.sampled_from([kind for kind in KINDS[width] if samples or isinstance(kind, str)]))
        low, high = KINDS[width][kind]
        first = draw(st.integers(low, high))
        count = first - low + 1
        raw += bytes([first])
        if kind == "repeat":
            value = draw(sample)
            raw += value.to_bytes(width, endian)
            samples += [value] * count
        elif kind == "literal":
            values = draw(st.lists(sample, min_size=count, max_size=count))
            raw += b"".join(value.to_bytes(width, endian) for value in values)
            samples += values
        else:
            packed = draw(st.binary(min_size=-(-count * kind // 8), max_size=-(-count * kind // 8)))
            raw += packed
            bits = "".join(f"{byte:08b}"[:: -1 if width == 1 else 1] for byte in packed)
            for at in range(0, count * kind, kind):
                code = int(bits[at : at + kind][:: -1 if width == 1 else 1], 2)
                half = 2 ** (kind - 1)
                step = code if code <= half else half - code
                samples.append((samples[-1] + step) % 256**width)
    return raw, width, {"little": "L", "big": "B"}[endian], samples


@settings(max_examples=150, deadline=None, suppress_health_check=FIXTURES)
@given(file=files(), chunk=st.sampled_from([1, 7, 1 << 18]))  # runs are decoded some at a time: that must not show
def test_any_runs_give_what_a_plain_decoder_gives(tmp_path: Path, monkeypatch, chunk: int, file) -> None:
    raw, width, endian, samples = file
    monkeypatch.setattr(neurokd.data.v3dpbd, "_CHUNK", chunk)
    volume = read_v3dpbd(stored(tmp_path, header(width, len(samples), 1, 1, endian=endian) + raw))
    assert volume.ravel().tolist() == samples
    with pytest.raises(ValueError, match=r"stack\.v3dpbd"):
        read_v3dpbd(stored(tmp_path, header(width, len(samples), 1, 1, endian=endian) + raw[:-1]))


# --- against another reader


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("kind", ["zeros and a box of haze", "noise", "steep", "smooth", "constant"])
def test_byte_for_byte_as_v3d_py_helper(tmp_path: Path, kind: str, dtype: type) -> None:
    loaders = pytest.importorskip("v3dpy.loaders", reason="v3d-py-helper installs on CPython 3.10 to 3.12 only")
    rng = np.random.default_rng(0)
    shape = (12, 40, 50)
    volume = {
        "zeros and a box of haze": np.pad(rng.poisson(12, (6, 20, 25)), ((3, 3), (9, 11), (10, 15))),
        "noise": rng.poisson(60 if dtype is np.uint8 else 900, shape),
        "steep": rng.integers(0, np.iinfo(dtype).max + 1, shape),
        "smooth": 100 + rng.integers(-5, 6, shape).cumsum(axis=2) // 3,
        "constant": np.full(shape, 7),
    }[kind].astype(dtype)
    for every_difference in (True, False):  # with False, 3 bits only, as Vaa3D itself writes
        helper, path = loaders.PBD(pbd16_full_blood=every_difference), tmp_path / f"{every_difference}.v3dpbd"
        helper.save(str(path), volume[None])
        ours = read_v3dpbd(path)
        assert ours.dtype == dtype and ours.tobytes() == helper.load(str(path)).tobytes() == volume.tobytes()


# --- bad input

GOOD = header(1, 3, 2, 2) + bytes([1, 10, 20, 33 + 4, 0b11_01_10_00, 0b01, 128 + 4, 255])


@pytest.mark.parametrize(
    ("raw", "words"),
    [
        (b"", "not a v3dpbd file: it does not begin with"),
        (b"raw_image_stack_by_hpeng" + GOOD[24:], "not a v3dpbd file"),
        (KEY, "byte order must be b'L' or b'B', got b''"),
        (KEY + b"X" + GOOD[25:], "byte order must be b'L' or b'B', got b'X'"),
        (GOOD[:30], "cut short within its header"),
        (GOOD[:42], "cut short within its header"),
        (GOOD[:43], "0 bytes of runs cannot make samples of x=3 y=2 z=2 channels=1"),
        (header(4, 3, 2, 2) + bytes(48), "bytes per sample must be 1 or 2, got 4"),
        (header(33, 3, 2, 2) + bytes(48), "lossy kind with 3 bits"),
        (GOOD[:-1], "a run that ends behind the file where x=3 y=2 z=2"),
        (GOOD[:-2], "only 7 samples where"),
        (GOOD + bytes([0, 1]), "more samples where"),
        (header(1, 1, 1, 1) + bytes([33, 0]), "a difference without a sample before it"),
        (header(1, -3, -2, 2) + bytes(12), "cannot make samples of x=-3"),
        (header(1, 0, 2, 2) + bytes(12), "cannot make samples of x=0"),
        (header(1, 2**31 - 1, 2**31 - 1, 2**31 - 1, 9) + bytes(12), "12 bytes of runs cannot make samples"),
        (header(1, 129, 1, 1) + bytes([255, 0]), "2 bytes of runs cannot make samples of x=129"),
    ],
)
def test_wrong_files(tmp_path: Path, raw: bytes, words: str) -> None:
    with pytest.raises(ValueError, match=words) as caught:
        read_v3dpbd(stored(tmp_path, raw))
    assert "stack.v3dpbd" in str(caught.value)


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no such file"):
        read_v3dpbd(tmp_path / "absent.v3dpbd")


def test_a_file_expands_no_further_than_the_longest_repeats(tmp_path: Path) -> None:
    """Two bytes make 128 samples of 8 bits, three make 33 of 16: that much is read, one sample more is refused."""
    for width, runs, samples in ((1, b"\xff\x05" * 50, 6400), (2, b"\xff\x05\x00" * 50, 1650)):
        assert (read_v3dpbd(stored(tmp_path, header(width, samples, 1, 1) + runs)) == 5).all()
        with pytest.raises(ValueError, match="cannot make samples"):
            read_v3dpbd(stored(tmp_path, header(width, samples + 1, 1, 1) + runs))


any_sizes = st.tuples(*[st.integers(-2, 2**31 - 1) | st.integers(0, 4)] * 4)
likely_sizes = st.tuples(st.integers(1, 2000), *[st.integers(1, 2)] * 3)


@settings(max_examples=300, deadline=None, suppress_health_check=FIXTURES)
@given(
    raw=st.one_of(
        st.binary(max_size=80),
        st.binary(max_size=80).map(lambda tail: KEY + tail),
        st.tuples(
            st.sampled_from([1, 2, 33]), any_sizes | likely_sizes, st.sampled_from("LB"), st.binary(max_size=400)
        ).map(lambda t: header(t[0], *t[1], endian=t[2]) + t[3]),
        st.tuples(st.integers(0, len(GOOD) - 1), st.integers(0, 255)).map(
            lambda t: GOOD[: t[0]] + bytes([t[1]]) + GOOD[t[0] + 1 :]
        ),
    )
)
def test_nothing_but_value_errors_and_no_memory_that_the_file_cannot_fill(tmp_path: Path, raw: bytes) -> None:
    path = stored(tmp_path, raw)
    tracemalloc.start()  # numpy's arrays are counted, touched or not
    try:
        volume = read_v3dpbd(path)
        assert 0 < volume.size <= 64 * len(raw)
    except ValueError:
        pass
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 200_000 + 5 * 64 * len(raw)
