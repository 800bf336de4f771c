"""Do a volume and a tree belong together? Files go astray, and Vaa3D counts the rows of a TIFF from the bottom.

    volume --brightest 1 %--> bright voxels <--how many nodes lie on them?-- tree, and tree mirrored in y

On the fly neuron of RivuletStudio/rivuletpy 96 % of the nodes lie on bright voxels; mirrored, 8 %.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from neurokd.data.tree import Tree
from neurokd.data.volume import check_spacing, check_volume

__all__ = ["PairCheck", "check_pair", "place_tree"]


@dataclass(frozen=True)
class PairCheck:
    """Where the nodes of a tree lie in a volume; all shares are of all its nodes.

    Attributes
    ----------
    nodes
        Number of nodes.
    inside
        Share that lies inside the volume.
    bright
        Share on bright voxels.
    bright_mirrored
        The same for the tree mirrored in y.
    chance
        Share of bright voxels in the volume: what nodes at random places would reach.
    """

    nodes: int
    inside: float
    bright: float
    bright_mirrored: float
    chance: float

    @property
    def mirrored(self) -> bool:
        """Whether the tree fits better mirrored in y, by more than a fifth of its nodes."""
        return self.bright_mirrored > self.bright + 0.2

    @property
    def fits(self) -> bool:
        """Whether half of the nodes or more are on bright voxels."""
        return self.bright >= 0.5

    def __str__(self) -> str:
        return f"{self.bright:.0%} of {self.nodes} nodes on bright voxels, {self.bright_mirrored:.0%} mirrored in y"


def check_pair(volume: ArrayLike, tree: Tree, *, percentile: float = 99.0) -> PairCheck:
    """Check that a tree lies on what is bright in its volume, and which way up.

    Vaa3D counts the rows of a TIFF from the bottom: what was traced on one is mirrored in y against the array.

    Parameters
    ----------
    volume
        Intensities ``z y x``.
    tree
        In voxels of `volume`.
    percentile
        Bright is what reaches this percentile of all voxels and is above zero.

    Returns
    -------
    PairCheck
        The shares of nodes inside, on bright voxels, and on bright voxels when mirrored.

    Raises
    ------
    ValueError
        Not a volume, or a percentile that is not from 0 to below 100.
    """
    return _check(_bright(check_volume(volume), percentile), tree)


def place_tree(
    volume: ArrayLike, tree: Tree, *, spacing: Sequence[float] | None = None, percentile: float = 99.0
) -> tuple[Tree, str, PairCheck]:
    """Bring a tree into voxels of its volume, whichever of the usual conventions its file follows.

    An SWC does not say what it counts in. Tried are: as it is; mirrored in y (Vaa3D on a TIFF); in µm, and that
    mirrored in y; x and z exchanged. What is not as it is must put a fifth of the nodes more on bright voxels.

    Parameters
    ----------
    volume
        Intensities ``z y x``.
    tree
        As read from the file.
    spacing
        Voxel size ``(z, y, x)`` in µm; None leaves the two readings in µm out.
    percentile
        As of :func:`check_pair`.

    Returns
    -------
    Tree
        In voxels of `volume`.
    str
        How the file was read: "as it is", "mirrored in y", "in µm", "in µm, mirrored in y" or "x and z exchanged".
    PairCheck
        Of that tree. Where it does not say `fits`, none of the readings did.

    Raises
    ------
    ValueError
        As :func:`check_pair`, or a spacing that is not three positive numbers.
    """
    volume = check_volume(volume)
    bright = _bright(volume, percentile)
    readings = {"as it is": tree, "mirrored in y": tree.mirror("y", volume.shape[1])}
    if spacing is not None:
        voxels = tree.scale([1 / size for size in check_spacing(spacing)[::-1]])
        readings |= {"in µm": voxels, "in µm, mirrored in y": voxels.mirror("y", volume.shape[1])}
    readings["x and z exchanged"] = replace(tree, xyz=tree.zyx)
    checks = {how: _check(bright, reading) for how, reading in readings.items()}
    how = max(checks, key=lambda name: checks[name].bright - 0.2 * (name != "as it is"))
    return readings[how], how, checks[how]


def _bright(volume: NDArray[Any], percentile: float) -> NDArray[np.bool_]:
    """The voxels that reach the percentile and are above zero."""
    if not 0 <= percentile < 100:
        raise ValueError(f"percentile must be from 0 to below 100, got {percentile}")
    return (volume >= np.quantile(volume, percentile / 100, method="inverted_cdf")) & (volume > 0)


def _check(bright: NDArray[np.bool_], tree: Tree) -> PairCheck:
    inside, share = _shares(bright, tree)
    _, share_mirrored = _shares(bright, tree.mirror("y", bright.shape[1]))
    return PairCheck(len(tree), inside, share, share_mirrored, float(bright.mean()))


def _shares(bright: NDArray[np.bool_], tree: Tree) -> tuple[float, float]:
    """Shares of nodes inside the volume, and on bright voxels."""
    places = np.rint(tree.zyx)
    inside = ((places >= 0) & (places < bright.shape)).all(axis=1)
    hits: NDArray[Any] = bright[tuple(places[inside].astype(np.int64).T)]
    return float(inside.mean()), float(hits.sum() / len(tree))
