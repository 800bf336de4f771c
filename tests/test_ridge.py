"""The curvatures of the brightness, against scipy, scikit-image and shapes whose curvatures are known."""

import numpy as np
import pytest
import torch
from scipy import ndimage
from skimage import filters

from neurokd.models.config import SegmenterConfig
from neurokd.models.ridge import HessianRidges, _symmetric_eigenvalues
from neurokd.models.segmenter import NeuronSegmenter
from neurokd.models.vit import ViTConfig


def ridges(volume, sigma):
    """Curvatures (3, z, y, x) without gain, largest first."""
    volume = torch.as_tensor(volume, dtype=torch.float32)[None, None]
    return HessianRidges([sigma])(volume)[0, 1:].numpy() / HessianRidges.GAIN


@pytest.mark.parametrize("sigma", [0.8, 1.0, 2.5])
def test_eigenvalues_of_scipys_derivatives(sigma):
    volume = np.random.default_rng(0).random((14, 18, 16))
    matrix = np.empty((*volume.shape, 3, 3))
    for i in range(3):
        for j in range(3):
            order = [(axis == i) + (axis == j) for axis in range(3)]
            matrix[..., i, j] = sigma**2 * ndimage.gaussian_filter(
                volume, sigma, order=order, mode="nearest", radius=round(4 * sigma)
            )
    expected = -np.moveaxis(np.linalg.eigvalsh(matrix), -1, 0)
    np.testing.assert_allclose(ridges(volume, sigma), expected, atol=2e-5)


def test_the_filter_of_sato_is_the_geometric_mean_of_the_two_largest():
    """scikit-image takes the first Gaussian derivative twice, at a sigma smaller by the root of 2."""
    volume = ndimage.gaussian_filter(np.random.default_rng(1).random((24, 32, 32)), 1.5)
    theirs = filters.sato(volume, sigmas=[2.0], black_ridges=False)[8:-8, 8:-8, 8:-8]
    ours = np.sqrt(np.maximum(ridges(volume, 2.0)[:2], 0).prod(axis=0))[8:-8, 8:-8, 8:-8]
    assert np.corrcoef(ours.ravel(), theirs.ravel())[0, 1] > 0.999


def test_tube_sheet_and_blob_are_told_apart_however_they_are_turned():
    z, y, x = np.indices((41, 41, 41)) - 20.0
    along = np.array([1.0, 2.0, 2.0]) / 3
    distance = z * along[0] + y * along[1] + x * along[2]
    radius = np.sqrt(np.maximum(z**2 + y**2 + x**2 - distance**2, 0))
    # A Gaussian of width s blurred by σ keeps s² / (s² + σ²) of its height in each direction that it is blurred in,
    # and has curvature height / (s² + σ²): here s = 1.5, σ = 2.
    kept, curvature = 1.5**2 / (1.5**2 + 2**2), 2**2 / (1.5**2 + 2**2)
    shapes = {"tube": radius, "sheet": distance, "blob": np.sqrt(radius**2 + distance**2)}
    ways = {"tube": 2, "sheet": 1, "blob": 3}
    for name, r in shapes.items():
        found = ridges(np.exp(-(r**2) / (2 * 1.5**2)), 2.0)[:, 20, 20, 20]
        height = kept ** (ways[name] / 2)
        np.testing.assert_allclose(found, [height * curvature] * ways[name] + [0] * (3 - ways[name]), atol=2e-3)


def test_eigenvalues_where_all_are_equal_or_nothing_is_there():
    zero, one = torch.zeros(2), torch.tensor([0.0, 3.0])
    for value in _symmetric_eigenvalues(one, zero, zero, one, zero, one):
        torch.testing.assert_close(value, one)
    faint = torch.tensor([1e-24, 3e-23])  # their squares are no numbers in float32
    for value in _symmetric_eigenvalues(faint, -faint, zero, 2 * faint, faint, zero):
        assert value.abs().max() < 1e-18


def test_an_even_volume_has_no_curvature_at_the_smallest_scale():
    assert np.abs(ridges(np.ones((6, 7, 8)), 0.7)).max() < 0.01


def test_half_precision_outside_does_not_reach_the_curvatures():
    volume = torch.rand(1, 1, 8, 12, 12)
    filter = HessianRidges([1.0])
    with torch.autocast("cpu", torch.bfloat16):
        inside = filter(volume)
    assert torch.equal(inside, filter(volume))
    assert torch.equal(inside[:, :1], volume)
    assert torch.equal(HessianRidges([])(volume), volume)
    assert filter(volume.bfloat16()).dtype == torch.bfloat16


def test_a_student_sees_them_and_is_saved_with_them(tmp_path):
    generator = torch.Generator().manual_seed(0)
    options = {"dim": 32, "depth": 2, "heads": 2, "window": (8, 32, 32), "width": 8}
    model = NeuronSegmenter.from_scratch(**options, ridges=(1, 2.0), generator=generator).eval()
    assert model.decoder.ridges.channels == 7
    volume = torch.rand(1, 1, 8, 32, 32)
    with torch.no_grad():
        before = model(volume)
        loaded = NeuronSegmenter.from_pretrained(model.save_pretrained(tmp_path / "model"))
        assert loaded.config == model.config
        assert torch.equal(loaded(volume), before)
        model.decoder.down[0][0][0].weight[:, 1:] = 0.0
        assert (model(volume) - before).abs().max() > 1e-3


def test_ridges_that_cannot_be_are_refused():
    with pytest.raises(ValueError, match=r"sigmas .*0\.2"):
        HessianRidges([1.0, 0.2])
    vit = ViTConfig(dim=32, depth=2, heads=2, hidden=64, patch=(8, 8), grid=(4, 4))
    with pytest.raises(ValueError, match=r"ridges .*1\.0"):
        SegmenterConfig(vit=vit, token=(4, 8, 8), window=(8, 32, 32), blocks=(1,), decoder="plain", ridges=(1.0,))
