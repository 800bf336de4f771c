"""Tracing against neurons drawn by hand, rasterised trees and a real neuron."""

import math
import warnings
from pathlib import Path

import numpy as np
import pytest
from scipy.spatial import cKDTree

from neurokd import __version__
from neurokd.data.rasterise import rasterise
from neurokd.data.swc import read_swc, write_swc
from neurokd.data.tree import Tree
from neurokd.evaluation.evaluate import compare_trees
from neurokd.evaluation.trees import length_scores
from neurokd.inference import trace as module
from neurokd.inference.trace import find_soma, trace


def fork(radius: float = 2.0, soma: float = 6.0) -> Tree:
    """A soma in x y z = 20 30 15, a stem along x to 60 30 15, two arms to 90 10 15 and 90 50 25."""
    xyz = [[20, 30, 15], [22, 30, 15], [60, 30, 15], [90, 10, 15], [90, 50, 25]]
    return Tree(xyz, [soma, radius, radius, radius, radius], [-1, 0, 1, 2, 2], [1, 3, 3, 3, 3])


FORK_SHAPE = (32, 60, 100)


def test_fork_has_the_right_parts() -> None:
    truth = fork()
    tree = trace(rasterise(truth, FORK_SHAPE))
    assert np.linalg.norm(tree.xyz[0] - [20, 30, 15]) < 1.5
    assert tree.radius[0] == pytest.approx(6, abs=0.7)
    assert tree.type[0] == 1 and (tree.type[1:] == 0).all()
    assert len(tree.tips) == 2 and len(tree.bifurcations) == 1 and tree.n_children[0] == 1
    for tip in truth.xyz[3:]:
        assert cKDTree(tree.xyz[tree.tips]).query(tip)[0] < 1.5
    assert np.linalg.norm(tree.xyz[tree.bifurcations[0]] - [60, 30, 15]) < 6  # both arms are one near the fork
    assert tree.length == pytest.approx(truth.length, rel=0.05)
    away = np.linalg.norm(tree.xyz - [20, 30, 15], axis=1) > 10
    assert np.median(tree.radius[away]) == pytest.approx(2, abs=0.35)
    assert tree.edge_lengths.max() <= 2 + 1e-9
    assert length_scores(tree, truth, tolerance=1.5)["f1"] > 0.98


def test_a_row_of_voxels() -> None:
    mask = np.zeros((5, 6, 30), dtype=bool)
    mask[2, 3, 4:25] = True
    tree = trace(mask, step=1)
    assert len(tree.tips) == 1 and len(tree.bifurcations) == 0
    np.testing.assert_array_equal(tree.zyx[:, :2], [[2, 3]] * len(tree))
    assert tree.length == pytest.approx(20, abs=1.01)  # the last node lies one radius before the wall
    assert (tree.radius == 1).all()


def test_one_voxel_is_one_node() -> None:
    mask = np.zeros((5, 6, 7), dtype=bool)
    mask[4, 3, 0] = True
    tree = trace(mask)
    assert len(tree) == 1 and tree.length == 0
    np.testing.assert_array_equal(tree.xyz, [[0, 3, 4]])
    np.testing.assert_array_equal(trace(mask.astype(np.uint8) * 255).xyz, tree.xyz)


def test_neurites_may_leave_the_volume() -> None:
    through = Tree([[-20, 10, 8], [80, 14, 8]], [3, 3], [-1, 0], [1, 3])
    tree = trace(rasterise(through, (16, 24, 60)))
    assert tree.length == pytest.approx(60, abs=8)
    assert len(tree.tips) + (tree.n_children[0] == 1) == 2
    assert trace(np.ones((6, 7, 8), dtype=bool)).radius[0] == 3  # the volume's border is a wall


def test_bumps_are_no_branches() -> None:
    truth = fork(radius=3, soma=6)
    mask = rasterise(truth, FORK_SHAPE)
    bumpy = mask.copy()
    wall = np.argwhere(mask ^ np.roll(mask, 1, axis=1))
    for z, y, x in wall[::40]:
        bumpy[z, y - 1 : y + 2, x] = True
    tree = trace(bumpy)
    assert len(tree.tips) == 2 and len(tree.bifurcations) == 1


def broken_fork(*, gap: float) -> np.ndarray:
    """The fork with a gap of background voxels across its stem and across one arm."""
    mask = rasterise(fork(), FORK_SHAPE)
    mask[:, :, 40 : 40 + int(gap)] = False
    mask[:, 32:, 75 : 75 + int(gap)] = False
    return mask


