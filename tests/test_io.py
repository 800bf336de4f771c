"""Volumes against files made by tifffile directly, cut files, and scalings worked out by hand."""

import os
from pathlib import Path

import numpy as np
import pytest
import tifffile
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import neurokd.data.formats
import neurokd.data.stacks
from neurokd.data.files import writing_to
from neurokd.data.formats import FORMATS, VolumeFormat
from neurokd.data.io import check_volume, read_spacing, read_volume, scale_intensity, write_volume
from neurokd.data.stacks import Stack, index_stacks
from neurokd.data.volume import check_mask, check_spacing

RNG = np.random.default_rng(0)
STACK = RNG.integers(0, 255, size=(4, 5, 6), dtype=np.uint8)


def tiff(folder: Path, data: np.ndarray, **settings) -> Path:
    path = folder / "stack.tif"
    tifffile.imwrite(path, data, **settings)
    return path


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
@pytest.mark.parametrize(
    "settings",
    [
        {"photometric": "minisblack"},
        {"photometric": "minisblack", "metadata": None},
        {"imagej": True, "metadata": {"axes": "ZYX"}},
        {"ome": True, "metadata": {"axes": "ZYX"}},
        {"photometric": "minisblack", "compression": "lzw"},
        {"photometric": "minisblack", "compression": "zlib", "predictor": True},
        {"photometric": "minisblack", "compression": "zlib", "tile": (16, 16)},
        {"photometric": "minisblack", "byteorder": ">"},
        {"photometric": "minisblack", "bigtiff": True},
    ],
    ids=str,
)
def test_any_tiff_keeps_values_and_type(tmp_path: Path, dtype: type, settings: dict) -> None:
    data = STACK.astype(dtype)
    read = read_volume(tiff(tmp_path, data, **settings))
    assert read.dtype == dtype
    np.testing.assert_array_equal(read, data)


def test_one_bit_masks_and_wide_integers(tmp_path: Path) -> None:
    for data in (RNG.random((4, 200, 200)) < 0.5, STACK.astype(np.int32) - 100):
        read = read_volume(tiff(tmp_path, data, photometric="minisblack"))
        assert read.dtype == data.dtype
        np.testing.assert_array_equal(read, data)


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"resolution": (4, 2), "metadata": {"axes": "ZYX", "spacing": 3, "unit": "um"}}, (3, 0.5, 0.25)),
        ({"resolution": (4, 2), "metadata": {"axes": "ZYX", "spacing": 3, "unit": "micron"}}, (3, 0.5, 0.25)),
        ({"resolution": (4, 2), "metadata": {"axes": "ZYX", "spacing": 3, "unit": "\\u00B5m"}}, (3, 0.5, 0.25)),
        ({"resolution": (0.1, 0.05), "metadata": {"axes": "ZYX", "spacing": 50, "unit": "nm"}}, (0.05, 0.02, 0.01)),
        # ImageJ leaves the depth out when it is exactly one unit.
        ({"resolution": (4, 2), "metadata": {"axes": "ZYX", "unit": "um"}}, (1, 0.5, 0.25)),
        ({"resolution": (4, 2), "metadata": {"axes": "ZYX", "unit": "um", "zunit": "nm"}}, (1e-3, 0.5, 0.25)),
        ({"resolution": (72, 72), "resolutionunit": "INCH", "metadata": {"axes": "ZYX", "unit": "inch"}}, None),
        ({"resolution": (4, 2), "metadata": {"axes": "ZYX", "spacing": 3, "unit": "pixel"}}, None),
        ({"resolution": (4, 2), "metadata": {"axes": "ZYX", "spacing": 0, "unit": "um"}}, None),
        ({"metadata": {"axes": "ZYX"}}, None),
    ],
)  # fmt: skip
def test_spacing_of_imagej(tmp_path: Path, settings: dict, expected) -> None:
    spacing = read_spacing(tiff(tmp_path, STACK, imagej=True, **settings))
    assert spacing == (None if expected is None else pytest.approx(expected))


