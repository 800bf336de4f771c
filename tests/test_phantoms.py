"""Phantoms: their truth against geometry, the scores against masks made by hand, the bench against its results."""

import json
import math
from pathlib import Path

import numpy as np
import pooch
import pytest
from scipy.ndimage import binary_dilation

import neurokd as nkd
import phantom_report
import phantom_sweeps
import phantoms
from neurokd.data.rasterise import rasterise
from neurokd.models.storage import WEIGHTS, model_folder, released_models

RESULTS = json.loads((Path(phantoms.__file__).parent / "results" / "phantoms.json").read_text())
SHAPE = (24, 48, 96)
START, END = (10.2, 20.1, 12.3), (13.4, 27.5, 82.6)
LENGTH = math.dist(START, END)


def rng():
    return np.random.default_rng(0)


def line(radius=2.0, **options):
    return nkd.PhantomTube.between(START, END, radius=radius, **options)


def drawn(*tubes, shape=SHAPE, snr=np.inf, **options):
    return nkd.draw_phantom(tubes, shape, rng(), snr=snr, **options)


def as_tree(tube, z_step=1.0):
    points = (tube.points / (z_step, 1, 1))[:, ::-1]
    n = len(points)
    return nkd.Tree(points, tube.radius, np.arange(n) - 1, np.zeros(n))


# --- the truth of a phantom


@pytest.mark.parametrize("radius", [0.7, 1.5, 3.0, 8.0])
def test_a_tube_fills_the_volume_of_a_cylinder_with_round_ends(radius):
    expected = math.pi * radius**2 * LENGTH + 4 / 3 * math.pi * radius**3
    phantom = drawn(line(radius), shape=(24, 48, 96), blur=0)
    assert phantom.light.sum() == pytest.approx(expected, rel=0.02)
    assert phantom.mask.sum() == pytest.approx(expected, rel=0.05)


@pytest.mark.parametrize("bend", [math.inf, 10.0])
def test_a_mask_is_what_the_tree_of_the_tube_fills_and_its_centreline(bend):
    tube = line(bend=bend, phase=1.0)
    expected = rasterise(as_tree(tube), SHAPE)
    expected[tuple(np.rint(tube.points).astype(int).T)] = True
    difference = drawn(tube).mask ^ expected
    assert difference.sum() <= 0.01 * expected.sum()  # steps of 0.25 against cones between them


@pytest.mark.parametrize("z_step", [2, 5])
def test_slices_of_a_flat_tube_are_slices_of_the_round_one(z_step):
    tube = nkd.PhantomTube.between((18.3, 20.1, 12.3), (35.6, 27.5, 82.6), radius=6.0)
    flat = drawn(tube, z_step=z_step, blur=0)
    round_one = drawn(tube, shape=(SHAPE[0] * z_step, *SHAPE[1:]), blur=0)
    at = tuple(flat.voxels.T)
    round_one.mask[::z_step][at] = True  # the centreline's voxels, which are taller in the flat stack
    assert np.array_equal(flat.mask, round_one.mask[::z_step])
    assert flat.light.sum() * z_step == pytest.approx(round_one.light.sum(), rel=0.01)
    assert flat.spacing == (z_step, 1, 1)
    assert np.allclose(flat.centreline * flat.spacing, tube.points)


def test_a_bent_tube_has_the_ends_and_the_curvature_that_were_asked():
    tube = nkd.PhantomTube.between((9, 24, 10), (9, 24, 10 + 128), radius=1.0, bend=16.0)
    assert np.allclose(tube.points[[0, -1]], [(9, 24, 10), (9, 24, 138)])
    steps = np.linalg.norm(np.diff(tube.points, axis=0), axis=1)
    assert steps.max() <= 0.25 + 1e-6 and steps.min() > 0.249
    second = np.diff(tube.points, n=2, axis=0) / steps[0] ** 2
    assert np.linalg.norm(second, axis=1).max() == pytest.approx(1 / 16, rel=0.01)


def test_centrelines_lie_in_the_mask_and_know_their_tube():
    thin = [line(0.7), nkd.PhantomTube.between((4, 5, 9), (4, 40, 88), radius=0.7, bend=20)]
    phantom = drawn(*thin, z_step=1)
    assert phantom.mask[tuple(phantom.voxels.T)].all()
    assert phantom.lit.all()
    for number, tube in enumerate(thin):
        assert np.array_equal(phantom.centreline[phantom.tube == number], tube.points)
    assert phantom.length == pytest.approx(sum(tube.distance[-1] for tube in thin), rel=0.01)


