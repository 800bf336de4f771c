"""Phantoms: small stacks of tubes whose right answer is known, to test what a segmenter finds.

    tubes, somata (PhantomTube) --> light --> blur --> + haze --> + noise --> uint16 volume
                                      |
                                      +--> mask and centreline, of the light before the blur

A simulated neuron tells how well a segmenter does; a phantom tells from which radius, brightness or noise on it
fails. So one thing is varied, and everything else stays as it is.
:func:`neurokd.evaluation.phantoms.phantom_scores` compares a segmenter's mask with a phantom, and
``benchmarks/phantoms.py`` draws the curves.

Tubes live in a world whose unit is the size of a voxel in y and x. Slices are ``z_step`` units apart, so a tube
that is round in the world is flat in the voxels of a stack with thick slices.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from neurokd.data.phantom_tube import STEP, PhantomTube, paint

__all__ = ["Phantom", "draw_phantom"]

FULL = 4000  # grey values of brightness 1
HAZE_CONTRAST, HAZE_SIZE = 0.3, 12.0  # log standard deviation of the haze, and its grain in world units


@dataclass(frozen=True, eq=False)
class Phantom:
    """A stack and all that is known of it.

    Parameters
    ----------
    volume
        (z, y, x) uint16.
    light
        (z, y, x) float32, the blurred light of the tubes alone; 1 is full brightness.
    mask
        (z, y, x) bool: voxels whose centre lies in a tube or that a centreline crosses.
    gap
        (z, y, x) bool: the same where tubes are dark. These voxels are not in the mask.
    soma
        (z, y, x) bool: the part of the mask that lies in a soma.
    centreline
        (n, 3) points ``z y x`` of all neurites, in voxels, 0.25 world units apart.
    tube
        (n,) which neurite a point of the centreline belongs to, from 0.
    lit
        (n,) False for points in a gap or inside a soma, where there is no neurite to find.
    spacing
        Voxel size ``(z_step, 1, 1)`` in world units.
    noise
        Standard deviation of the noise, in units of full brightness.
    """

    volume: NDArray[np.uint16]
    light: NDArray[np.float32]
    mask: NDArray[np.bool_]
    gap: NDArray[np.bool_]
    soma: NDArray[np.bool_]
    centreline: NDArray[np.float64]
    tube: NDArray[np.int64]
    lit: NDArray[np.bool_]
    spacing: tuple[float, float, float]
    noise: float

    @property
    def length(self) -> float:
        """Length of all centrelines where they are lit, world units."""
        return STEP * int(self.lit.sum())

    @property
    def voxels(self) -> NDArray[np.int64]:
        """(n, 3) the voxel that each point of the centreline lies in."""
        return np.rint(self.centreline).astype(int)


def draw_phantom(
    tubes: Sequence[PhantomTube],
    shape: Sequence[int],
    rng: np.random.Generator,
    *,
    z_step: float = 1.0,
    blur: float = 0.7,
    haze: float = 0.0,
    snr: float = 10.0,
) -> Phantom:
    """Image tubes.

    Parameters
    ----------
    tubes
        Neurites and somata; none for haze and noise alone. Where they overlap, the brightest one shows.
    shape
        (z, y, x) of the volume, voxels. All centrelines must lie in it.
    rng
        Source of all randomness: haze and noise.
    z_step
        Distance of the slices, world units.
    blur
        Standard deviation of the Gaussian blur, world units, the same in all directions.
    haze
        Median of the background, in units of full brightness. It varies smoothly by about 30 %.
    snr
        Signal-to-noise ratio of the dimmest neurite: the median of its light on the centreline, after the blur,
        over the standard deviation of the noise. Without neurites the signal is 1. ``inf`` gives no noise.

    Returns
    -------
    Phantom
        A volume that holds full brightness as 4,000 grey values, and its truth. The volume's offset is 6
        standard deviations of the noise, so that none of it is cut off. Without noise and haze the background
        is zero.

    Raises
    ------
    ValueError
        A shape that is not three sizes, a number out of its range, or a centreline that leaves the volume.
    """
    if len(shape) != 3 or min(shape) < 1:
        raise ValueError(f"shape must be three sizes >= 1 (z, y, x), got {tuple(shape)}")
    for name, value in (("z_step", z_step), ("snr", snr)):
        if not value > 0:
            raise ValueError(f"{name} must be positive, got {value}")
    for name, value in (("blur", blur), ("haze", haze)):
        if not value >= 0:
            raise ValueError(f"{name} must be at least 0, got {value}")
    spacing = (float(z_step), 1.0, 1.0)
    light = np.zeros(shape)
    mask, gap, soma = (np.zeros(shape, dtype=bool) for _ in range(3))
    for tube in tubes:
        paint(light, soma if len(tube.points) == 1 else mask, gap, tube, spacing)

    neurites = [tube for tube in tubes if len(tube.points) > 1]
    points = np.concatenate([np.empty((0, 3)), *(tube.points / spacing for tube in neurites)])
    number = np.repeat(np.arange(len(neurites)), [len(tube.points) for tube in neurites])
    bright = np.concatenate([np.empty(0), *(tube.brightness for tube in neurites)]) > 0
    voxels = np.rint(points).astype(int)
    if (voxels < 0).any() or (voxels >= shape).any():
        raise ValueError(f"centrelines must lie in the volume of shape {tuple(shape)}, got one that leaves it")
    for part, there in ((mask, bright), (gap, ~bright)):
        part[tuple(voxels[there].T)] = True  # a flat tube may pass between the centres of its voxels
    mask |= soma
    lit = bright & ~soma[tuple(voxels.T)]

    sigma = blur / np.array(spacing)
    light = gaussian_filter(light, sigma)
    on_line = light[tuple(voxels.T)]
    signals = [np.median(on_line[lit & (number == i)]) for i in np.unique(number[lit])]
    noise = float(min(signals, default=1.0) / snr)
    grey = light + rng.normal(0, noise, shape) + 6 * noise
    if haze:
        grey += haze * np.exp(HAZE_CONTRAST * _field(shape, HAZE_SIZE / np.array(spacing), rng))
    return Phantom(
        volume=np.rint(FULL * grey).clip(0, 65535).astype(np.uint16),
        light=light.astype(np.float32),
        mask=mask,
        gap=gap & ~mask,
        soma=soma,
        centreline=points,
        tube=number,
        lit=lit,
        spacing=spacing,
        noise=noise,
    )


def _field(shape: Sequence[int], sigma: NDArray[np.float64], rng: np.random.Generator) -> NDArray[np.float64]:
    """Return smooth noise of unit variance."""
    field = gaussian_filter(rng.normal(size=tuple(shape)), sigma)
    return field / field.std()
