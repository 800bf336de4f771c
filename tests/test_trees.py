"""Tree scores against hand-made trees, closed forms, brute force and dense sampling."""

import math
import time

import numpy as np
import pytest

from neurokd.data.swc import write_swc
from neurokd.data.tree import Tree
from neurokd.evaluation.branching import bifurcation_scores, strahler_order, tip_scores
from neurokd.evaluation.evaluate import compare_trees
from neurokd.evaluation.tree_distance import distance_to_tree, split_edges
from neurokd.evaluation.trees import dsa, esa, length_scores, pds

CONVENTIONS = ("length", "vaa3d")


def make(points, parents=None) -> Tree:
    """A tree of `x y z` points; without parents a path."""
    parents = range(-1, len(points) - 1) if parents is None else parents
    return Tree.from_nodes(np.array(points, dtype=float), np.ones(len(points)), list(parents), np.zeros(len(points)))


def line(length: float, n: int = 2, *, y: float = 0.0) -> Tree:
    return make([(x, y, 0) for x in np.linspace(0, length, n)])


def random_tree(n: int, *, seed: int, step: float = 2.0, branching: float = 0.05) -> Tree:
    """A smooth random walk that branches."""
    rng = np.random.default_rng(seed)
    xyz, heading, parents = [np.full(3, 100.0)], [rng.normal(size=3)], [-1]
    for row in range(1, n):
        parent = row - 1 if rng.random() > branching else int(rng.integers(row))
        direction = heading[parent] + 0.3 * rng.normal(size=3)
        heading.append(direction / np.linalg.norm(direction))
        xyz.append(xyz[parent] + step * heading[-1])
        parents.append(parent)
    return make(xyz, parents)


def jittered(tree: Tree, *, seed: int, sigma: float = 1.0) -> Tree:
    noise = np.random.default_rng(seed).normal(0, sigma, tree.xyz.shape)
    return Tree(tree.xyz + noise, tree.radius, tree.parent, tree.type)


def shuffled(tree: Tree, *, root: int = 0, seed: int = 0) -> Tree:
    """The same tree with its nodes in another order and another root."""
    parent = tree.parent.copy()
    row, above = root, -1
    while row >= 0:  # turn the path to the old root around
        parent[row], row, above = above, int(parent[row]), row
    order = np.random.default_rng(seed).permutation(len(tree))
    place = np.append(np.argsort(order), -1)
    return Tree.from_nodes(tree.xyz[order], tree.radius[order], place[parent[order]], tree.type[order])


def subdivided(tree: Tree, longest: float) -> Tree:
    """More nodes on the same course."""
    points, first, second = split_edges(tree, longest)
    parent = np.full(len(points), -1)
    parent[first] = second
    return make(points, parent)


def brute_distance(point: np.ndarray, tree: Tree) -> float:
    best = np.linalg.norm(point - tree.xyz[0])
    for child, parent in tree.edges:
        start, end = tree.xyz[child], tree.xyz[parent]
        square = (end - start) @ (end - start)
        t = min(max((point - start) @ (end - start) / square, 0), 1) if square else 0
        best = min(best, np.linalg.norm(point - start - t * (end - start)))
    return best


def brute_vaa3d(tree: Tree, other: Tree, tolerance: float = 2.0) -> tuple[float, float, float]:
    """ESA, DSA and PDS by the definition, point by point."""
    means, apart_means, shares = [], [], []
    for one, two in ((tree, other), (other, tree)):
        distances = []
        for child, parent in one.edges:
            start, end = one.xyz[child], one.xyz[parent]
            n = int(1 + np.linalg.norm(start - end) + 0.5)
            for j in range(n):
                point = start + (end - start) * (j / (n - 1) if n > 1 else 0)
                distances.append(brute_distance(point, two))
        apart = [d for d in distances if d >= tolerance]
        means.append(np.mean(distances))
        shares.append(len(apart) / len(distances))
        if apart:
            apart_means.append(np.mean(apart))
    return np.mean(means), np.mean(apart_means) if apart_means else 0.0, np.mean(shares)