@pytest.mark.parametrize("snr", [1.5, 3.0, 30.0])
def test_signal_to_noise_and_brightness_are_those_asked_for(snr):
    other = nkd.PhantomTube.between((12, 42, 12), (12, 42, 82), radius=2.0, brightness=0.25)
    phantom = drawn(line(), other, snr=snr)
    grey = phantom.volume.astype(float)
    away = ~binary_dilation(phantom.mask, iterations=5)
    background, noise = grey[away].mean(), grey[away].std()
    assert background == pytest.approx(6 * noise, rel=0.05)
    signal = [np.median(grey[tuple(phantom.voxels[phantom.tube == number].T)]) - background for number in range(2)]
    assert signal[1] / noise == pytest.approx(snr, rel=0.1)  # of the dimmest
    assert signal[1] / signal[0] == pytest.approx(0.25, abs=0.5 / math.sqrt(280) / snr + 0.01)
    light = [np.median(phantom.light[tuple(phantom.voxels[phantom.tube == number].T)]) for number in range(2)]
    assert light[1] / light[0] == pytest.approx(0.25, rel=0.03)


def test_without_noise_the_background_is_zero_and_haze_lifts_it():
    clean, hazy = drawn(line()), drawn(line(), haze=0.2)
    away = ~binary_dilation(clean.mask, iterations=6)
    assert not clean.volume[away].any()
    assert np.median(hazy.volume[away]) / 4000 == pytest.approx(0.2, rel=0.1)
    assert np.log(hazy.volume[away]).std() == pytest.approx(0.3, rel=0.2)


def test_beads_and_gaps_are_where_they_are_asked():
    straight = nkd.PhantomTube.between((12, 24, 10), (12, 24, 90), radius=1.0)
    beads = drawn(straight.beaded(3.0, every=20), blur=0)
    thickness = beads.mask[:, 24].sum(axis=0)
    assert thickness[[20, 40, 60, 80]].tolist() == [7, 7, 7, 7] and thickness[[30, 50, 70]].tolist() == [3, 3, 3]
    stick = math.pi * 80 + 4 / 3 * math.pi
    # A bead is a ball of radius 3 less the cylinder in it.
    half = math.sqrt(8)
    bead = 2 * math.pi * (9 * half - half**3 / 3) - math.pi * 2 * half
    assert beads.light.sum() == pytest.approx(stick + 4 * bead, rel=0.03)
    gaps = drawn(straight.broken(6.0, every=20))
    dark = np.abs((gaps.centreline[:, 2] - 10) % 20 - 10) < 3
    assert np.array_equal(gaps.lit, ~dark)
    assert gaps.length == pytest.approx(80 - 4 * 6, abs=2)
    assert not gaps.mask[:, :, [20, 40, 60, 80]].any() and gaps.mask[12, 24, [12, 30, 50]].all()
    assert np.array_equal(gaps.mask | gaps.gap, drawn(straight).mask) and not (gaps.mask & gaps.gap).any()


def test_a_tube_of_one_point_is_a_soma():
    neurite = nkd.PhantomTube.between((12, 24, 30), (12, 24, 88), radius=1.5, brightness=0.3)
    phantom = drawn(nkd.PhantomTube.ball((12, 24, 30), radius=9.0), neurite, blur=0)
    assert phantom.soma.sum() == pytest.approx(4 / 3 * math.pi * 9**3, rel=0.02)
    assert phantom.light[phantom.soma].min() > 0.3 and phantom.light.max() == 1
    assert np.array_equal(phantom.lit, ~phantom.soma[tuple(phantom.voxels.T)])
    assert (phantom.mask & ~phantom.soma).sum() == pytest.approx(9 * 49, rel=0.05)  # 9 voxels in each section


def test_the_same_seed_gives_the_same_bytes():
    one, other = (drawn(line(), snr=5, haze=0.1) for _ in range(2))
    assert np.array_equal(one.volume, other.volume)


@pytest.mark.parametrize(
    ("tube", "options", "message"),
    [
        ({"radius": 0.0}, {}, "radius must be positive, got 0.0"),
        ({"brightness": -1.0}, {}, "brightness must be at least 0, got -1.0"),
        ({"bend": 0.0}, {}, "bend must be positive, got 0.0"),
        ({}, {"snr": 0.0}, "snr must be positive, got 0.0"),
        ({}, {"z_step": -1.0}, "z_step must be positive, got -1.0"),
        ({}, {"haze": -0.1}, "haze must be at least 0, got -0.1"),
        ({}, {"shape": (24, 48)}, "shape must be three sizes"),
        ({}, {"shape": (24, 48, 60)}, "centrelines must lie in the volume"),
    ],
)
def test_what_cannot_be_drawn_is_named(tube, options, message):
    with pytest.raises(ValueError, match=message):
        drawn(line(**tube), **options)


