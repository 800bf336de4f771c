"""The phantoms of the bench: what is varied in each sweep, and what is asked of a released model.

Every phantom is 32 x 128 x 128 voxels. Unless a sweep varies it, a tube has radius 1.5, bends gently (radius of
curvature 64) and crosses some slices. Lengths are in voxels of y and x. There are two kinds of stack, as in the
archives: clean ones, whose background is exactly zero, and noisy ones, whose signal is the lowest that is asked for.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from zlib import crc32

import numpy as np

from neurokd import Phantom, PhantomTube, draw_phantom

SHAPE = (32, 128, 128)
MIDDLE, EDGE = (SHAPE[0] - 1) / 2, 8.0  # the middle slice; from a tube's ends to the faces
CLEAN, NOISY = np.inf, 3.0  # signal to noise
SEED = 0

ASKED = {"found": (0.98, None), "thickness": (0.75, 1.25), "invented": (None, 0.01)}
"""What a released model should reach: at least, at most. ``found`` is asked only where a sweep says so."""


@dataclass(frozen=True)
class Sweep:
    """One thing that is varied.

    Parameters
    ----------
    name
        Key of the results.
    axis
        Label of the figure's axis.
    values
        What is tried.
    make
        Draws a phantom from a value and a random generator.
    asked
        Lowest and highest value at which :data:`ASKED` holds; None for all values.
    asks_found
        Whether the share of the centreline is asked for there.
    repeats
        Phantoms for each value, with other places, bends and noise.
    quick
        Values of the short form.
    scored
        Tubes that are scored; None for all.
    log
        Whether the figure's axis is logarithmic.
    """

    name: str
    axis: str
    values: tuple[float, ...]
    make: Callable[[float, np.random.Generator], Phantom]
    asked: tuple[float, float] | None = None
    asks_found: bool = False
    repeats: int = 1
    quick: tuple[float, ...] = ()
    scored: tuple[int, ...] | None = None
    log: bool = False

    def is_asked(self, value: float) -> bool:
        """Return whether something is asked at a value."""
        return self.asked is None or self.asked[0] <= value <= self.asked[1]


def generator(sweep: str, value: float | str, repeat: int) -> np.random.Generator:
    """Return the source of a phantom's randomness: the same whatever else is run."""
    return np.random.default_rng([SEED, crc32(sweep.encode()), crc32(str(value).encode()), repeat])


def across(
    rng: np.random.Generator,
    *,
    y: float = 63.5,
    z: float = MIDDLE,
    radius: float = 1.5,
    brightness: float = 1.0,
    bend: float = 64.0,
    rise: float = 4.0,
    drift: float = 8.0,
    z_step: float = 1.0,
) -> PhantomTube:
    """Draw a tube from left to right; it climbs 2 ``rise`` slices, and up to 2 ``drift`` voxels sideways."""
    edge = max(EDGE, radius + 4)
    rise = min(rise, z - radius / z_step - 1) * rng.choice([-1, 1])
    z, y = z + rng.uniform(-0.5, 0.5), y + rng.uniform(-0.5, 0.5)
    drift = rng.uniform(-drift, drift)
    ends = np.array([[z - rise, y - drift, edge], [z + rise, y + drift, SHAPE[2] - 1 - edge]]) * (z_step, 1, 1)
    phase = rng.uniform(0, 2 * np.pi)
    return PhantomTube.between(*ends, radius=radius, brightness=brightness, bend=bend, phase=phase)


def alone(rng: np.random.Generator, *, haze: float = 0.0, snr: float = CLEAN, **options: float) -> Phantom:
    """Draw a phantom of one tube."""
    z_step = options.get("z_step", 1.0)
    return draw_phantom([across(rng, **options)], SHAPE, rng, z_step=z_step, haze=haze, snr=snr)


def beside(brightness: float, rng: np.random.Generator, *, snr: float = CLEAN) -> Phantom:
    """Draw a tube, and 48 voxels from it one of brightness 1, which is not scored. The noise suits the dim one."""
    tubes = [across(rng, y=39.5, drift=2, brightness=brightness), across(rng, y=87.5, drift=2)]
    return draw_phantom(tubes, SHAPE, rng, snr=snr)


def several(number: float, rng: np.random.Generator, *, snr: float = CLEAN) -> Phantom:
    """Draw equal tubes on a grid of rows and columns, side by side."""
    rows, columns = {1: (1, 1), 2: (1, 2), 4: (1, 4), 8: (2, 4), 16: (4, 4), 32: (4, 8)}[int(number)]
    heights = (np.arange(rows) + 0.5) * SHAPE[0] / rows - 0.5
    places = (np.arange(columns) + 0.5) * SHAPE[1] / columns - 0.5
    tubes = [across(rng, z=z, y=y, rise=1, drift=1) for z in heights for y in places]
    return draw_phantom(tubes, SHAPE, rng, snr=snr)


def beaded(factor: float, rng: np.random.Generator) -> Phantom:
    """Draw a thin tube with beads."""
    return draw_phantom([across(rng, radius=1.0).beaded(factor, every=14)], SHAPE, rng, snr=CLEAN)


def broken(gap: float, rng: np.random.Generator) -> Phantom:
    """Draw a tube with gaps; what is found in them is neither right nor wrong."""
    return draw_phantom([across(rng).broken(gap, every=24)], SHAPE, rng, snr=CLEAN)


def crossing(degrees: float, rng: np.random.Generator) -> Phantom:
    """Draw two straight tubes that touch in the middle, one above the other."""
    tubes, turn = [], np.deg2rad(rng.uniform(0, 90))
    for z, angle in ((MIDDLE - 1.5, turn), (MIDDLE + 1.5, turn + np.deg2rad(degrees))):
        half = 55 * np.array([0.0, np.sin(angle), np.cos(angle)])
        centre = np.array([z, 63.5, 63.5])
        tubes.append(PhantomTube.between(centre - half, centre + half, radius=1.5))
    return draw_phantom(tubes, SHAPE, rng, snr=CLEAN)