def dense_length(tree: Tree, other: Tree, tolerance: float = 2.0) -> tuple[float, float, float]:
    """ESA, DSA and PDS by the middles of very short pieces."""
    means, apart_means, shares = [], [], []
    for one, two in ((tree, other), (other, tree)):
        points, first, second = split_edges(one, 0.02)
        weight = np.linalg.norm(points[first] - points[second], axis=1)
        distances = distance_to_tree((points[first] + points[second]) / 2, two)
        apart = distances >= tolerance
        means.append(np.average(distances, weights=weight))
        shares.append(weight[apart].sum() / weight.sum())
        if apart.any():
            apart_means.append(np.average(distances[apart], weights=weight[apart]))
    return np.mean(means), np.mean(apart_means) if apart_means else 0.0, np.mean(shares)


def three(tree: Tree, other: Tree, convention: str = "length", tolerance: float = 2.0) -> tuple[float, float, float]:
    scores = compare_trees(tree, other, tolerance=tolerance, convention=convention)
    return scores["esa"], scores["dsa"], scores["pds"]


# --- distances


def test_distance_to_a_tree_against_brute_force():
    rng = np.random.default_rng(0)
    tree = random_tree(60, seed=1, branching=0.2)
    xyz = tree.xyz.copy()
    xyz[20], xyz[30] = xyz[tree.parent[20]], 400  # an edge of length zero, very long edges
    tree = Tree(xyz, tree.radius, tree.parent, tree.type)
    points = np.concatenate([rng.uniform(0, 200, (100, 3)), tree.xyz, rng.uniform(-5000, 5000, (20, 3))])
    expected = [brute_distance(point, tree) for point in points]
    np.testing.assert_allclose(distance_to_tree(points, tree), expected, atol=1e-8)
    assert (distance_to_tree(tree.xyz, tree) == 0).all()


def test_distance_where_all_pieces_are_equally_far():
    angle = np.linspace(0, 2 * np.pi, 400)
    ring = make(np.stack([np.cos(angle), np.sin(angle), 0 * angle], axis=1))
    np.testing.assert_allclose(distance_to_tree(np.array([[0, 0, 2.0]]), ring), math.sqrt(5), rtol=1e-4)
    assert distance_to_tree(np.zeros((1, 3)), make([(3, 0, 4)])) == 5


def test_edges_are_split_on_their_course():
    tree = make([(0, 0, 0), (10, 0, 0), (10, 3, 0), (10, 0, 0.5)], [-1, 0, 1, 1])
    points, first, second = split_edges(tree, 2.5)
    length = np.linalg.norm(points[first] - points[second], axis=1)
    np.testing.assert_allclose(np.sort(length), [0.5, 1.5, 1.5, 2.5, 2.5, 2.5, 2.5])
    np.testing.assert_array_equal(points[:4], tree.xyz)
    assert sorted(points[:, 0].tolist()) == [0, 2.5, 5, 7.5, 10, 10, 10, 10]
    assert subdivided(tree, 2.5).length == pytest.approx(13.5)


# --- ESA, DSA, PDS


@pytest.mark.parametrize("convention", CONVENTIONS)
def test_identical_trees(convention):
    tree = random_tree(80, seed=0)
    assert three(tree, tree, convention) == (0, 0, 0)
    scores = compare_trees(tree, shuffled(tree, root=40), convention=convention)
    assert (scores["esa"], scores["dsa"], scores["pds"]) == (0, 0, 0)
    shares = [f"{kind}_{name}" for kind in ("length", "bifurcation", "tip") for name in ("precision", "recall", "f1")]
    assert [scores[name] for name in shares] == [1] * 9
    assert scores["length"] == pytest.approx(scores["reference_length"])
    assert not scores["failed"]


