"""Trees and SWC files against hand-made trees, closed formulas and the files of other programs."""

import math
import os
import tracemalloc
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from scipy.ndimage import label

from neurokd.data.rasterise import rasterise
from neurokd.data.swc import read_swc, write_swc
from neurokd.data.tree import Tree

# A "Y" drawn by hand: a stem of 3 + 4 = 7 voxels, then two arms of 5 (a 3-4-5 triangle) and 2 voxels.
Y_SWC = """\
# drawn by hand
1 1 10 10 10 2.0 -1
2 3 13 10 10 1.5 1
3 3 17 10 10 1.0 2
4 3 20 14 10 0.5 3
5 2 17 10 12 0.5 3
"""


def write(folder: Path, text: str | bytes) -> Path:
    path = folder / "tree.swc"
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return path


@pytest.fixture
def y_tree(tmp_path: Path) -> Tree:
    return read_swc(write(tmp_path, Y_SWC))


def test_known_tree(y_tree: Tree) -> None:
    assert len(y_tree) == 5
    assert y_tree.comments == ("drawn by hand",)
    np.testing.assert_array_equal(y_tree.parent, [-1, 0, 1, 2, 2])
    np.testing.assert_array_equal(y_tree.type, [1, 3, 3, 3, 2])
    np.testing.assert_array_equal(y_tree.zyx[3], [10, 14, 20])
    np.testing.assert_array_equal(y_tree.edges, [[1, 0], [2, 1], [3, 2], [4, 2]])
    np.testing.assert_allclose(y_tree.edge_lengths, [3, 4, 5, 2])
    assert y_tree.length == 14
    np.testing.assert_array_equal(y_tree.tips, [3, 4])
    np.testing.assert_array_equal(y_tree.bifurcations, [2])
    assert [run.tolist() for run in y_tree.segments()] == [[0, 1, 2], [2, 3], [2, 4]]


def same(a: Tree, b: Tree) -> None:
    for name in ("xyz", "radius"):
        np.testing.assert_allclose(getattr(a, name), getattr(b, name), atol=5e-5, err_msg=name)
    for name in ("parent", "type"):
        np.testing.assert_array_equal(getattr(a, name), getattr(b, name), err_msg=name)


def test_round_trip(tmp_path: Path, y_tree: Tree) -> None:
    path = write_swc(tmp_path / "out.swc", y_tree, comments=["by neurokd\nin two lines"])
    again = read_swc(path)
    same(again, y_tree)
    assert again.comments[:3] == ("drawn by hand", "by neurokd", "in two lines")
    twice = write_swc(tmp_path / "twice.swc", again)
    assert twice.read_bytes() == path.read_bytes()  # headers do not pile up
    rows = np.loadtxt(path)
    np.testing.assert_array_equal(rows[:, 0], np.arange(1, 6))
    np.testing.assert_array_equal(rows[:, 6], [-1, 1, 2, 3, 3])


def test_write_keeps_what_is_there(tmp_path: Path, y_tree: Tree) -> None:
    path = tmp_path / "out.swc"
    path.write_text("precious")
    with pytest.raises(FileExistsError, match=r"out\.swc"):
        write_swc(path, y_tree)
    assert path.read_text() == "precious"
    same(read_swc(write_swc(path, y_tree, overwrite=True)), y_tree)
    assert sorted(os.listdir(tmp_path)) == ["out.swc", "tree.swc"]  # nothing half-written is left