def test_gaps_are_bridged_up_to_their_stated_length() -> None:
    tree = trace(broken_fork(gap=7), max_gap=10)
    assert len(tree.tips) == 2 and len(tree.bifurcations) == 1
    assert length_scores(tree, fork())["f1"] > 0.95
    # With nothing bridged, the largest fragment is left: the soma and the stem up to the first gap.
    alone = trace(broken_fork(gap=7), max_gap=7.9)  # seven voxels of background: the nearest voxels are 8 apart
    assert alone.xyz[:, 0].max() < 40 and len(alone.tips) <= 1
    assert trace(broken_fork(gap=7), max_gap=8).xyz[:, 0].max() > 80


def test_a_bridge_follows_the_probability() -> None:
    probability = np.zeros((20, 40, 60), dtype=np.float32)
    probability[9:12, 9:12, 5:25] = probability[9:12, 9:12, 35:55] = 0.9
    probability[10, 10:14, 24] = probability[10, 13, 24:36] = probability[10, 10:14, 35] = 0.4  # a faint detour
    tree = trace(probability, max_gap=12)
    assert len(tree.tips) + (tree.n_children[0] == 1) == 2
    between = (tree.xyz[:, 0] > 27) & (tree.xyz[:, 0] < 32)
    assert between.any() and (tree.xyz[between, 1] > 12).all()
    # Without it the bridge is straight.
    straight = trace(probability > 0.5, max_gap=12)
    assert (abs(straight.xyz[:, 1] - 10) < 1.5).all()


def test_specks_are_dropped() -> None:
    rng = np.random.default_rng(0)
    mask = rasterise(fork(), FORK_SHAPE)
    specks = mask.copy()
    specks[tuple(rng.integers(0, n, 2000) for n in mask.shape)] = True  # 1 % of all voxels
    assert length_scores(trace(specks), fork())["f1"] > 0.9
    assert length_scores(trace(specks, min_fragment=6), fork())["f1"] > 0.97  # the largest has five voxels
    only = np.zeros((80, 100, 100), dtype=bool)
    only[tuple(rng.integers(0, n, 10_000) for n in only.shape)] = True
    for max_gap in (20, math.inf):
        assert len(trace(only, max_gap=max_gap)) >= 1  # a tree of something, in reasonable time


def test_the_same_tree_every_time_and_however_the_volume_lies() -> None:
    mask = rasterise(fork(), FORK_SHAPE)
    first, again = trace(mask), trace(mask.copy())
    for name in ("xyz", "radius", "parent", "type"):
        np.testing.assert_array_equal(getattr(first, name), getattr(again, name))
    moved = trace(np.pad(mask, ((3, 0), (5, 9), (1, 30))))
    np.testing.assert_allclose(moved.xyz, first.translate((1, 5, 3)).xyz)
    turned = trace(np.ascontiguousarray(mask.transpose(2, 0, 1)[:, ::-1]))  # axes x z y, z upside down
    x, z, y = turned.zyx.T
    back = np.stack([x, y, FORK_SHAPE[0] - 1 - z], axis=1)
    assert len(turned.tips) == 2 and len(turned.bifurcations) == 1
    assert cKDTree(first.resample(0.5).xyz).query(back)[0].max() < 2


def test_flat_voxels() -> None:
    """Voxels four times as long in z: distances and radii follow the spacing, points stay in voxels."""
    truth = fork(radius=3, soma=8)
    fine = rasterise(Tree(truth.xyz * [1, 1, 1.6], truth.radius, truth.parent, truth.type), (52, 60, 100))
    mask = fine[::4]
    spacing = (1.6, 0.4, 0.4)
    tree = trace(mask, spacing=spacing)
    assert mask.shape == (13, 60, 100) and tree.xyz[:, 2].max() < 13
    physical = tree.to_microns(spacing)
    expected = Tree(truth.xyz * [1, 1, 1.6], truth.radius, truth.parent, truth.type).scale((0.4, 0.4, 0.4))
    assert np.linalg.norm(physical.xyz[0] - expected.xyz[0]) < 1.6
    assert physical.radius[0] == pytest.approx(3.2, abs=0.6)
    assert length_scores(physical, expected, tolerance=1.2)["f1"] > 0.95
    assert len(tree.tips) == 2


