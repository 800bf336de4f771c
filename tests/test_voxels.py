"""Overlap scores and the threshold baseline against hand-made cases, brute force and MONAI."""

import numpy as np
import pytest

from neurokd.evaluation.voxels import best_threshold, dice, precision, recall

SHAPE = (6, 7, 8)


def boxed(*slices: slice) -> np.ndarray:
    mask = np.zeros(SHAPE, dtype=bool)
    mask[slices] = True
    return mask


def test_counts_by_hand() -> None:
    truth = boxed(slice(2, 3), slice(2, 4), slice(0, 5))  # 10 voxels
    prediction = boxed(slice(2, 3), slice(3, 4), slice(1, 5))  # 4 voxels, all true
    assert dice(prediction, truth) == pytest.approx(2 * 4 / 14)
    assert (precision(prediction, truth), recall(prediction, truth)) == (1.0, 0.4)
    assert (precision(truth, prediction), recall(truth, prediction)) == (0.4, 1.0)
    assert dice(truth.astype(np.uint8) * 255, truth) == 1.0
    assert dice(~truth, truth) == 0.0


@pytest.mark.filterwarnings("error")
def test_empty_masks() -> None:
    empty, some = boxed(slice(0, 0)), boxed(slice(2, 3), slice(2, 3), slice(2, 3))
    for score in (dice, precision, recall):
        assert (score(empty, some), score(some, empty), score(empty, empty), score(some, some)) == (0, 0, 1, 1)


def test_dice_against_monai() -> None:
    import torch
    from monai.metrics import compute_dice

    a, b = np.random.default_rng(3).random((2, *SHAPE)) < 0.4
    expected = compute_dice(torch.from_numpy(a)[None, None], torch.from_numpy(b)[None, None]).item()
    assert dice(a, b) == pytest.approx(expected, rel=1e-6)


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
    with pytest.raises(ValueError, match="mask 1 must have the shape of volume 1"):
        best_threshold([volume, volume], [mask, mask[:-1]])
    with pytest.raises(ValueError, match="masks must be as many as volumes, at least 1, got 0 and 1"):
        best_threshold([volume], [])
    with pytest.raises(ValueError, match=r"volume 0.*finite"):
        best_threshold([np.where(mask, np.nan, 0)], [mask])