def test_arrays_of_a_tube_must_agree():
    with pytest.raises(ValueError, match=r"must be \(n, 3\), \(n,\) and \(n,\), got \(2, 3\), \(3,\) and \(2,\)"):
        nkd.PhantomTube(np.zeros((2, 3)), np.ones(3), np.ones(2))


# --- the scores


def test_the_truth_is_perfect_and_nothing_finds_nothing():
    phantom = drawn(line(), nkd.PhantomTube.ball((12, 24, 30), radius=6.0))
    perfect = {"found": 1, "thickness": 1, "invented": 0, "invented_voxels": 0, "bridged": None, "soma": 1}
    assert nkd.phantom_scores(phantom.mask, phantom) == perfect
    empty = {"found": 0, "thickness": None, "invented": 0, "invented_voxels": 0, "bridged": None, "soma": 0}
    assert nkd.phantom_scores(np.zeros(SHAPE, bool), phantom) == empty


def test_half_a_tube_is_half_found_and_as_thick_as_it_is():
    tube = nkd.PhantomTube.between((12, 24, 10), (12, 24, 90), radius=2.0)
    phantom = drawn(tube)
    half = phantom.mask.copy()
    half[:, :, 50:] = False
    scores = nkd.phantom_scores(half, phantom)
    assert scores["found"] == pytest.approx(0.5, abs=0.01)
    assert scores["thickness"] == pytest.approx(1, abs=0.02)
    thin = np.zeros(SHAPE, bool)
    thin[12, 24, 10:91] = True  # one voxel of the 13 of each section
    assert nkd.phantom_scores(thin, phantom)["thickness"] == pytest.approx(1 / 13, rel=0.03)
    thick = binary_dilation(phantom.mask, np.ones((1, 3, 3)))
    assert nkd.phantom_scores(thick, phantom)["thickness"] == pytest.approx(thick.sum() / phantom.mask.sum())


def test_what_is_far_from_the_truth_is_invented():
    phantom = drawn(line())
    mask = phantom.mask.copy()
    mask[3, 44, 20:31] = True  # a line of 11 voxels
    mask[20:23, 2:5, 50:53] = True  # a speck of 27
    scores = nkd.phantom_scores(mask, phantom)
    assert scores["invented_voxels"] == 11 + 27
    assert 12 <= scores["invented"] * phantom.length <= 14
    assert (scores["found"], scores["thickness"]) == (1, 1)
    nothing = nkd.draw_phantom([], SHAPE, rng())
    assert nkd.phantom_scores(mask, nothing)["invented_voxels"] == mask.sum()
    assert nkd.phantom_scores(mask, nothing)["found"] is None


def test_gaps_are_neither_missed_nor_invented():
    phantom = drawn(line().broken(8.0, every=24))
    bridged = nkd.phantom_scores(drawn(line()).mask, phantom)
    assert (bridged["found"], bridged["bridged"], bridged["invented_voxels"]) == (1, 1, 0)
    assert bridged["thickness"] == pytest.approx(1, abs=0.05)
    assert nkd.phantom_scores(phantom.mask, phantom)["bridged"] < 0.15  # voxels at the ends


def test_tubes_that_are_not_scored_are_still_true():
    tubes = [line(), nkd.PhantomTube.between((12, 42, 12), (12, 42, 82), radius=2.0)]
    phantom = drawn(*tubes)
    only = drawn(tubes[1])
    scores = nkd.phantom_scores(only.mask, phantom, tubes=[1])
    assert (scores["found"], scores["thickness"], scores["invented"]) == (1, 1, 0)
    assert nkd.phantom_scores(only.mask, phantom, tubes=[0])["found"] == 0


# --- the bench


@pytest.mark.parametrize("sweep", phantom_sweeps.SWEEPS, ids=lambda sweep: sweep.name)
def test_every_sweep_can_be_drawn_and_its_truth_is_perfect(sweep):
    for value in (sweep.values[0], sweep.values[-1]):
        phantom = sweep.make(value, phantom_sweeps.generator(sweep.name, value, 0))
        assert phantom.volume.shape == phantom_sweeps.SHAPE and phantom.volume.max() < 65535
        scores = nkd.phantom_scores(phantom.mask, phantom, tubes=sweep.scored)
        for score in ("found", "thickness", "invented"):
            assert phantom_report.reaches(score, scores[score])


def case(sweep, value, **scores):
    return {"sweep": sweep, "value": value, "repeat": 0, "scores": {"mine": scores}}


def table_of(*cases):
    results = {"methods": ["mine"], "cases": list(cases)}
    sweep = next(s for s in phantom_sweeps.SWEEPS if s.name == "z step")
    return phantom_report.asked_rows(results, sweep)


