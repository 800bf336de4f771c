"""Simulated neurons against the shapes of real ones, and the microscope against the physics it claims."""

import csv
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.ndimage import distance_transform_cdt, label

from neurokd.data.microscope import expose
from neurokd.data.rasterise import rasterise
from neurokd.data.simulate import Growth, Microscope, grow_neuron, largest_part, render, simulate_neuron
from neurokd.data.swc import read_swc
from neurokd.data.tree import Tree

# Quartiles (25, 50, 75 %) of the gold reconstructions of the 49 Janelia FlyLight neurons in BigNeuron's gold166, voxels
# of 0.38 µm. Source: features_gold.csv of the BigNeuron analysis repository, github.com/lmanubens/BigNeuron.
JANELIA_GOLD = {
    "total_length": (757.13, 1469.61, 2223.64),
    "num_of_tips": (30, 48, 78),
    "num_bifurcations": (27, 44, 72),
    "average_diameter": (2.124, 2.253, 2.453),
    "average_contraction": (0.864, 0.881, 0.893),
    "overall_x_span": (102.97, 142.01, 222.33),
    "overall_y_span": (105.83, 178.93, 230.42),
    "overall_z_span": (95.09, 123.00, 180.93),
}

PERFECT = Microscope(  # one blur and nothing else
    photons=np.inf,
    label_spread=0,
    beads=0,
    gaps=0,
    fibres=0,
    blobs=0,
    vessels=0,
    haze=(0, 0),
    glow=0,
    box=(4, 4),
)


def straight(length: float, *, at_zy: tuple[float, float], start: float = 10.0, radius: float = 1.5) -> Tree:
    """A neurite along x."""
    x = start + np.arange(length + 1)
    xyz = np.stack([x, np.full_like(x, at_zy[1]), np.full_like(x, at_zy[0])], axis=1)
    return Tree(xyz, np.full(len(x), radius), np.arange(len(x)) - 1, np.full(len(x), 3))


def morphometrics(tree: Tree) -> dict[str, float]:
    """The features of the reference table, counted from the parents alone."""
    children = np.bincount(tree.parent[1:], minlength=len(tree))
    contraction = []
    for end in np.flatnonzero(children != 1):
        if end == 0:
            continue
        path, node = 0.0, end
        while node == end or (node > 0 and children[node] == 1):
            path += np.linalg.norm(tree.xyz[node] - tree.xyz[tree.parent[node]])
            node = tree.parent[node]
        contraction.append(np.linalg.norm(tree.xyz[end] - tree.xyz[node]) / path)
    x, y, z = np.ptp(tree.xyz, axis=0)
    return {
        "total_length": np.linalg.norm(tree.xyz[1:] - tree.xyz[tree.parent[1:]], axis=1).sum(),
        "num_of_tips": (children == 0).sum(),
        "num_bifurcations": (children > 1).sum(),
        "average_diameter": 2 * tree.radius.mean(),
        "average_contraction": np.mean(contraction),
        "overall_x_span": x,
        "overall_y_span": y,
        "overall_z_span": z,
    }


def best_dice(volume: NDArray, mask: NDArray) -> float:
    """Foreground Dice of the best intensity threshold."""
    chosen = np.bincount(volume.ravel(), minlength=256)[::-1].cumsum()
    hit = np.bincount(volume[mask], minlength=256)[::-1].cumsum()
    return (2 * hit / (chosen + mask.sum())).max()


# ---------------------------------------------------------------------------------------------- growth


@pytest.fixture(scope="module")
def grown() -> list[Tree]:
    return [grow_neuron(np.random.default_rng([0, i])) for i in range(200)]  # a median is then known to about 6 %


@pytest.fixture(scope="module")
def shapes(grown: list[Tree]) -> list[dict[str, float]]:
    return [morphometrics(tree) for tree in grown]


