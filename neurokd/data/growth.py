"""A growth model of fly neurons. Training on them needs no files, and the truth is known exactly.

A fly neuron has one thin primary neurite. The soma sits at its end, a tract runs from there through the
brain, and one or more arbors of fine branches leave the tract.

    soma o-----.
                `----------<  arbor  >-------<< arbor >>
                   tract

Arbors grow as in Cuntz et al. 2010 (doi:10.1371/journal.pcbi.1000877). Target points fill a cloud. Each point
is joined to the tree where the new cable plus a share of the path back to the soma is shortest. Here the
points come one after the other in random order, so the first branches are the long ones. The defaults are
calibrated on the gold reconstructions of the Janelia FlyLight neurons of BigNeuron's gold166;
tests/test_simulate.py lists their quartiles.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter1d

from neurokd.data.tree import Tree
from neurokd.data.world import World, log_uniform

__all__ = ["VOXEL", "Growth", "grow_neuron"]

VOXEL = 0.38  # µm, the isotropic voxel in which neurons are grown

_SOMA, _NEURITE = 1, 3  # SWC types


@dataclass(frozen=True)
class Growth:
    """Shape of grown neurons: lengths in voxels of 0.38 µm, spreads as log standard deviations.

    Parameters
    ----------
    tips, tips_spread
        Median number of tips and its spread between neurons.
    tract, tract_spread
        Median path length of the tract from the soma to the furthest arbor, and its spread.
    bare
        Share of the tract next to the soma that carries no branches, in [0, 1).
    arbors
        Mean number of arbors beyond the first one (Poisson).
    reach, reach_spread
        Radius of the cloud of a one-tip arbor and its spread. The cloud's volume is proportional to its tips.
    elongation
        Largest ratio of an arbor's length along the tract to its width.
    balance
        Weight of the path to the soma, relative to new cable, when a branch is attached, in [0, 1].
    wiggle, wiggle_spread
        Sideways slope of a neurite's path, and its spread; 0 is straight.
    radius, radius_spread
        Median radius of a terminal branch and its spread.
    thickening
        A branch that carries n tips is n**thickening times as thick as a terminal one.
    soma_radius
        Smallest and largest radius of the soma.
    anisotropy
        Preference of the tract's direction for x, y and z (factors on its components).

    Raises
    ------
    ValueError
        If a value is outside its range.
    """

    tips: float = 48.0
    tips_spread: float = 0.72
    tract: float = 213.0
    tract_spread: float = 0.3
    bare: float = 0.3
    arbors: float = 1.5
    reach: float = 16.8
    reach_spread: float = 0.15
    elongation: float = 4.0
    balance: float = 0.15
    wiggle: float = 0.445
    wiggle_spread: float = 0.07
    radius: float = 1.05
    radius_spread: float = 0.06
    thickening: float = 0.06
    soma_radius: tuple[float, float] = (4.5, 7.0)
    anisotropy: tuple[float, float, float] = (1.0, 1.45, 0.72)

    def __post_init__(self) -> None:
        for name in ("tips", "tract", "elongation"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        for name in ("reach", "radius"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} must be positive, got {getattr(self, name)}")
        if not 0 <= self.bare < 1:
            raise ValueError(f"bare must be in [0, 1), got {self.bare}")
        if not 0 <= self.balance <= 1:
            raise ValueError(f"balance must be in [0, 1], got {self.balance}")

    @classmethod
    def draw(cls, rng: np.random.Generator, world: World = World()) -> Growth:
        """Draw settings of one neuron: few or many tips, straight or winding, with a thick or thin trunk.

        Parameters
        ----------
        rng
            Source of all randomness.
        world
            Ranges; only ``thickening`` is used here, because lengths and radii depend on the volume.

        Returns
        -------
        Growth
            Settings with terminal branches of radius 1.
        """
        return cls(
            tips=log_uniform(rng, (2.0, 80.0)),
            tract=log_uniform(rng, (30.0, 300.0)),
            bare=rng.uniform(0.0, 0.5),
            arbors=rng.uniform(0.3, 3.0),
            reach=log_uniform(rng, (10.0, 30.0)),
            wiggle=log_uniform(rng, (0.08, 0.8)),
            radius=1.0,
            radius_spread=0.1,
            thickening=rng.uniform(*world.thickening),
        )


def grow_neuron(rng: np.random.Generator, growth: Growth = Growth()) -> Tree:
    """Grow one neuron.

    Parameters
    ----------
    rng
        Source of all randomness.
    growth
        Parameters of the growth model.

    Returns
    -------
    Tree
        Tree with the soma as root and nodes about one voxel of 0.38 µm apart. The soma is the origin, so
        coordinates have both signs. Translate the tree before you draw it.
    """
    wiggle = growth.wiggle * rng.lognormal(0.0, growth.wiggle_spread)
    tips = max(2, round(growth.tips * rng.lognormal(0.0, growth.tips_spread)))
    tract = _tract(rng, growth, 0.6 * wiggle)  # tracts run straighter than twigs
    sprout = _Sprout(tract, bare=growth.bare)
    targets = _targets(rng, growth, tract, tips)
    while sprout.tips < tips:
        sprout.reach_for(next(targets), rng, wiggle=wiggle, balance=growth.balance)
    xyz, parent = sprout.xyz, sprout.parent
    terminal = growth.radius * rng.lognormal(0.0, growth.radius_spread)
    radius = terminal * _tips_carried(parent) ** growth.thickening
    radius[0] = rng.uniform(*growth.soma_radius)
    kind = np.full(len(parent), _NEURITE)
    kind[0] = _SOMA
    return Tree(xyz=xyz, radius=radius, parent=parent, type=kind)


class _Sprout:
    """A growing tree: its nodes, and the rule that attaches a branch."""

    def __init__(self, tract: NDArray[np.float64], *, bare: float) -> None:
        self.xyz = tract
        self.parent = np.arange(len(tract)) - 1
        self.path = np.r_[0.0, np.linalg.norm(np.diff(tract, axis=0), axis=1).cumsum()]
        self.children = np.r_[np.ones(len(tract) - 1, int), 0]
        self.first = max(1, int(bare * len(tract)))  # nodes before this one stay bare

    @property
    def tips(self) -> int:
        return int((self.children == 0).sum())

    def reach_for(
        self, target: NDArray[np.float64], rng: np.random.Generator, *, wiggle: float, balance: float
    ) -> None:
        """Grow a branch to `target` from the node where it costs least; at a tip, the tip gets longer."""
        # Cost of Cuntz et al.: new cable plus a share of the path to the soma. Bare nodes and branch points
        # are closed.
        cost = np.linalg.norm(self.xyz - target, axis=1) + balance * self.path
        cost[: self.first] = np.inf
        cost[self.children > 1] = np.inf
        start = int(cost.argmin())
        if self.children[start] == 1 and self.children[self.parent[start]] == 2:
            start = self.parent[start]  # people trace two branch points a voxel apart as one
        branch = _wiggly(self.xyz[start], target, rng, wiggle=wiggle)
        steps = np.linalg.norm(np.diff(branch, axis=0, prepend=self.xyz[start][None]), axis=1)
        rows = len(self.xyz) + np.arange(len(branch))
        self.xyz = np.concatenate([self.xyz, branch])
        self.parent = np.r_[self.parent, start, rows[:-1]]
        self.path = np.r_[self.path, self.path[start] + steps.cumsum()]
        self.children[start] += 1
        self.children = np.r_[self.children, np.ones(len(branch) - 1, int), 0]


def _tract(rng: np.random.Generator, growth: Growth, wiggle: float) -> NDArray[np.float64]:
    """Lay the tract as (n, 3) points: a smooth arc that starts at the origin, plus wiggle."""
    length = max(20.0, growth.tract * rng.lognormal(0.0, growth.tract_spread))
    heading = rng.normal(size=3) * growth.anisotropy
    bend = rng.normal(size=3) * growth.anisotropy
    s = np.linspace(0.0, 1.0, int(length))[:, None]
    direction = heading / np.linalg.norm(heading) + 2.0 * (s - 0.3) * bend / np.linalg.norm(bend)
    direction /= np.linalg.norm(direction, axis=1, keepdims=True)
    spine = direction.cumsum(axis=0)
    return spine - spine[0] + _bridge(rng, len(spine), wiggle)


def _targets(
    rng: np.random.Generator, growth: Growth, tract: NDArray[np.float64], tips: int
) -> Iterator[NDArray[np.float64]]:
    """Yield points of the arbors' clouds without end; an arbor is an ellipsoid, longest along the tract."""
    count = 1 + rng.poisson(growth.arbors)
    share = rng.dirichlet(np.full(count, 2.0))
    places = np.r_[1.0, rng.uniform(growth.bare, 1.0, count - 1)]
    reach = growth.reach * rng.lognormal(0.0, growth.reach_spread)
    clouds = []
    for part, place in zip(share, places, strict=True):
        node = int(place * (len(tract) - 1))
        direction = tract[min(node + 10, len(tract) - 1)] - tract[max(node - 10, 0)]
        direction /= np.linalg.norm(direction)
        stretch = rng.uniform(1.0, growth.elongation)
        size = reach * max(1.0, part * tips) ** (1 / 3)
        # Stretching keeps the volume of a cloud.
        clouds.append((tract[node], direction, stretch, size / stretch ** (1 / 3)))
    while True:
        centre, direction, stretch, size = clouds[rng.choice(count, p=share)]
        point = rng.normal(size=3)
        point *= size * rng.uniform() ** (1 / 3) / np.linalg.norm(point)  # uniform in a ball
        yield centre + point + (stretch - 1.0) * (point @ direction) * direction


