"""Scenes: the same seed gives the same bytes, every neurite is foreground, and the camera does what it says."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy import ndimage

import neurokd as nkd
from neurokd.data.camera import smooth_noise
from neurokd.data.scene import _draw, _light

PLAIN = nkd.World(  # nothing but one neurite, flat background and the camera's noise
    isotropic=1.0,
    light_radius=0.0,
    label_spread=(0.0, 0.0),
    beads=(1e-6, 1e-6),
    gaps=(1e-6, 1e-6),
    hollow=0.0,
    blobs=(1e-6, 1e-6),
    distractors=0.0,
    blur=(0.3, 0.3),
    blur_z=(1.0, 1.0),
    glow=(0.0, 0.0),
    signal_to_noise=(8.0, 8.0),
    background=(0.2, 0.2),
    shading=(0.0, 0.0),
    cut=0.0,
    defects=0.0,
)


def rod(world: nkd.World, *, radius: float = 3.0, z_step: float = 1.0) -> nkd.Scene:
    """Return a straight neurite along x, in voxels of 1 µm and of `z_step` µm height."""
    shape, spacing = (32, 48, 64), (z_step, 1.0, 1.0)
    x = np.arange(2.0, 62.0)
    xyz = np.stack([x, np.full(60, 24.0), np.full(60, 16.0 * z_step)], axis=1)
    tree = nkd.Tree(xyz, np.full(60, radius), np.arange(-1, 59), np.full(60, 3))  # µm
    lit = _light(tree, shape, spacing, 1.0)
    voxels = np.flatnonzero(_draw(tree, shape, spacing, 1.0))
    return nkd.Scene("rod", shape, spacing, (tree,), voxels, world, (lit,))


def test_same_seed_same_bytes_and_looks_differ():
    one, two = (nkd.draw_scene(np.random.default_rng(3), shape=(24, 64, 64)) for _ in range(2))
    assert np.array_equal(one.voxels, two.voxels)
    first, again, other = (one.expose(np.random.default_rng(seed)) for seed in (5, 5, 6))
    assert first.volume.tobytes() == again.volume.tobytes()
    assert first.volume.shape == (24, 64, 64)
    assert first.volume.dtype in (np.uint8, np.uint16)
    assert not np.array_equal(first.volume, other.volume)


def test_every_neuron_of_a_scene_is_foreground():
    for seed in range(6):
        scene = nkd.draw_scene(np.random.default_rng(seed), shape=(32, 96, 96))
        mask = scene.mask
        for tree in scene.trees:
            at = np.rint(tree.zyx).astype(int)
            at = at[((at >= 0) & (at < scene.shape)).all(axis=1)]
            assert mask[tuple(at.T)].all()


def test_a_window_of_the_mask_is_the_mask_of_the_window():
    scene = nkd.draw_scene(np.random.default_rng(1), shape=(32, 96, 96), world=replace(nkd.World(), defects=0.0))
    window = (slice(5, 21), slice(10, 74), slice(32, 96))
    seen = scene.expose(np.random.default_rng(0), window)
    assert np.array_equal(seen.mask, scene.mask[window])
    assert seen.volume.shape == seen.known.shape == (16, 64, 64)
    assert seen.known[~seen.mask].all(), "only neurites can be too faint to know"


def test_signal_to_noise_is_what_was_drawn():
    seen = rod(PLAIN).expose(np.random.default_rng(2))
    inside = ndimage.binary_erosion(seen.mask, iterations=1)
    outside = ~ndimage.binary_dilation(seen.mask, iterations=4)
    volume = seen.volume.astype(float)
    most = volume.max()
    assert (volume[inside] < most).mean() > 0.5, "not saturated in this draw"
    height = np.median(volume[inside]) - np.median(volume[outside])
    # Shot noise is less in the background, read noise the same: between the drawn 8 and its background's share of it.
    assert 8 * 0.85 < height / volume[inside].std() < 8 * 1.35
    assert height / volume[outside].std() > 8 * 0.85


def test_faint_neurites_are_not_known_and_bright_ones_are():
    assert rod(PLAIN).expose(np.random.default_rng(0)).known.all()
    faint = rod(replace(PLAIN, signal_to_noise=(0.3, 0.3))).expose(np.random.default_rng(0))
    assert not faint.known[faint.mask].any()
    assert faint.known[~faint.mask].all()


@pytest.mark.parametrize("z_step", [1.0, 2.0, 4.0])
def test_neurites_are_round_in_micrometres(z_step):
    section = rod(PLAIN, z_step=z_step).mask[:, :, 30]
    expected = [(z, y) for z in range(32) for y in range(48) if ((z - 16) * z_step) ** 2 + (y - 24) ** 2 <= 9]
    assert sorted(map(tuple, np.argwhere(section).tolist())) == sorted(expected)


def test_drawn_sizes_lie_in_their_ranges():
    world = nkd.World(voxel=(0.2, 0.4), z_step=(2.0, 3.0), isotropic=0.0)
    for seed in range(10):
        scene = nkd.draw_scene(np.random.default_rng(seed), shape=(16, 48, 48), world=world)
        assert 0.2 <= scene.spacing[1] == scene.spacing[2] <= 0.4
        assert 2.0 <= scene.spacing[0] / scene.spacing[2] <= 3.0


def test_smooth_noise_has_unit_variance_and_its_grain():
    rng = np.random.default_rng(0)
    field = smooth_noise((48, 48, 48), rng, (4.0, 4.0, 4.0))
    assert field.std() == pytest.approx(1, abs=0.25)
    near = np.corrcoef(field[:, :, :-1].ravel(), field[:, :, 1:].ravel())[0, 1]
    far = np.corrcoef(field[:, :, :-20].ravel(), field[:, :, 20:].ravel())[0, 1]
    assert near > 0.9
    assert abs(far) < 0.3


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"radius": (3.0, 1.0)}, "radius must be two rising numbers"),
        ({"isotropic": 1.5}, "isotropic must be a share"),
        ({"neurons": 0}, "neurons must be at least 1"),
        ({"dimmest": -0.1}, "dimmest must not be negative"),
    ],
)
def test_worlds_out_of_range(settings, message):
    with pytest.raises(ValueError, match=message):
        nkd.World(**settings)


def test_a_small_shape_is_refused():
    with pytest.raises(ValueError, match="shape must be three sizes of at least 16"):
        nkd.draw_scene(np.random.default_rng(0), shape=(8, 64, 64))