def test_a_branch_needs_more_neurite_than_gap() -> None:
    mask = np.zeros((11, 11, 200), dtype=bool)
    mask[4:7, 4:7, 5:60] = True
    mask[4:7, 4:7, 90:110] = True  # 20 long, behind a gap of 31
    short = trace(mask, max_gap=math.inf)
    assert short.xyz[:, 0].max() < 60
    assert "2 fragments joined" in short.comments[2]  # joined, and then pruned
    mask[4:7, 4:7, 90:130] = True
    assert trace(mask, max_gap=math.inf).xyz[:, 0].max() > 125
    mask[4:7, 4:7, 110:130] = False  # 20 long again, but with a branch of its own: together they are worth it
    mask[4:7, 7:11, 98:101] = mask[4:7, 8:11, 98:115] = True
    assert trace(mask, max_gap=math.inf).xyz[:, 0].max() > 105
    mask[4:7, 7:11] = False
    apart = trace(mask, max_gap=30)
    assert apart.xyz[:, 0].max() < 60 and "1 left out (26.7% of the voxels)" in apart.comments[2]  # 20 of 75


def test_the_less_empty_of_two_gaps_is_bridged() -> None:
    """A bar over a U: the gap on the left is one voxel narrower, the one on the right is not quite empty."""
    probability = np.zeros((9, 40, 40), dtype=np.float32)
    probability[3:6, 5:8, 5:35] = probability[3:6, 15:36, 5:8] = probability[3:6, 16:36, 32:35] = 1
    probability[3:6, 33:36, 5:35] = 1
    straight = trace(probability, max_gap=12)
    probability[4, 8:16, 33] = 0.4
    filled = trace(probability, max_gap=12)
    between = [(tree.xyz[:, 1] > 9) & (tree.xyz[:, 1] < 14) for tree in (straight, filled)]
    assert (straight.xyz[between[0], 0] < 10).all() and between[0].any()
    assert (filled.xyz[between[1], 0] > 30).all() and between[1].any()


def rooted(tree: Tree, zyx: tuple[float, ...]) -> bool:
    return bool(np.linalg.norm(tree.zyx[0] - zyx) <= 1.5)


def test_neurites_begin_at_the_soma() -> None:
    ends = [[55, 30, 30], [5, 30, 30], [30, 55, 30], [30, 30, 55]]
    star = Tree([[30, 30, 30], *ends], [6, *[1.5] * 4], [-1, *[0] * 4], [1, *[3] * 4])
    tree = trace(rasterise(star, (61, 61, 61)))
    assert rooted(tree, (30, 30, 30)) and tree.radius[0] == pytest.approx(6, abs=0.7)
    assert tree.n_children[0] == 4 and len(tree.bifurcations) == 0  # no branches within the soma


def test_soma_is_found_by_its_radius_even_where_it_is_hollow() -> None:
    mask = rasterise(fork(), FORK_SHAPE)
    z, y, x, radius = find_soma(mask)
    assert np.linalg.norm([z - 15, y - 30, x - 20]) <= 1.5 and radius == pytest.approx(6, abs=0.7)
    hollow = mask & ~rasterise(Tree([[20, 30, 15]], [4], [-1], [1]), FORK_SHAPE)
    assert find_soma(hollow) == (z, y, x, radius)
    assert rooted(trace(hollow), (15, 30, 20)) and trace(hollow).radius[0] == pytest.approx(radius)
    # Flat voxels: the radius is in mean voxels, as of the tracer.
    flat = find_soma(mask[::2], spacing=(2, 1, 1))
    assert flat.radius * 2 ** (1 / 3) == pytest.approx(6, abs=0.8) and flat.z == pytest.approx(7.5, abs=1)
    assert flat == (flat.z, flat.y, flat.x, flat.radius)
    # The header of a tree holds plain numbers, whatever the soma was given as.
    assert f"soma ({z}, {y}, {x}, {radius})," in trace(mask, soma=find_soma(mask)).comments[0]


