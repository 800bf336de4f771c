"""Paired differences, against numbers that are known."""

import numpy as np
import pytest

import neurokd as nkd


def test_differences_are_paired_and_their_interval_is_that_of_the_pairs():
    rng = np.random.default_rng(0)
    volumes = rng.normal(size=12)  # hard and easy ones: large, but the same for both arms
    one, other = volumes + 0.1 + 0.01 * rng.normal(size=(3, 12)), np.tile(volumes, (3, 1))
    mean, low, high = nkd.paired_difference(one, other)
    assert mean == pytest.approx(0.1, abs=0.01)
    assert low < mean < high
    # Drawing rows and columns of independent values triples the variance of their mean (Owen 2007).
    assert high - low == pytest.approx(2 * 1.96 * 3**0.5 * 0.01 / 6, rel=0.1)
    assert nkd.paired_difference(one, one) == (0.0, 0.0, 0.0)
    assert nkd.paired_difference(one, volumes)[0] == pytest.approx(mean)  # a method without seeds


def test_a_relative_difference_is_one_of_means():
    assert nkd.paired_difference([1, 2], [2, 4], relative=True) == pytest.approx((-50, -50, -50))


@pytest.mark.parametrize(
    ("a", "b", "options", "message"),
    [
        ([1, 2], [1, 2, 3], {}, "same volumes"),
        ([[1, 2], [3, 4]], [[1, 2]] * 3, {}, "same volumes"),
        ([1], [2], {}, "at least two"),
        ([1, np.nan], [1, 2], {}, "finite"),
        ([1, 2], [0, 1], {"relative": True}, "positive"),
        ([1, 2], [1, 2], {"confidence": 1.0}, "confidence"),
    ],
)
def test_what_cannot_be_compared_is_refused(a, b, options, message):
    with pytest.raises(ValueError, match=message):
        nkd.paired_difference(a, b, **options)
