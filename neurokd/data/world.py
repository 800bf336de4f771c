"""The ranges from which the simulator draws a different microscope, neuron and camera for every volume.

    World ──► Growth.draw ───────► trees ─────┐
      ├─────► Microscope.draw ──► light ──────┼──► raw volume + mask      (neurokd.data.scene)
      └─────► background, camera ─────────────┘

A network that has seen one microscope knows that microscope. These ranges are wide on purpose: real stacks should lie
inside them, not look like their mean (domain randomisation; Tobin et al. 2017, arXiv:1703.06907; for images without any
real label Billot et al. 2023, doi:10.1016/j.media.2023.102789).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

__all__ = ["World"]

Range = tuple[float, float]


@dataclass(frozen=True)
class World:
    """Ranges that :func:`neurokd.data.scene.draw_scene` and :class:`neurokd.data.scene.Scene` draw from.

    Lengths called *voxels* are lateral voxels. A pair is the lowest and the highest value; most are drawn
    log-uniformly, shares and angles uniformly. Every field can be narrowed to what a lab knows of its own microscope.

    Parameters
    ----------
    voxel
        Lateral size of a voxel, µm.
    isotropic
        Share of the volumes whose voxels are cubes, in [0, 1].
    z_step
        Height of a voxel over its width, in the other volumes.
    radius
        Radius of a terminal branch, voxels.
    thickening
        Exponent of a branch's radius over its number of tips: 0 is a neuron without trunk.
    taper
        Log standard deviation of the radius along a neurite.
    swellings, swelling_gain
        Varicosities per 100 voxels of path, and how much thicker than the neurite they are.
    neurons
        Most neurons in a volume (at least one); all are foreground.
    fibres, fibre_share
        Number of unbranched neurites in a bundle, and share of the volumes that hold one.
    soma_share, soma_radius
        Share of the neurons with a soma, and its radius in voxels.
    light_radius
        Log standard deviation of the radius of the light over that of the mask: annotators disagree about walls.
    dimmest
        Brightness of the dimmest neuron over the brightest one.
    label_spread, label_length
        Log standard deviation of the brightness along a neurite, and the path over which it changes, voxels.
    beads, bead_gain
        Bright varicosities per 100 voxels of path, and how much brighter than the neurite they are.
    gaps, gap_length
        Unlabelled stretches per 100 voxels of path, and their length in voxels.
    hollow
        Share of the somata with a darker or brighter core.
    blobs, blob_radius
        Autofluorescent blobs per 100,000 voxels, and their radius in voxels.
    distractors
        Share of the volumes with thick vessels, and likewise with sheets; these are background.
    blur, blur_z
        Standard deviation of the point spread function, lateral voxels, and its elongation along z.
    glow, glow_sigma
        Share of the light that is out of focus, and how far it spreads, voxels.
    signal_to_noise
        Brightest neurite over background, in standard deviations of the noise.
    background
        Level of the background over the brightest neurite.
    shading
        Log standard deviation of uneven illumination; half of the volumes have some.
    cut
        Share of the volumes whose background was cut off at a grey value, and likewise of those in which only boxes
        around the neurites were kept.
    defects
        Share of the volumes with one kind of defect (hot voxels, lost, shifted or striped slices, saturation).
    window
        Log spread of the grey value that becomes white after scaling: the network learns any scaling.

    Raises
    ------
    ValueError
        If a range is not two rising numbers, not negative, or a share lies outside [0, 1].
    """

    voxel: Range = (0.1, 1.0)
    isotropic: float = 0.4
    z_step: Range = (1.0, 6.0)
    radius: Range = (0.5, 3.5)
    thickening: Range = (0.03, 0.45)
    taper: Range = (0.0, 0.25)
    swellings: Range = (0.1, 6.0)
    swelling_gain: Range = (1.3, 2.5)
    neurons: int = 4
    fibres: Range = (3.0, 40.0)
    fibre_share: float = 0.35
    soma_share: float = 0.6
    soma_radius: Range = (4.0, 16.0)
    light_radius: float = 0.15
    dimmest: float = 0.03
    label_spread: Range = (0.05, 0.7)
    label_length: Range = (4.0, 80.0)
    beads: Range = (0.2, 8.0)
    bead_gain: Range = (1.2, 4.0)
    gaps: Range = (0.05, 2.0)
    gap_length: Range = (1.0, 8.0)
    hollow: float = 0.3
    blobs: Range = (0.1, 8.0)
    blob_radius: Range = (0.6, 6.0)
    distractors: float = 0.2
    blur: Range = (0.3, 1.8)
    blur_z: Range = (1.0, 3.5)
    glow: Range = (0.0, 0.7)
    glow_sigma: Range = (3.0, 16.0)
    signal_to_noise: Range = (2.0, 40.0)
    background: Range = (0.003, 1.0)
    shading: Range = (0.1, 0.6)
    cut: float = 0.2
    defects: float = 0.12
    window: float = 0.5

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if isinstance(value, tuple):
                if len(value) != 2 or not 0 <= value[0] <= value[1]:
                    raise ValueError(f"{name} must be two rising numbers of at least 0, got {value}")
            elif value < 0:
                raise ValueError(f"{name} must not be negative, got {value}")
        for name in ("isotropic", "fibre_share", "soma_share", "dimmest", "hollow", "distractors", "cut", "defects"):
            if getattr(self, name) > 1:
                raise ValueError(f"{name} must be a share in [0, 1], got {getattr(self, name)}")
        if self.neurons < 1:
            raise ValueError(f"neurons must be at least 1, got {self.neurons}")


def log_uniform(rng: np.random.Generator, low_high: Range) -> float:
    """Draw a positive number whose logarithm is uniform between those of the two ends."""
    return float(np.exp(rng.uniform(*np.log(low_high))))