@pytest.mark.parametrize("feature", JANELIA_GOLD)
def test_grown_neurons_have_the_shape_of_real_ones(shapes: list[dict[str, float]], feature: str) -> None:
    low, median, high = np.percentile([shape[feature] for shape in shapes], [25, 50, 75])
    real_low, real_median, real_high = JANELIA_GOLD[feature]
    assert median == pytest.approx(real_median, rel=0.2)
    overlap = min(high, real_high) - max(low, real_low)
    assert overlap >= 0.5 * min(high - low, real_high - real_low)


def test_reference_quartiles(real_data: Path) -> None:
    table = real_data.parent / "reference" / "janelia_gold_morphometrics.csv"
    if not table.is_file():
        pytest.skip(f"no reference table at {table}")
    rows = list(csv.DictReader(table.open()))
    for feature, quartiles in JANELIA_GOLD.items():
        assert np.percentile([float(row[feature]) for row in rows], [25, 50, 75]) == pytest.approx(quartiles, rel=1e-3)


def test_a_grown_neuron_hangs_on_its_soma(grown: list[Tree]) -> None:
    for tree in grown:
        assert tree.type[0] == 1 and (tree.type[1:] == 3).all()
        assert tree.n_children[0] == 1  # one primary neurite
        assert tree.n_children.max() <= 3
        assert 1 <= len(tree.tips) - len(tree.bifurcations) <= 0.25 * len(tree.tips) + 1
        assert tree.radius[0] > 2 * tree.radius[1:].max()
        assert tree.edge_lengths.max() < 4


def test_largest_part_of_a_hand_drawn_tree() -> None:
    # 0-1-2-3 and, from 1, 4-5-6-7-8: without node 1 the second run is the longest part.
    xyz = np.array([[0, 0, 0], [1, 0, 0], [2, 0, 0], [3, 0, 0], [1, 1, 0], [1, 2, 0], [1, 3, 0], [1, 4, 0], [1, 5, 0]])
    tree = Tree(xyz, np.ones(9), np.array([-1, 0, 1, 2, 1, 4, 5, 6, 7]), np.full(9, 3))
    part = largest_part(tree, np.arange(9) != 1)
    assert part.xyz.tolist() == xyz[4:].tolist()
    assert part.parent.tolist() == [-1, 0, 1, 2, 3]
    assert largest_part(tree, np.zeros(9, bool)) is None


# ---------------------------------------------------------------------------------- volume, mask, tree


@pytest.fixture(scope="module")
def samples() -> list[tuple[NDArray, NDArray, Tree]]:
    return [simulate_neuron(np.random.default_rng([7, i]), shape=(150, 150, 150)) for i in range(8)]


def test_volume_mask_and_tree_agree(samples: list) -> None:
    for volume, mask, tree in samples:
        assert volume.dtype == np.uint8 and volume.shape == mask.shape == (150, 150, 150)
        assert (tree.xyz >= 0).all() and (tree.xyz <= 149).all()
        assert np.array_equal(mask, rasterise(tree, mask.shape))
        assert label(mask, np.ones((3, 3, 3)))[1] == 1
        assert mask[tuple(np.rint(tree.zyx).astype(int).T)].mean() > 0.99


def test_thresholds_are_neither_hopeless_nor_enough(samples: list) -> None:
    assert 0.3 < np.mean([best_dice(volume, mask) for volume, mask, _ in samples]) < 0.5


@pytest.mark.parametrize("shape", [(16, 16, 16), (24, 100, 60), (64, 64, 64)])
def test_small_volumes_keep_a_well_filled_part(shape: tuple[int, int, int]) -> None:
    for seed in range(5):
        volume, mask, tree = simulate_neuron(np.random.default_rng(seed), shape=shape)
        assert volume.shape == mask.shape == shape
        assert np.array_equal(mask, rasterise(tree, shape))
        assert (tree.zyx >= 0).all() and (tree.zyx <= np.array(shape) - 1).all()
        assert tree.length > 0.5 * min(shape)


