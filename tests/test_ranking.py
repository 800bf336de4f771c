"""Average precision against examples worked by hand and its definition, threshold by threshold."""

import numpy as np
import pytest

from neurokd.evaluation.ranking import average_precision


def by_definition(scores, truth):
    area, before = 0.0, 0.0
    for threshold in sorted(set(scores.ravel()), reverse=True):
        said = scores >= threshold
        precision, recall = truth[said].mean(), truth[said].sum() / truth.sum()
        area, before = area + (recall - before) * precision, recall
    return area


def test_examples_worked_by_hand():
    # Sorted: yes, no, yes, no. At the first hit precision is 1/1, at the second 2/3; recall rises by 1/2 each.
    assert average_precision([0.1, 0.8, 0.4, 0.35], np.array([False, True, False, True])) == pytest.approx(5 / 6)
    assert average_precision([3, 2, 1], np.array([True, True, False])) == 1
    assert average_precision([1, 2, 3, 4], np.array([True, False, False, False])) == 0.25
    assert average_precision([1, 2, 3, 4], [255, 0, 0, 0]) == 0.25


@pytest.mark.parametrize("dtype", [np.float32, np.uint8, np.int16])
@pytest.mark.parametrize("seed", range(3))
def test_the_definition_holds_with_ties_in_any_shape_type_and_order(seed, dtype):
    rng = np.random.default_rng(seed)
    scores, truth = rng.integers(0, 6, (4, 2, 5)).astype(dtype), rng.random((4, 2, 5)) < 0.3
    truth[0, 0, 0] = True
    assert average_precision(scores, truth) == pytest.approx(by_definition(scores, truth))
    order = rng.permutation(40)
    assert average_precision(scores.ravel()[order], truth.ravel()[order]) == average_precision(scores, truth)


def test_scores_without_information_get_the_share_of_what_is_true():
    assert average_precision(np.zeros(50), np.arange(50) % 5 == 0) == pytest.approx(0.2)


@pytest.mark.parametrize(
    ("scores", "truth", "match"),
    [
        ([1.0, 2.0], np.zeros(2, bool), "truth must be true somewhere"),
        ([1.0, np.nan], np.ones(2, bool), "scores must be finite, got 1"),
        ([1.0, 2.0], np.array([0, 0.5]), "truth must be boolean, .* got float64 with 0.5"),
        ([1.0, 2.0], np.ones((2, 1), bool), r"shape of scores \(2,\), got \(2, 1\)"),
    ],
)
def test_bad_input_is_named(scores, truth, match):
    with pytest.raises(ValueError, match=match):
        average_precision(scores, truth)