def _wiggly(
    start: NDArray[np.float64], end: NDArray[np.float64], rng: np.random.Generator, *, wiggle: float
) -> NDArray[np.float64]:
    """Return (n, 3) points about a voxel apart on a winding path from `start` (not included) to `end`."""
    count = int(np.linalg.norm(end - start) * (1 + wiggle**2)) + 1
    s = np.linspace(0.0, 1.0, count + 1)[:, None]
    return (start + s * (end - start) + _bridge(rng, count + 1, wiggle))[1:]


def _bridge(rng: np.random.Generator, count: int, wiggle: float) -> NDArray[np.float64]:
    """Return (count, 3) offsets that are zero at both ends and have a smoothly varying slope."""
    width = 2.0
    slope = gaussian_filter1d(rng.normal(size=(count, 3)), width, axis=0, mode="reflect")
    slope *= wiggle * np.sqrt(2 * width * np.sqrt(np.pi))  # unit variance before the scaling
    slope[0] = 0.0
    offset = slope.cumsum(axis=0)
    return offset - np.linspace(0.0, 1.0, count)[:, None] * offset[-1]


def _tips_carried(parent: NDArray[np.int64]) -> NDArray[np.float64]:
    """Count the tips that each node carries; a tip carries itself."""
    carried = (np.bincount(parent[1:], minlength=len(parent)) == 0).astype(float)
    for node in range(len(parent) - 1, 0, -1):
        carried[parent[node]] += carried[node]
    return carried
