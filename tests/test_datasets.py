"""Samples, splits and patches: every crop is found again in its volume, and nothing leaks or depends on chance."""

import os
import zipfile
from collections import Counter
from hashlib import sha256
from pathlib import Path

import numpy as np
import pytest
import tifffile
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.data import DataLoader

from neurokd.data import datasets
from neurokd.data.datasets import Sample, fly_neuron, simulated_neurons, split_by_region, split_by_source
from neurokd.data.intensity import scale_intensity
from neurokd.data.patches import Patches

SHAPE = (20, 24, 28)
RNG = np.random.default_rng(0)
VOLUME = RNG.permutation(np.prod(SHAPE)).reshape(SHAPE).astype(np.uint16)  # every voxel has a value of its own
MASK = np.zeros(SHAPE, bool)
MASK[5:9, 3:20, 10:12] = True


def patches(sample: Sample | None = None, **settings) -> Patches:
    settings = {"size": (8, 8, 8), "length": 50, "seed": 3} | settings
    return Patches([sample or Sample("a", VOLUME, MASK)], **settings)


def test_crops_are_cut_from_volume_and_mask_at_the_same_place() -> None:
    scaled = scale_intensity(VOLUME)
    place = {value: divmod(k, 24 * 28) for k, value in enumerate(scaled.flat)}
    for item in patches(size=(4, 6, 8), augment=False):
        image, mask = item["image"], item["mask"]
        assert image.shape == mask.shape == (1, 4, 6, 8)
        assert image.dtype == mask.dtype == torch.float32
        assert image.is_contiguous() and mask.is_contiguous()
        value = image.flatten()[image.flatten() < 1][0].item()  # below one: not clipped, so unique
        at = np.argwhere(image[0].numpy() == np.float32(value))[0]
        z, rest = place[np.float32(value)]
        z, y, x = np.array([z, *divmod(rest, 28)]) - at
        window = np.s_[z : z + 4, y : y + 6, x : x + 8]
        np.testing.assert_array_equal(image[0], scaled[window])
        np.testing.assert_array_equal(mask[0], MASK[window])


def test_an_item_depends_on_seed_and_number_only() -> None:
    torch.manual_seed(0), np.random.seed(0)  # noqa: NPY002
    first = patches(length=12)
    kept = [first[i] for i in range(12)]
    torch.manual_seed(1), np.random.seed(1)  # noqa: NPY002
    longer = patches(length=1000)
    for i in (11, 0, 5, 5):
        for key in ("image", "mask"):
            assert torch.equal(longer[i][key], kept[i][key])
    loaded = next(iter(DataLoader(first, batch_size=12, num_workers=2)))
    assert torch.equal(loaded["image"], torch.stack([item["image"] for item in kept]))
    assert not torch.equal(patches(seed=4)[0]["image"], kept[0]["image"])
    assert len({item["image"].numpy().tobytes() for item in kept}) == 12
    with pytest.raises(IndexError):
        first[12]


def test_share_of_foreground_and_taste_for_what_is_not_black() -> None:
    volume, mask = np.zeros((60, 60, 60), np.uint8), np.zeros((60, 60, 60), bool)
    mask[5, 5, 5:8] = True
    volume[mask] = 200
    volume[50, 50, 50:55] = 30  # the only background with anything in it
    sample = Sample("a", volume, mask)
    items = [patches(sample, length=400, foreground=0.6, augment=False)[i] for i in range(400)]
    on_neuron = sum(bool(item["mask"].any()) for item in items)
    assert abs(on_neuron - 240) < 4 * np.sqrt(400 * 0.6 * 0.4)
    for share, key in ((1.0, "mask"), (0.0, "image")):
        assert all(item[key].any() for item in patches(sample, foreground=share, augment=False))
    volume[50, 50, 50:55] = 0  # fill
    uniform = [item["image"].any() for item in patches(sample, foreground=0.0, length=200, augment=False)]
    assert sum(uniform) < 20  # nothing to prefer: anywhere
    # The middle of a crop is not always neurite.
    where = {tuple(np.argwhere(i["mask"][0].numpy())[0]) for i in patches(sample, foreground=1.0, augment=False)}
    assert len(where) > 20


