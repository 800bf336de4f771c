"""Is a mask one piece, without holes, and along the whole neurite? Overlap does not tell.

A tube with a gap of one voxel::

    ======  ======   one component is now two: Betti-0 error 1

Its Dice is near 1, but the tree that is traced from it ends at the gap.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import ndimage
from skimage.measure import euler_number
from skimage.morphology import skeletonize

from neurokd.evaluation.voxels import as_mask, mask_pair

__all__ = ["betti_errors", "betti_numbers", "cldice"]

_TOUCHING = np.ones((3, 3, 3), dtype=bool)  # 26-connected: faces, edges and corners


def cldice(prediction: ArrayLike, truth: ArrayLike) -> float:
    """Return clDice, the overlap of centrelines (Shit et al. 2021, doi:10.1109/CVPR46437.2021.01629).

    clDice is the harmonic mean of two shares: the share of the prediction's skeleton that lies in the truth,
    and the share of the truth's skeleton that lies in the prediction. Thick and thin stretches of a neurite
    count alike.

    Parameters
    ----------
    prediction, truth
        (z, y, x) masks, see :func:`neurokd.data.volume.check_mask`.

    Returns
    -------
    float
        In [0, 1]; both empty = 1, one empty = 0.

    Raises
    ------
    ValueError
        Masks of different shapes, without three axes or empty; arrays that are no masks.
    """
    found, true = mask_pair(prediction, truth)
    if not (found.any() and true.any()):
        return float(found.any() == true.any())
    box = ndimage.find_objects((found | true).astype(np.uint8))[0]  # thinning is slow
    found, true = found[box], true[box]
    precision, recall = true[skeleton_of(found)].mean(), found[skeleton_of(true)].mean()
    return float(2 * precision * recall / (precision + recall)) if precision + recall else 0.0


def betti_numbers(mask: ArrayLike) -> tuple[int, int, int]:
    """Count the components, tunnels and cavities of a mask.

    Foreground voxels that touch by a face, an edge or a corner belong together (26-connected), background
    voxels by a face (6-connected), as they must, so that the Euler number is components - tunnels + cavities.

    Parameters
    ----------
    mask
        (z, y, x), see :func:`neurokd.data.volume.check_mask`. Outside the volume is background.

    Returns
    -------
    tuple of three int
        Betti-0: 26-connected components. Betti-1: tunnels, such as the one through a ring. Betti-2: cavities,
        that is, pieces of background enclosed on all sides.

    Raises
    ------
    ValueError
        See :func:`cldice`.
    """
    mask = np.pad(as_mask(mask, "mask"), 1)
    components = ndimage.label(mask, _TOUCHING)[1]
    cavities = ndimage.label(~mask)[1] - 1  # the first is the outside
    tunnels = components + cavities - int(euler_number(mask, connectivity=3))
    return components, tunnels, cavities


def betti_errors(prediction: ArrayLike, truth: ArrayLike) -> tuple[int, int]:
    """Return the differences in the number of components and of tunnels.

    Parameters
    ----------
    prediction, truth
        See :func:`cldice`.

    Returns
    -------
    tuple of two int
        ``|Betti-0(prediction) - Betti-0(truth)|`` and the same for Betti-1, of the whole volume. Errors of
        opposite sign cancel: one piece lost and one speck invented is 0.

    Raises
    ------
    ValueError
        See :func:`cldice`.
    """
    found, true = (betti_numbers(mask) for mask in mask_pair(prediction, truth))
    return abs(found[0] - true[0]), abs(found[1] - true[1])


def skeleton_of(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Return Lee's skeleton, with at least one voxel of each component.

    Components whose cross-section is even and square, such as a neurite of 2 x 2 voxels, vanish altogether in
    scikit-image (its issue 3757). These are made one voxel thicker and tried again.
    """
    thin = skeletonize(mask).astype(bool)
    component, n = ndimage.label(mask, _TOUCHING)

    def lost() -> NDArray[np.int64]:
        """Return the labels of the components without a voxel of the skeleton."""
        return np.setdiff1d(np.arange(1, n + 1), component[thin])

    vanished = np.isin(component, lost())
    if vanished.any():
        box = np.pad(vanished, 1)
        thicker = skeletonize(ndimage.binary_dilation(box, np.ones((2, 2, 2))))
        thin |= thicker[1:-1, 1:-1, 1:-1].astype(bool) & vanished
    for label in lost():  # still nothing: the voxel nearest to the middle
        voxels = np.argwhere(component == label)
        middle = np.linalg.norm(voxels - voxels.mean(axis=0), axis=1).argmin()
        thin[tuple(voxels[middle])] = True
    return thin
