"""Scenes: neurons that are drawn once and imaged anew for every crop.

    draw_scene(World) ──► trees ──► voxels of each neuron, and the node that lights each   (kept, a few MB)
                                     │
    scene.expose(rng, window) ───────┴──► brightness ──► optics ──► background ──► camera ──► raw, mask, known

Growing neurons and finding their voxels takes long; imaging them is cheap. So a training run keeps its scenes
and images each crop of a scene under a new microscope. All neurites are foreground: the network decides
*whether* a voxel is neurite, and the tracer decides *which* neuron it belongs to.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from neurokd.data.camera import photograph
from neurokd.data.growth import Growth, grow_neuron
from neurokd.data.microscope import Microscope, label_nodes
from neurokd.data.rasterise import rasterise
from neurokd.data.simulate import place
from neurokd.data.tree import Tree
from neurokd.data.volume import Spacing
from neurokd.data.world import World, log_uniform

__all__ = ["Exposure", "Scene", "draw_scene"]

_SOMA, _NEURITE = 1, 3  # SWC types
_THIN = 0.87  # half of a voxel's diagonal: a neurite with this radius always covers voxel centres


@dataclass(frozen=True, eq=False)
class Exposure:
    """One image of a scene.

    Parameters
    ----------
    volume
        Raw grey values (z, y, x), uint8 or uint16.
    mask
        Neurite voxels (z, y, x), bool; gaps in the label are included.
    known
        Known voxels (z, y, x), bool; False for neurite voxels that the noise hides or that were cut off.
    """

    volume: NDArray[Any]
    mask: NDArray[np.bool_]
    known: NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class _Lit:
    """The light of one neuron: the voxels that it lights, and for each the node and the amount of light."""

    tree: Tree  # µm, resampled
    voxel: NDArray[np.int64]  # n, flat indices in ascending order
    node: NDArray[np.int32]  # n, index of the node
    amount: NDArray[np.float32]  # n, in [0, 1]
    core: NDArray[np.bool_]  # n, True in the middle of the soma


@dataclass(frozen=True, eq=False)
class Scene:
    """Neurons in a volume that can be imaged many times; :func:`draw_scene` makes scenes.

    Parameters
    ----------
    name
        Name that no other scene or sample of the same set has.
    shape
        Size (z, y, x) in voxels.
    spacing
        Voxel size (z, y, x) in µm.
    trees
        Neurons; points are in voxels, radii in voxels of mean size.
    voxels
        Flat indices (n,) of the neurite voxels, in ascending order.
    world
        Ranges from which every image is drawn.
    lit
        Voxels that each neuron lights, one entry for each tree.
    """

    name: str
    shape: tuple[int, int, int]
    spacing: Spacing
    trees: tuple[Tree, ...]
    voxels: NDArray[np.int64]
    world: World
    lit: tuple[_Lit, ...]

    @property
    def mask(self) -> NDArray[np.bool_]:
        """Voxels (z, y, x) of all neurites, bool."""
        mask = np.zeros(self.shape, dtype=bool)
        mask.ravel()[self.voxels] = True
        return mask

    def expose(self, rng: np.random.Generator, window: Sequence[slice] | None = None) -> Exposure:
        """Image the scene, or a window of it, with a newly drawn microscope and camera.

        Parameters
        ----------
        rng
            Source of all randomness; the same state gives the same bytes.
        window
            Three slices (z, y, x) with start and stop; None means the whole scene.

        Returns
        -------
        Exposure
        """
        window = tuple(slice(0, size) for size in self.shape) if window is None else tuple(window)
        low = np.array([part.start for part in window])
        size = tuple(part.stop - part.start for part in window)
        microscope = Microscope.draw(rng, self.spacing, self.world)
        # Groups of neurons differ much in brightness, the neurons of a group differ little.
        others = [log_uniform(rng, (self.world.dimmest, 1.0)) for _ in range(rng.integers(4))]
        groups = np.array([1.0, *others])
        n = len(self.lit)
        brightness = groups[rng.integers(len(groups), size=n)] * rng.lognormal(0.0, 0.2, n)
        brightness /= brightness.max()
        light = np.zeros(size, dtype=np.float32)
        for neuron, gain in zip(self.lit, brightness, strict=True):
            here, place = self._inside(neuron.voxel, low, size)
            if not len(place):
                continue
            nodes = label_nodes(neuron.tree, rng, microscope)[neuron.node[here]]  # brightness of each voxel
            if rng.random() < self.world.hollow:  # the soma is darker or brighter inside
                nodes = np.where(neuron.core[here], nodes * rng.uniform(0.1, 1.5), nodes)
            light.ravel()[place] += gain * nodes * neuron.amount[here]
        mask = np.zeros(size, dtype=bool)
        mask.ravel()[self._inside(self.voxels, low, size)[1]] = True
        mask, volume, known = photograph(light, mask, rng, microscope, self.spacing, self.world)
        return Exposure(volume, mask, known)

    def _inside(
        self, voxel: NDArray[np.int64], low: NDArray[np.int64], size: tuple[int, ...]
    ) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return which of the sorted flat indices `voxel` lie in a window, and their flat indices there."""
        plane = self.shape[1] * self.shape[2]  # indices are sorted, so the slices of the window are one range
        first, last = np.searchsorted(voxel, [low[0] * plane, (low[0] + size[0]) * plane])
        zyx = np.stack(np.unravel_index(voxel[first:last], self.shape)) - low[:, None]  # 3 n
        inside = ((zyx >= 0) & (zyx < np.array(size)[:, None])).all(axis=0)
        return first + np.flatnonzero(inside), np.ravel_multi_index(tuple(zyx[:, inside]), size)


