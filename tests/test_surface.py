"""The three HD95s against hand-made cases and brute force."""

import math

import numpy as np
import pytest
from scipy.ndimage import binary_erosion, gaussian_filter
from scipy.spatial.distance import cdist
from skimage.measure import marching_cubes, mesh_surface_area

from neurokd.evaluation.surface import hd95, hd95_area, hd95_pooled

SHAPE = (6, 7, 8)
ALL = (hd95, hd95_pooled, hd95_area)


def boxed(*slices: slice, shape: tuple[int, ...] = SHAPE) -> np.ndarray:
    mask = np.zeros(shape, dtype=bool)
    mask[slices] = True
    return mask


def ball(radius: float, shape: tuple[int, ...], spacing: tuple[float, ...]) -> np.ndarray:
    grid = np.stack(np.indices(shape), axis=-1) - (np.array(shape) - 1) / 2
    return np.linalg.norm(grid * spacing, axis=-1) <= radius


def brute_force(a: np.ndarray, b: np.ndarray, spacing: tuple[float, ...]) -> tuple[float, float]:
    surfaces = [np.argwhere(mask & ~binary_erosion(mask)) * spacing for mask in (a, b)]
    distances = cdist(*surfaces)
    there, back = distances.min(axis=1), distances.min(axis=0)
    return max(np.percentile(there, 95), np.percentile(back, 95)), np.percentile(np.r_[there, back], 95)


def brute_force_area(a: np.ndarray, b: np.ndarray, spacing: tuple[float, ...]) -> float:
    """Surface elements of eight voxels each, and the area of each by scikit-image's marching cubes."""
    elements = []
    for mask in (np.pad(a, 1), np.pad(b, 1)):
        places, areas = [], []
        for corner in np.ndindex(*(n - 1 for n in mask.shape)):
            eight = mask[tuple(slice(i, i + 2) for i in corner)]
            if eight.any() and not eight.all():
                vertices, faces, _, _ = marching_cubes(eight.astype(float), 0.5, spacing=spacing)
                places.append(np.multiply(corner, spacing))
                areas.append(mesh_surface_area(vertices, faces))
        elements.append((np.array(places), np.array(areas)))
    distances = cdist(elements[0][0], elements[1][0])
    percentiles = []
    for distance, (_, area) in zip((distances.min(axis=1), distances.min(axis=0)), elements, strict=True):
        total = 0.0
        for d, weight in sorted(zip(distance, area, strict=True)):
            total += weight
            if total >= 0.95 * area.sum():
                percentiles.append(d)
                break
    return max(percentiles)


def test_hd95_by_hand() -> None:
    dot, moved = boxed(slice(1, 2), slice(1, 2), slice(1, 2)), boxed(slice(2, 3), slice(3, 4), slice(5, 6))
    for score in (hd95, hd95_pooled):
        assert score(dot, moved, spacing=(1, 1, 1)) == pytest.approx(math.sqrt(1 + 4 + 16))
        assert score(dot, moved, spacing=(2, 0.5, 0.25)) == pytest.approx(math.sqrt(4 + 1 + 1))
    # A tube of 8 voxels against its first half: nothing predicted is wrong, but a neurite is missing. The
    # directed distances are 0 0 0 0 and 0 0 0 0 1 2 3 4; the 95th percentile of the latter lies at place
    # 0.95 * 7 = 6.65, between 3 and 4; that of all twelve at 0.95 * 11 = 10.45, between 3 and 4.
    tube, half = boxed(slice(3, 4), slice(3, 4)), boxed(slice(3, 4), slice(3, 4), slice(0, 4))
    for pair in ((half, tube), (tube, half)):
        assert hd95(*pair, spacing=(1, 1, 1)) == pytest.approx(3.65)
        assert hd95_pooled(*pair, spacing=(1, 1, 1)) == pytest.approx(3.45)
    # By area: elements lie in 9 planes across the tube, 4 in each. Along the side each is a strip of length 1 and width
    # sqrt(1/2), at the two ends a triangle with sides of sqrt(1/2). The last plane, 4 away from the half, has
    # 0.2165 / (7 * 0.7071 + 2 * 0.2165) = 4 % of the area, so 95 % lie within the one before it.
    assert hd95_area(half, tube, spacing=(1, 1, 1)) == pytest.approx(3)