@pytest.mark.parametrize(
    "text",
    [
        Y_SWC.replace("\n", "\r\n"),
        Y_SWC.replace("\n", "\r"),
        b"\xef\xbb\xbf" + Y_SWC.encode(),
        b"# Ram\xf3n y Cajal, Latin-1\n" + Y_SWC.encode(),
        Y_SWC.replace(" ", "\t"),
        Y_SWC.replace("-1\n", "-1   # the soma\n"),
        "\n  \n" + Y_SWC.replace("2.0 -1", "2.0 -1 17 extra columns"),
        Y_SWC.replace("10 10 10 2.0 -1", "1e1 10.000 +10 2.0 -1.0"),
    ],
    ids=["CRLF", "CR", "BOM", "Latin-1", "tabs", "trailing comment", "blank lines", "number formats"],
)
def test_harmless_variants(tmp_path: Path, y_tree: Tree, text: str | bytes) -> None:
    same(read_swc(write(tmp_path, text)), y_tree)


def test_children_before_parents_and_ids_from_zero(tmp_path: Path) -> None:
    tree = read_swc(write(tmp_path, "7 3 0 4 0 1 5\n5 3 0 3 0 1 0\n9 3 1 3 0 1 5\n0 1 0 0 0 2 -1\n"))
    np.testing.assert_array_equal(tree.parent, [-1, 0, 1, 1])
    np.testing.assert_array_equal(tree.xyz, [[0, 0, 0], [0, 3, 0], [0, 4, 0], [1, 3, 0]])
    np.testing.assert_array_equal(tree.radius, [2, 1, 1, 1])


