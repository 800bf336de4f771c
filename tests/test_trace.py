"""Tracing against neurons drawn by hand, rasterised trees and a real neuron."""

import warnings
from pathlib import Path

import numpy as np
import pytest
from scipy.spatial import cKDTree

from neurokd.data.swc import Tree, rasterise, read_swc, write_swc
from neurokd.inference.trace import trace


def length_scores(traced: Tree, truth: Tree, tolerance: float) -> tuple[float, float, float]:
    """Precision, recall and F1: shares of the length that lie within `tolerance` voxels of the other tree."""

    def share(tree: Tree, other: Tree) -> float:
        tree = tree.resample(0.5)
        middles = (tree.xyz[1:] + tree.xyz[tree.parent[1:]]) / 2
        near = cKDTree(other.resample(0.5).xyz).query(middles)[0] <= tolerance
        return float(tree.edge_lengths[near].sum() / tree.length)

    precision, recall = share(traced, truth), share(truth, traced)
    return precision, recall, 2 * precision * recall / (precision + recall)


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
    assert min(length_scores(tree, truth, 1.5)) > 0.98


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
    assert min(length_scores(tree, fork(), 2)) > 0.95
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
    assert min(length_scores(trace(specks), fork(), 2)) > 0.95
    only = np.zeros((80, 100, 100), dtype=bool)
    only[tuple(rng.integers(0, n, 10_000) for n in only.shape)] = True
    tree = trace(only)  # a tree of something, in reasonable time
    assert len(tree) >= 1


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
    physical = tree.scale(spacing[::-1])
    expected = Tree(truth.xyz * [1, 1, 1.6], truth.radius, truth.parent, truth.type).scale((0.4, 0.4, 0.4))
    assert np.linalg.norm(physical.xyz[0] - expected.xyz[0]) < 1.6
    assert physical.radius[0] == pytest.approx(3.2, abs=0.6)
    assert min(length_scores(physical.scale((2.5, 2.5, 2.5)), expected.scale((2.5, 2.5, 2.5)), 3)) > 0.95
    assert len(tree.tips) == 2


def test_swc_of_a_trace(tmp_path: Path) -> None:
    path = write_swc(tmp_path / "fork.swc", trace(rasterise(fork(), FORK_SHAPE)))
    rows = np.loadtxt(path)
    np.testing.assert_array_equal(rows[:, 0], np.arange(1, len(rows) + 1))
    assert (rows[:, 6] == -1).sum() == 1 and rows[0, 6] == -1 and (rows[1:, 6] < rows[1:, 0]).all()
    assert (rows[:, 5] > 0).all()
    assert "threshold 0.5" in read_swc(path).comments[0]


@pytest.mark.parametrize(
    ("volume", "options", "message"),
    [
        (np.zeros((4, 5, 6), bool), {}, "nothing to trace"),
        (np.full((4, 5, 6), 0.3), {}, "nothing to trace.*0.5"),
        (np.ones((5, 6), bool), {}, r"3 axes.*\(5, 6\)"),
        (np.ones((0, 5, 6), bool), {}, "empty"),
        (np.full((4, 5, 6), np.nan), {}, "finite"),
        (np.full((4, 5, 6), 7.0), {}, r"\[0, 1\]"),
        (np.arange(120).reshape(4, 5, 6), {}, "not boolean"),
        (np.ones((4, 5, 6), complex), {}, "complex"),
        (np.ones((4, 5, 6)), {"threshold": 1.0}, "threshold"),
        (np.ones((4, 5, 6)), {"spacing": (1, 1)}, "spacing"),
        (np.ones((4, 5, 6)), {"spacing": (1, 1, 0)}, "spacing"),
        (np.ones((4, 5, 6)), {"max_gap": -1}, "max_gap"),
        (np.ones((4, 5, 6)), {"min_branch": float("nan")}, "min_branch"),
        (np.ones((4, 5, 6)), {"step": 0}, "step"),
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
        scores.append(length_scores(trace(mask), truth, 2)[2])
    assert np.median(scores) >= 0.97 and min(scores) >= 0.95, scores


def test_flies_traced_by_people(real_data: Path) -> None:
    """Render, trace, compare: 20 neurons, each scaled to a box of 150 voxels."""
    files = sorted(real_data.glob("swc_fly/*.swc"))
    if not files:
        pytest.skip(f"no swc_fly in {real_data}")
    scores = []
    for path in files:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # some of these files need the root mended
            truth = read_swc(path, repair=True)
        truth = truth.translate(-truth.xyz.min(axis=0))
        truth = truth.scale([140 / truth.xyz.max()] * 3).translate((5, 5, 5))
        mask = rasterise(truth, np.ceil(truth.zyx.max(axis=0) + 6).astype(int), min_radius=0.9)
        scores.append(length_scores(trace(mask), truth, 2)[2])
    assert np.median(scores) >= 0.98 and min(scores) >= 0.95, dict(zip([f.name for f in files], scores, strict=True))


def test_real_neuron_agrees_with_an_automatic_trace(real_stack: Path) -> None:
    from tifffile import imread

    volume, reference = imread(real_stack), read_swc(real_stack.with_suffix(".swc"))
    tree = trace(volume > 10)
    assert np.linalg.norm(tree.xyz[0] - reference.xyz[0]) < 5  # the same soma
    assert length_scores(tree, reference, 3)[2] >= 0.85