def test_dark_voxels_are_background_and_fill_is_not() -> None:
    volume = np.full((40, 60, 60), -5, np.int16)  # fill
    volume[:, 20:] = RNG.normal(100, 3, (40, 40, 60)).round()
    volume[:, 40:45] = RNG.integers(50, 75, (40, 5, 60))  # darker than black
    mask = np.zeros(volume.shape, bool)
    mask[20, 30, 20:40] = True
    volume[mask] = 200
    sample = Sample("a", volume, mask)
    dark = 0
    for item in patches(sample, size=(1, 1, 1), length=400, foreground=0.0, augment=False):
        dark += item["image"].item() == 0  # a crop of one voxel is the voxel that it was drawn around
    assert 25 < dark < 80  # an eighth of what was recorded; with the fill it would be 42 %
    zeros = [item["image"] == 0 for item in patches(sample, size=(40, 60, 60), length=20)]
    assert all(zero.float().mean() > 0.33 for zero in zeros)  # the fill stays zero
    assert min(zero.float().mean() for zero in zeros) < 0.42  # the dark gets noise, unless it was cut off


def test_augmentation_reaches_all_sixteen_orientations_and_turns_the_mask_alike() -> None:
    volume = (50 + 205 * RNG.random((4, 6, 6)) ** 6).astype(np.uint8)  # few bright voxels, as neurites are
    volume[:2, :3, 1:] = 0  # not its own mirror image on any axis
    sample = Sample("a", volume, volume > 0)
    orientations = Counter()
    for item in patches(sample, size=(4, 6, 6), length=400):
        image, mask = item["image"][0], item["mask"][0]
        assert (image[mask == 0] == 0).all(), "exact zeros stay zero"
        assert image.min() >= 0 and image.max() <= 1
        turned = [np.rot90(volume[::flip], turns, axes=(1, 2)) for flip in (1, -1) for turns in range(4)]
        turned += [array[:, ::-1] for array in turned]
        # Gain, gamma and a little noise leave the order of the values: the right turn correlates best.
        best = np.argmax([np.corrcoef(image.flatten(), array.flatten())[0, 1] for array in turned])
        orientations[best] += 1
        np.testing.assert_array_equal(mask, turned[best] > 0)
    assert len(orientations) == 16 and min(orientations.values()) > 8
    flat = patches(Sample("a", VOLUME, MASK), size=(4, 6, 8))
    assert all(item["image"].shape == (1, 4, 6, 8) for item in flat)


def test_small_volumes_are_padded_with_zeros() -> None:
    item = patches(size=(32, 8, 40), augment=False, foreground=1.0)[0]
    assert item["image"].shape == (1, 32, 8, 40)
    assert not item["image"][0, 20:].any() and not item["image"][0, :, :, 28:].any()
    assert item["mask"].any()


def test_masks_may_be_stored_as_0_and_255() -> None:
    as_bytes = patches(Sample("a", VOLUME, MASK * np.uint8(255)))
    assert all(torch.equal(one["mask"], two["mask"]) for one, two in zip(as_bytes, patches(), strict=True))


@pytest.mark.parametrize(
    ("sample", "settings", "words"),
    [
        (Sample("bad", VOLUME), {}, "sample 'bad' must have a mask, got None"),
        (Sample("bad", VOLUME, np.zeros(SHAPE, bool)), {}, r"must have foreground, got empty masks for \['bad'\]"),
        (Sample("bad", VOLUME, VOLUME / 7), {}, "mask of sample 'bad' must be boolean"),
        (Sample("bad", VOLUME * 0, MASK), {}, "volume of sample 'bad' cannot be used: volume is constant"),
        (
            Sample("bad", np.where(MASK, np.nan, 1.0), MASK),
            {},
            "volume of sample 'bad' cannot be used: volume must be finite, got .* NaN",
        ),
        (None, {"size": (8, 8)}, "size must be three positive integers"),
        (None, {"size": 8}, "size must be three positive integers"),
        (None, {"size": (8, 8, 0)}, "size must be three positive integers"),
        (None, {"size": (8, 8, 8.5)}, "size must be three positive integers"),
        (None, {"length": 0}, "length=0"),
        (None, {"seed": -1}, "seed=-1"),
        (None, {"foreground": 1.5}, "foreground=1.5"),
    ],
)
def test_what_cannot_be_cut(sample, settings, words) -> None:
    with pytest.raises(ValueError, match=words):
        patches(sample, **settings)