def draw_scene(
    rng: np.random.Generator,
    *,
    shape: tuple[int, int, int] = (64, 144, 144),
    world: World | None = None,
    name: str = "scene",
) -> Scene:
    """Grow the neurons of a scene and place them in a volume.

    Parameters
    ----------
    rng
        Source of all randomness.
    shape
        Size (z, y, x) in voxels, each at least 16.
    world
        Ranges to draw from; None means the defaults of :class:`neurokd.data.world.World`.
    name
        Name of the scene.

    Returns
    -------
    Scene

    Raises
    ------
    ValueError
        If `shape` is not three sizes of at least 16.
    """
    if len(shape) != 3 or min(shape) < 16:
        raise ValueError(f"shape must be three sizes of at least 16 (z, y, x), got {tuple(shape)}")
    world = world or World()
    voxel = log_uniform(rng, world.voxel)
    ratio = 1.0 if rng.random() < world.isotropic else log_uniform(rng, world.z_step)
    spacing = (voxel * ratio, voxel, voxel)
    radius = log_uniform(rng, world.radius)  # radius of terminal branches in lateral voxels
    room = (max(16, round(shape[0] * ratio)), shape[1], shape[2])  # the volume in cubes of a lateral voxel
    grown = [_neuron(rng, radius, room, world) for _ in range(rng.integers(1, world.neurons + 1))]
    if rng.random() < world.fibre_share:
        grown += _bundle(rng, radius, room, world)
    lit, mask = [], np.zeros(shape, dtype=bool)
    for tree in grown:
        tree = _uneven(tree.resample(1.0), rng, world).scale([voxel] * 3)  # µm
        drawn = _draw(tree, shape, spacing, 1.0)
        if not drawn.any():
            continue
        mask |= drawn
        lit.append(_light(tree, shape, spacing, rng.lognormal(0.0, world.light_radius)))
    if not lit:
        return draw_scene(rng, shape=shape, world=world, name=name)
    mean = np.prod(spacing) ** (1 / 3)
    trees = tuple(  # µm to voxels
        replace(neuron.tree, xyz=neuron.tree.xyz / np.array(spacing[::-1]), radius=neuron.tree.radius / mean)
        for neuron in lit
    )
    z, y, x = shape
    return Scene(name, (z, y, x), spacing, trees, np.flatnonzero(mask), world, tuple(lit))