@pytest.mark.parametrize("convention", CONVENTIONS)
@pytest.mark.parametrize(("d", "apart"), [(1.0, 0), (1.999, 0), (2.0, 1), (3.0, 1)])
def test_a_straight_tree_shifted_sideways(convention, d, apart):
    tree = make([(0, 0, 0), (7, 7, 0), (30, 30, 0)])
    shift = np.array([1, -1, math.sqrt(2)]) / 2 * d  # across the line, |shift| = d
    assert three(tree, tree.translate(shift), convention) == pytest.approx((d, apart * d, apart), abs=1e-8)


@pytest.mark.parametrize("convention", CONVENTIONS)
def test_single_scores_are_those_of_the_comparison(convention):
    tree, other = random_tree(60, seed=1), random_tree(60, seed=2)
    scores = compare_trees(tree, other, tolerance=15.0, convention=convention)
    assert esa(tree, other, convention=convention) == scores["esa"]
    assert dsa(tree, other, tolerance=15.0, convention=convention) == scores["dsa"]
    assert pds(tree, other, tolerance=15.0, convention=convention) == scores["pds"]
    assert length_scores(tree, other, tolerance=15.0)["f1"] == scores["length_f1"]
    assert bifurcation_scores(tree, other, tolerance=15.0)["recall"] == scores["bifurcation_recall"]
    assert tip_scores(tree, other, tolerance=15.0)["precision"] == scores["tip_precision"]
    assert scores["strahler"] == strahler_order(tree)


def test_diverging_lines_by_integration():
    length, angle, t = 40.0, 0.3, 2.0  # on both, the distance is s sin(angle), s from the common root
    far = length * math.sin(angle)
    tree, other = line(length), make([(0, 0, 0), (length * math.cos(angle), far, 0)])
    expected = far / 2, (t + far) / 2, 1 - t / far
    assert three(tree, other) == pytest.approx(expected, rel=1e-6)
    assert length_scores(tree, other)["precision"] == pytest.approx(t / far, rel=1e-6)


def test_crossing_lines_by_integration():
    tree, other = make([(-10, 0, 0), (10, 0, 0)]), make([(-6, -8, 0), (6, 8, 0)])  # sin(angle) = 0.8, crossing inside
    assert esa(tree, other) == pytest.approx(4, rel=2e-3)  # mean of 0.8 |s|
    assert pds(tree, other) == pytest.approx(1 - 2 / 8, rel=2e-3)


@pytest.mark.parametrize("sigma", [0.3, 1.0, 3.0])
def test_by_length_against_dense_sampling(sigma):
    tree = random_tree(100, seed=3)
    other = jittered(tree, seed=4, sigma=sigma)
    assert three(tree, other) == pytest.approx(dense_length(tree, other), rel=5e-3, abs=1e-4)


@pytest.mark.parametrize("seed", range(4))
def test_vaa3d_against_its_definition(seed):
    rng = np.random.default_rng(seed)
    trees = []
    for n in (40, 25):
        tree = random_tree(n, seed=10 * seed + n, branching=0.2)
        xyz = tree.xyz[tree.parent] + (tree.xyz - tree.xyz[tree.parent]) * rng.uniform(0.05, 4, (n, 1))
        trees.append(Tree(xyz, tree.radius, tree.parent, tree.type))  # segments of 0.1 to 8 voxels, and more
    trees[1] = Tree(np.append(trees[1].xyz[:-1], trees[1].xyz[-2:-1], axis=0), *_rest(trees[1]))  # one of length 0
    assert three(*trees, "vaa3d") == pytest.approx(brute_vaa3d(*trees), rel=1e-9)


def _rest(tree):
    return tree.radius, np.append(tree.parent[:-1], len(tree) - 2), tree.type


def test_vaa3d_by_hand():
    # A segment of 10 gives 11 samples, of 1.4 two, of 0.4 only the child.
    tree, half = line(10), line(4)
    assert three(tree, half, "vaa3d") == pytest.approx(((1 + 2 + 3 + 4 + 5 + 6) / 11 / 2, 4, 5 / 11 / 2))
    short = make([(0, 0, 0), (0.4, 0, 0)])  # child at 0.4; from the line, 0, 0.6 and so on
    assert esa(short, line(1.4), convention="vaa3d") == pytest.approx((0 + (0 + 1.0) / 2) / 2)