def test_other_bad_samples() -> None:
    with pytest.raises(ValueError, match="no samples"):
        Patches([], size=(8, 8, 8), length=1, seed=0)
    with pytest.raises(ValueError, match=r"mask of sample 'bad' must have the shape of its volume, .* got \(2, 2\)"):
        Sample("bad", VOLUME, np.zeros((2, 2)))
    assert Sample("own", VOLUME).source == "own"


def named(sources: list[str]) -> list[Sample]:
    return [Sample(f"{source}/{k}", VOLUME, source=source) for k, source in enumerate(sources)]


@given(
    sources=st.lists(st.sampled_from("abcdefghijklmnop"), min_size=3, max_size=40).filter(lambda s: len(set(s)) > 2),
    seed=st.integers(0, 10),
)
@settings(max_examples=100, deadline=None)
def test_no_source_is_in_two_parts(sources: list[str], seed: int) -> None:
    samples = named(sources)
    parts = split_by_source(samples, seed=seed)
    assert sorted(s.name for part in parts for s in part) == sorted(s.name for s in samples)
    held = [{s.source for s in part} for part in parts]
    assert all(held) and not (held[0] & held[1] or held[0] & held[2] or held[1] & held[2])
    turned = split_by_source(samples[::-1], seed=seed)
    assert [{s.name for s in part} for part in turned] == [{s.name for s in part} for part in parts]


def test_split_sizes_and_errors() -> None:
    janelia = named([f"stack-{k % 38:02d}" for k in range(42)])  # 42 neurons from 38 stacks
    parts = split_by_source(janelia, seed=0)
    assert [len({s.source for s in part}) for part in parts] == [30, 4, 4]
    assert sum(len(part) for part in parts) == 42
    assert [len(part) for part in split_by_source(named(list("abcdefghij")), seed=0)] == [8, 1, 1]
    assert [len(part) for part in split_by_source(named(list("abcd")), fractions=(0.5, 0.5, 0), seed=0)] == [2, 2, 0]
    assert len({tuple(s.name for s in split_by_source(janelia, seed=seed)[2]) for seed in range(5)}) > 1
    with pytest.raises(ValueError, match="at least 3 sources, got 2"):
        split_by_source(named(list("aabb")), seed=0)
    for fractions in ((0.8, 0.1), (0.8, 0.1, 0.2), (1.2, -0.1, -0.1)):
        with pytest.raises(ValueError, match="fractions must be"):
            split_by_source(janelia, fractions=fractions, seed=0)


def test_one_stack_is_cut_where_its_neuron_is_longest() -> None:
    sample = Sample("a", VOLUME, MASK, spacing=(2.0, 1.0, 1.0), source="brain 7")
    first, second = split_by_region(sample, share=0.5, margin=3)  # rows 3 to 19; the middle one is 11
    np.testing.assert_array_equal(first.volume, VOLUME[:, :12])
    np.testing.assert_array_equal(second.volume, VOLUME[:, 15:])
    np.testing.assert_array_equal(second.mask, MASK[:, 15:])
    assert first.mask.sum() == 9 * 8 and second.mask.sum() == 5 * 8  # 8 voxels a row
    assert (first.name, second.name) == ("a (first part along y)", "a (second part along y)")
    assert {part.source for part in (first, second)} == {"brain 7"} and second.spacing == (2.0, 1.0, 1.0)
    assert Patches([first], size=(8, 8, 8), length=1, seed=0)[0]["mask"].shape == (1, 8, 8, 8)
    for bad, words in (
        ({"share": 1.0}, "share must be above 0 and below 1, got 1.0"),
        ({"margin": -1}, "margin must not be negative, got -1"),
        ({"margin": 8}, "y = 14 .*margin"),
    ):
        with pytest.raises(ValueError, match=words):
            split_by_region(sample, **bad)
    for mask, words in ((None, "'a' must have a mask"), (MASK & False, "mask of sample 'a' must have foreground")):
        with pytest.raises(ValueError, match=words):
            split_by_region(Sample("a", VOLUME, mask))