def test_the_seed_decides_every_byte() -> None:
    first, again, other = (simulate_neuron(np.random.default_rng(s), shape=(48, 48, 48)) for s in (1, 1, 2))
    assert first[0].tobytes() == again[0].tobytes()
    assert first[1].tobytes() == again[1].tobytes()
    assert first[2].xyz.tobytes() == again[2].xyz.tobytes()
    assert first[0].tobytes() != other[0].tobytes()


def test_any_swc_can_be_imaged(real_data: Path) -> None:
    files = sorted(real_data.glob("swc_fly/*.swc"))
    if not files:
        pytest.skip(f"no swc_fly in {real_data}")
    tree = read_swc(files[0], repair=True).scale([1 / 0.38] * 3)
    tree = tree.translate(10 - tree.xyz.min(axis=0))
    shape = tuple(int(size) for size in tree.zyx.max(axis=0) + 10)
    volume, mask = render(tree, shape, np.random.default_rng(0))
    assert np.array_equal(mask, rasterise(tree, shape))
    assert volume[mask].mean() > 4 * volume[~mask].mean()


# --------------------------------------------------------------------------------------- the microscope


def test_a_perfect_microscope_shows_the_mask() -> None:
    tree = grow_neuron(np.random.default_rng(3))
    tree = tree.translate(10 - tree.xyz.min(axis=0))
    shape = tuple(int(size) for size in tree.zyx.max(axis=0) + 10)
    sharp, mask = render(tree, shape, np.random.default_rng(0), replace(PERFECT, psf_sigma=(0, 0, 0)))
    assert np.array_equal(sharp > 0, mask)
    blurred, _ = render(tree, shape, np.random.default_rng(0), replace(PERFECT, psf_sigma=(0.2, 0.15, 0.15)))
    assert best_dice(blurred, mask) > 0.9


@pytest.mark.parametrize("spacing", [(0.38, 0.38, 0.38), (0.76, 0.38, 0.30)])
def test_blur_has_the_width_of_the_psf(spacing: tuple[float, float, float]) -> None:
    sigma = np.array([0.8, 0.5, 0.4])
    tree = straight(80, at_zy=(20.3, 19.6))
    microscope = replace(PERFECT, psf_sigma=tuple(sigma), box=(9, 9))
    volume, mask = render(tree, (41, 41, 100), np.random.default_rng(0), microscope, spacing=spacing)
    for axis in (0, 1):  # convolution adds variances: image = neurite + PSF
        spread = []
        for image in (volume, mask):
            profile = image.astype(float).sum(axis=2).sum(axis=1 - axis)
            place = np.arange(41) * spacing[axis]
            centre = (profile * place).sum() / profile.sum()
            spread.append((profile * (place - centre) ** 2).sum() / profile.sum())
        assert np.sqrt(spread[0] - spread[1]) == pytest.approx(sigma[axis], rel=0.05)


def test_shot_noise_grows_with_the_light() -> None:
    rng = np.random.default_rng(0)
    microscope = Microscope(photons=200.0, read_noise=2.0)
    for light in (0.1, 0.2, 0.4, 0.7):
        grey = expose(np.full(200_000, light), rng, microscope).astype(float)
        assert grey.mean() == pytest.approx(255 * light, rel=0.01)
        # Poisson counts and read noise on the scale of the grey values, and their rounding
        assert grey.var() == pytest.approx((255 / 200) ** 2 * (200 * light + 2.0**2) + 1 / 12, rel=0.03)


def test_gaps_are_dark_and_in_the_mask() -> None:
    tree = straight(4000, at_zy=(6, 6))
    microscope = replace(PERFECT, psf_sigma=(0, 0, 0), gaps=0.05, gap_length=(2.0, 4.0))
    volume, mask = render(tree, (13, 13, 4020), np.random.default_rng(0), microscope)
    axis = volume[6, 6, 10:4010]
    assert mask[6, 6, 10:4010].all()
    # Stretches of mean length L that start at rate r cover 1 - exp(-r L) of a line.
    assert (axis == 0).mean() == pytest.approx(1 - np.exp(-0.05 * 3.0), abs=0.04)
    runs = np.bincount(label(axis == 0)[0])[1:] * 0.38
    assert runs[1:-1].min() > 2.0 - 2 * 0.38