def test_resampling_keeps_the_score_by_length_only():
    tree, other = random_tree(100, seed=5), jittered(random_tree(100, seed=5), seed=6, sigma=1.5)
    for by in (0.3, 0.9, 1.7):
        assert three(subdivided(tree, by), subdivided(other, by)) == pytest.approx(three(tree, other), rel=0.01)
        assert length_scores(subdivided(tree, by), other) == pytest.approx(length_scores(tree, other), rel=0.01)
    # Resampling moves the nodes: fine steps keep the course nearly.
    assert three(tree.resample(0.1), other.resample(0.1)) == pytest.approx(three(tree, other), rel=0.01)
    uneven = make([(0, 0, 0), *[(x, 4 * x / 30, 0) for x in np.linspace(0.1, 15, 150)], (30, 4, 0)])
    assert esa(uneven, line(30)) == pytest.approx(esa(make([(0, 0, 0), (30, 4, 0)]), line(30)), rel=1e-6)
    vaa3d = [esa(one, line(30), convention="vaa3d") for one in (uneven, make([(0, 0, 0), (30, 4, 0)]))]
    assert vaa3d[0] < 0.9 * vaa3d[1]  # the finely drawn half is the nearer one


@pytest.mark.parametrize("convention", CONVENTIONS)
def test_symmetric_and_independent_of_order_and_root(convention):
    tree, other = random_tree(150, seed=7), random_tree(90, seed=8)
    expected = three(tree, other, convention, 20.0)
    assert three(other, tree, convention, 20.0) == pytest.approx(expected)
    assert three(shuffled(tree), shuffled(other, seed=1), convention, 20.0) == pytest.approx(expected)
    again = compare_trees(shuffled(tree, root=33), shuffled(other, root=50), tolerance=20.0, convention=convention)
    for name, value in compare_trees(tree, other, tolerance=20.0, convention=convention).items():
        if "strahler" not in name:
            assert again[name] == pytest.approx(value), name


# --- against swclib (MIT), which measures from node to node after resampling

# What swclib 0.1.0 says of a random tree and a jittered copy, or another random tree. `sd` is ESA between nodes, here
# 0.02 apart, so that nodes are as good as segments; `ssd` is DSA from 0.1 on, of nodes 0.1 apart (its one parameter is
# both). Then precision and recall of bifurcations within 15. Its other scores are something else: a share that pools
# the nodes of both trees, lengths of paths between matched nodes, tips without the root.
SWCLIB = {
    (0, "jittered"): (0.8293, 0.8328, 1.0, 1.0),
    (0, "other"): (28.9059, 28.9459, 0.5, 1 / 3),
    (1, "jittered"): (0.9310, 0.9410, 1.0, 1.0),
    (1, "other"): (15.5247, 15.5543, 0.75, 0.75),
    (2, "jittered"): (0.9148, 0.9250, 1.0, 1.0),
    (2, "other"): (30.9569, 31.0161, 0.0, 0.0),
}


def swclib_pair(seed: int, kind: str) -> tuple[Tree, Tree]:
    truth = random_tree(80, seed=seed)
    other = random_tree(60, seed=seed + 20) if kind == "other" else jittered(truth, seed=seed + 10)
    return other, truth


@pytest.mark.parametrize("case", SWCLIB)
def test_against_swclib(case):
    sd, ssd, precision, recall = SWCLIB[case]
    traced, truth = swclib_pair(*case)
    assert esa(traced, truth) == pytest.approx(sd, rel=5e-4)
    assert dsa(traced, truth, tolerance=0.1) == pytest.approx(ssd, rel=2e-3)
    scores = bifurcation_scores(traced, truth, tolerance=15.0)
    assert (scores["precision"], scores["recall"]) == pytest.approx((precision, recall))