BAD = {
    "cycle": ("1 1 0 0 0 1 -1\n2 3 0 0 1 1 4\n3 3 0 0 2 1 2\n4 3 0 0 3 1 3\n", "line 2.*cycle"),
    "cycle without a root": ("1 1 0 0 0 1 3\n2 3 0 0 1 1 1\n3 3 0 0 2 1 2\n", "line 1.*cycle"),
    "own parent": ("1 1 0 0 0 1 -1\n2 3 0 0 1 1 2\n", "line 2.*cycle"),
    "each other's parent": ("1 1 0 0 0 1 2\n2 3 0 0 1 1 1\n", "line 1.*each other's parent"),
    "missing parent": ("1 1 0 0 0 1 -1\n2 3 0 0 1 1 8\n", "line 2: parent 8 of node 2"),
    "two roots": ("1 1 0 0 0 1 -1\n2 3 0 0 1 1 1\n3 1 0 0 9 1 -1\n", "line 3: 2 roots"),
    "duplicate id": (
        "# x\n1 1 0 0 0 1 -1\n2 3 0 0 1 1 1\n2 3 0 0 2 1 1\n",
        "line 4: id 2 already stands in line 3",
    ),
    "comments only": ("# one\n\n# two\n", "no nodes"),
    "empty file": ("", "no nodes"),
    "non-numeric field": ("1 1 0 0 0 1 -1\n2 3 0 zero 1 1 1\n", "line 2: y must be .*'zero'"),
    "not a number": ("1 1 0 0 nan 1 -1\n", "line 1: z must be .*'nan'"),
    "beyond squaring": ("1 1 0 0 0 1 -1\n2 3 1e200 0 0 1 1\n", "line 2: x must be .*'1e200'"),
    "infinite": ("1 1 0 0 0 inf -1\n", "line 1: radius must be .*'inf'"),
    "id not an integer": ("1.5 1 0 0 0 1 -1\n", "line 1: id must be .*'1.5'"),
    "negative id": ("-3 1 0 0 0 1 -1\n", "line 1: id must be >= 0, got -3"),
    "huge id": ("1e300 1 0 0 0 1 -1\n", "line 1: id must be .*'1e300'"),
    "six fields": ("1 1 0 0 0 1\n", "line 1: 6 fields"),
    "negative radius": ("1 1 0 0 0 -1 -1\n", "line 1: radius -1.0"),
    "commas": ("1,1,0,0,0,1,-1\n", "line 1: 1 fields"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_files_name_file_and_line(tmp_path: Path, name: str) -> None:
    text, message = BAD[name]
    with pytest.raises(ValueError, match=message) as error:
        read_swc(write(tmp_path, text))
    assert "tree.swc" in str(error.value)


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"nothing\.swc"):
        read_swc(tmp_path / "nothing.swc")


def test_repairs_are_announced(tmp_path: Path) -> None:
    forest = write(tmp_path, "1 1 0 0 0 1 -1\n2 3 0 0 5 1 1\n3 1 0 0 9 1 -1\n4 3 0 0 8 1 3\n5 1 1 0 10 -1 -1\n")
    with pytest.warns(UserWarning) as warned:
        tree = read_swc(forest, repair=True)
    assert [str(w.message).split(": ")[1] for w in warned] == [
        "radius -1.0 is negative; mended",
        "3 roots, a tree has one; mended",
    ]
    # Each further root hangs on the nearest node of the trees before it, never on its own: 3 on 2, 5 on 3.
    np.testing.assert_array_equal(tree.parent, [-1, 0, 1, 2, 2])
    np.testing.assert_array_equal(tree.xyz[[2, 4]], [[0, 0, 9], [1, 0, 10]])
    assert tree.radius[4] == 0

    ring = write(tmp_path, "1 1 0 0 0 1 3\n2 3 0 0 5 1 1\n3 1 0 0 9 1 1\n")
    with pytest.warns(UserWarning, match="node 1 becomes the root"):
        tree = read_swc(ring, repair=True)
    np.testing.assert_array_equal(tree.parent, [-1, 0, 0])
    with pytest.raises(ValueError, match="cycle of 3"):
        read_swc(write(tmp_path, BAD["cycle without a root"][0]), repair=True)


line = st.lists(
    st.sampled_from(["1", "2", "3", "-1", "0", "1e9", "-0.5", "nan", "x", "1e400", "#", "\r", "\x00", "é"]),
    max_size=9,
).map(" ".join)
number = st.sampled_from(["0", "1", "-3", "0.5", "1e99", "-1e100", "1e200", "1.7e308"])
node = st.tuples(
    st.sampled_from(["0", "1", "2", "3", "9007199254740992"]), st.sampled_from("123"), number, number, number,
    st.sampled_from(["1", "0", "-1", "1e100"]), st.sampled_from(["-1", "-9", "0", "1", "2", "3", "9007199254740992"]),
).map(" ".join)  # fmt: skip


@settings(max_examples=500, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.one_of(st.lists(line | node, max_size=6).map("\n".join).map(str.encode), st.binary(max_size=200)),
    st.booleans(),
)
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_any_bytes_give_a_tree_or_a_value_error_in_little_memory(tmp_path: Path, content: bytes, repair: bool) -> None:
    path = write(tmp_path, content)
    tracemalloc.start()
    try:
        tree = read_swc(path, repair=repair)
        assert tree.parent[0] == -1 and (tree.parent[1:] < np.arange(1, len(tree))).all()
        assert np.isfinite(tree.length)
    except ValueError:
        pass
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 300_000  # an id of 2**53 takes no more room than 1


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"parent": [-1, 0, 3, 2]}, "parents first"),
        ({"parent": [-1, -1, 0, 1]}, "parents first"),
        ({"radius": [1, 1, 1]}, "radius"),
        ({"xyz": np.full((4, 3), np.nan)}, "finite"),
        ({"radius": [1, 1, -1, 1]}, ">= 0"),
        ({"xyz": [], "radius": [], "parent": [], "type": []}, "n >= 1"),
    ],
)
def test_a_tree_is_always_valid(change: dict, message: str) -> None:
    columns = {"xyz": np.zeros((4, 3)), "radius": np.ones(4), "parent": [-1, 0, 1, 2], "type": [3] * 4}
    with pytest.raises(ValueError, match=message):
        Tree(**(columns | change))


