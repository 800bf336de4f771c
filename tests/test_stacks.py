"""A folder of one's own, against what was put there; trees brought back from every convention, against the original."""

import logging
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from neurokd.data.io import read_volume, write_volume
from neurokd.data.placement import check_pair, place_tree
from neurokd.data.rasterise import rasterise
from neurokd.data.stacks import Stack, index_stacks
from neurokd.data.swc import read_swc, write_swc
from neurokd.data.tree import Tree

SHAPE = (12, 30, 40)
TREE = Tree([[5, 4, 6], [20, 6, 6], [33, 9, 5], [20, 24, 7]], [1.5, 1.0, 1.0, 1.0], [-1, 0, 1, 1], [1, 3, 3, 3])
VOLUME = np.where(rasterise(TREE, SHAPE, min_radius=0.87), 200, 7).astype(np.uint8)
STATED, GIVEN = (1.0, 0.5, 0.5), (0.4, 0.1, 0.1)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two annotated stacks, one with its voxel size; a stack without tree, a tree without stack, and other things."""
    write_volume(tmp_path / "cell1.TIF", VOLUME, spacing=STATED)
    write_swc(tmp_path / "cell1.swc", TREE)
    write_volume(tmp_path / "cell2.v3draw", VOLUME)
    write_swc(tmp_path / "cell2.v3draw.swc", TREE)
    write_volume(tmp_path / "cell3.ome.tif", VOLUME)
    write_swc(tmp_path / "lonely.swc", TREE)
    (tmp_path / "readme.txt").write_text("voxel size")
    (tmp_path / "._cell1.tif").write_text("a Mac was here")
    write_volume(tmp_path / "runs" / "mask.tif", VOLUME)  # results, not data
    return tmp_path


def test_index_is_what_was_put_there(folder: Path, caplog) -> None:
    first, second, third = index_stacks(folder, spacing={"cell2": GIVEN, "cell3": GIVEN})
    assert first == Stack("cell1", folder / "cell1.TIF", folder / "cell1.swc", pytest.approx(STATED))
    assert second == Stack("cell2", folder / "cell2.v3draw", folder / "cell2.v3draw.swc", GIVEN)
    assert third == Stack("cell3", folder / "cell3.ome.tif", None, GIVEN)
    (record,) = caplog.records
    assert record.levelno == logging.WARNING and record.getMessage().endswith(
        "without a stack of their name: lonely.swc"
    )
    np.testing.assert_array_equal(read_volume(second.volume), VOLUME)
    assert len(read_swc(second.swc)) == len(TREE)


def test_a_given_size_comes_before_a_stated_one_and_says_so(folder: Path, caplog) -> None:
    assert {stack.spacing for stack in index_stacks(folder, spacing=GIVEN)} == {GIVEN}
    (record,) = (record for record in caplog.records if "spacing" in record.getMessage())
    assert "cell1.TIF: spacing (0.4, 0.1, 0.1) is used as given, the file states (1.0" in record.getMessage()
    caplog.clear()
    index_stacks(folder, spacing=(1.001, 0.5, 0.5))  # as good as the same
    assert not [record for record in caplog.records if "spacing" in record.getMessage()]


def test_a_missing_size_is_asked_for(folder: Path) -> None:
    with pytest.raises(ValueError, match=r'in the files of cell2, cell3: give spacing=\(z, y, x\) .*\{"cell2": \('):
        index_stacks(folder)
    with pytest.raises(ValueError, match=r"in the files of cell3: give"):
        index_stacks(folder, spacing={"cell2": GIVEN})
    with pytest.raises(ValueError, match="spacing must be of stacks among cell1, cell2, cell3, got cell9"):
        index_stacks(folder, spacing={"cell9": GIVEN})
    with pytest.raises(ValueError, match="three positive numbers"):
        index_stacks(folder, spacing=(0.4, 0, 0.1))


def test_suffixes_decide_what_belongs_together(tmp_path: Path, caplog) -> None:
    for name in ("a_raw.tif", "a_mask.tif", "b_raw.tif"):
        write_volume(tmp_path / name, VOLUME, spacing=STATED)
    for name in ("a_trace.swc", "a_auto.swc"):
        write_swc(tmp_path / name, TREE)
    a, b = index_stacks(tmp_path, stack_suffixes="_RAW.tif", swc_suffixes=["_trace.swc"])
    assert (a.name, a.volume.name, a.swc and a.swc.name) == ("a", "a_raw.tif", "a_trace.swc")
    assert (b.name, b.swc) == ("b", None)
    assert not caplog.records  # a_auto.swc and a_mask.tif are none of the suffixes
    with pytest.raises(ValueError, match=r"two files are called a: .*a_auto\.swc and .*a_trace\.swc"):
        index_stacks(tmp_path, stack_suffixes="_raw.tif", swc_suffixes=("_trace.swc", "_auto.swc"))
    with pytest.raises(ValueError, match=r"two files are called a: .*a_mask\.tif and .*a_raw\.tif"):
        index_stacks(tmp_path, stack_suffixes=("_raw.tif", "_mask.tif", ".tif"))


def test_folders_without_stacks(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no such folder"):
        index_stacks(tmp_path / "absent")
    write_volume(tmp_path / "below" / "a.tif", VOLUME)
    with pytest.raises(ValueError, match=r"no file ends in .*\.v3dpbd.* \(folders below are not searched\)"):
        index_stacks(tmp_path)


def test_a_damaged_stack_is_listed_and_asks_for_no_size(folder: Path) -> None:
    whole = (folder / "cell1.TIF").read_bytes()
    (folder / "half.tif").write_bytes(whole[:100])
    (half,) = (s for s in index_stacks(folder, spacing={"cell2": GIVEN, "cell3": GIVEN}) if s.name == "half")
    assert half.spacing is None
    with pytest.raises(ValueError, match="not a complete, readable TIFF"):
        read_volume(half.volume)


# --- which convention a tree follows


@pytest.mark.parametrize(
    ("how", "written"),
    [
        ("as it is", TREE),
        ("mirrored in y", TREE.mirror("y", SHAPE[1])),
        ("in µm", TREE.scale(GIVEN[::-1])),
        ("in µm, mirrored in y", TREE.mirror("y", SHAPE[1]).scale(GIVEN[::-1])),
        ("x and z exchanged", replace(TREE, xyz=TREE.zyx)),
    ],
)
def test_a_tree_is_brought_back_from_every_convention(how: str, written: Tree) -> None:
    placed, said, check = place_tree(VOLUME, written, spacing=GIVEN)
    assert said == how and check == check_pair(VOLUME, placed) and check.bright == 1
    np.testing.assert_allclose(placed.xyz, TREE.xyz, atol=1e-9)
    np.testing.assert_allclose(placed.radius, TREE.radius)


def test_what_fits_as_it_is_stays_as_it_is() -> None:
    symmetric = np.maximum(VOLUME, VOLUME[:, ::-1])  # both ways up fit alike
    placed, said, _ = place_tree(symmetric, TREE)
    assert said == "as it is" and placed is TREE
    assert place_tree(VOLUME, TREE, spacing=(1, 1, 1))[1] == "as it is"


def test_a_tree_of_another_stack_fits_in_no_way() -> None:
    elsewhere = TREE.translate((0, 3, 3))
    assert not place_tree(VOLUME, elsewhere, spacing=GIVEN)[2].fits
    in_microns = TREE.scale(GIVEN[::-1])
    assert not place_tree(VOLUME, in_microns)[2].fits  # without the voxel size, µm cannot be known
    with pytest.raises(ValueError, match="percentile must be"):
        place_tree(VOLUME, TREE, percentile=100)
    with pytest.raises(ValueError, match="three positive numbers"):
        place_tree(VOLUME, TREE, spacing=(1, 1))