@pytest.mark.parametrize("case", SWCLIB)
def test_swclib_still_says_so(case, tmp_path):
    ssd = pytest.importorskip("swclib.metrics.ssd_metric", reason="swclib is not installed; its figures are recorded")
    keypoints = pytest.importorskip("swclib.metrics.keypoint_metric")
    traced, truth = (str(write_swc(tmp_path / f"{i}.swc", tree)) for i, tree in enumerate(swclib_pair(*case)))
    near = keypoints.KeypointMetric(["branch"], tolerance_dis=15.0, scale=(1, 1, 1)).run(truth, traced)
    found = (
        ssd.SSDMetric(min_distance=0.02).run(truth, traced)["sd"],
        ssd.SSDMetric(min_distance=0.1).run(truth, traced)["ssd"],
        near["precision"],
        near["recall"],
    )
    assert found == pytest.approx(SWCLIB[case], abs=1e-4)


# --- lengths


def test_half_of_a_tree_missing():
    whole, half = line(200), line(100)
    assert length_scores(half, whole, tolerance=1e-6) == pytest.approx({"precision": 1, "recall": 0.5, "f1": 2 / 3})
    scores = length_scores(half, whole)  # the first two voxels of what is missing are near its end
    assert scores == pytest.approx({"precision": 1, "recall": 0.51, "f1": 1.02 / 1.51}, rel=1e-6)
    swapped = length_scores(whole, half)
    assert (swapped["precision"], swapped["recall"]) == pytest.approx((0.51, 1))
    assert pds(half, whole) == pytest.approx(1 - (1 + 0.51) / 2)
    assert dsa(half, whole) == pytest.approx((2 + 100) / 2)  # one-sided: nothing of the half is apart


def test_lengths_are_counted_and_not_nodes():
    crowded = make([(x, 0, 0) for x in np.r_[np.linspace(0, 10, 500), 100]])
    assert length_scores(crowded, line(10), tolerance=1e-6)["precision"] == pytest.approx(0.1, rel=1e-3)


def test_units():
    tree, other = line(30), line(30, y=3)
    scores = compare_trees(tree, other, spacing=(4, 0.5, 0.1), tolerance=1.0)
    assert scores["unit"] == "µm"
    assert (scores["esa"], scores["dsa"], scores["pds"]) == pytest.approx((1.5, 1.5, 1))
    assert (scores["length"], scores["reference_length"]) == pytest.approx((3, 3))
    assert compare_trees(tree, other, spacing=(4, 0.5, 0.1), tolerance=1.6)["tip_f1"] == 1
    assert compare_trees(tree, other)["unit"] == "voxels"


# --- branching


def test_bifurcations_and_tips_by_hand():
    truth = make([(0, 0, 0), (10, 0, 0), (20, 5, 0), (20, -5, 0)], [-1, 0, 1, 1])
    traced = make([(0, 0, 0), (11, 0, 0), (20, 5, 0), (15, -2, 0), (8, 8, 8)], [-1, 0, 1, 1, 0])
    assert bifurcation_scores(traced, truth) == {"precision": 1, "recall": 1, "f1": 1}
    assert bifurcation_scores(traced, truth, tolerance=1.0)["recall"] == 0  # closer than, not as close as
    # ends of the truth: 0, (20, 5), (20, -5); traced: (20, 5), (15, -2), (8, 8, 8); its root has two neighbours
    assert tip_scores(traced, truth) == pytest.approx({"precision": 1 / 3, "recall": 1 / 3, "f1": 1 / 3})
    path = line(10, 5)
    assert bifurcation_scores(path, truth) == {"precision": 0, "recall": 0, "f1": 0}
    assert bifurcation_scores(truth, path) == {"precision": 0, "recall": 0, "f1": 0}
    assert bifurcation_scores(path, path) == {"precision": 1, "recall": 1, "f1": 1}