def test_nodes_in_any_order_make_the_same_tree() -> None:
    rng = np.random.default_rng(0)
    n = 200
    tree = Tree(
        rng.normal(size=(n, 3)),
        rng.random(n),
        [-1, *(rng.integers(0, i) for i in range(1, n))],
        rng.integers(0, 5, n),
    )
    order = rng.permutation(n)
    place = np.argsort(order)
    parent = np.where(tree.parent[order] < 0, -1, place[tree.parent[order]])
    shuffled = Tree.from_nodes(tree.xyz[order], tree.radius[order], parent, tree.type[order])
    assert math.isclose(shuffled.length, tree.length)
    edges = {(*t.xyz[a], *t.xyz[b]) for t in [tree] for a, b in t.edges}
    assert edges == {(*shuffled.xyz[a], *shuffled.xyz[b]) for a, b in shuffled.edges}


def test_scale_translate_mirror(y_tree: Tree) -> None:
    assert y_tree.to_microns((0.5, 2, 4)).comments[-1].endswith("(0.5, 2.0, 4.0) µm (z, y, x)")
    np.testing.assert_array_equal(y_tree.to_microns((0.5, 2, 4)).zyx, y_tree.zyx * (0.5, 2, 4))
    np.testing.assert_allclose(y_tree.to_microns((0.5, 2, 8)).radius, 2 * y_tree.radius)
    for bad in ((1, 1), (1, 1, 0), (1, 1, float("nan"))):
        with pytest.raises(ValueError, match="spacing must be"):
            y_tree.to_microns(bad)
    big = y_tree.scale((2, 2, 2))
    assert big.length == 28 and big.radius[0] == 4
    stretched = y_tree.scale((1, 1, 8))
    assert math.isclose(stretched.length, 3 + 4 + 5 + 16) and math.isclose(stretched.radius[0], 4)
    np.testing.assert_array_equal(y_tree.translate((1, 2, 3)).xyz[0], [11, 12, 13])
    # The same voxels, whether the tree or the volume is mirrored.
    shape = (24, 26, 28)
    for axis, name in enumerate("zyx"):
        mirrored = rasterise(y_tree.mirror(name, shape[axis]), shape)
        np.testing.assert_array_equal(mirrored, np.flip(rasterise(y_tree, shape), axis))
    with pytest.raises(ValueError, match="axis"):
        y_tree.mirror("w", 5)
    with pytest.raises(ValueError, match="factors"):
        y_tree.scale((1, 0, 1))


def test_resample(y_tree: Tree) -> None:
    fine = y_tree.resample(0.5)
    assert math.isclose(fine.length, 14)
    np.testing.assert_allclose(fine.edge_lengths, 0.5)
    assert len(fine) == 1 + 14 * 2
    assert sorted(map(tuple, fine.xyz[fine.tips])) == sorted(map(tuple, y_tree.xyz[y_tree.tips]))
    np.testing.assert_array_equal(fine.xyz[fine.bifurcations], y_tree.xyz[[2]])
    halfway = np.flatnonzero((fine.xyz == [15, 10, 10]).all(axis=1))
    np.testing.assert_allclose(fine.radius[halfway], 1.25)
    assert fine.type[-1] == 2 and (fine.type == 2).sum() == 4 and (fine.type == 1).sum() == 1
    coarse = y_tree.resample(100)
    assert len(coarse) == 4 and math.isclose(coarse.length, 14)
    lone = Tree(np.zeros((1, 3)), [1.0], [-1], [1])
    assert len(lone.resample(1)) == 1
    with pytest.raises(ValueError, match="step"):
        y_tree.resample(0)


def round_cone(point: np.ndarray, a: np.ndarray, b: np.ndarray, r_a: float, r_b: float) -> bool:
    """Is the point in one of 2,000 balls between a and b? Slow and plain."""
    t = np.linspace(0, 1, 2000)[:, None]
    distance = np.linalg.norm(point - (1 - t) * a - t * b, axis=1)
    return bool((distance <= ((1 - t) * r_a + t * r_b)[:, 0]).any())


