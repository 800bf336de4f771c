"""The camera of a drawn scene turns the light of neurites into a raw stack.

    light ─► + blobs, vessels, sheets ─► blur, glow ─► + background ─► shading ─► noise ─► defects ─► greys

Optics, background, detector and defects are drawn anew for each image. Only :class:`neurokd.data.scene.Scene`
calls this module. :func:`neurokd.data.microscope.render` is the calibrated fly microscope.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from einops import rearrange
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter, maximum_filter, uniform_filter
from torch.nn import functional as F

from neurokd.data.microscope import Microscope, add_blobs, add_vessels
from neurokd.data.volume import Spacing
from neurokd.data.world import World, log_uniform

__all__ = ["photograph", "smooth_noise"]

_FAINT = 0.7  # nobody can annotate a neurite fainter than this many standard deviations of the noise

Grey = NDArray[np.float32]
Mask = NDArray[np.bool_]


def photograph(
    light: Grey,
    mask: Mask,
    rng: np.random.Generator,
    microscope: Microscope,
    spacing: Spacing,
    world: World,
) -> tuple[Mask, NDArray[Any], Mask]:
    """Image the light of neurites.

    Parameters
    ----------
    light
        Light (z, y, x) of the neurites before the blur; the brightest neurite is about 1.
    mask
        Neurite voxels (z, y, x).
    rng
        Source of all randomness.
    microscope
        Optics, blobs and vessels.
    spacing
        Voxel size (z, y, x), µm.
    world
        Ranges from which background, camera and defects are drawn.

    Returns
    -------
    tuple
        The mask (moved with shifted slices), raw grey values (uint8 or uint16) and the known voxels.
    """
    unit, lateral = np.array(spacing), spacing[2]
    sigma = np.array(microscope.psf_sigma) / unit
    everywhere = np.ones(light.shape, dtype=bool)
    neurites = gaussian_filter(light, sigma, truncate=3.0)
    # Bright neurites define the unit of light: background and noise below are fractions of `top`.
    top = max(float(np.quantile(neurites[mask], 0.9)), 0.1) if mask.any() else 1.0
    others = np.zeros_like(light)
    add_blobs(others, everywhere, rng, microscope, unit)
    if microscope.vessels:
        add_vessels(others, everywhere, rng, microscope, unit)
    if rng.random() < world.distractors:
        others += _sheet(light.shape, rng, unit / lateral)
    others = log_uniform(rng, (0.1, 1.5)) * gaussian_filter(others, sigma, truncate=3.0)
    # Expected light = what is in focus + what is out of focus + background, all under uneven illumination.
    seen = (neurites + others) / top
    glow = microscope.glow * _blurred(seen, microscope.glow_sigma / unit)
    level = log_uniform(rng, world.background)
    dark = level * _texture(light.shape, rng, unit / lateral)
    expected = np.maximum(seen + glow + dark, 0.0)
    if rng.random() < 0.5:
        expected *= np.exp(rng.uniform(*world.shading) * smooth_noise(light.shape, rng, 30 * lateral / unit))
    noise = 1 / log_uniform(rng, world.signal_to_noise)  # standard deviation on the brightest neurite
    volume = _detected(expected, noise, level, rng)
    # A neurite that the noise hides is no background either, so it is unknown.
    known = ~mask | (neurites / top > _FAINT * noise)
    volume, mask, known = _defects(volume, mask, known, rng, world)
    volume, hidden = _cut(volume, mask, rng, world, unit / lateral)
    return mask, _grey_values(volume, hidden, rng), known & ~(mask & hidden)


def smooth_noise(shape: Sequence[int], rng: np.random.Generator, sigma: Sequence[float] | NDArray) -> Grey:
    """Draw Gaussian noise of unit variance, blurred by `sigma` voxels (z, y, x)."""
    # A blurred field needs no finer grid than half a sigma, so it is drawn coarsely and enlarged.
    step = np.maximum(np.asarray(sigma) / 2, 1.0)
    coarse = rng.standard_normal(np.ceil(np.array(shape) / step).astype(int) + 2, dtype=np.float32)
    coarse = gaussian_filter(coarse, np.asarray(sigma) / step, mode="wrap")
    return _enlarged(coarse / max(float(coarse.std()), 1e-6), shape)


def _enlarged(coarse: Grey, shape: Sequence[int]) -> Grey:
    """Enlarge a field to `shape` by trilinear interpolation."""
    field = rearrange(torch.from_numpy(np.ascontiguousarray(coarse)), "z y x -> 1 1 z y x")
    return F.interpolate(field, size=tuple(shape), mode="trilinear", align_corners=False)[0, 0].numpy()


def _blurred(volume: Grey, sigma: NDArray[np.float64]) -> Grey:
    """Blur by a large `sigma` (voxels), on a grid of about half a sigma to save time."""
    step = [int(max(1, min(s // 2, n // 4))) for s, n in zip(sigma, volume.shape, strict=True)]
    field = rearrange(torch.from_numpy(volume), "z y x -> 1 1 z y x")
    coarse = F.avg_pool3d(field, step, ceil_mode=True, count_include_pad=False)[0, 0].numpy()
    return _enlarged(gaussian_filter(coarse, sigma / step, truncate=2.5), volume.shape)


def _texture(shape: Sequence[int], rng: np.random.Generator, unit: NDArray[np.float64]) -> Grey:
    """Draw a background with a mean of about 1: flat, cloudy, or regions with edges between them."""
    kind = rng.random()
    if kind < 0.3:
        return np.ones(shape, dtype=np.float32)
    if kind < 0.75:
        sizes = [s for s in (2, 5, 12, 30) if rng.random() < 0.6] or [8]
        cloud = np.zeros(shape, dtype=np.float32)
        for s in sizes:  # noise of several grain sizes
            cloud += rng.uniform(0.1, 1) * s**0.3 * smooth_noise(shape, rng, s / unit)
        return np.exp(rng.uniform(0.05, 0.6) * cloud / max(float(cloud.std()), 1e-6)).astype(np.float32)
    field = smooth_noise(shape, rng, log_uniform(rng, (6.0, 25.0)) / unit)
    regions = np.where(field > rng.normal(), 1.0, rng.uniform(0.1, 0.8)).astype(np.float32)
    return gaussian_filter(regions, 1.0 / unit)


def _sheet(shape: Sequence[int], rng: np.random.Generator, unit: NDArray[np.float64]) -> Grey:
    """Draw a bright membrane: the places where a smooth field passes through a level."""
    field = smooth_noise(shape, rng, log_uniform(rng, (15.0, 40.0)) / unit)
    return np.exp(-((field - rng.normal()) ** 2) / (2 * rng.uniform(0.03, 0.12) ** 2)).astype(np.float32)


def _detected(expected: Grey, noise: float, level: float, rng: np.random.Generator) -> Grey:
    """Add shot and read noise whose standard deviation is `noise` where a neurite of brightness 1 lies."""
    share = rng.uniform(0.1, 1.0)  # share of the variance that is shot noise
    # The variance of shot noise at light 1 + level is (1 + level) / photons; it must be share * noise**2.
    photons = (1 + level) / (share * noise**2)
    volume = rng.poisson(expected * photons).astype(np.float32) / photons
    volume += rng.standard_normal(volume.shape, dtype=np.float32) * noise * np.sqrt(1 - share)
    if rng.random() < 0.25:  # many people save stacks that were denoised
        volume = gaussian_filter(volume, rng.uniform(0.3, 0.9))
    return volume


def _defects(
    volume: Grey,
    mask: Mask,
    known: Mask,
    rng: np.random.Generator,
    world: World,
) -> tuple[Grey, Mask, Mask]:
    """Lose, double, shift and stripe slices, and add hot and dead voxels."""
    bad = rng.random(5) < world.defects
    slices = len(volume)
    if bad[0]:  # lost slices: dark, or copies of the slice before
        lost = rng.integers(1, slices, size=rng.integers(1, 4))
        volume[lost] = volume[lost - 1] if rng.random() < 0.5 else volume.min()
    if bad[1]:  # shifted slices: the mask moves along, because neurites lie where they are seen
        for z in rng.integers(0, slices, size=rng.integers(1, 5)):
            shift = tuple(rng.integers(-3, 4, size=2))
            for array in (volume, mask, known):
                array[z] = np.roll(array[z], shift, axis=(0, 1))
    if bad[2]:  # slices and rows differ in brightness
        volume *= rng.lognormal(0.0, 0.1, (slices, 1, 1)).astype(np.float32)
    if bad[3]:
        volume *= rng.lognormal(0.0, 0.08, (1, volume.shape[1], 1)).astype(np.float32)
    if bad[4] or rng.random() < world.defects:  # dead and hot voxels
        n = int(volume.size * log_uniform(rng, (1e-6, 5e-4))) + 1
        values = rng.choice([volume.min(), 3 * volume.max()], size=n)
        volume.ravel()[rng.integers(volume.size, size=n)] = values
    return volume, mask, known


def _cut(
    volume: Grey, mask: Mask, rng: np.random.Generator, world: World, unit: NDArray[np.float64]
) -> tuple[Grey, Mask]:
    """Cut off dark voxels, voxels outside boxes around the neurites, both or nothing.

    Returns the volume with -inf where it was cut off, and the dark voxels with almost nothing left around
    them.
    """
    removed = np.zeros(volume.shape, dtype=bool)
    if rng.random() < world.cut:
        level = np.quantile(volume, rng.uniform(0.3, 0.98)) if mask.any() else np.median(volume)
        removed |= volume < level
    hidden = removed & (uniform_filter((~removed).astype(np.float32), 5) < 0.02)
    if mask.any() and rng.random() < world.cut:
        # Boxes are unions of blocks: mark the blocks with a neurite, then their neighbours.
        margin = np.maximum(1, np.rint(log_uniform(rng, (3.0, 20.0)) / unit)).astype(int)
        block = np.maximum(1, margin // 2)
        coarse = np.zeros(-(-np.array(mask.shape) // block), dtype=bool)
        coarse[tuple((np.argwhere(mask) // block).T)] = True
        boxes = maximum_filter(coarse, size=5, mode="constant")
        for axis in range(3):
            boxes = boxes.repeat(block[axis], axis=axis)  # blocks to voxels
        removed |= ~boxes[tuple(slice(size) for size in mask.shape)]
    return np.where(removed, -np.inf, volume), hidden


def _grey_values(volume: Grey, hidden: Mask, rng: np.random.Generator) -> NDArray[Any]:
    """Quantise to 8, 12 or 16 bits; some stacks have an offset or saturate. What was cut off becomes 0."""
    cut = np.isneginf(volume)
    left = volume[~cut] if not cut.all() else np.zeros(1, dtype=np.float32)
    low, high = float(left.min()), float(left.max())
    if rng.random() < 0.4:  # an offset, so that the darkest voxel is not 0
        low -= rng.uniform(0, 0.5) * (high - low)
    if rng.random() < 0.35:
        high = float(np.quantile(left, 1 - log_uniform(rng, (1e-4, 2e-2))))
    most = int(rng.choice([255, 4095, 65535], p=[0.6, 0.2, 0.2]))
    scaled = np.clip((volume - low) / max(high - low, 1e-6), 0, 1)
    grey = np.rint(np.where(cut, 0, most * log_uniform(rng, (0.2, 1.0)) * scaled))
    return grey.astype(np.uint8 if most == 255 else np.uint16)