def test_each_point_matches_once_and_as_many_as_possible():
    def star(*ends):  # every end a tip
        return make([(0, 50, 0), *[(x, 0, 0) for x in ends]], [-1] + [0] * len(ends))

    # two traced tips at one true tip: one of them is invented
    assert tip_scores(star(0, 10, 10.5), star(0, 10, 30))["precision"] == pytest.approx(2 / 3)
    # 1.0 is nearest to 0.9, but 0.9 is the only partner of -0.9: matching the nearest first would lose a pair
    assert tip_scores(star(1.0, -0.9, 20), star(0.9, 2.8, 40)) == pytest.approx(
        {"precision": 2 / 3, "recall": 2 / 3, "f1": 2 / 3}
    )


def test_strahler_order():
    assert strahler_order(make([(0, 0, 0)])) == 1
    assert strahler_order(line(10, 5)) == 1
    binary = [-1] + [(row - 1) // 2 for row in range(1, 31)]  # five levels of nodes
    assert strahler_order(make(np.random.default_rng(0).random((31, 3)), binary)) == 5
    comb = make(np.random.default_rng(0).random((11, 3)), [-1, 0, 1, 2, 3, 4, 0, 1, 2, 3, 4])
    assert strahler_order(comb) == 2


# --- what is empty or wrong


def test_trees_of_zero_length_count_as_a_point():
    point, far = make([(0, 0, 0)]), make([(0, 0, 9)])
    doubled = make([(0, 0, 0), (0, 0, 0)])
    for convention in CONVENTIONS:
        assert three(point, point, convention) == (0, 0, 0)
        assert three(doubled, point, convention) == (0, 0, 0)
        assert three(point, far, convention) == (9, 9, 1)
        assert three(point, line(10), convention) == pytest.approx(three(doubled, line(10), convention))
    assert length_scores(point, far) == {"precision": 0, "recall": 0, "f1": 0}
    assert length_scores(point, line(10)) == pytest.approx({"precision": 1, "recall": 0.2, "f1": 1 / 3}, rel=1e-6)
    scores = compare_trees(point, line(10))
    assert scores["length"] == 0 and scores["strahler"] == 1 and not scores["failed"]
    assert not any(isinstance(value, float) and math.isnan(value) for value in scores.values())


def test_a_missed_neuron_counts():
    truth = make([(0, 0, 0), (30, 0, 0), (30, 40, 0)])
    missed, found = compare_trees(None, truth), compare_trees(truth, truth)
    assert list(missed) and set(missed) == set(found)
    assert missed["failed"] and (missed["esa"], missed["dsa"], missed["pds"]) == (50, 50, 1)
    assert (missed["length"], missed["length_f1"], missed["tip_recall"], missed["length_precision"]) == (0, 0, 0, 0)
    assert compare_trees(None, truth, spacing=(1, 0.5, 0.5))["esa"] == pytest.approx(25)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"tolerance": 0}, "tolerance.*0"),
        ({"tolerance": math.nan}, "tolerance.*nan"),
        ({"convention": "nodes"}, "'length' or 'vaa3d'.*'nodes'"),
        ({"spacing": (1, 1)}, "spacing.*three"),
        ({"spacing": (1, 1, 1), "convention": "vaa3d"}, "spacing must be None.*vaa3d"),
    ],
)
def test_bad_settings(settings, message):
    with pytest.raises(ValueError, match=message):
        compare_trees(line(3), line(3), **settings)


def test_bad_settings_of_single_scores():
    for score in (dsa, pds):
        with pytest.raises(ValueError, match=r"tolerance.*-1"):
            score(line(3), line(3), tolerance=-1)
    with pytest.raises(ValueError, match="convention"):
        esa(line(3), line(3), convention="Vaa3D")
    for score in (length_scores, bifurcation_scores, tip_scores):
        with pytest.raises(ValueError, match="tolerance"):
            score(line(3), line(3), tolerance=0)


def test_large_trees_take_less_than_two_seconds():
    tree = random_tree(10_000, seed=0)
    other = jittered(tree, seed=1, sigma=0.3)
    for convention in CONVENTIONS:
        start = time.process_time()  # not the clock: other work on the machine does not count
        compare_trees(tree, other, convention=convention)
        assert time.process_time() - start < 2
