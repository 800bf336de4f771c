"""Sparse annotation: what nobody looked at has no part in crops, losses and scores.

The truth is the same everywhere: the known voxels cut out and taken alone.
"""

import numpy as np
import pytest

from neurokd.data.annotation import sparse_annotation
from neurokd.data.datasets import Sample, split_by_region
from neurokd.data.patches import Patches
from neurokd.evaluation.evaluate import evaluate_masks, evaluate_samples
from neurokd.evaluation.ranking import average_precision
from neurokd.evaluation.voxels import best_threshold, dice, precision, recall

SHAPE = (20, 24, 28)
SLICES = (3, 4, 11)  # those that somebody annotated
RNG = np.random.default_rng(0)
VOLUME = RNG.integers(1, 200, SHAPE).astype(np.uint8)
NEURITE = np.zeros(SHAPE, bool)
NEURITE[:, 3:20, 10:12] = True
KNOWN = np.zeros(SHAPE, bool)
KNOWN[list(SLICES)] = True
SAMPLE = Sample("a", VOLUME, NEURITE & KNOWN, known=KNOWN)


# --- labels and samples


def test_labels_are_split_as_trailmap_means_them() -> None:
    labels = np.zeros((3, 2, 5), np.uint8)
    labels[1] = [[1, 1, 4, 2, 4], [3, 1, 1, 1, 1]]
    mask, known = sparse_annotation(labels)
    assert np.argwhere(mask).tolist() == [[1, 0, 3]]
    assert known[1].tolist() == [[True, True, False, True, False], [True] * 5] and not known[[0, 2]].any()
    thick, sure = sparse_annotation(labels.astype(np.float32), foreground=(2, 4), unknown={0})
    assert thick.sum() == 3 and sure[1].all() and sure.sum() == 10


def test_the_axons_of_the_data_folder_have_three_annotated_slices(real_data) -> None:
    path = real_data / "axons" / "train_original_label.tif"
    if not path.is_file():
        pytest.skip(f"no axons: {path} is not there")
    import tifffile

    labels = tifffile.imread(path)
    mask, known = sparse_annotation(labels)
    assert np.flatnonzero(known.any(axis=(1, 2))).tolist() == [17, 48, 77]
    assert mask.sum() == (labels == 2).sum() > 0
    assert not (mask & ~known).any() and known.sum() == np.isin(labels, (1, 2, 3)).sum()


@pytest.mark.parametrize(
    ("labels", "options", "words"),
    [
        (np.zeros((2, 2, 2)), {}, r"known voxels, got only \[0.0\]"),
        (np.full((2, 2, 2), 0.5), {}, "whole numbers, got 0.5"),
        (np.ones((2, 2, 2)), {"foreground": (1, 2), "unknown": (0, 2)}, r"got \[2\] in both"),
        (np.ones((2, 2)), {}, "3 axes"),
    ],
)
def test_labels_that_cannot_be_split(labels, options, words) -> None:
    with pytest.raises(ValueError, match=words):
        sparse_annotation(labels, **options)


@pytest.mark.parametrize(
    ("mask", "known", "words"),
    [
        (NEURITE, KNOWN[1:], r"known of sample 'bad' must be boolean of shape \(20, 24, 28\), got bool of \(19"),
        (NEURITE, KNOWN.astype(np.uint8), "got uint8"),
        (NEURITE, KNOWN & False, "no known voxel"),
        (None, KNOWN, "known of sample 'bad' must be None without a mask"),
    ],
)
def test_known_is_a_boolean_array_beside_a_mask(mask, known, words) -> None:
    with pytest.raises(ValueError, match=words):
        Sample("bad", VOLUME, mask, known=known)


def test_a_stack_that_is_cut_in_two_takes_along_what_is_known() -> None:
    stray = NEURITE.copy()
    stray[:, :, 25:] = True  # unknown, in another direction: the cut does not see it
    known = KNOWN.copy()
    known[:, :, 24:] = False
    first, second = split_by_region(Sample("a", VOLUME, stray, known=known), share=0.5, margin=2)
    assert first.name.endswith("along y)")  # 17 rows in y, 9 slices in z
    np.testing.assert_array_equal(first.known, known[:, :12])
    np.testing.assert_array_equal(second.known, known[:, 14:])
    empty = NEURITE & ~KNOWN
    with pytest.raises(ValueError, match="empty"):
        split_by_region(Sample("a", VOLUME, empty, known=KNOWN))


# --- crops


