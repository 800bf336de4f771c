"""Mask scores against hand-made cases, brute force and MONAI."""

import math

import numpy as np
import pytest
from scipy.ndimage import binary_erosion
from scipy.spatial.distance import cdist

from neurokd.evaluation.voxels import best_threshold, dice, evaluate_masks, hd95, precision, recall

SHAPE = (6, 7, 8)


def boxed(*slices: slice) -> np.ndarray:
    mask = np.zeros(SHAPE, dtype=bool)
    mask[slices] = True
    return mask


def brute_force_hd95(a: np.ndarray, b: np.ndarray, spacing: tuple[float, ...]) -> float:
    surfaces = [np.argwhere(mask & ~binary_erosion(mask)) * spacing for mask in (a, b)]
    distances = cdist(*surfaces)
    return max(np.percentile(distances.min(axis=axis), 95) for axis in (0, 1))


def test_counts_by_hand() -> None:
    truth = boxed(slice(2, 3), slice(2, 4), slice(0, 5))  # 10 voxels
    prediction = boxed(slice(2, 3), slice(3, 4), slice(1, 5))  # 4 voxels, all true
    assert dice(prediction, truth) == pytest.approx(2 * 4 / 14)
    assert (precision(prediction, truth), recall(prediction, truth)) == (1.0, 0.4)
    assert (precision(truth, prediction), recall(truth, prediction)) == (0.4, 1.0)
    assert dice(truth.astype(np.uint8) * 255, truth) == 1.0
    assert dice(~truth, truth) == 0.0


def test_hd95_by_hand() -> None:
    dot, moved = boxed(slice(1, 2), slice(1, 2), slice(1, 2)), boxed(slice(2, 3), slice(3, 4), slice(5, 6))
    assert hd95(dot, moved, spacing=(1, 1, 1)) == pytest.approx(math.sqrt(1 + 4 + 16))
    assert hd95(dot, moved, spacing=(2, 0.5, 0.25)) == pytest.approx(math.sqrt(4 + 1 + 1))
    # A tube of 8 voxels against its first half: nothing predicted is wrong, but a neurite is missing. The
    # directed distances are 0 0 0 0 and 0 0 0 0 1 2 3 4; the 95th percentile of the latter lies at place
    # 0.95 * 7 = 6.65, between 3 and 4.
    tube, half = boxed(slice(3, 4), slice(3, 4)), boxed(slice(3, 4), slice(3, 4), slice(0, 4))
    assert hd95(half, tube, spacing=(1, 1, 1)) == pytest.approx(3.65)
    assert hd95(tube, half, spacing=(1, 1, 1)) == pytest.approx(3.65)


@pytest.mark.parametrize("density", [0.02, 0.3, 0.9])
@pytest.mark.parametrize("spacing", [(1.0, 1.0, 1.0), (0.38, 0.38, 0.38), (2.0, 0.3, 0.5)])
def test_hd95_against_brute_force(density: float, spacing: tuple[float, ...]) -> None:
    rng = np.random.default_rng(7)
    for _ in range(5):
        a, b = rng.random((2, *SHAPE)) < density
        a[0, 0, 0] = b[-1, -1, -1] = True  # neither empty; both touch the border
        assert hd95(a, b, spacing=spacing) == pytest.approx(brute_force_hd95(a, b, spacing), rel=1e-5)


def test_dice_against_monai() -> None:
    import torch
    from monai.metrics import compute_dice

    a, b = np.random.default_rng(3).random((2, *SHAPE)) < 0.4
    expected = compute_dice(torch.from_numpy(a)[None, None], torch.from_numpy(b)[None, None]).item()
    assert dice(a, b) == pytest.approx(expected, rel=1e-6)


@pytest.mark.filterwarnings("error")
def test_empty_masks_count() -> None:
    empty, some = boxed(slice(0, 0)), boxed(slice(2, 3), slice(2, 3), slice(2, 3))
    spacing = (2.0, 1.0, 0.5)
    diagonal = math.sqrt(12**2 + 7**2 + 4**2)
    missed = evaluate_masks(empty, some, spacing=spacing)
    assert missed == {"dice": 0, "precision": 0, "recall": 0, "hd95": pytest.approx(diagonal), "failed": True}
    invented = evaluate_masks(some, empty, spacing=spacing)
    assert invented == {
        "dice": 0,
        "precision": 0,
        "recall": 0,
        "hd95": pytest.approx(diagonal),
        "failed": True,
    }
    nothing = evaluate_masks(empty, empty, spacing=spacing)
    assert nothing == {"dice": 1, "precision": 1, "recall": 1, "hd95": 0, "failed": False}
    exact = evaluate_masks(some, some, spacing=spacing)
    assert exact == {"dice": 1, "precision": 1, "recall": 1, "hd95": 0, "failed": False}
    assert not np.isnan([*missed.values(), *invented.values(), *nothing.values()]).any()


@pytest.mark.parametrize(
    ("prediction", "truth", "message"),
    [
        (np.ones(SHAPE, bool), np.ones((6, 7, 9), bool), r"\(6, 7, 8\) and \(6, 7, 9\)"),
        (np.ones((6, 7), bool), np.ones((6, 7), bool), "prediction.*3 axes"),
        (np.ones(SHAPE, bool), np.ones((0, 7, 8), bool), "truth.*empty"),
        (np.full(SHAPE, 0.7), np.ones(SHAPE, bool), "prediction.*float64"),
    ],
)
def test_bad_masks(prediction: np.ndarray, truth: np.ndarray, message: str) -> None:
    for score in (dice, precision, recall):
        with pytest.raises(ValueError, match=message):
            score(prediction, truth)
    for score in (hd95, evaluate_masks):
        with pytest.raises(ValueError, match=message):
            score(prediction, truth, spacing=(1, 1, 1))


@pytest.mark.parametrize("spacing", [(1, 1), (1, 0, 1), (1, -1, 1), (1, math.nan, 1)])
def test_bad_spacing(spacing: tuple[float, ...]) -> None:
    with pytest.raises(ValueError, match="spacing"):
        hd95(np.ones(SHAPE, bool), np.ones(SHAPE, bool), spacing=spacing)


@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_best_threshold_against_trying_all(dtype: type) -> None:
    rng = np.random.default_rng(5)
    masks = [rng.random(SHAPE) < share for share in (0.1, 0.3, 0.5)]
    volumes = [np.clip(rng.normal(90, 40, SHAPE) + 60 * mask, 0, 255).astype(dtype) for mask in masks]
    t = best_threshold(volumes, masks)
    scores = {
        value: np.mean([dice(volume > value, mask) for volume, mask in zip(volumes, masks, strict=True)])
        for value in np.unique(volumes)
    }
    assert t == min(value for value, score in scores.items() if score == max(scores.values()))
    coarse = best_threshold(volumes, masks, n_candidates=30)
    assert scores[dtype(coarse)] > scores[dtype(t)] - 0.02


def test_best_threshold_separates() -> None:
    mask = boxed(slice(1, 3), slice(1, 3), slice(1, 3))
    volume = np.where(mask, 200, 50).astype(np.uint8)
    t = best_threshold([volume], [mask])
    assert 50 <= t < 200 and dice(volume > t, mask) == 1
    with pytest.raises(ValueError, match=r"volume 1.*shape"):
        best_threshold([volume, volume], [mask, mask[:-1]])
    with pytest.raises(ValueError, match="1 volumes, 0 masks"):
        best_threshold([volume], [])
    with pytest.raises(ValueError, match=r"volume 0.*finite"):
        best_threshold([np.where(mask, np.nan, 0)], [mask])