def test_label_is_uneven_with_beads() -> None:
    tree = straight(3000, at_zy=(6, 6))
    quiet = replace(PERFECT, psf_sigma=(0, 0, 0), brightness=0.1)
    uneven, _ = render(
        tree, (13, 13, 3020), np.random.default_rng(0), replace(quiet, label_spread=0.4, label_length=4.0)
    )
    log = np.log(uneven[6, 6, 10:3010])
    log -= log.mean()
    assert log.std() == pytest.approx(0.4, abs=0.06)
    lag = round(4.0 / 0.38)  # one correlation length on, 1/e is left
    assert (log[lag:] * log[:-lag]).mean() / log.var() == pytest.approx(np.exp(-1), abs=0.12)
    beaded, _ = render(tree, (13, 13, 3020), np.random.default_rng(0), replace(quiet, beads=0.05, bead_gain=4.0))
    levels, count = np.unique(beaded[6, 6, 10:3010], return_counts=True)
    assert levels.tolist() == [round(25.5), 102]
    assert count[1] == pytest.approx(2 * 0.05 * 0.38 * 3000, rel=0.3)  # a bead is two nodes long


def test_background_is_kept_in_boxes_only() -> None:
    tree = straight(60, at_zy=(40, 40), start=30)
    for margin in (2.0, 6.0):
        microscope = Microscope(box=(margin, margin), haze=(0.3, 0.3))
        volume, mask = render(tree, (81, 81, 120), np.random.default_rng(0), microscope)
        distance = distance_transform_cdt(~mask, metric="chessboard") * 0.38
        assert (volume[distance > 1.6 * margin] == 0).all()
        assert (volume[distance < 0.8 * margin] > 0).mean() > 0.99


@pytest.mark.parametrize("distractor", ["fibres", "blobs", "vessels"])
def test_distractors_are_as_bright_as_the_neuron_and_not_in_the_mask(distractor: str) -> None:
    tree = straight(100, at_zy=(40, 40), radius=1.1)
    many = {"fibres": 20.0, "blobs": 2.0, "vessels": 0.3}[distractor]
    clean, mask = render(tree, (81, 81, 120), np.random.default_rng(0), PERFECT)
    volume, same = render(tree, (81, 81, 120), np.random.default_rng(0), replace(PERFECT, **{distractor: many}))
    assert np.array_equal(mask, same) and np.array_equal(mask, rasterise(tree, mask.shape))
    outside = distance_transform_cdt(~mask, metric="chessboard") > 5
    assert clean[outside].max() == 0
    assert (volume[outside] > np.median(clean[mask])).sum() > 20


# -------------------------------------------------------------------------------------------- bad input


@pytest.mark.parametrize("shape", [(150, 150), (8, 64, 64)])
def test_shapes_that_hold_no_neuron(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="shape"):
        simulate_neuron(np.random.default_rng(0), shape=shape)


def test_render_names_what_is_wrong() -> None:
    tree = straight(20, at_zy=(10, 10))
    with pytest.raises(ValueError, match="spacing"):
        render(tree, (40, 40, 40), np.random.default_rng(0), spacing=(0, 1, 1))
    with pytest.raises(ValueError, match="tree must reach into the volume"):
        render(tree.translate((500, 0, 0)), (40, 40, 40), np.random.default_rng(0))


@pytest.mark.parametrize(
    ("settings", "change"),
    [
        (Microscope, {"photons": 0.0}),
        (Microscope, {"gaps": -1.0}),
        (Microscope, {"vessels": 1.5}),
        (Growth, {"tips": 0}),
        (Growth, {"balance": 1.5}),
    ],
)
def test_settings_out_of_range(settings: type, change: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=next(iter(change))):
        settings(**change)
