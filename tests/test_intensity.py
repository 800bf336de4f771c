"""The intensity scale against stacks whose noise, neurites and defects are known, and against numpy's own counts."""

from __future__ import annotations

from collections.abc import Callable
from functools import reduce
from operator import add

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy.ndimage import gaussian_filter

from neurokd.data.histogram import Histogram
from neurokd.data.intensity import IntensityScale, scale_intensity
from neurokd.data.repair import repair_voxels

SHAPE = (40, 100, 100)
LEVEL, NOISE = 60, 5


def neurites() -> np.ndarray:
    """Light of a soma, a trunk, a dim branch and a diagonal one of one voxel's width: 1 is the trunk."""
    light, t = np.zeros(SHAPE, np.float32), np.arange(100)
    light[20, 50 + (20 * np.sin(t / 25)).astype(int), t] = 1
    light[10, 20, :] = light[30, :, 70] = 0.3
    light = gaussian_filter(light, 1.0)
    light /= light[20, 50].max()
    light[5 + t[:30], t[:30] + 30, t[:30] + 30] = 0.8
    z, y, x = np.ogrid[:40, :100, :100]
    light[(z - 20) ** 2 + (y - 50) ** 2 + (x - 50) ** 2 < 36] = 1.5
    return light


LIGHT = neurites()
LIT = LIGHT > 0.2
RAW = (LEVEL + 100 * LIGHT + np.random.default_rng(0).normal(0, NOISE, SHAPE)).round().astype(np.float32)  # 30 to 230
CUT = np.where(RAW > LEVEL + 5 * NOISE, RAW - LEVEL, 0)  # as many published stacks are
STACKS = {"raw": RAW, "cut": CUT}