def test_the_table_tells_the_worst_in_the_range_that_is_asked():
    fine = {"found": 0.99, "thickness": 0.9, "invented": 0.0}
    rows = table_of(*(case("z step", z, **fine) for z in (1, 3, 5)), case("z step", 6, **{"found": 0.0}))
    assert [row.split(" | ")[-1] for row in rows] == ["**0.990** |", "**0.900** |", "**0.000** |"]
    assert rows[0].startswith("| z step (voxels of y and x), 1 to 5 | centreline found | at least 0.98 |")
    rows = table_of(
        case("z step", 1, found=1.0, thickness=1.3, invented=0.5),
        case("z step", 3, found=0.0, thickness=None, invented=0.02),
        case("z step", 3, found=0.5, thickness=0.5, invented=0.0),  # a repeat
    )
    assert [row.split(" | ")[-1] for row in rows] == ["0.250 at 3 |", "0.500 at 3 |", "0.500 at 1 |"]
    rows = table_of(*(case("z step", z, found=1.0, thickness=t, invented=0.0) for z, t in ((1, 1.26), (2, 0.76))))
    assert rows[1].endswith("| 1.260 at 1 |")  # 0.76 is further from 1, as a ratio, but it is what is asked
    rows = table_of(case("z step", 2, found=0.0, thickness=None, invented=0.0))
    assert rows[1].endswith("| nothing at 2 |")


def test_a_constant_stack_that_is_refused_is_nothing_found_and_other_errors_are_not_hidden():
    def refuses(volume):
        raise ValueError("volume is constant")

    flat = np.zeros((2, 3, 4), np.uint8)
    found, refused = phantoms.masks(flat, {"mine": refuses}, {})
    assert not found["mine"].any() and refused == {"mine": "volume is constant"}
    flat[0, 0, 0] = 1
    with pytest.raises(ValueError, match="volume is constant"):
        phantoms.masks(flat, {"mine": refuses}, {})


def test_the_bench_writes_all_its_files(tmp_path):
    segmenter = nkd.NeuronSegmenter.from_scratch(dim=24, depth=2, width=8, window=(8, 64, 64))
    folder = segmenter.save_pretrained(tmp_path / "mine")
    readme = tmp_path / "page.md"
    readme.write_text("above\n\n{}\n\nstale table\n\n{}\n\nbelow\n".format(*phantom_report.MARKS))
    command = f"--model {folder} --quick --only soma nothing --out {tmp_path} --readme {readme}"
    phantoms.main(command.split())
    results = json.loads((tmp_path / "phantoms.json").read_text())
    assert results["methods"] == ["otsu", "sato", "sato-sqrt", "mine"]
    assert [c["value"] for c in results["cases"]] == list(phantom_sweeps.NOTHING)
    assert results["models"]["mine"]["sha256"] == pooch.file_hash(str(folder / WEIGHTS))
    page = readme.read_text()
    assert (tmp_path / "phantoms.md").read_text().strip() in page and "stale" not in page and page.endswith("below\n")
    assert (tmp_path / "phantoms.png").stat().st_size > 10_000


# --- the committed results


@pytest.mark.parametrize("name", released_models())
def test_the_results_are_of_the_released_models(name):
    assert RESULTS["models"][name]["sha256"] == pooch.file_hash(str(model_folder(name) / WEIGHTS)), (
        "the model is another one than that of the results: run benchmarks/phantoms.py again (benchmarks/README.md)"
    )


CHEAP = [("radius", 4), ("number", 16), ("nothing", "specks")]


@pytest.mark.parametrize(("sweep", "value"), CHEAP, ids=str)
def test_phantoms_measured_again_give_the_committed_numbers(sweep, value):
    committed = next(c for c in RESULTS["cases"] if (c["sweep"], c["value"], c["repeat"]) == (sweep, value, 0))
    methods = {"otsu": phantoms.FILTERS["otsu"], "sato": phantoms.FILTERS["sato"]}
    methods |= {name: phantoms.loaded(name)[0] for name in released_models()}
    again = phantoms.measured({"sweep": sweep, "value": value, "repeat": 0}, methods, {})
    for method, scores in again["scores"].items():
        for score, number in scores.items():
            expected = committed["scores"][method][score]
            tolerance = max(2, 0.05 * (expected or 0)) if score == "invented_voxels" else 0.02
            assert number == (expected if expected is None else pytest.approx(expected, abs=tolerance)), (method, score)


def test_the_committed_table_is_that_of_the_committed_numbers():
    text = (Path(phantoms.__file__).parent / "results" / "phantoms.md").read_text()
    assert phantom_report.page(RESULTS) == text
