"""Do a volume and a tree belong together? Files go astray, and Vaa3D counts the rows of a TIFF from the bottom.

    volume --brightest 1 %--> bright voxels <--how many nodes lie on them?-- tree, and tree mirrored in y

On the fly neuron of RivuletStudio/rivuletpy 96 % of the nodes lie on bright voxels; mirrored, 8 %.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from neurokd.data.tree import Tree
from neurokd.data.volume import check_volume

__all__ = ["PairCheck", "check_pair"]


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
    volume = check_volume(volume)
    if not 0 <= percentile < 100:
        raise ValueError(f"percentile must be from 0 to below 100, got {percentile}")
    bright = (volume >= np.quantile(volume, percentile / 100, method="inverted_cdf")) & (volume > 0)
    inside, share = _shares(bright, tree)
    _, share_mirrored = _shares(bright, tree.mirror("y", volume.shape[1]))
    return PairCheck(len(tree), inside, share, share_mirrored, float(bright.mean()))


def _shares(bright: NDArray[np.bool_], tree: Tree) -> tuple[float, float]:
    """Shares of nodes inside the volume, and on bright voxels."""
    places = np.rint(tree.zyx)
    inside = ((places >= 0) & (places < bright.shape)).all(axis=1)
    hits: NDArray[Any] = bright[tuple(places[inside].astype(np.int64).T)]
    return float(inside.mean()), float(hits.sum() / len(tree))