@pytest.mark.parametrize("score", ALL)
def test_plates_and_balls(score) -> None:
    shape = (9, 30, 30)
    near, far = boxed(slice(2, 3), shape=shape), boxed(slice(5, 6), shape=shape)
    assert score(near, far, spacing=(2.0, 0.1, 0.1)) == pytest.approx(6.0)
    spacing = (1.0, 0.5, 0.5)
    small, large = (ball(radius, (31, 61, 61), spacing) for radius in (8, 12))
    assert score(small, large, spacing=spacing) == pytest.approx(4, abs=0.7)  # 4, give or take a voxel's diagonal


@pytest.mark.parametrize("density", [0.02, 0.3, 0.9])
@pytest.mark.parametrize("spacing", [(1.0, 1.0, 1.0), (0.38, 0.38, 0.38), (2.0, 0.3, 0.5)])
def test_against_brute_force(density: float, spacing: tuple[float, ...]) -> None:
    rng = np.random.default_rng(7)
    for _ in range(5):
        a, b = rng.random((2, *SHAPE)) < density
        a[0, 0, 0] = b[-1, -1, -1] = True  # neither empty; both touch the border
        larger, pooled = brute_force(a, b, spacing)
        assert hd95(a, b, spacing=spacing) == pytest.approx(larger, rel=1e-5)
        assert hd95_pooled(a, b, spacing=spacing) == pytest.approx(pooled, rel=1e-5)


@pytest.mark.parametrize("spacing", [(1.0, 1.0, 1.0), (2.0, 0.3, 0.5)])
def test_by_area_against_marching_cubes(spacing: tuple[float, ...]) -> None:
    rng = np.random.default_rng(11)
    for _ in range(4):
        a, b = (gaussian_filter(rng.normal(size=(10, 11, 12)), 2) for _ in range(2))
        a, b = a > np.quantile(a, 0.8), b > np.quantile(b, 0.8)
        assert hd95_area(a, b, spacing=spacing) == pytest.approx(brute_force_area(a, b, spacing), rel=0.02)


@pytest.mark.parametrize("score", ALL)
@pytest.mark.filterwarnings("error")
def test_empty_masks_count(score) -> None:
    empty, some = boxed(slice(0, 0)), boxed(slice(2, 3), slice(2, 3), slice(2, 3))
    diagonal = pytest.approx(math.sqrt(12**2 + 7**2 + 4**2))
    spacing = (2.0, 1.0, 0.5)
    assert score(empty, some, spacing=spacing) == score(some, empty, spacing=spacing) == diagonal
    assert score(empty, empty, spacing=spacing) == score(some, some, spacing=spacing) == 0


@pytest.mark.parametrize("score", ALL)
@pytest.mark.parametrize("spacing", [(1, 1), (1, 0, 1), (1, -1, 1), (1, math.nan, 1)])
def test_bad_input(score, spacing: tuple[float, ...]) -> None:
    with pytest.raises(ValueError, match="spacing"):
        score(np.ones(SHAPE, bool), np.ones(SHAPE, bool), spacing=spacing)
    with pytest.raises(ValueError, match=r"\(6, 7, 8\) and \(6, 7, 9\)"):
        score(np.ones(SHAPE, bool), np.ones((6, 7, 9), bool), spacing=(1, 1, 1))
    with pytest.raises(ValueError, match=r"prediction.*float64"):
        score(np.full(SHAPE, 0.7), np.ones(SHAPE, bool), spacing=(1, 1, 1))
