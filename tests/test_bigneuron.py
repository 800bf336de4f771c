"""A small folder of gold166's shape, both Vaa3D formats in it, against what was put there by hand."""

import dataclasses
import logging
import shutil
from pathlib import Path

import numpy as np
import pytest
from pbd import encode

from neurokd.data.bigneuron import GoldPair, convert_gold166, index_gold166
from neurokd.data.datasets import split_by_source
from neurokd.data.io import read_spacing, read_volume, write_volume
from neurokd.data.patches import Patches
from neurokd.data.placement import check_pair
from neurokd.data.rasterise import rasterise
from neurokd.data.swc import read_swc, write_swc
from neurokd.data.tree import Tree

SHAPE = (12, 30, 40)
TREE = Tree([[5, 4, 6], [20, 6, 6], [33, 9, 5], [20, 24, 7]], [1.5, 1.0, 1.0, 1.0], [-1, 0, 1, 1], [1, 3, 3, 3])
PART1, PART2 = "p_checked7_janelia_flylight_part1", "p_checked6_janelia_flylight_part2"
TAIWAN, GOETTINGEN = "p_checked7_taiwan_flycirciut", "p_checked6_mouse_ugoettingen"
BRAIN = "GMR_57C10_AD_01-1xLwt_attp40_4stop1-f-A01-2011"
# name of the volume: subset, folder, source, chosen SWC, further ones
FOLDER = {
    f"{BRAIN}_A3-left_optic_lobe.v3draw.extract_1": (
        PART1, "", f"{BRAIN}_A3-left_optic_lobe",
        ".v3dpbd.ano_stamp_2015_06_15_12_57.swc_sorted.swc",
        (".v3dpbd.ano_stamp_2015_06_17_12_57.swc", ".v3dpbd.swc"),
    ),
    f"{BRAIN}_A3-left_optic_lobe.v3draw.extract_12": (
        PART1, "err_", f"{BRAIN}_A3-left_optic_lobe",
        ".v3dpbd_stamp_2015_07_01_10_00.swc", (".v3dpbd.ano_stamp_2015_06_30_10_00.swc", ".v3dpbd.ano.swc"),
    ),
    f"{BRAIN}_B2-right_optic_lobe.v3draw.extract_0": (
        PART2, "", f"{BRAIN}_B2-right_optic_lobe", ".v3dpbd.swc", (),
    ),
    "uint8_ChaMARCM-F000134_seg001.lsm_c_3.tif": (TAIWAN, "", "uint8_ChaMARCM-F000134", ".v3dpbd.swc", ()),
    "uint8_ChaMARCM-F000134_seg002.lsm_c_3.tif": (TAIWAN, "", "uint8_ChaMARCM-F000134", ".v3dpbd.swc", ()),
    "confocal": (GOETTINGEN, "Confocal", "confocal", ".v3draw.ano_stamp_2015_07_15_15_51.swc", ()),
}  # fmt: skip
MIRRORED = "uint8_ChaMARCM-F000134_seg002.lsm_c_3.tif"


def image(tree: Tree = TREE, seed: int = 0) -> np.ndarray:
    """A box of haze, and a neuron in it that is brighter."""
    volume = np.zeros(SHAPE, dtype=np.uint8)
    volume[:, 2:28, 2:38] = np.random.default_rng(seed).integers(1, 30, (12, 26, 36))
    volume[rasterise(tree, SHAPE, min_radius=0.87)] = 200
    return volume


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("data") / "gold166"
    for seed, (name, (subset, prefix, _, chosen, others)) in enumerate(FOLDER.items()):
        folder = root / subset / (prefix if prefix == "Confocal" else prefix + name)
        folder.mkdir(parents=True)
        volume = image(seed=seed)
        if ".v3draw" in chosen:
            write_volume(folder / f"{name}.v3draw", volume.astype(np.uint16) * 100)
        else:
            (folder / f"{name}.v3dpbd").write_bytes(encode(volume))
        write_swc(folder / f"{name}{chosen}", TREE.mirror("y", SHAPE[1]) if name == MIRRORED else TREE)
        for other in others:
            (folder / f"{name}{other}").write_text("not chosen, so not read")
        (folder / f"._{name}.v3dpbd").write_text("a Mac was here")
    (root / PART2 / "readme.txt").write_text("voxel size")
    return root


@pytest.fixture(scope="module")
def pairs(made: Path) -> list[GoldPair]:
    return index_gold166(made)


