"""clDice and Betti numbers against hand-made cases and homology by linear algebra."""

from itertools import product

import numpy as np
import pytest
from scipy import ndimage

from neurokd.evaluation.topology import betti_errors, betti_numbers, cldice
from neurokd.evaluation.voxels import dice


def boxed(*slices: slice, shape: tuple[int, int, int] = (12, 12, 30)) -> np.ndarray:
    mask = np.zeros(shape, dtype=bool)
    mask[slices] = True
    return mask


def ring(shape: tuple[int, int, int] = (5, 9, 9)) -> np.ndarray:
    mask = np.zeros(shape, dtype=bool)
    mask[2, 2:7, 2:7] = True
    mask[2, 3:6, 3:6] = False
    return mask


def homology(mask: np.ndarray) -> tuple[int, int, int]:
    """Betti numbers of the union of closed unit cubes: kernels and images of the boundary maps between their cells.

    On a grid of twice the resolution a cell of dimension d has d odd coordinates.
    """
    cells = np.zeros(tuple(2 * n + 1 for n in mask.shape), dtype=bool)
    for z, y, x in np.argwhere(mask):
        cells[2 * z : 2 * z + 3, 2 * y : 2 * y + 3, 2 * x : 2 * x + 3] = True
    by_dimension: list[dict[tuple[int, ...], int]] = [{}, {}, {}, {}]
    for cell in map(tuple, np.argwhere(cells)):
        of_its_kind = by_dimension[sum(i % 2 for i in cell)]
        of_its_kind[cell] = len(of_its_kind)
    ranks = [0]
    for d in (1, 2, 3):
        boundary = np.zeros((len(by_dimension[d - 1]), len(by_dimension[d])))
        for cell, column in by_dimension[d].items():
            sign = 1
            for axis in range(3):
                if cell[axis] % 2:
                    for step in (-1, 1):
                        face = tuple(i + step * (j == axis) for j, i in enumerate(cell))
                        boundary[by_dimension[d - 1][face], column] = sign * step
                    sign = -sign
        ranks.append(int(np.linalg.matrix_rank(boundary)) if boundary.size else 0)
    ranks.append(0)
    return tuple(len(by_dimension[d]) - ranks[d] - ranks[d + 1] for d in range(3))


def test_betti_numbers_by_hand() -> None:
    assert betti_numbers(boxed(slice(0, 0))) == (0, 0, 0)
    assert betti_numbers(boxed(slice(0, 1), slice(0, 1), slice(0, 1))) == (1, 0, 0)  # one voxel, in the corner
    assert betti_numbers(np.ones((3, 4, 5), bool)) == (1, 0, 0)
    assert betti_numbers(ring()) == (1, 1, 0)
    assert betti_numbers(np.concatenate([ring(), ring()], axis=2)) == (2, 2, 0)
    eight = ring((5, 9, 13))
    eight[2, 2:7, 6:11] |= ring()[2, 2:7, 2:7]
    assert betti_numbers(eight) == (1, 2, 0)  # two rings that share a side
    hollow = boxed(slice(2, 9), slice(2, 9), slice(2, 9)) & ~boxed(slice(4, 7), slice(4, 7), slice(4, 7))
    assert betti_numbers(hollow) == (1, 0, 1)
    diagonal = boxed(slice(2, 3), slice(2, 3), slice(2, 3)) | boxed(slice(3, 4), slice(3, 4), slice(3, 4))
    assert betti_numbers(diagonal) == (1, 0, 0)  # a corner connects


@pytest.mark.parametrize("density", [0.1, 0.3, 0.5, 0.7, 0.9])
def test_betti_numbers_against_homology(density: float) -> None:
    rng = np.random.default_rng(3)
    for _ in range(4):
        mask = rng.random((4, 4, 5)) < density
        assert betti_numbers(mask) == homology(mask)


def test_betti_errors() -> None:
    one, none = ring(), np.zeros((5, 9, 9), bool)
    cut = one.copy()
    cut[2, 2, 4] = False  # a ring that is cut is one piece without a tunnel
    assert betti_errors(cut, one) == betti_errors(one, cut) == (0, 1)
    assert betti_errors(none, one) == (1, 1)
    assert betti_errors(none, none) == betti_errors(one, one) == (0, 0)
    tube = boxed(slice(4, 6), slice(4, 6))
    gap = tube & ~boxed(slice(None), slice(None), slice(14, 15))
    assert betti_errors(gap, tube) == (1, 0)
    assert dice(gap, tube) > 0.98


def test_cldice_by_hand() -> None:
    line = boxed(slice(5, 6), slice(5, 6))
    half = boxed(slice(5, 6), slice(5, 6), slice(0, 15))
    assert cldice(line, line) == 1
    assert cldice(half, line) == cldice(line, half) == pytest.approx(2 * 0.5 / 1.5)  # shares of 1 and 0.5
    aside = boxed(slice(8, 9), slice(5, 6))
    assert cldice(aside, line) == 0
    # A tube of 3 x 3 has its skeleton on the line: thickness, which halves Dice, is no error.
    thick = boxed(slice(4, 7), slice(4, 7))
    assert cldice(thick, line) == 1
    assert dice(thick, line) == pytest.approx(2 / 10)
    # A branch of 12 and its thick stem of 30: missing the thin one costs by length, not by volume.
    thin = boxed(slice(6, 7), slice(7, 12), slice(10, 11))
    assert cldice(thick, thick | thin) < dice(thick, thick | thin)


@pytest.mark.parametrize("size", list(product((1, 2, 3, 4, 5, 6), (2, 4), (20, 21))))
def test_no_tube_is_lost_by_thinning(size: tuple[int, int, int]) -> None:
    """scikit-image alone thins a tube of 2 x 2 or 4 x 4 to nothing."""
    tube = boxed(*(slice(3, 3 + n) for n in size))
    assert cldice(tube, tube) == 1
    shorter = boxed(slice(3, 3 + size[0]), slice(3, 3 + size[1]), slice(3, 13))
    assert 0.5 < cldice(shorter, tube) < 0.85  # about half of the length: 2/3


def test_every_piece_has_a_say_in_cldice() -> None:
    rng = np.random.default_rng(0)
    for _ in range(20):
        mask = rng.random((10, 10, 10)) < 0.1
        piece, n = ndimage.label(mask, np.ones((3, 3, 3)))
        without = mask & (piece != rng.integers(1, n + 1))
        assert cldice(without, mask) < 1


def test_cldice_of_nothing() -> None:
    empty, voxel = boxed(slice(0, 0)), boxed(slice(0, 1), slice(0, 1), slice(0, 1))
    assert (cldice(empty, empty), cldice(voxel, empty), cldice(empty, voxel), cldice(voxel, voxel)) == (1, 0, 0, 1)


@pytest.mark.parametrize("score", [cldice, betti_errors])
def test_bad_masks(score) -> None:
    with pytest.raises(ValueError, match=r"\(3, 3, 3\) and \(3, 3, 4\)"):
        score(np.ones((3, 3, 3), bool), np.ones((3, 3, 4), bool))
    with pytest.raises(ValueError, match=r"truth.*float64"):
        score(np.ones((3, 3, 3), bool), np.full((3, 3, 3), 0.5))
    with pytest.raises(ValueError, match="3 axes"):
        betti_numbers(np.ones((3, 3), bool))