def test_spacing_of_ome_and_plain(tmp_path: Path) -> None:
    sizes = {"PhysicalSizeZ": 1.5, "PhysicalSizeY": 0.5, "PhysicalSizeX": 250, "PhysicalSizeXUnit": "nm"}
    ome = tiff(tmp_path, STACK, ome=True, metadata={"axes": "ZYX", **sizes})
    assert read_spacing(ome) == pytest.approx((1.5, 0.5, 0.25))
    del sizes["PhysicalSizeZ"]
    assert read_spacing(tiff(tmp_path, STACK, ome=True, metadata={"axes": "ZYX", **sizes})) is None
    assert (
        read_spacing(tiff(tmp_path, STACK, photometric="minisblack", resolution=(300, 300), resolutionunit="INCH"))
        is None
    )


@pytest.mark.parametrize("data", [STACK, STACK.astype(np.uint16) * 200, STACK.astype(np.float32) / 7])
def test_round_trip_with_spacing(tmp_path: Path, data: np.ndarray) -> None:
    spacing = (1.25, 0.38, 0.1234567)
    path = write_volume(tmp_path / "made" / "out.tif", data, spacing=spacing)
    np.testing.assert_array_equal(read_volume(path), data)
    assert read_volume(path).dtype == data.dtype
    assert read_spacing(path) == pytest.approx(spacing, rel=1e-6)
    with tifffile.TiffFile(path) as tif:  # what ImageJ goes by
        assert tif.is_imagej and tif.series[0].axes == "ZYX"
        assert {"slices": 4, "unit": "um", "spacing": 1.25}.items() <= tif.imagej_metadata.items()


def test_types_that_tiff_lacks(tmp_path: Path) -> None:
    mask = STACK > 100
    np.testing.assert_array_equal(read_volume(write_volume(tmp_path / "mask.tif", mask)), mask * np.uint8(255))
    labels = read_volume(write_volume(tmp_path / "labels.tif", STACK.astype(np.int64) * 257))
    assert labels.dtype == np.uint16 and (labels == STACK.astype(int) * 257).all()
    assert read_volume(write_volume(tmp_path / "double.tif", STACK / 3)).dtype == np.float32
    for wrong in (STACK.astype(int) - 1000, STACK.astype(int) * 1000, STACK * 1e300):
        with pytest.raises(ValueError, match=r"volume must fit (uint16|float32), got"):
            write_volume(tmp_path / "wrong.tif", wrong)
    with pytest.raises(ValueError, match="at least 2 voxels"):
        write_volume(tmp_path / "wrong.tif", STACK[:1])
    with pytest.raises(ValueError, match="spacing must be three positive"):
        write_volume(tmp_path / "wrong.tif", STACK, spacing=(1, 0, 1))
    assert not (tmp_path / "wrong.tif").exists()