def test_simulated_neuron_i_does_not_depend_on_how_many_there_are() -> None:
    (alone,) = simulated_neurons(1, seed=5, shape=(32, 32, 32))
    first, second = simulated_neurons(2, seed=5, shape=(32, 32, 32))
    np.testing.assert_array_equal(alone.volume, first.volume)
    np.testing.assert_array_equal(alone.tree.xyz, first.tree.xyz)
    assert not np.array_equal(first.volume, second.volume)
    assert first.name != second.name and first.source != second.source
    assert first.volume.shape == first.mask.shape == (32, 32, 32)
    assert first.mask.dtype == bool and first.spacing == (0.38, 0.38, 0.38)
    (other,) = simulated_neurons(1, seed=6, shape=(32, 32, 32))
    assert not np.array_equal(other.volume, first.volume)


def test_fly_neuron_of_the_data_folder(real_stack: Path) -> None:
    fly = fly_neuron()
    assert fly.volume.shape == (119, 415, 409) and fly.mask is None and fly.spacing is None
    # The trace runs along bright voxels in this orientation, and only in this one.
    zyx = np.rint(fly.tree.xyz[:, ::-1]).astype(int)
    assert (fly.volume[tuple(zyx.T)] > 0).mean() > 0.95
    mirrored = zyx * [1, -1, 1] + [0, 414, 0]
    assert (fly.volume[tuple(mirrored.T)] > 0).mean() < 0.2


def test_fly_neuron_of_the_cache_is_mirrored(tmp_path: Path, monkeypatch) -> None:
    """Files as published (zipped TIFF, y from below, ids from 0) where pooch keeps them; no network is asked."""
    folder = tmp_path / "rivuletpy"
    folder.mkdir()
    tifffile.imwrite(tmp_path / "test.tif", VOLUME, photometric="minisblack")
    with zipfile.ZipFile(folder / "test.tif.zip", "w") as archive:
        archive.write(tmp_path / "test.tif", "test.tif")
    (folder / "test-expected.swc").write_text("0 1 4 3 2 1 -1\n1 3 5 4 2 1 0\n")
    files = tuple(
        (f"commit/{name}", sha256((folder / name).read_bytes()).hexdigest())
        for name in ("test.tif.zip", "test-expected.swc")
    )
    monkeypatch.setattr(datasets, "_RIVULET_FILES", files)
    monkeypatch.setattr(datasets, "_RIVULET", "https://host.invalid")
    monkeypatch.setenv("NEUROKD_CACHE", str(tmp_path))
    monkeypatch.delenv("NEUROKD_DATA", raising=False)
    fly = fly_neuron()
    np.testing.assert_array_equal(fly.volume, VOLUME)
    np.testing.assert_array_equal(fly.tree.xyz, [[4, 23 - 3, 2], [5, 23 - 4, 2]])  # 24 rows: 0 to 23


def test_fly_neuron_that_cannot_be_had_names_the_three_ways(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(datasets, "_RIVULET", "https://host.invalid")
    monkeypatch.setenv("NEUROKD_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("NEUROKD_DATA", str(tmp_path))
    with pytest.raises(FileNotFoundError) as caught:
        fly_neuron()
    for words in (f"NEUROKD_DATA ({tmp_path})", str(tmp_path / "cache"), "go online", "copy test.tif.zip"):
        assert words in str(caught.value)
    assert len(str(caught.value)) < 500 + 2 * len(str(tmp_path)) and "HTTPSConnectionPool" not in str(caught.value)
    assert not [file for _, _, files in os.walk(tmp_path) for file in files]


def test_fly_neuron_as_published_is_the_one_of_the_data_folder(real_stack: Path, monkeypatch) -> None:
    """Needs the network, or a cache that was filled when there was one."""
    ours = fly_neuron()
    monkeypatch.delenv("NEUROKD_DATA")
    try:
        theirs = fly_neuron()
    except FileNotFoundError as error:
        pytest.skip(f"needs the network: {error}")
    np.testing.assert_array_equal(theirs.volume, ours.volume)
    assert len(theirs.tree) == len(ours.tree)
    np.testing.assert_allclose(np.sort(theirs.tree.xyz, axis=0), np.sort(ours.tree.xyz, axis=0), atol=1e-6)