def test_index_is_what_was_put_there(made: Path, pairs: list[GoldPair]) -> None:
    assert sorted(pair.name for pair in pairs) == sorted(FOLDER)
    for pair in pairs:
        subset, _, source, chosen, others = FOLDER[pair.name]
        assert (pair.subset, pair.source) == (subset, source)
        assert pair.swc.name == pair.name + chosen and pair.swc.parent == pair.volume.parent
        assert sorted(other.name for other in pair.others) == sorted(pair.name + other for other in others)
        assert pair.spacing == {PART1: (0.38,) * 3, PART2: (0.38,) * 3, TAIWAN: (1, 0.32, 0.32)}.get(subset)
        expected = (200, np.uint8) if subset != GOETTINGEN else (20_000, np.uint16)
        volume = read_volume(pair.volume)
        assert (volume.max(), volume.dtype) == expected and volume.shape == SHAPE
    inner = index_gold166(made / PART1)
    assert inner == [pair for pair in pairs if pair.subset == PART1]


def test_folders_of_any_depth_and_several_volumes_in_one(tmp_path: Path, caplog) -> None:
    deep = tmp_path / "a" / "b" / "lab" / "all"
    for name in ("cell1", "cell11", "cell2"):
        write_volume(deep / f"{name}.tif", image(), spacing=(1, 0.5, 0.5))
    write_volume(deep / "cell1.v3draw", image())  # before a TIFF of the same name
    for name in ("cell1", "cell11"):
        write_swc(deep / f"sorted_{name}.swc", TREE)
    first, second = index_gold166(tmp_path)
    assert (first.name, first.volume.suffix, first.spacing) == ("cell1", ".v3draw", None)
    assert (second.name, second.swc.name, second.spacing) == ("cell11", "sorted_cell11.swc", (1, 0.5, 0.5))
    assert first.subset == "lab" and first.source == "cell1"
    assert "cell2.tif: no SWC beside it" in caplog.text


def test_splits_keep_stacks_whole(pairs: list[GoldPair]) -> None:
    for seed in range(20):
        parts = split_by_source(pairs, fractions=(0.5, 0.25, 0.25), seed=seed)
        sources = [{pair.source for pair in part} for part in parts]
        assert [len(part) for part in sources] == [2, 1, 1] and len(set.union(*sources)) == 4
        assert parts == split_by_source(pairs, fractions=(0.5, 0.25, 0.25), seed=seed)


# --- do tree and volume belong together?


def test_shares_counted_by_hand() -> None:
    volume = np.zeros((5, 6, 20))
    volume[1, 1, 1:4] = (5, 6, 6)
    tree = Tree([[1, 1, 1], [2.4, 1.4, 1.4], [3, 4, 1], [29, 1, 1]], np.ones(4), [-1, 0, 1, 2], [1, 3, 3, 3])
    check = check_pair(volume, tree)  # two nodes on the line, one beside it, one outside
    assert (check.nodes, check.inside, check.bright, check.chance) == (4, 0.75, 0.5, 3 / 600)
    assert check.bright_mirrored == 0.25  # y = 4 becomes 1
    assert check.fits and not check.mirrored
    brighter = check_pair(volume, tree, percentile=99.7)  # the brightest two of 600, both 6
    assert (brighter.bright, brighter.bright_mirrored, brighter.chance) == (0.25, 0.25, 2 / 600)
    assert str(check) == "50% of 4 nodes on bright voxels, 25% mirrored in y"
    assert check_pair(np.zeros((2, 2, 2)), tree).bright == 0  # zeros are never bright
    saturated = np.full((2, 6, 4), 255, dtype=np.uint8)
    saturated[:, :, 0] = 3
    assert check_pair(saturated, tree).chance == 0.75
    for percentile in (-1, 100, np.nan):
        with pytest.raises(ValueError, match="percentile must be"):
            check_pair(volume, tree, percentile=percentile)


def test_real_neuron_and_its_mirror_image(real_stack: Path) -> None:
    volume, tree = read_volume(real_stack), read_swc(real_stack.with_suffix(".swc"))
    right, wrong = check_pair(volume, tree), check_pair(volume, tree.mirror("y", volume.shape[1]))
    assert right.bright > 0.9 and right.fits and not right.mirrored
    assert wrong.mirrored and not wrong.fits
    assert (wrong.bright, wrong.bright_mirrored) == (right.bright_mirrored, right.bright)
    assert not check_pair(volume, tree.mirror("x", volume.shape[2])).fits  # wrong, but not this way


# --- convert once