@pytest.mark.parametrize("r_end", [0.8, 2.5, 9.0])
def test_rasterise_against_balls_along_the_axis(r_end: float) -> None:
    a, b = np.array([4.3, 5.1, 6.2]), np.array([9.7, 11.4, 8.5])
    tree = Tree(np.stack([a, b]), [2.5, r_end], [-1, 0], [1, 3])
    shape = (15, 18, 16)
    mask = rasterise(tree, shape)
    slow = np.array([round_cone(np.array(p[::-1]), a, b, 2.5, r_end) for p in np.ndindex(shape)]).reshape(shape)
    assert (mask ^ slow).sum() <= 1e-3 * slow.sum()  # the slow one misses what lies between two balls


def test_rasterise_volume_of_a_capsule() -> None:
    tree = Tree([[15, 15, 15], [75.4, 44.7, 31.3]], [6.0, 6.0], [-1, 0], [1, 3])
    expected = math.pi * 36 * tree.length + 4 / 3 * math.pi * 216
    assert math.isclose(rasterise(tree, (50, 60, 90)).sum(), expected, rel_tol=0.01)


def test_rasterise_small_and_outside() -> None:
    thin = Tree([[1.5, 1.5, 1.5], [18.2, 9.4, 13.3]], [0.1, 0.1], [-1, 0], [1, 3])
    mask = rasterise(thin, (20, 20, 20), min_radius=0.87)
    assert label(mask, np.ones((3, 3, 3)))[1] == 1
    np.testing.assert_array_equal(mask, rasterise(thin, (20, 20, 20), radius_scale=8.7))
    big = Tree([[-5, 5, 5], [25, 5, 5]], [2, 2], [-1, 0], [1, 3])
    assert rasterise(big, (10, 10, 10)).any(axis=(0, 1)).all()
    assert not rasterise(big.translate((0, 100, 0)), (10, 10, 10)).any()
    dot = rasterise(Tree([[3, 2, 1]], [0.0], [-1], [1]), (5, 5, 5))
    assert np.argwhere(dot).tolist() == [[1, 2, 3]]
    with pytest.raises(ValueError, match="shape"):
        rasterise(big, (10, 10))


def test_files_of_other_programs(tmp_path: Path, real_data: Path) -> None:
    files = sorted(real_data.glob("*/*.swc"))
    if not files:
        pytest.skip(f"no SWC files in {real_data}")
    for path in files:
        raw = np.loadtxt(path)
        rows = {int(id_): i for i, id_ in enumerate(raw[:, 0])}
        edges = {frozenset((int(r[0]), int(r[6]))) for r in raw if r[6] >= 0}  # a root ring holds its edge twice
        length = sum(np.linalg.norm(np.subtract(*(raw[rows[i], 2:5] for i in edge))) for edge in edges)
        with pytest.warns(UserWarning) if (raw[:, 6] >= 0).all() else nullcontext():
            tree = read_swc(path, repair=True)
        assert len(tree) == len(raw) and math.isclose(tree.length, length, rel_tol=1e-9)
        same(read_swc(write_swc(tmp_path / path.name, tree)), tree)


def test_path_lengths_by_hand_and_by_walking_up() -> None:
    by_hand = Tree([[0, 0, 0], [3, 4, 0], [3, 4, 2], [0, 4, 0]], np.ones(4), [-1, 0, 1, 1], np.full(4, 3))
    np.testing.assert_allclose(by_hand.path_lengths, [0, 5, 7, 8])
    rng = np.random.default_rng(0)
    parent = np.array([-1, *(rng.integers(max(0, n - 3), n) for n in range(1, 300))])  # deep, with many branches
    tree = Tree(rng.normal(size=(300, 3)), np.ones(300), parent, np.full(300, 3))
    for row in range(300):
        path, node = 0.0, row
        while node > 0:
            path, node = path + np.linalg.norm(tree.xyz[node] - tree.xyz[parent[node]]), parent[node]
        assert tree.path_lengths[row] == pytest.approx(path)
    assert Tree([[1, 2, 3]], [1], [-1], [1]).path_lengths.tolist() == [0]
