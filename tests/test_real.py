"""The table of real stacks: cubes put together, labels read, scores by hand, the rival's blocks."""

import numpy as np
import pytest
import torch

import cubes
import neurofly
import neurokd as nkd
import real


def cut(volume, places, size):
    return [volume[tuple(slice(start, start + size) for start in place)].copy() for place in places]


# --- cubes that overlap


@pytest.fixture(scope="module")
def mosaic():
    """A volume of noise whose slice 9 is labelled, and where cubes of 12 voxels are cut from it."""
    rng = np.random.default_rng(0)
    volume = rng.integers(0, 60_000, (20, 24, 22), dtype=np.uint16)
    labels = np.zeros(volume.shape, dtype=np.uint8)
    labels[9] = rng.choice([1, 2, 4], size=volume.shape[1:])
    places = [(4, 6, 5), (0, 0, 3), (8, 12, 10), (2, 9, 0)]
    return volume, labels, places


def test_cubes_go_back_to_where_they_were_cut(mosaic):
    volume, _, places = mosaic
    found = cubes.corners(cut(volume, places, 12))
    np.testing.assert_array_equal(found, np.array(places) - np.min(places, axis=0))


def test_a_slice_that_several_cubes_hold_exists_once(mosaic):
    volume, labels, places = mosaic
    marks = cut(labels, places, 12)
    assert sum(mark.any(axis=(1, 2)).sum() for mark in marks) == 4  # counted by cubes: four slices
    whole, label = cubes.assemble(cut(volume, places, 12), marks)
    held = np.zeros(whole.shape, dtype=bool)
    for place in places:
        held[tuple(slice(start, start + 12) for start in place)] = True
    assert np.flatnonzero(label.any(axis=(1, 2))).tolist() == [9]
    box = tuple(slice(0, n) for n in whole.shape)  # the cubes begin at 0, 0, 0
    np.testing.assert_array_equal(whole[held], volume[box][held])
    np.testing.assert_array_equal(label[held], labels[box][held])
    assert not label[~held].any()
    assert np.isin(whole[~held], volume).all() and whole[~held].all()  # no edge to zero


def test_cubes_that_do_not_agree_are_refused(mosaic):
    volume, labels, places = mosaic
    parts, marks = cut(volume, places, 12), cut(labels, places, 12)
    marks[0][9 - 4] = 3
    with pytest.raises(ValueError, match="two labels for one voxel"):
        cubes.assemble(parts, marks)
    parts[3] = np.random.default_rng(1).integers(0, 60_000, (12, 12, 12), dtype=np.uint16)
    with pytest.raises(ValueError, match=r"cubes must overlap, got \[3\]"):
        cubes.corners(parts)


def test_cubes_that_share_a_run_by_chance_do_not_overlap():
    a, b = (np.random.default_rng(seed).integers(0, 60_000, (8, 8, 8), dtype=np.uint16) for seed in (0, 1))
    b[2, 3, :4] = a[5, 5, 2:6]
    assert cubes.offset(a, b) is None


# --- labels and scores, by hand


def labelled(*slices):
    labels = np.array(slices, dtype=np.uint8)
    return real.Stack("hand-made", np.zeros(labels.shape, dtype=np.uint8), labels=labels)


def test_rims_and_what_nobody_looked_at_are_ignored_and_artefacts_are_background():
    stack = labelled([[0, 0, 0, 0, 0]], [[0, 1, 2, 3, 4]])
    assert stack.judged.tolist() == [[[False] * 5], [[False, True, True, True, False]]]
    assert stack.truth.tolist() == [[[False] * 5], [[False, False, True, False, False]]]
    with pytest.raises(ValueError, match=r"labels must be 0 to 4, got \[7\]"):
        labelled([[7]]).judged


def test_scores_of_two_slices_by_hand():
    stack = labelled([[2, 2, 1, 1, 4]], [[0, 0, 0, 0, 0]], [[2, 1, 3, 1, 4]])
    response = np.array([[[0.9, 0.2, 0.8, 0.1, 1.0]], [[1.0] * 5], [[0.7, 0.1, 0.6, 0.1, 1.0]]])
    scores = real.score(response, 0.5, stack)
    # Above 0.5: two true of four; three are true. Ranked: T F T F T, then three that are false.
    assert (scores["precision"], scores["recall"]) == (2 / 4, 2 / 3)
    assert (scores["voxels"], scores["axon_voxels"]) == (8, 3)
    assert scores["dice"] == pytest.approx(4 / 7)
    assert scores["average_precision"] == pytest.approx((1 / 1 + 2 / 3 + 3 / 5) / 3)
    assert scores["best_dice"] == pytest.approx(6 / 8)  # all down to 0.2
    assert [part["z"] for part in scores["slices"]] == [0, 2]
    assert [part["recall"] for part in scores["slices"]] == [1 / 2, 1.0]
    # Two slices: the first twice (1/4), the second twice (1/4), both (1/2). Every value is within 95 %.
    assert scores["intervals"]["recall"] == (1 / 2, 1.0)