def _neuron(rng: np.random.Generator, radius: float, room: Sequence[int], world: World) -> Tree:
    """Grow a neuron and place it; lengths are in lateral voxels."""
    tree = grow_neuron(rng, Growth.draw(rng, world))
    size = radius * rng.uniform(0.5, 1.2)  # thicker neurites are also longer, but not in proportion
    thickness = tree.radius * radius * rng.uniform(0.8, 1.25)
    if rng.random() < world.soma_share:
        thickness[0] = log_uniform(rng, world.soma_radius)
    else:
        thickness[0] = thickness[1]
    return place(rng, replace(tree, xyz=tree.xyz * size, radius=np.minimum(thickness, 20.0)), room)


def _bundle(rng: np.random.Generator, radius: float, room: Sequence[int], world: World) -> list[Tree]:
    """Lay unbranched neurites through the volume, parallel or in all directions."""
    size = np.array(room[::-1], dtype=float)
    heading, spread = rng.normal(size=3), log_uniform(rng, (0.1, 5.0))
    fibres = []
    for _ in range(round(log_uniform(rng, world.fibres))):
        # A random walk in directions gives a winding path; its longest stretch inside the volume is kept.
        steps = int(np.linalg.norm(size))
        turns = rng.normal(size=(steps, 3)) * rng.uniform(0.01, 0.12)
        course = heading / np.linalg.norm(heading) + spread * rng.normal(size=3) + turns.cumsum(axis=0)
        path = (course / np.linalg.norm(course, axis=1, keepdims=True)).cumsum(axis=0)
        path += rng.uniform(0, size) - path[steps // 2]
        inside = ((path >= -2) & (path <= size + 1)).all(axis=1)
        runs = np.split(np.arange(steps), np.flatnonzero(np.diff(inside)) + 1)
        run = max((r for r in runs if inside[r[0]]), key=len)
        if len(run) >= 4:
            width = np.full(len(run), radius * rng.lognormal(0.0, 0.2))
            fibres.append(Tree(path[run], width, np.arange(len(run)) - 1, np.full(len(run), _NEURITE)))
    return fibres


def _uneven(tree: Tree, rng: np.random.Generator, world: World) -> Tree:
    """Let the radius drift along the neurites and swell at some places; the soma does not change."""
    spread, rate = rng.uniform(*world.taper), log_uniform(rng, world.swellings) / 100
    drift = rng.normal(size=len(tree))
    swollen = rng.random(len(tree)) < rate
    gain = np.where(swollen, [log_uniform(rng, world.swelling_gain) for _ in swollen], 1.0)
    for node in range(1, len(tree)):
        up = tree.parent[node]
        drift[node] = 0.9 * drift[up] + np.sqrt(1 - 0.9**2) * drift[node]  # autoregressive, unit variance
        gain[node] = max(gain[node], 1 + 0.6 * (gain[up] - 1))
    gain = 1 + (gain - 1) * np.minimum(1.0, 1.5 / tree.radius)  # thick neurites swell less
    factor = np.exp(spread * drift) * gain
    if tree.type[0] == _SOMA:
        factor[0] = 1.0
    return replace(tree, radius=tree.radius * factor)


def _draw(tree: Tree, shape: tuple[int, int, int], spacing: Spacing, factor: float) -> NDArray[np.bool_]:
    """Return the voxels of a tree in µm; those of its centreline are included even where it is thin."""
    drawn = rasterise(tree, shape, spacing=spacing, radius_scale=factor, min_radius=0.6 * spacing[2])
    centres = np.rint(tree.zyx / np.array(spacing)).astype(int)
    centres = centres[((centres >= 0) & (centres < np.array(shape))).all(axis=1)]
    drawn[tuple(centres.T)] = True
    return drawn


def _light(tree: Tree, shape: tuple[int, int, int], spacing: Spacing, factor: float) -> _Lit:
    """Return the voxels that a tree lights, each by its nearest node; thin neurites give less light."""
    voxel = np.flatnonzero(_draw(tree, shape, spacing, factor))
    where = np.stack(np.unravel_index(voxel, shape), axis=1) * np.array(spacing)
    node = cKDTree(tree.zyx).query(where)[1]
    filled = np.minimum(1.0, (factor * tree.radius[node] / (_THIN * spacing[2])) ** 2)
    core = np.linalg.norm(where - tree.zyx[0], axis=1) < 0.6 * tree.radius[0]
    core &= tree.type[0] == _SOMA
    return _Lit(tree, voxel, node.astype(np.int32), filled.astype(np.float32), core)