def hot(volume: np.ndarray, ppm: int) -> np.ndarray:
    places = np.random.default_rng(1).choice(volume.size, volume.size * ppm // 1_000_000, replace=False)
    volume = volume.copy()
    volume.flat[places] = 65_535
    return volume


def border(volume: np.ndarray) -> np.ndarray:
    framed = np.full(tuple(n + 10 for n in volume.shape), -32_768, np.int16)
    framed[5:-5, 5:-5, 5:-5] = volume
    return framed


def dead(volume: np.ndarray, value: float) -> np.ndarray:
    volume = volume.copy()
    volume[3, 90, 10] = value  # in the background
    if value < 0:
        volume[len(volume) // 2, 50, 0] = value  # and on the trunk
    return volume


INSIDE = np.s_[5:-5, 5:-5, 5:-5]
HALF = np.s_[:, :, :55]
# what happens to a stack, and which part of the other is to be compared with
CHANGES: dict[str, tuple[Callable[[np.ndarray], np.ndarray], tuple, tuple]] = {
    "100 ppm hot": (lambda v: hot(v, 100), (), ()),
    "1,000 ppm hot": (lambda v: hot(v, 1000), (), ()),
    "1,000 ppm hot, uint16": (lambda v: hot(v.astype(np.uint16), 1000), (), ()),
    "dead float": (lambda v: dead(v, -1000), (), ()),
    "dead uint16": (lambda v: dead(v.astype(np.uint16) + 300, 0), (), ()),
    "uint8": (lambda v: v.astype(np.uint8), (), ()),
    "uint16": (lambda v: v.astype(np.uint16), (), ()),
    "int16": (lambda v: v.astype(np.int16), (), ()),
    "int32": (lambda v: v.astype(np.int32) - 100_000, (), ()),
    "uint32": (lambda v: v.astype(np.uint32) + np.uint32(4_000_000_000), (), ()),  # float32 is too coarse for these
    "float64": (lambda v: v.astype(np.float64), (), ()),
    "offset": (lambda v: v + 1000.25, (), ()),
    "large offset": (lambda v: v + 30_000, (), ()),
    "gain": (lambda v: v * 0.037, (), ()),
    "gain, uint16": (lambda v: v.astype(np.uint16) * 200, (), ()),
    "border": (border, INSIDE, ()),
    "offset, gain, hot, border": (lambda v: border(hot(v * 3 + 500, 500).clip(0, 32_767)), INSIDE, ()),
    "half": (lambda v: v[HALF], (), HALF),
}


@pytest.mark.parametrize("stack", STACKS)
@pytest.mark.parametrize("change", CHANGES)
def test_scaled_voxels_stay_what_they_are(stack: str, change: str) -> None:
    spoil, inside, part = CHANGES[change]
    before, after = scale_intensity(STACKS[stack])[part], scale_intensity(spoil(STACKS[stack]))[inside]
    lit, close = LIT[part], 0.04 if change == "half" else 0.015
    for level in (0.05, 0.5, 0.95):
        assert np.quantile(after[lit], level) == pytest.approx(np.quantile(before[lit], level), abs=close)
        assert np.quantile(after[~lit], level) == pytest.approx(np.quantile(before[~lit], level), abs=close)
    moved = np.abs(after - before) > 0.15  # more than noise: what replaces a hot voxel has its own
    assert moved.mean() < 2e-5  # but for three hot voxels together


def test_black_and_white_of_a_known_background() -> None:
    for gain, offset in ((1, 0), (1, 900), (7, -100)):
        scale = IntensityScale.from_volume(RAW * gain + offset)
        level, noise = LEVEL * gain + offset, NOISE * gain
        assert scale.black == pytest.approx(level - 3 * noise, abs=1.5 * noise) and scale.fill is None
        assert level + 100 * gain < scale.white <= level + 175 * gain  # trunk to soma
    zeroed = IntensityScale.from_volume(CUT)
    assert (zeroed.black, zeroed.fill) == (0, 0) and 100 < zeroed.white <= 175
    # What the cut left does not become dark; single voxels that it left are taken for hot ones.
    assert (scale_intensity(CUT)[(CUT > 0) & LIT] > 0.1).mean() > 0.995


def test_noise_alone_does_not_become_bright() -> None:
    noise = np.random.default_rng(0).normal(100, 5, SHAPE)
    for volume in (
        noise,
        noise.round().astype(np.uint8),
        np.pad(noise, 20),
        np.random.default_rng(0).poisson(9, SHAPE),
    ):
        scaled = scale_intensity(volume)
        assert np.quantile(scaled, 0.999) < 0.6
    background = np.median(scale_intensity(noise))
    assert background == pytest.approx(3 / 13, abs=0.03)  # 3 sd above black, of 13 to white


def test_typical_neurites_are_not_dark_beside_a_soma() -> None:
    volume = RAW.astype(np.uint16)
    volume[28:36, 2:12, 2:12] = 30_000  # a soma 300 times as bright as the trunk
    scaled = scale_intensity(volume)
    assert (scaled[28:36, 2:12, 2:12] == 1).all()
    assert np.median(scaled[LIT]) > 0.06 > 15 * np.median(volume[LIT] / 30_000 - LEVEL / 30_000)


def test_one_voxel_does_not_decide() -> None:
    """The two cases of one dead voxel in noise, and of three hot ones in zeros."""
    noisy = np.random.default_rng(0).normal(0, 5, (20, 40, 40)).astype(np.float32)
    noisy[10, 20, 5:35] = 200
    before = scale_intensity(noisy)
    noisy[0, 0, 0] = -1000
    np.testing.assert_allclose(scale_intensity(noisy).flat[1:], before.flat[1:], atol=0.01)
    zeros = np.zeros(SHAPE, np.uint16)
    zeros[20, 50, 5:95] = zeros[20, 5:95, 50] = 500
    zeros.flat[[7, 70, 700]] = 65_535
    assert scale_intensity(zeros)[20, 50, 10] == 1
    assert (scale_intensity(zeros) > 0).sum() == 179  # the hot ones are gone


# --- fill, masks, odd volumes


def test_scale_of_a_cut_stack_by_hand() -> None:
    # 201 lit voxels 100, 101 ... 300 in zeros: no background is left, so black is 0; the 99.95th percentile is 300.
    volume = np.zeros((10, 10, 10), np.uint16)
    volume.flat[:201] = np.arange(100, 301)
    np.testing.assert_allclose(scale_intensity(volume), volume / 300, atol=1e-6)


def test_fill_is_what_was_not_recorded() -> None:
    assert IntensityScale.from_volume(border(RAW)).fill == -32_768
    assert IntensityScale.from_volume(border(CUT)).fill == 0  # zeros behind a border
    shifted = IntensityScale.from_volume(CUT + 1000.5)
    np.testing.assert_array_equal(shifted.is_fill(CUT + 1000.5), CUT == 0)
    fine = CUT + np.where(CUT > 0, np.random.default_rng(0).random(SHAPE), 0)  # more values than bins
    np.testing.assert_array_equal(IntensityScale.from_volume(fine).is_fill(fine), CUT == 0)
    assert not IntensityScale.from_volume(RAW).is_fill(RAW).any()
    dark = np.random.default_rng(0).poisson(1.0, SHAPE).astype(np.uint8)  # half of the voxels are 0 or 1 by chance
    assert IntensityScale.from_volume(dark).fill is None
    damaged = CUT - 50
    damaged[0, 0, 0] = -900
    assert IntensityScale.from_volume(damaged).fill == -50


@pytest.mark.parametrize("share", [0.001, 0.05, 0.4, 0.6, 0.95])
def test_masks_keep_their_two_values(share: float) -> None:
    mask = np.kron(np.random.default_rng(0).random((20, 50, 50)) < share, np.ones((2, 2, 2))) > 0  # no single voxels
    for volume in (mask, mask * np.uint8(255), mask * 7.5 - 3):
        np.testing.assert_array_equal(scale_intensity(volume), mask)


def test_nothing_but_hot_voxels_is_nothing() -> None:
    zeros = np.zeros(SHAPE, np.uint16)
    zeros.flat[[7, 70_000, 200_000]] = (300, 65_535, 4)
    assert not scale_intensity(zeros).any()
    with pytest.raises(ValueError, match="constant: every voxel is 3"):
        scale_intensity(np.full(SHAPE, 3))


@given(
    hnp.arrays(
        st.sampled_from([np.uint8, np.uint16, np.int16, np.float32, np.int64]),
        hnp.array_shapes(min_dims=3, max_dims=3, max_side=7),
        elements={"min_value": 0, "max_value": 255},
    )
)
@settings(max_examples=200, deadline=None)
def test_scaled_voxels_are_ordered_and_in_the_unit_interval(volume: np.ndarray) -> None:
    if volume.min() == volume.max():
        with pytest.raises(ValueError, match="constant"):
            scale_intensity(volume)
        return
    scale, given_volume = IntensityScale.from_volume(volume), volume.copy()
    scaled = scale_intensity(volume, scale=scale)
    assert np.isfinite(scaled).all() and scaled.min() >= 0 and scaled.max() <= 1 and scaled.dtype == np.float32
    order = np.argsort(repair_voxels(volume, low=scale.low, high=scale.high), axis=None, kind="stable")
    assert (np.diff(scaled.flat[order]) >= 0).all()
    assert not scaled[scale.is_fill(repair_voxels(volume, low=scale.low, high=scale.high))].any()
    np.testing.assert_array_equal(volume, given_volume)  # the caller's array is untouched


def test_scales_that_make_no_sense() -> None:
    with pytest.raises(ValueError, match="black must be below white, got 3 and 3"):
        IntensityScale(3, 3)
    with pytest.raises(ValueError, match="fill must be at most black = 1, got 2"):
        IntensityScale(1, 3, fill=2)


# --- hot and dead voxels


def test_hot_and_dead_voxels_are_replaced_and_neurites_are_not() -> None:
    thin = np.random.default_rng(0).normal(100, 5, SHAPE)
    t = np.arange(30)
    thin[5 + t, 30 + t, 30 + t] = 400  # diagonal, its ends included
    thin[20, 5, 10:90] = thin[2:38, 80, 80] = 400  # along x and along z
    spoiled, bad = thin.copy(), [(0, 0, 0), (20, 60, 60), (39, 99, 50), (10, 20, 20), (30, 30, 9), (31, 31, 9)]
    spoiled[tuple(np.transpose(bad))] = 2000, 400, 900, -700, 900, 1000
    scale = IntensityScale.from_volume(spoiled)
    mended = repair_voxels(spoiled, low=scale.low, high=scale.high)
    changed = np.argwhere(mended != spoiled)
    assert sorted(map(tuple, changed.tolist())) == sorted(bad)
    assert np.abs(mended[tuple(changed.T)] - 100).max() < 10
    assert repair_voxels(thin, low=scale.low, high=scale.high) is thin


def test_repair_in_blocks_with_a_margin_of_two_is_the_same() -> None:
    volume = hot(RAW.astype(np.uint16), 2000)
    volume.flat[::9001] = 0
    scale = IntensityScale.from_volume(volume)
    whole = repair_voxels(volume, low=scale.low, high=scale.high)
    assert (whole != volume).sum() > 800
    for start in range(0, 100, 5):
        margin = min(start, 2)
        block = repair_voxels(volume[:, start - margin : start + 7], low=scale.low, high=scale.high)
        np.testing.assert_array_equal(block[:, margin : margin + 5], whole[:, start : start + 5])


def test_the_scale_from_blocks_is_the_scale() -> None:
    """As the example of `IntensityScale`: two passes over blocks, the second with a margin of two voxels."""
    volume = hot(RAW, 1000) + np.random.default_rng(2).random(SHAPE, np.float32)
    cuts = range(0, 40, 8)
    draft = IntensityScale.from_histogram(reduce(add, [Histogram.from_volume(volume[z : z + 8]) for z in cuts]))
    parts = []
    for z in cuts:
        start = max(0, z - 2)
        mended = repair_voxels(volume[start : z + 10], low=draft.low, high=draft.high)
        parts.append(Histogram.from_volume(mended[z - start :][:8]))
    assert IntensityScale.from_histogram(reduce(add, parts)) == IntensityScale.from_volume(volume)


# --- the histogram

RNG = np.random.default_rng(3)
VOLUMES = {
    "uint8": RNG.integers(0, 256, (9, 20, 30)).astype(np.uint8),
    "int16": RNG.integers(-32_768, 32_768, (90, 40, 40)).astype(np.int16),
    "int64": RNG.integers(-(10**15), 10**15, (90, 40, 40)),
    "uint64": RNG.integers(0, 2**64, (9, 20, 30), dtype=np.uint64),
    "float16": RNG.normal(0, 3, (90, 40, 40)).astype(np.float16),
    "float32": RNG.normal(0, 3, (90, 90, 200)).astype(np.float32),
    "float64": RNG.lognormal(0, 9, (90, 40, 40)),
    "bool": RNG.random((9, 20, 30)) < 0.1,
}


@pytest.mark.parametrize("name", VOLUMES)
def test_histograms_of_blocks_add_up_to_that_of_the_whole(name: str) -> None:
    volume = VOLUMES[name]
    whole = Histogram.from_volume(volume)
    for cuts in ([4], [1, 2, 7], [8, 3]):
        blocks = [Histogram.from_volume(block) for block in np.split(volume, sorted(cuts))]
        merged = reduce(add, blocks[::-1])
        np.testing.assert_array_equal(merged.bins, whole.bins)
        np.testing.assert_array_equal(merged.counts, whole.counts)
        assert (merged.shift, merged.kind) == (whole.shift, whole.kind)
    assert whole.size == volume.size and len(whole.bins) <= 65_536


@pytest.mark.parametrize("name", VOLUMES)
def test_quantiles_are_those_of_numpy(name: str) -> None:
    volume = VOLUMES[name]
    histogram = Histogram.from_volume(volume)
    for share in (0.001, 0.01, 0.3, 0.5, 0.99, 0.9995, 1.0):
        exact = float(np.quantile(volume.ravel(), share, method="inverted_cdf"))
        if histogram.shift == 0:
            assert histogram.quantile(share) == exact
        else:  # the least value of the bin that the exact one is in
            k = np.searchsorted(histogram.values, exact, side="right") - 1
            assert histogram.quantile(share) == histogram.values[k] <= exact <= histogram.tops[k]
            close = np.ptp(volume.ravel()) / 30_000 if volume.dtype.kind in "iu" else abs(exact) * 0.01
            assert exact - histogram.quantile(share) <= close


def test_histograms_are_exact_where_values_are_few() -> None:
    values = np.array([-1e30, -2.5, -0.0, 0.0, 1e-40, 3.25, 7e8], np.float32)
    volume = np.repeat(values, 20).reshape(7, 4, 5)
    histogram = Histogram.from_volume(volume)
    np.testing.assert_array_equal(histogram.values, values[[0, 1, 3, 4, 5, 6]].astype(float))
    np.testing.assert_array_equal(histogram.counts, [20, 20, 40, 20, 20, 20])
    with pytest.raises(ValueError, match="other must be a histogram of float32, got integer"):
        histogram + Histogram.from_volume(VOLUMES["uint8"])
