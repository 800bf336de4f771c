"""A neurite of a phantom: a path with a radius and a brightness, and the voxels that it fills.

between(bend=...)  ~~~~~~~~~~~      beaded  --o--o--o--      broken  ---  ---  ---
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from einops import rearrange
from numpy.typing import NDArray
from scipy.spatial import cKDTree

__all__ = ["PhantomTube"]

STEP = 0.25  # world units between the points of a path
WAVE = 64.0  # world units, the wavelength of a bent tube
FINE = 3  # places along a world unit at which the light in a voxel is sampled


@dataclass(frozen=True, eq=False)
class PhantomTube:
    """A neurite of a phantom, in world units: the size of a voxel in y and x.

    Parameters
    ----------
    points
        (n, 3) path ``z y x`` in world units, points at most 0.25 apart. A single point is a ball: a soma.
    radius
        (n,) radius at each point, world units, > 0.
    brightness
        (n,) light at each point before the blur, >= 0. It is 0 in a gap.

    Raises
    ------
    ValueError
        Arrays of other shapes, a radius that is not positive, or a negative brightness.
    """

    points: NDArray[np.float64]
    radius: NDArray[np.float64]
    brightness: NDArray[np.float64]

    def __post_init__(self) -> None:
        for name in ("points", "radius", "brightness"):
            object.__setattr__(self, name, np.asarray(getattr(self, name), dtype=np.float64))
        n = len(self.radius) if self.radius.ndim == 1 else 0
        if n == 0 or self.points.shape != (n, 3) or self.brightness.shape != (n,):
            shapes = f"{self.points.shape}, {self.radius.shape} and {self.brightness.shape}"
            raise ValueError(f"points, radius and brightness must be (n, 3), (n,) and (n,), got {shapes}")
        if not (self.radius > 0).all():
            raise ValueError(f"radius must be positive, got {self.radius.min()}")
        if not (self.brightness >= 0).all():
            raise ValueError(f"brightness must be at least 0, got {self.brightness.min()}")

    @classmethod
    def ball(cls, centre: Sequence[float], *, radius: float, brightness: float = 1.0) -> PhantomTube:
        """Return a soma: a ball around a place ``(z, y, x)``, world units."""
        return cls(np.array([centre]), np.array([radius]), np.array([brightness]))

    @classmethod
    def between(
        cls,
        start: Sequence[float],
        end: Sequence[float],
        *,
        radius: float,
        brightness: float = 1.0,
        bend: float = np.inf,
        phase: float = 0.0,
    ) -> PhantomTube:
        """Draw a tube from one place to another.

        Parameters
        ----------
        start, end
            The two ends ``(z, y, x)``, world units. Their y or x must differ.
        radius, brightness
            The same at each point; see the class.
        bend
            Radius of curvature at the crests, world units: the tube is a sine wave of wavelength 64 that swings
            sideways, at right angles to z. The default is straight.
        phase
            Where the wave starts, radians.

        Returns
        -------
        PhantomTube
            A tube whose ends are those that were given, its points 0.25 apart along the path.

        Raises
        ------
        ValueError
            If the ends have the same y and x, or the bend is not positive.
        """
        start, end = np.asarray(start, dtype=np.float64), np.asarray(end, dtype=np.float64)
        way = end - start
        if not way[1:].any():
            raise ValueError(f"end must have another y or x than start, got {tuple(end)} and {tuple(start)}")
        if not bend > 0:
            raise ValueError(f"bend must be positive, got {bend}")
        length = np.linalg.norm(way)
        sideways = np.array([0.0, -way[2], way[1]]) / np.hypot(way[1], way[2])
        t = np.linspace(0, 1, 2 + int(8 * length / STEP))
        k = 2 * np.pi / WAVE
        # A sine of amplitude A has the curvature A k² at its crests. The second line puts its ends back to zero.
        wave = np.sin(k * length * t + phase) / (bend * k**2)
        wave -= (1 - t) * wave[0] + t * wave[-1]
        path = start + t[:, None] * way + wave[:, None] * sideways
        points = _evenly(path)
        return cls(points, np.full(len(points), radius), np.full(len(points), brightness))

    @property
    def distance(self) -> NDArray[np.float64]:
        """(n,) Path length from the first point to each point, world units."""
        return np.r_[0.0, np.cumsum(np.linalg.norm(np.diff(self.points, axis=0), axis=1))]

    def beaded(self, factor: float, *, every: float) -> PhantomTube:
        """Return the tube with a ball in every stretch of a length, ``factor`` times as thick as the tube."""
        away = self.distance % every - every / 2
        ball = np.sqrt(np.maximum((factor * self.radius) ** 2 - away**2, 0))
        return replace(self, radius=np.maximum(self.radius, ball))

    def broken(self, gap: float, *, every: float) -> PhantomTube:
        """Return the tube with a gap, a dark piece of length ``gap``, in every stretch of a length."""
        dark = np.abs(self.distance % every - every / 2) < gap / 2
        return replace(self, brightness=np.where(dark, 0.0, self.brightness))


def paint(
    light: NDArray[np.float64],
    mask: NDArray[np.bool_],
    gap: NDArray[np.bool_],
    tube: PhantomTube,
    spacing: tuple[float, float, float],
) -> None:
    """Add a tube to the mask or the gaps, and to the light by the share of each voxel that it fills.

    A place belongs to a tube if it is no further from the nearest point of the path than the radius there. The
    mask asks this of the voxels' centres; the light asks it of many places in each voxel that the surface may
    cross.
    """
    diagonal = np.linalg.norm(spacing) / 2
    reach = tube.radius.max() + diagonal
    low = np.maximum(np.floor((tube.points.min(axis=0) - reach) / spacing), 0).astype(int)
    high = np.minimum(np.ceil((tube.points.max(axis=0) + reach) / spacing) + 1, light.shape).astype(int)
    if (low >= high).any():
        return
    box = tuple(slice(a, b) for a, b in zip(low, high, strict=True))
    path = cKDTree(tube.points)
    voxels = rearrange(np.indices(high - low), "c z y x -> (z y x) c")
    depth, nearest = _depth(path, tube, (voxels + low) * spacing, reach)
    near = np.flatnonzero(depth > -diagonal)
    voxels, depth, bright = voxels[near], depth[near], tube.brightness[nearest[near]]

    share = (depth >= 0).astype(float)
    edge = depth <= diagonal
    count = (FINE * max(1, int(np.ceil(spacing[0]))), FINE, FINE)
    offsets = (rearrange(np.indices(count), "c z y x -> (z y x) c") + 0.5) / count - 0.5
    places = rearrange((voxels[edge] + low)[:, None] + offsets, "n place c -> (n place) c") * spacing
    # Each place stands for a small cube of edge 1 / FINE. What the surface leaves of it is taken to be linear.
    filled = np.clip(0.5 + FINE * _depth(path, tube, places, np.inf)[0], 0, 1)
    share[edge] = rearrange(filled, "(n place) -> n place", place=len(offsets)).mean(axis=1)

    index = tuple(voxels.T)
    light[box][index] = np.maximum(light[box][index], share * bright)
    for part, there in ((mask, bright > 0), (gap, bright == 0)):
        part[box][index] |= (depth >= 0) & there


def _depth(
    path: cKDTree, tube: PhantomTube, places: NDArray[np.float64], reach: float
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Return how deep in a tube places lie, negative outside, and which point of the path is the nearest.

    Places out of reach are infinitely far outside, and their nearest point is the last one.
    """
    distance, nearest = path.query(places, distance_upper_bound=reach + 1e-6)
    nearest = np.minimum(nearest, len(tube.points) - 1)
    return tube.radius[nearest] - distance, nearest


def _evenly(path: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return evenly spaced points on a path, at most `STEP` apart, both ends included."""
    length = np.r_[0.0, np.cumsum(np.linalg.norm(np.diff(path, axis=0), axis=1))]
    new = np.linspace(0, length[-1], 1 + int(np.ceil(length[-1] / STEP - 1e-9)))
    return np.stack([np.interp(new, length, column) for column in path.T], axis=1)