def test_a_known_soma_is_the_root_and_says_which_neuron() -> None:
    mask = np.zeros((30, 80, 120), dtype=bool)
    mask[:, :60, :100][:30] = rasterise(fork(), (30, 60, 100))
    mask[14:17, 70:73, 10:60] = True  # another, smaller neuron, 20 voxels and more from an arm
    at_tip = trace(mask, soma=(24, 49, 88))
    np.testing.assert_array_equal(at_tip.zyx[0], (24, 49, 88))
    assert at_tip.type[0] == 1 and (at_tip.type[1:] == 0).all()
    assert length_scores(at_tip, fork())["f1"] > 0.95
    other = trace(mask, soma=(15, 71, 10), max_gap=5)
    assert (other.xyz[:, 1] > 69).all() and other.length == pytest.approx(49, abs=2)
    # Not segmented: a ball of the radius given stands in its place, and the gap to it is bridged.
    absent = mask & ~rasterise(Tree([[20, 30, 15]], [9], [-1], [1]), mask.shape)
    tree = trace(absent, soma=(15, 30, 20, 5))
    np.testing.assert_array_equal(tree.zyx[0], (15, 30, 20))
    assert tree.radius[0] == pytest.approx(5, abs=0.7) and len(tree.tips) == 2
    assert length_scores(tree, fork())["f1"] > 0.95
    with pytest.raises(ValueError, match=r"soma must be within max_gap 3 of a fragment, got \(15, 30, 20, 2\)"):
        trace(absent, soma=(15, 30, 20, 2), max_gap=3)


def test_radii_are_those_of_the_neurites() -> None:
    rng = np.random.default_rng(0)
    for radius in (1.0, 1.5, 2.5, 4.0):
        direction = rng.normal(size=3)
        direction *= 16 / np.linalg.norm(direction)
        tube = Tree([24 - direction, 24 + direction], [radius] * 2, [-1, 0], [1, 3])
        tree = trace(rasterise(tube, (49, 49, 49)))
        middle = np.linalg.norm(tree.xyz - 24, axis=1) < 10
        assert np.median(tree.radius[middle]) == pytest.approx(radius, abs=0.25)


def test_swc_of_a_trace(tmp_path: Path) -> None:
    tree = trace(rasterise(fork(), FORK_SHAPE), spacing=(0.4, 0.4, 0.4))
    path = write_swc(tmp_path / "fork.swc", tree, comments=["model: drawn by hand"])
    rows = np.loadtxt(path)
    np.testing.assert_array_equal(rows[:, 0], np.arange(1, len(rows) + 1))
    assert (rows[:, 6] == -1).sum() == 1 and rows[0, 6] == -1 and (rows[1:, 6] < rows[1:, 0]).all()
    assert (rows[:, 5] > 0).all() and rows[0, 1] == 1 and (rows[1:, 1] == 0).all()
    header = path.read_text().split("\n1 ")[0]
    assert f"neurokd {__version__}" in header and "model: drawn by hand" in header
    for setting in ("threshold 0.5", "spacing (0.4, 0.4, 0.4)", "soma None", "max_gap 20.0", "(32, 60, 100) (z, y, x)"):
        assert setting in header, setting
    mirrored = read_swc(write_swc(tmp_path / "vaa3d.swc", tree.mirror("y", 60)))
    assert mirrored.comments[3] == "mirrored: y -> 59 - y"
    assert mirrored.xyz[0, 1] == 59 - tree.xyz[0, 1]


def test_neurom_reads_what_we_write(tmp_path: Path, capfd) -> None:
    """NeuroM (BSD) is no dependency: ``pip install neurom`` to run this."""
    neurom = pytest.importorskip("neurom", reason="NeuroM is not installed")
    tree = trace(rasterise(fork(), FORK_SHAPE)).scale((0.4, 0.4, 0.4))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        neuron = neurom.load_morphology(write_swc(tmp_path / "fork.swc", tree))
    said = capfd.readouterr()
    assert "warning" not in (said.out + said.err).lower()  # MorphIO says them there
    np.testing.assert_allclose(neuron.soma.center, tree.xyz[0], atol=1e-4)
    assert neuron.soma.radius == pytest.approx(tree.radius[0], abs=1e-4)
    assert len(neuron.neurites) == tree.n_children[0] == 1
    # NeuroM counts a neurite from its first node on, which leaves out the step to the middle of the soma.
    first = tree.edge_lengths[tree.parent[1:] == 0].sum()
    assert neurom.get("total_length", neuron) == pytest.approx(tree.length - first, rel=1e-4)
    assert neurom.get("number_of_bifurcations", neuron) == len(tree.bifurcations) == 1