def test_every_crop_holds_known_voxels_and_known_is_turned_with_the_mask() -> None:
    """In unknown slices the volume is 0, which is fill, so that each crop shows by itself where it is known."""
    volume = np.where(KNOWN, VOLUME, np.uint8(0))
    sample = Sample("a", volume, NEURITE, known=KNOWN)  # the mask goes on where nothing is known
    for share in (0.0, 1.0):
        plain = Patches([sample], size=(2, 6, 6), length=100, seed=1, foreground=share, augment=False)
        for item in plain:
            image, mask, known = (item[name].numpy() for name in ("image", "mask", "known"))
            assert known.dtype == bool and known.any()
            np.testing.assert_array_equal(known, image > 0)
            assert not mask[~known].any()
            assert share == 0 or mask.any()
    turned = Patches([SAMPLE], size=(4, 24, 24), length=60, seed=2, foreground=1.0)
    for item in turned:  # whole slices are known, and a neurite is in each of them
        known, mask = item["known"][0], item["mask"][0]
        by_slice = known.flatten(1)
        assert (by_slice.all(1) == by_slice.any(1)).all()
        assert (mask.flatten(1).any(1) == by_slice.all(1)).all()


def test_crops_of_a_dark_or_padded_stack_hold_known_voxels() -> None:
    volume = np.zeros(SHAPE, np.uint8)
    volume[19] = 200  # only unknown voxels are brighter than zero
    dark = Sample("dark", volume, NEURITE, known=KNOWN)
    for item in Patches([dark], size=(2, 4, 4), length=50, seed=0, foreground=0.0):
        assert item["known"].any()
    padded = Patches([SAMPLE], size=(32, 24, 40), length=4, seed=0, augment=False)[0]["known"][0]
    np.testing.assert_array_equal(padded[:20, :, :28], KNOWN)
    assert not padded[20:].any() and not padded[..., 28:].any()


def test_a_dense_sample_is_known_everywhere_and_one_without_foreground_may_be_among_others() -> None:
    dense, empty = Sample("dense", VOLUME, NEURITE), Sample("empty", VOLUME, NEURITE & False)
    patches = Patches([dense, empty], size=(4, 8, 8), length=40, seed=0, foreground=1.0)
    assert not patches.sparse and Patches([dense, SAMPLE], size=(4, 8, 8), length=1, seed=0).sparse
    items = list(patches)
    assert all(item["known"].all() for item in items)
    assert 0 < sum(bool(item["mask"].any()) for item in items) < 40


# --- scores


def cut_out(array: np.ndarray) -> np.ndarray:
    """The known slices as a volume of their own."""
    return array[list(SLICES)]


def test_scores_are_those_of_the_known_slices_alone() -> None:
    chance = RNG.random(SHAPE)
    found = chance > 0.8
    for score in (dice, precision, recall):
        assert score(found, NEURITE, known=KNOWN) == score(cut_out(found), cut_out(NEURITE)) != score(found, NEURITE)
        assert score(found, NEURITE, known=np.ones_like(KNOWN)) == score(found, NEURITE)
    ranking = average_precision(chance, NEURITE, known=KNOWN)
    assert ranking == average_precision(cut_out(chance), cut_out(NEURITE)) != average_precision(chance, NEURITE)
    others = RNG.random((5, 6, 7))
    volumes, masks = [VOLUME.astype(float) + 9 * NEURITE, others], [NEURITE, others > 0.4]
    alone = best_threshold([cut_out(volumes[0]), others], [cut_out(NEURITE), masks[1]], n_candidates=10**6)
    assert best_threshold(volumes, masks, known=[KNOWN, None], n_candidates=10**6) == alone


def test_a_report_on_sparse_annotation_has_the_scores_that_count_voxels() -> None:
    samples = [
        Sample("slices", VOLUME, NEURITE, spacing=(1.0, 1.0, 1.0), known=KNOWN),
        Sample("whole", VOLUME, NEURITE, spacing=(1.0, 1.0, 1.0)),
    ]
    nothing = NEURITE & ~KNOWN  # right, but not where it counts
    report = evaluate_samples(samples, {"slices": nothing, "whole": NEURITE})
    assert report.scores == ["dice", "precision", "recall"]
    assert report.failures == ["slices"]
    assert [row["dice"] for row in report.rows] == [0, 1]
    assert evaluate_masks(nothing, NEURITE, spacing=(1, 1, 1), known=KNOWN)["failed"]
    whole = evaluate_masks(nothing, NEURITE, spacing=(1, 1, 1), known=np.ones_like(KNOWN))
    assert whole == evaluate_masks(nothing, NEURITE, spacing=(1, 1, 1))
    assert {"hd95", "cldice"} < set(whole)


def test_scores_refuse_what_is_not_known_in_that_sense() -> None:
    for call in (
        lambda known: dice(NEURITE, NEURITE, known=known),
        lambda known: evaluate_masks(NEURITE, NEURITE, spacing=(1, 1, 1), known=known),
        lambda known: average_precision(VOLUME, NEURITE, known=known),
        lambda known: best_threshold([VOLUME], [NEURITE], known=[known]),
    ):
        for known, words in ((KNOWN[1:], "shape"), (KNOWN * 1, "boolean"), (KNOWN & False, "no known voxel")):
            with pytest.raises(ValueError, match=words):
                call(known)
    with pytest.raises(ValueError, match="one entry for each of 1 volumes, got 2"):
        best_threshold([VOLUME], [NEURITE], known=[KNOWN, KNOWN])