def test_converted_pairs_are_the_same_but_in_array_coordinates(tmp_path: Path, pairs: list[GoldPair], caplog) -> None:
    caplog.set_level(logging.INFO)
    converted = convert_gold166(pairs, tmp_path)
    for old, new in zip(pairs, converted, strict=True):
        assert new.volume == tmp_path / old.subset / old.name / f"{old.name}.tif"
        np.testing.assert_array_equal(read_volume(new.volume), read_volume(old.volume))
        assert read_volume(new.volume).dtype == read_volume(old.volume).dtype
        assert read_spacing(new.volume) == (old.spacing and pytest.approx(old.spacing))
        tree = read_swc(new.swc)
        np.testing.assert_allclose(tree.xyz, TREE.xyz)  # the mirrored one, too
        assert check_pair(read_volume(new.volume), tree).bright == 1
        (report,) = (line for line in tree.comments if line.startswith(f"{old.swc.name}: "))
        assert ("turned round" in report) == (old.name == MIRRORED)
        assert (new.name, new.subset, new.source, new.spacing) == (old.name, old.subset, old.source, old.spacing)
    for name in FOLDER:
        (record,) = (record for record in caplog.records if record.getMessage().startswith(f"{name}.v3d"))
        assert record.levelname == ("WARNING" if name == MIRRORED else "INFO")
    again = {pair.name: pair for pair in index_gold166(tmp_path)}
    for pair in converted:
        found = again[pair.name]
        same_size = found.spacing == (pair.spacing and pytest.approx(pair.spacing))
        assert same_size and dataclasses.replace(found, spacing=pair.spacing) == pair


def test_a_second_call_does_only_what_is_missing(tmp_path: Path, pairs: list[GoldPair]) -> None:
    first, second = convert_gold166(pairs[:2], tmp_path)
    files = [first.volume, first.swc, second.volume]
    first.volume.write_bytes(b"kept as it is")
    before = [path.stat().st_mtime_ns for path in files]
    second.swc.unlink()  # as after an interruption
    assert convert_gold166(pairs[:2], tmp_path) == [first, second]
    after = [path.stat().st_mtime_ns for path in files]
    assert after[:2] == before[:2] and after[2] > before[2] and second.swc.is_file()


def test_loaded_pairs_are_samples_to_train_on(pairs: list[GoldPair], tmp_path: Path) -> None:
    samples = [pair.load() for pair in pairs if pair.name != MIRRORED]
    for sample in samples:
        np.testing.assert_array_equal(sample.mask, sample.volume == sample.volume.max())
        assert sample.source == FOLDER[sample.name][2] and len(sample.tree) == len(TREE)
    assert Patches(samples, size=(8, 16, 16), length=2, seed=0)[0]["mask"].any()
    thick = pairs[0].load(min_radius=3)
    np.testing.assert_array_equal(thick.mask, rasterise(TREE, SHAPE, min_radius=3))
    (mirrored,) = (pair for pair in pairs if pair.name == MIRRORED)
    with pytest.raises(ValueError, match=r"mirrored in y against its volume .*convert_gold166 mends that"):
        mirrored.load()
    np.testing.assert_array_equal(convert_gold166([mirrored], tmp_path)[0].load().mask, samples[0].mask)


# --- bad input


def test_folders_without_pairs(tmp_path: Path, made: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no such folder"):
        index_gold166(tmp_path / "absent")
    with pytest.raises(ValueError, match=r"no volume \(\.v3dpbd, .*with an SWC file beside it"):
        index_gold166(tmp_path)
    shutil.copytree(made, tmp_path / "one")
    shutil.copytree(made / PART2, tmp_path / "copy" / PART2)
    with pytest.raises(
        ValueError, match=r"two volumes are called GMR_.*one/.* and |two volumes are called GMR_.*copy/"
    ):
        index_gold166(tmp_path)


def test_damaged_files_are_named(tmp_path: Path, made: Path) -> None:
    shutil.copytree(made / PART1, tmp_path / PART1)
    pair, other = index_gold166(tmp_path)
    pair.volume.write_bytes(pair.volume.read_bytes()[:-5])
    other.swc.write_text("1 1 0 0\n")
    for broken, message in ((pair, r"extract_1\.v3dpbd: .*cut short"), (other, r"stamp_2015_07_01_10_00\.swc, line 1")):
        with pytest.raises(ValueError, match=message):
            broken.load()
        with pytest.raises(ValueError, match=message):
            convert_gold166([broken], tmp_path / "out")
    assert not list(tmp_path.glob("out/**/*.swc"))
