"""A model of the microscope: it turns any tree into a fluorescence stack with an exact mask.

    the tree: uneven label, beads, gaps  |
    fibres of other neurons              |--> blur --> + haze --> shot and read noise --> zero outside boxes
    blobs, vessel-like bits              |    (PSF)

The stacks resemble the Janelia part of BigNeuron's gold166: almost all voxels are exactly zero, and only
boxes around the neuron keep their background. The content of the boxes is hard for a local filter: other
neurons are as bright as this one, and its label has gaps of some voxels in which the mask continues.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter, map_coordinates, maximum_filter
from scipy.spatial import cKDTree
from scipy.stats import norm

from neurokd.data.growth import VOXEL, Growth, grow_neuron
from neurokd.data.rasterise import rasterise
from neurokd.data.tree import Tree
from neurokd.data.volume import Spacing, check_spacing
from neurokd.data.world import World, log_uniform

__all__ = ["Microscope", "expose", "label_nodes", "render"]

_FIBRE = Growth(tips=8.0, soma_radius=(1.2, 2.0))  # a crossing neuron: long, few branches, soma elsewhere


@dataclass(frozen=True)
class Microscope:
    """Settings of the image formation: lengths in µm, signals as fractions of full scale (grey value 255).

    Parameters
    ----------
    psf_sigma
        Standard deviations (z, y, x) of the Gaussian point spread function.
    photons
        Photons that a voxel collects at full scale; infinity means no shot and read noise.
    read_noise
        Standard deviation of the camera's noise in photons.
    brightness
        Median signal of a neurite before the blur.
    label_spread, label_length
        Log standard deviation of the brightness along a neurite, and the path length over which it changes.
    beads, bead_gain
        Number of varicosities per µm of path, and their brightness relative to the neurite.
    gaps, gap_length
        Number of unlabelled stretches per µm of path, and their shortest and longest length.
    fibres
        Number of crossing neurites of other neurons per 100 µm of the neuron.
    blobs, blob_radius
        Number of autofluorescent blobs per 1000 µm³, and their smallest and largest radius.
    vessels, vessel_size, vessel_radius
        Share of the vessel-like filaments that is kept, in [0, 1]; their spacing and radius.
    haze, haze_contrast, haze_size
        Lowest and highest background signal (drawn for each volume); the log standard deviation and the grain
        of its texture.
    glow, glow_sigma
        Share of the light that is out of focus, and the standard deviation of its blur.
    box
        Smallest and largest margin of background that is kept around the neuron (drawn for each volume).

    Raises
    ------
    ValueError
        If a value is outside its range.

    Notes
    -----
    The defaults imitate the images of gold166; the best possible intensity threshold reaches a foreground
    Dice of about 0.4. They are not fitted to an instrument. To simulate a domain shift, change them, for
    example ``replace(Microscope(), photons=30.0)``.
    """

    psf_sigma: tuple[float, float, float] = (0.55, 0.3, 0.3)
    photons: float = 60.0
    read_noise: float = 1.5
    brightness: float = 0.9
    label_spread: float = 0.5
    label_length: float = 6.0
    beads: float = 0.05
    bead_gain: float = 2.5
    gaps: float = 0.05
    gap_length: tuple[float, float] = (1.5, 4.0)
    fibres: float = 0.5
    blobs: float = 0.6
    blob_radius: tuple[float, float] = (0.35, 1.2)
    vessels: float = 0.3
    vessel_size: float = 3.0
    vessel_radius: float = 0.4
    haze: tuple[float, float] = (0.04, 0.16)
    haze_contrast: float = 0.3
    haze_size: float = 2.0
    glow: float = 0.5
    glow_sigma: float = 2.5
    box: tuple[float, float] = (1.8, 6.5)

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if not (np.asarray(value) >= 0).all():
                raise ValueError(f"{name} must not be negative, got {value}")
        lengths = ("label_length", "blob_radius", "vessel_size", "vessel_radius", "haze_size", "box")
        for name in ("photons", *lengths):
            if not (np.asarray(getattr(self, name)) > 0).all():
                raise ValueError(f"{name} must be positive, got {getattr(self, name)}")
        if self.vessels > 1:
            raise ValueError(f"vessels must be a share in [0, 1], got {self.vessels}")

    @classmethod
    def draw(cls, rng: np.random.Generator, spacing: Spacing, world: World = World()) -> Microscope:
        """Draw a label and an optical system; :mod:`neurokd.data.camera` draws noise and background.

        Parameters
        ----------
        rng
            Source of all randomness.
        spacing
            Voxel size (z, y, x) in µm; it converts the ranges, in lateral voxels, to µm.
        world
            Ranges to draw from.

        Returns
        -------
        Microscope
            Settings without fibres, because a :class:`neurokd.data.scene.Scene` has all neurites in its
            trees.
        """
        voxel = spacing[2]
        blur, glow = log_uniform(rng, world.blur), log_uniform(rng, world.glow_sigma)
        gaps = np.sort([log_uniform(rng, world.gap_length) for _ in range(2)])
        blobs = np.sort([log_uniform(rng, world.blob_radius) for _ in range(2)])
        return cls(
            psf_sigma=(voxel * blur * log_uniform(rng, world.blur_z), voxel * blur, voxel * blur),
            brightness=1.0,
            label_spread=rng.uniform(*world.label_spread),
            label_length=voxel * log_uniform(rng, world.label_length),
            beads=log_uniform(rng, world.beads) / (100 * voxel),
            bead_gain=log_uniform(rng, world.bead_gain),
            gaps=log_uniform(rng, world.gaps) / (100 * voxel),
            gap_length=(voxel * gaps[0], voxel * gaps[1]),
            fibres=0.0,
            blobs=log_uniform(rng, world.blobs) / 100 / np.prod(spacing),  # per 1000 µm³
            blob_radius=(voxel * blobs[0], voxel * blobs[1]),
            vessels=rng.uniform(0.0, 0.3) if rng.random() < world.distractors else 0.0,
            vessel_size=voxel * log_uniform(rng, (12.0, 40.0)),
            vessel_radius=voxel * log_uniform(rng, (3.0, 8.0)),
            glow=rng.uniform(*world.glow),
            glow_sigma=voxel * glow,
        )


def render(
    tree: Tree,
    shape: Sequence[int],
    rng: np.random.Generator,
    microscope: Microscope = Microscope(),
    *,
    spacing: Sequence[float] = (VOXEL, VOXEL, VOXEL),
) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
    """Image a tree.

    Parameters
    ----------
    tree
        Any neuron, in voxels of the volume.
    shape
        Size (z, y, x) of the volume in voxels.
    rng
        Source of all randomness.
    microscope
        Settings of the image formation.
    spacing
        Voxel size (z, y, x) in µm.

    Returns
    -------
    volume
        (z, y, x) uint8, exactly zero outside the boxes around the neuron.
    mask
        (z, y, x) bool, ``rasterise(tree, shape)``.

    Raises
    ------
    ValueError
        If `spacing` is not three positive numbers, or no part of the tree lies in the volume.
    """
    spacing = np.array(check_spacing(spacing))
    mask = rasterise(tree, shape)
    if not mask.any():
        raise ValueError(f"tree must reach into the volume of shape {tuple(shape)}, got no part of it inside")

    boxes = _boxes(mask, rng, microscope, spacing)
    # Only the bounding box of the boxes is computed: everything else stays zero.
    window = tuple(slice(int(index.min()), int(index.max()) + 1) for index in boxes.nonzero())
    boxes = boxes[window]
    tree = tree.translate([-part.start for part in reversed(window)])

    light = np.zeros(boxes.shape, dtype=np.float32)
    _add_neurite(light, tree, mask[window], rng, microscope, spacing)
    for _ in range(rng.poisson(microscope.fibres / 100 * _steps(tree, spacing).sum())):
        fibre = _crossing(rng, tree, spacing)
        _add_neurite(light, fibre, rasterise(fibre, light.shape), rng, microscope, spacing)
    add_blobs(light, boxes, rng, microscope, spacing)
    add_vessels(light, boxes, rng, microscope, spacing)
    light = gaussian_filter(light, microscope.psf_sigma / spacing)
    light += microscope.glow * gaussian_filter(light, microscope.glow_sigma / spacing, truncate=2.0)
    light[boxes] += _haze(boxes, rng, microscope, spacing)

    volume = np.zeros(shape, dtype=np.uint8)
    volume[window][boxes] = expose(light[boxes], rng, microscope)
    return volume, mask


def expose(
    light: NDArray[np.floating],
    rng: np.random.Generator,
    microscope: Microscope = Microscope(),
) -> NDArray[np.uint8]:
    """Turn expected light (any shape, 1 = full scale) into grey values with shot and read noise."""
    if np.isfinite(microscope.photons):
        counts = rng.poisson(light * microscope.photons) + rng.normal(0.0, microscope.read_noise, light.shape)
        light = counts / microscope.photons
    return np.rint(255 * np.clip(light, 0.0, 1.0)).astype(np.uint8)


def _boxes(
    mask: NDArray[np.bool_], rng: np.random.Generator, microscope: Microscope, spacing: NDArray
) -> NDArray[np.bool_]:
    """Mark the blocks at most three blocks away from the neuron; a block is a third of the margin."""
    margin = np.exp(rng.uniform(*np.log(microscope.box)))
    block = np.maximum(1, np.rint(margin / 3 / spacing).astype(int))
    coarse = np.zeros(-(-np.array(mask.shape) // block), dtype=bool)
    coarse[tuple((np.argwhere(mask) // block).T)] = True
    boxes = maximum_filter(coarse, size=7, mode="constant")
    for axis in range(3):
        boxes = boxes.repeat(block[axis], axis=axis)  # blocks to voxels
    return boxes[tuple(slice(size) for size in mask.shape)]


def _add_neurite(
    light: NDArray[np.float32],
    tree: Tree,
    voxels: NDArray[np.bool_],
    rng: np.random.Generator,
    microscope: Microscope,
    spacing: NDArray,
) -> None:
    """Add the light of a tree: each of its voxels is as bright as the nearest node."""
    if voxels.any():
        tree = tree.resample(1.0)
        nearest = cKDTree(tree.zyx).query(np.argwhere(voxels))[1]
        light[voxels] += label_nodes(tree, rng, microscope, spacing)[nearest]


def label_nodes(
    tree: Tree,
    rng: np.random.Generator,
    microscope: Microscope,
    spacing: Sequence[float] | NDArray = (1.0, 1.0, 1.0),
) -> NDArray[np.float64]:
    """Return the brightness of each node: it drifts along the path, rises at beads and is zero in gaps.

    Parameters
    ----------
    tree
        Tree in voxels, or in µm if the spacing is 1.
    rng
        Source of all randomness.
    microscope
        Settings of label, beads and gaps.
    spacing
        Size (z, y, x) of the tree's unit in µm.

    Returns
    -------
    NDArray[float64]
        Signal (n,) of each node.
    """
    steps = _steps(tree, spacing)
    kept = np.exp(-steps / microscope.label_length)
    drift = rng.normal(size=len(tree))
    gap = rng.uniform(*microscope.gap_length, len(tree))
    gap *= rng.uniform(size=len(tree)) < microscope.gaps * steps
    # From the root outwards: drift is autoregressive with unit variance, `gap` is what is left of a gap at a
    # node.
    for node in range(1, len(tree)):
        up = tree.parent[node]
        drift[node] = kept[node] * drift[up] + np.sqrt(1 - kept[node] ** 2) * drift[node]
        gap[node] = max(gap[node], gap[up] - steps[node])
    brightness = microscope.brightness * np.exp(microscope.label_spread * drift)
    beads = rng.uniform(size=len(tree)) < microscope.beads * steps
    beads[1:] |= beads[tree.parent[1:]]  # a bead is two nodes long
    brightness[beads] *= microscope.bead_gain
    brightness[gap > 0] = 0.0
    return brightness


def _steps(tree: Tree, spacing: Sequence[float] | NDArray) -> NDArray[np.float64]:
    """Return the distance (µm) of each node to its parent, zero for the root."""
    edges = tree.zyx[1:] - tree.zyx[tree.parent[1:]]
    return np.r_[0.0, np.linalg.norm(edges * np.asarray(spacing), axis=1)]


def _crossing(rng: np.random.Generator, tree: Tree, spacing: NDArray) -> Tree:
    """Grow a sparsely branched neuron that passes close to some node of `tree`."""
    fibre = grow_neuron(rng, _FIBRE).scale(VOXEL / spacing[::-1])
    ours, theirs = rng.integers(len(tree)), rng.integers(len(fibre))  # the two nodes that meet
    return fibre.translate(tree.xyz[ours] - fibre.xyz[theirs] + rng.normal(0.0, 1.0 / spacing[::-1]))


def add_blobs(
    light: NDArray[np.float32],
    boxes: NDArray[np.bool_],
    rng: np.random.Generator,
    microscope: Microscope,
    spacing: NDArray,
) -> None:
    """Add Gaussian blobs at random places in the boxes; `spacing` is an array (z, y, x) in µm."""
    places = np.argwhere(boxes)
    for _ in range(rng.poisson(microscope.blobs / 1000 * len(places) * spacing.prod())):
        centre = places[rng.integers(len(places))]
        radius = np.exp(rng.uniform(*np.log(microscope.blob_radius))) * rng.lognormal(0.0, 0.2, 3) / spacing
        low = np.maximum(centre - np.ceil(3 * radius).astype(int), 0)
        high = np.minimum(centre + np.ceil(3 * radius).astype(int) + 1, light.shape)
        z, y, x = (  # a Gaussian is the product of its factors along the axes
            np.exp(-(((np.arange(a, b) - c) / r) ** 2) / 2)
            for a, b, c, r in zip(low, high, centre, radius, strict=True)
        )
        peak = microscope.brightness * rng.lognormal(0.0, 0.5)
        box = tuple(slice(a, b) for a, b in zip(low, high, strict=True))
        light[box] += peak * (z[:, None, None] * y[:, None] * x)  # z y x


def add_vessels(
    light: NDArray[np.float32],
    boxes: NDArray[np.bool_],
    rng: np.random.Generator,
    microscope: Microscope,
    spacing: NDArray,
) -> None:
    """Add winding filaments."""
    # Two smooth random fields are both zero on curves; a third field chooses which stretches of them are
    # kept.
    a, b, where = (_field(boxes, rng, microscope.vessel_size / spacing) for _ in range(3))
    # The slope of the fields is 1 / (sqrt(2) size), so this width in values is the radius in µm.
    width = microscope.vessel_radius / microscope.vessel_size / np.sqrt(2)
    filaments = np.exp(-(a**2 + b**2) / (2 * width**2)) * (where > norm.isf(microscope.vessels))
    light[boxes] += microscope.brightness * filaments


def _haze(
    boxes: NDArray[np.bool_], rng: np.random.Generator, microscope: Microscope, spacing: NDArray
) -> NDArray[np.float64]:
    """Return the background of the voxels in the boxes: a random level times a smooth texture."""
    level = rng.uniform(*microscope.haze)
    return level * np.exp(microscope.haze_contrast * _field(boxes, rng, microscope.haze_size / spacing))


def _field(boxes: NDArray[np.bool_], rng: np.random.Generator, sigma: NDArray) -> NDArray[np.float64]:
    """Sample noise of unit variance, blurred by `sigma` (voxels), at the voxels of the boxes."""
    step = np.maximum(sigma / 2, 1.0)  # a blurred field needs no finer grid
    coarse = rng.normal(size=np.ceil(np.array(boxes.shape) / step).astype(int) + 2)
    coarse = gaussian_filter(coarse, sigma / step, mode="wrap")
    return map_coordinates(coarse / coarse.std(), (np.argwhere(boxes) / step).T, order=1)
