"""Do a volume and a tree belong together? Files go astray, and Vaa3D counts rows from the bottom.

    volume --brightest 1 %--> bright voxels <--how many nodes lie on them?-- tree, and tree mirrored in y

On the fly neuron of RivuletStudio/rivuletpy 96 % of the nodes lie on bright voxels; mirrored, 8 %.
"""

from __future__ import annotations

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
    """Where the nodes of a tree lie in a volume. All shares are in [0, 1].

    Parameters
    ----------
    nodes
        Number of nodes.
    inside
        Share of the nodes inside the volume.
    bright
        Share of the nodes on bright voxels.
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
        """True if the tree fits better mirrored in y, by more than a fifth of its nodes."""
        return self.bright_mirrored > self.bright + 0.2

    @property
    def fits(self) -> bool:
        """True if half of the nodes or more are on bright voxels."""
        return self.bright >= 0.5

    def __str__(self) -> str:
        share = f"{self.bright:.0%} of {self.nodes} nodes on bright voxels"
        return f"{share}, {self.bright_mirrored:.0%} mirrored in y"


def check_pair(volume: ArrayLike, tree: Tree, *, percentile: float = 99.0) -> PairCheck:
    """Check that a tree lies on what is bright in its volume, and which way up.

    Vaa3D counts the rows of a TIFF from the bottom: what was traced on one is mirrored in y against the
    array.

    Parameters
    ----------
    volume
        Intensities ``z y x``.
    tree
        Tree in voxels of `volume`.
    percentile
        Voxels are bright if they reach this percentile of all voxels and are above zero.

    Returns
    -------
    PairCheck
        The shares of nodes inside, on bright voxels, and on bright voxels when mirrored.

    Raises
    ------
    ValueError
        `volume` is no volume, or `percentile` is not in [0, 100).
    """
    return _check(_bright(check_volume(volume), percentile), tree)


def place_tree(
    volume: ArrayLike, tree: Tree, *, spacing: Sequence[float] | None = None, percentile: float = 99.0
) -> tuple[Tree, str, PairCheck]:
    """Bring a tree into voxels of its volume, whichever of the usual conventions its file follows.

    An SWC file does not state its unit or its axes. Five readings are tried: as it is; mirrored in y (Vaa3D
    on a TIFF); in µm; in µm and mirrored in y; x and z exchanged. A reading other than the first is taken
    only if it puts a fifth of the nodes more on bright voxels.

    Parameters
    ----------
    volume
        Intensities ``z y x``.
    tree
        Tree as read from the file.
    spacing
        Voxel size ``(z, y, x)`` in µm; None leaves the two readings in µm out.
    percentile
        Voxels are bright if they reach this percentile of all voxels and are above zero.

    Returns
    -------
    Tree
        The tree in voxels of `volume`.
    str
        How the file was read: "as it is", "mirrored in y", "in µm", "in µm, mirrored in y" or "x and z
        exchanged".
    PairCheck
        Check of that tree. If its `fits` is False, no reading fits.

    Raises
    ------
    ValueError
        `volume` is no volume, `percentile` is not in [0, 100), or `spacing` is not three positive numbers.
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
    """Return the voxels that reach the percentile and are above zero."""
    if not 0 <= percentile < 100:
        raise ValueError(f"percentile must be in [0, 100), got {percentile}")
    return (volume >= np.quantile(volume, percentile / 100, method="inverted_cdf")) & (volume > 0)


def _check(bright: NDArray[np.bool_], tree: Tree) -> PairCheck:
    """Check a tree, as it is and mirrored in y."""
    inside, share = _shares(bright, tree)
    _, share_mirrored = _shares(bright, tree.mirror("y", bright.shape[1]))
    return PairCheck(len(tree), inside, share, share_mirrored, float(bright.mean()))


def _shares(bright: NDArray[np.bool_], tree: Tree) -> tuple[float, float]:
    """Return the shares of nodes inside the volume and on bright voxels."""
    places = np.rint(tree.zyx)  # (n, 3)
    is_inside = ((places >= 0) & (places < bright.shape)).all(axis=1)  # (n,)
    hits: NDArray[Any] = bright[tuple(places[is_inside].astype(np.int64).T)]
    return float(is_inside.mean()), float(hits.sum() / len(tree))