def test_what_is_too_large_is_refused_at_once(monkeypatch) -> None:
    mask = rasterise(fork(), FORK_SHAPE)
    monkeypatch.setattr(module, "_MOST_CANDIDATES", 1000)
    with pytest.raises(ValueError, match=r"candidate voxels must be at most 1,000 .*threshold.*block_reduce"):
        trace(mask)
    monkeypatch.undo()
    monkeypatch.setattr(module, "_MOST_VOXELS", 100_000)
    for function in (trace, find_soma):
        with pytest.raises(ValueError, match=r"voxels in the box around the candidates must be at most 100,000"):
            function(mask)
    trace(mask[:, 20:40, :40])  # what matters is the box, not the volume


@pytest.mark.parametrize("mask", [np.zeros((4, 5, 6), bool), np.full((4, 5, 6), 0.5).cumsum(0), np.ones((5, 6), bool)])
def test_no_soma_in_what_is_no_mask(mask: np.ndarray) -> None:
    with pytest.raises(ValueError, match=r"got none|must be boolean|3 axes"):
        find_soma(mask)


@pytest.mark.parametrize(
    ("volume", "options", "message"),
    [
        (np.zeros((4, 5, 6), bool), {}, "nothing to trace"),
        (np.full((4, 5, 6), 0.3), {}, "nothing to trace.*0.5"),
        (np.ones((5, 6), bool), {}, r"3 axes.*\(5, 6\)"),
        (np.ones((0, 5, 6), bool), {}, "empty"),
        (np.full((4, 5, 6), np.nan), {}, "finite"),
        (np.full((4, 5, 6), 7.0), {}, r"\[0, 1\]"),
        (np.arange(120).reshape(4, 5, 6), {}, "one value beside 0, got 1 to 119"),
        (np.ones((4, 5, 6), complex), {}, "complex"),
        (np.ones((4, 5, 6)), {"threshold": 1.0}, "threshold"),
        (np.ones((4, 5, 6)), {"spacing": (1, 1)}, "spacing"),
        (np.ones((4, 5, 6)), {"spacing": (1, 1, 0)}, "spacing"),
        (np.ones((4, 5, 6)), {"max_gap": -1}, "max_gap"),
        (np.ones((4, 5, 6)), {"min_branch": float("nan")}, "min_branch"),
        (np.ones((4, 5, 6)), {"step": 0}, "step"),
        (np.ones((4, 5, 6)), {"soma": (1, 2, 6)}, r"within the volume of \(4, 5, 6\)"),
        (np.ones((4, 5, 6)), {"soma": (1, 2)}, r"\(z, y, x, radius\)"),
        (np.ones((4, 5, 6)), {"soma": (1, 2, 3, -1)}, r"\(z, y, x, radius\)"),
        (np.ones((4, 5, 6)), {"soma": (1, float("nan"), 3)}, r"\(z, y, x, radius\)"),
    ],
)
def test_bad_input(volume: np.ndarray, options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        trace(volume, **options)


def test_simulated_neurons() -> None:
    from neurokd.data.simulate import simulate_neuron

    scores = []
    for seed in range(4):
        _, mask, truth = simulate_neuron(np.random.default_rng(seed), shape=(100, 120, 120))
        scores.append(length_scores(trace(mask), truth)["f1"])
    assert np.median(scores) >= 0.97 and min(scores) >= 0.95, scores


def test_flies_traced_by_people(real_data: Path) -> None:
    """Render, trace, compare: 20 neurons, each scaled to a box of 150 voxels."""
    files = sorted(real_data.glob("swc_fly/*.swc"))
    if not files:
        pytest.skip(f"no swc_fly in {real_data}")
    scores, distances = [], []
    for path in files:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # some of these files need the root mended
            truth = read_swc(path, repair=True)
        truth = truth.translate(-truth.xyz.min(axis=0))
        truth = truth.scale([140 / truth.xyz.max()] * 3).translate((5, 5, 5))
        mask = rasterise(truth, np.ceil(truth.zyx.max(axis=0) + 6).astype(int), min_radius=0.9)
        result = compare_trees(trace(mask), truth)
        scores.append(result["length_f1"])
        distances.append(result["esa"])
    assert np.median(distances) < 1
    assert np.median(scores) >= 0.98 and min(scores) >= 0.95, dict(zip([f.name for f in files], scores, strict=True))


def test_real_neuron_agrees_with_an_automatic_trace(real_stack: Path) -> None:
    from tifffile import imread

    volume, reference = imread(real_stack), read_swc(real_stack.with_suffix(".swc"))
    tree = trace(volume > 10)
    assert np.linalg.norm(tree.xyz[0] - reference.xyz[0]) < 5  # the same soma
    assert length_scores(tree, reference, tolerance=3)["f1"] >= 0.85