def soma(radius: float, rng: np.random.Generator) -> Phantom:
    """Draw a bright ball with four dimmer neurites (0.3)."""
    centre = np.array([MIDDLE, 63.5, 63.5]) + rng.uniform(-0.5, 0.5, 3)
    tubes, turn = [PhantomTube.ball(centre, radius=radius)], rng.uniform(0, 90)
    for degrees in turn + 90 * np.arange(4):
        direction = np.array([0.0, np.sin(np.deg2rad(degrees)), np.cos(np.deg2rad(degrees))])
        end = centre + 54 * direction + (rng.uniform(-6, 6), 0, 0)
        start = centre + (radius - 2) * direction
        tubes.append(PhantomTube.between(start, end, radius=1.5, brightness=0.3, bend=64.0))
    return draw_phantom(tubes, SHAPE, rng, snr=CLEAN)


SWEEPS = (
    Sweep(
        name="radius",
        axis="radius (voxels)",
        values=(0.7, 1, 1.5, 2, 3, 4, 5.5, 8),
        make=lambda v, rng: alone(rng, radius=v),
        asks_found=True,
        repeats=2,
        quick=(0.7, 2, 4, 8),
        log=True,
    ),
    Sweep(
        name="radius, noisy",
        axis="radius (voxels), signal to noise 3",
        values=(0.7, 1.5, 3, 8),
        make=lambda v, rng: alone(rng, radius=v, snr=NOISY),
        asks_found=True,
        repeats=2,
        log=True,
    ),
    Sweep(
        name="brightness",
        axis="brightness beside a tube of 1",
        values=(0.03, 0.05, 0.1, 0.2, 0.4, 0.7, 1),
        make=beside,
        asks_found=True,
        quick=(0.1, 0.4, 1),
        scored=(0,),
        log=True,
    ),
    Sweep(
        name="brightness, noisy",
        axis="brightness beside a tube of 1, signal to noise 3",
        values=(0.03, 0.1, 0.3, 1),
        make=lambda v, rng: beside(v, rng, snr=NOISY),
        asks_found=True,
        repeats=2,
        scored=(0,),
        log=True,
    ),
    Sweep(
        name="number",
        axis="equal tubes in the stack",
        values=(1, 2, 4, 8, 16, 32),
        make=several,
        asks_found=True,
        quick=(1, 16),
        log=True,
    ),
    Sweep(
        name="number, noisy",
        axis="equal tubes in the stack, signal to noise 3",
        values=(1, 8, 32),
        make=lambda v, rng: several(v, rng, snr=NOISY),
        asks_found=True,
        repeats=2,
        log=True,
    ),
    Sweep(
        name="z step",
        axis="z step (voxels of y and x)",
        values=(1, 2, 3, 4, 5, 6),
        make=lambda v, rng: alone(rng, radius=2.0, z_step=v),
        asked=(1, 5),
        asks_found=True,
    ),
    Sweep(
        name="z step, noisy",
        axis="z step (voxels of y and x), signal to noise 3",
        values=(1, 3, 5),
        make=lambda v, rng: alone(rng, radius=2.0, z_step=v, snr=NOISY),
        asked=(1, 5),
        asks_found=True,
        repeats=2,
    ),
    Sweep(
        name="signal to noise",
        axis="signal to noise",
        values=(1.5, 2, 3, 5, 10, 30),
        make=lambda v, rng: alone(rng, snr=v),
        asked=(3, 30),
        asks_found=True,
        repeats=2,
        quick=(3,),
        log=True,
    ),
    Sweep(
        name="haze",
        axis="haze (the tube's brightness: 1), signal to noise 30",
        values=(0, 0.05, 0.1, 0.2, 0.5),
        make=lambda v, rng: alone(rng, haze=v, snr=30),
    ),
    Sweep(
        name="bend",
        axis="radius of curvature (voxels; 1000: straight)",
        values=(8, 16, 32, 1000),
        make=lambda v, rng: alone(rng, bend=v),
        log=True,
    ),
    Sweep(name="beads", axis="bead over shaft (radius)", values=(1, 1.5, 2, 3), make=beaded),
    Sweep(name="gaps", axis="length of gaps (voxels)", values=(2, 4, 6, 8), make=broken),
    Sweep(name="crossing", axis="angle of crossing (degrees)", values=(15, 30, 60, 90), make=crossing),
    Sweep(name="soma", axis="radius of the soma (voxels)", values=(8, 12, 16), make=soma),
)


def zeros(rng: np.random.Generator) -> np.ndarray:
    """Draw a stack of zeros."""
    return np.zeros(SHAPE, dtype=np.uint16)


def constant(rng: np.random.Generator) -> np.ndarray:
    """Draw a stack of one grey value."""
    return np.full(SHAPE, 100, dtype=np.uint16)


def noise(rng: np.random.Generator) -> np.ndarray:
    """Draw a stack of Gaussian noise on the camera's offset."""
    return draw_phantom([], SHAPE, rng).volume


def specks(rng: np.random.Generator) -> np.ndarray:
    """Draw a stack of zeros with two bright voxels."""
    volume = np.zeros(SHAPE, dtype=np.uint8)
    volume.ravel()[rng.choice(volume.size, 2, replace=False)] = 255
    return volume


NOTHING = {"zeros": (zeros, 1), "constant": (constant, 1), "noise": (noise, 3), "specks": (specks, 3)}
"""Stacks in which nothing is to be found, and how many of each; asked is not one voxel."""