def test_the_bootstrap_is_that_of_many_random_draws():
    rng = np.random.default_rng(0)
    parts = [(rng.random(50), rng.random(50) < 0.3) for _ in range(4)]

    def mean(chosen):
        return {"mean": float(np.mean(np.concatenate([values for values, _ in chosen])))}

    low, high = real.bootstrap(parts, mean)["mean"]
    drawn = [mean([parts[i] for i in rng.integers(4, size=4)])["mean"] for _ in range(4000)]
    np.testing.assert_allclose([low, high], np.percentile(drawn, [2.5, 97.5]), atol=2e-3)


def test_a_trace_is_found_in_its_own_mask_and_not_in_nothing():
    tree = nkd.Tree.from_nodes([[4, 6, 5], [30, 6, 5]], [1.0, 1.0], [-1, 0], [1, 0])
    volume = np.zeros((11, 13, 36), dtype=np.uint8)
    stack = real.Stack("tube", volume, tree=tree, soma=True)
    assert stack.truth[5, 6, 10] and stack.truth[5, 8, 10] and not stack.truth[5, 9, 10]  # radius 2
    scores = real.score(stack.truth.astype(np.float32), 0.5, stack)
    assert scores["average_precision"] == 1 and scores["length_f1"] == scores["soma"]["length_f1"] == 1
    half = stack.truth & (np.arange(36) < 17)
    scores = real.score(half.astype(np.float32), 0.5, stack, binary=True)
    assert scores["length_precision"] == 1 and scores["length_recall"] == pytest.approx(0.6, abs=0.07)
    assert real.score(np.zeros(volume.shape), 0.5, stack)["length_f1"] == 0
    with pytest.raises(ValueError, match="response must be"):
        real.score(np.zeros((2, 2, 2)), 0.5, stack)


def test_ridges_are_those_of_the_whole_volume():
    volume = np.zeros((40, 60, 70), dtype=np.float32)
    volume[20, 30, 25:45] = np.linspace(0.2, 1, 20)
    whole = real.sato(volume, sigmas=(1, 2), black_ridges=False)
    np.testing.assert_allclose(real.ridges(volume), whole, atol=1e-6)


# --- the rival


@pytest.mark.parametrize("shape", [(9, 30, 41), (7, 130, 205)])
def test_blocks_of_the_rival_cover_the_volume(shape):
    """With a network that changes nothing, what comes back is each block scaled by its own range."""
    sizes = []

    def identity(block):
        sizes.append(tuple(block.shape[2:]))
        return block

    volume = np.random.default_rng(0).integers(0, 255, shape, dtype=np.uint8)
    volume[0, 0, 0], volume[-1, -1, -1] = 0, 255
    found = neurofly.predict(identity, volume)
    assert all(n % 4 == 0 for size in sizes for n in size)
    if max(shape) <= 128:
        np.testing.assert_allclose(found, volume / np.float32(255), atol=1e-6)
    else:
        assert sizes == [(108, 108, 108)] * 6
        blocks = np.pad(volume, 4, mode="reflect")[:, 0:108, 100:208]
        low, high = blocks.min(), blocks.max()
        np.testing.assert_allclose(
            found[:, :100, 100:200], (volume[:, :100, 100:200] - float(low)) / (high - low), atol=1e-6
        )


def test_a_block_that_is_the_same_everywhere_holds_nothing():
    assert not neurofly.predict(torch.nn.Identity(), np.full((8, 8, 8), 7, dtype=np.uint8)).any()


# --- the stacks themselves, and the file of results


def test_the_real_stacks(real_data):
    fly, small, other, training = real.stacks(real_data)
    assert fly.volume.shape == (119, 415, 409) and small.volume.shape == (51, 76, 176)
    assert fly.soma and not small.soma
    # The two or three annotated slices of each of ten cubes, 26 in all, are five of one volume.
    assert np.flatnonzero(other.judged.any(axis=(1, 2))).tolist() == [12, 39, 60, 87, 116]
    assert np.flatnonzero(training.judged.any(axis=(1, 2))).tolist() == [17, 48, 77]
    assert (training.truth.sum(), training.judged.sum()) == (2469 + 2769 + 1952, 33964)


def test_missing_data_say_what_is_needed(tmp_path):
    with pytest.raises(FileNotFoundError, match="set NEUROKD_DATA to a folder with real"):
        real.stacks(tmp_path)


def test_the_tables_are_those_of_the_results():
    methods = real.read(real.HERE / "results" / "real.json")
    assert list(real.ordered(methods)) == list(methods)
    assert (real.HERE / "results" / "real.md").read_text() == real.tables(methods) + "\n"