def test_nothing_is_overwritten_or_left_half_written(tmp_path: Path) -> None:
    path = write_volume(tmp_path / "out.tif", STACK)
    with pytest.raises(FileExistsError, match="overwrite=True"):
        write_volume(path, STACK + 1)
    np.testing.assert_array_equal(read_volume(path), STACK)
    with pytest.raises(RuntimeError), writing_to(path, overwrite=True) as part:
        part.write_bytes(b"half")
        raise RuntimeError
    np.testing.assert_array_equal(read_volume(path), STACK)
    write_volume(path, STACK // 2, overwrite=True)
    np.testing.assert_array_equal(read_volume(path), STACK // 2)
    assert os.listdir(tmp_path) == ["out.tif"]


def test_channels(tmp_path: Path) -> None:
    channels = np.stack([STACK, STACK // 2], axis=1)
    path = tiff(tmp_path, channels, imagej=True, metadata={"axes": "ZCYX"})
    with pytest.raises(ValueError, match=r"stack\.tif: channel must be 0 to 1, got None"):
        read_volume(path)
    np.testing.assert_array_equal(read_volume(path, channel=1), STACK // 2)
    for wrong in (2, -1):
        with pytest.raises(ValueError, match=f"channel must be 0 to 1, got {wrong}"):
            read_volume(path, channel=wrong)
    rgb = tiff(tmp_path, np.stack([STACK, STACK // 2, STACK // 3], axis=-1), photometric="rgb")
    with pytest.raises(ValueError, match="channel must be 0 to 2"):
        read_volume(rgb)
    np.testing.assert_array_equal(read_volume(rgb, channel=2), STACK // 3)
    grey = tiff(tmp_path, STACK, photometric="minisblack")
    np.testing.assert_array_equal(read_volume(grey, channel=0), STACK)
    with pytest.raises(ValueError, match="only one"):
        read_volume(grey, channel=1)


def test_what_is_not_a_stack(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"stack\.tif: a 2D image"):
        read_volume(tiff(tmp_path, STACK[0]))
    with pytest.raises(ValueError, match="2D image"):
        read_volume(tiff(tmp_path, np.stack([STACK[0]] * 3, axis=-1), photometric="rgb"))
    movie = tiff(tmp_path, np.stack([STACK, STACK]), imagej=True, metadata={"axes": "TZYX"})
    with pytest.raises(ValueError, match=r"T=2.*time points"):
        read_volume(movie)
    with pytest.raises(FileNotFoundError, match="no such file"):
        read_volume(tmp_path / "absent.tif")
    (tmp_path / "folder.tif").mkdir()
    with pytest.raises(FileNotFoundError, match="is not a file"):
        read_volume(tmp_path / "folder.tif")
    (tmp_path / "notes.txt").write_text("x")
    with pytest.raises(ValueError, match=r"suffix must be one of \.tif, .*\.v3dpbd, got .*notes\.txt"):
        read_volume(tmp_path / "notes.txt")
    with pytest.raises(ValueError, match=r"suffix must be one of .*\.raw, got .*stack\.nii"):  # v3dpbd is read only
        write_volume(tmp_path / "stack.nii", STACK)


def test_a_new_format_is_one_entry(tmp_path: Path, monkeypatch) -> None:
    """Reading, writing, the voxel size and the index of a folder all go by the registry."""

    def write(path: Path, volume: np.ndarray, *, spacing: tuple | None, overwrite: bool) -> Path:
        with writing_to(path, overwrite=overwrite) as part:
            np.savez(part, volume=volume, spacing=spacing)
        return path

    extra = VolumeFormat(
        suffixes=(".npz",),
        read=lambda path: np.load(path)["volume"],
        reads="numpy's archives",
        write=write,
        read_spacing=lambda path: tuple(np.load(path)["spacing"].tolist()),
    )
    for module in (neurokd.data.formats, neurokd.data.stacks):
        monkeypatch.setattr(module, "FORMATS", (*FORMATS, extra))
    path = write_volume(tmp_path / "cell.npz", STACK, spacing=(2.0, 1.0, 1.0))
    np.testing.assert_array_equal(read_volume(path), STACK)
    assert index_stacks(tmp_path) == [Stack("cell", path, None, (2.0, 1.0, 1.0))]


def test_several_images_in_a_file_are_not_passed_over_in_silence(tmp_path: Path, caplog) -> None:
    with tifffile.TiffWriter(tmp_path / "two.tif") as writer:
        writer.write(STACK, photometric="minisblack")
        writer.write(STACK[:2, :3], photometric="minisblack")
    np.testing.assert_array_equal(read_volume(tmp_path / "two.tif"), STACK)
    assert "holds 2 images" in caplog.text


@pytest.mark.parametrize(
    "settings",
    [
        {"photometric": "minisblack", "metadata": None},
        {"imagej": True, "metadata": {"axes": "ZYX"}},
        {"ome": True, "metadata": {"axes": "ZYX"}},
        {"photometric": "minisblack", "metadata": None, "compression": "zlib"},
        {"photometric": "minisblack", "metadata": None, "compression": "lzw", "bigtiff": True},
    ],
    ids=str,
)
def test_a_cut_file_gives_an_error_never_fewer_slices(tmp_path: Path, settings: dict) -> None:
    """tifffile reads the slices that are left, with a line in the log; a segmentation of those would look fine."""
    whole = tiff(tmp_path, STACK, **settings).read_bytes()
    path = tmp_path / "cut.tif"
    for size in range(0, len(whole), 11):
        path.write_bytes(whole[:size])
        try:
            read = read_volume(path)  # only bytes that say nothing of the pixels may be missing
        except ValueError as error:
            assert "cut.tif" in str(error)
        else:
            np.testing.assert_array_equal(read, STACK)


def test_sizes_that_the_file_cannot_hold_take_no_memory(tmp_path: Path) -> None:
    path = tiff(tmp_path, STACK, photometric="minisblack", metadata=None)
    with tifffile.TiffFile(path, mode="r+b") as tif:
        for page in tif.pages:
            page.tags["ImageLength"].overwrite(2**30)
    with pytest.raises(ValueError, match=r"25769803776 bytes of pixels cannot be in a file of"):
        read_volume(path)


@given(data=st.data())
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_damaged_tiff_gives_only_value_errors(tmp_path: Path, data: st.DataObject) -> None:
    raw = bytearray(tiff(tmp_path, STACK, imagej=True, metadata={"axes": "ZYX"}).read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        raw[data.draw(st.integers(0, min(400, len(raw)) - 1))] = data.draw(st.integers(0, 255))
    path = tmp_path / "damaged.tif"
    path.write_bytes(raw)
    for read in (read_volume, read_spacing):
        try:
            read(path)
        except ValueError as error:
            assert "damaged.tif" in str(error)


def test_real_stack(real_stack: Path) -> None:
    volume = read_volume(real_stack)
    assert volume.shape == (119, 415, 409) and volume.dtype == np.uint8
    assert (volume != 0).mean() < 0.001
    assert read_spacing(real_stack) is None
    scaled = scale_intensity(volume)
    assert not scaled[volume == 0].any()  # zeros are fill
    assert np.count_nonzero(scaled[volume > 0] == 0) == 2  # a pair of voxels, alone, is taken for hot


def test_checks_say_what_is_wrong() -> None:
    for wrong, words in [
        (np.zeros((4, 4)), r"crop must have 3 axes \(z, y, x\), got 2: shape \(4, 4\)"),
        (np.zeros((0, 4, 4)), "crop must not be empty"),
        (np.full((2, 2, 2), np.nan), "crop must be finite, got 8 voxels that are NaN or infinite"),
        (np.zeros((2, 2, 2), complex), "crop must hold real numbers"),
        (np.full((2, 2, 2), "a"), "crop must hold real numbers"),
    ]:
        with pytest.raises(ValueError, match=words):
            check_volume(wrong, name="crop")
    with pytest.raises(ValueError, match="constant: every voxel is 3"):
        scale_intensity(np.full((2, 2, 2), 3))
    with pytest.raises(ValueError, match=r"crop must be boolean, .* got float64 with 0.14"):
        check_mask(np.linspace(0, 1, 8).reshape(2, 2, 2), name="crop")
    with pytest.raises(ValueError, match=r"mask must have the shape of its volume, \(4, 5, 6\), got \(2, 2, 2\)"):
        check_mask(np.ones((2, 2, 2)), shape=STACK.shape)
    for spacing in ((1, 1), (1, 1, -1), (1, 1, np.inf), "abc", None):
        with pytest.raises(ValueError, match="spacing must be"):
            check_spacing(spacing)


@pytest.mark.parametrize("dtype", [bool, np.uint8, np.int16, np.float32, np.float64])
def test_a_mask_is_booleans_or_whole_numbers_of_which_0_is_background(dtype) -> None:
    labels = np.array([0, 1, 2, 0, 7, 0, 0, 1]).reshape(2, 2, 2)
    checked = check_mask(labels.astype(dtype), shape=(2, 2, 2))
    assert checked.dtype == bool
    np.testing.assert_array_equal(checked, labels > 0)
    if np.issubdtype(dtype, np.signedinteger) or np.issubdtype(dtype, np.floating):
        with pytest.raises(ValueError, match=r"mask must be boolean, .* with -1"):
            check_mask((-labels).astype(dtype))
