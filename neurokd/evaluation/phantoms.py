"""What a segmenter found of a phantom: the share of the centreline, the thickness, and what it invented."""

from __future__ import annotations

from collections.abc import Collection

import numpy as np
from numpy.typing import ArrayLike
from scipy.ndimage import distance_transform_edt
from scipy.spatial import cKDTree

from neurokd.data.phantoms import Phantom
from neurokd.evaluation.masks import mask_pair
from neurokd.evaluation.topology import skeleton_of

__all__ = ["phantom_scores"]


def phantom_scores(
    mask: ArrayLike, phantom: Phantom, *, tubes: Collection[int] | None = None, tolerance: float = 2.0
) -> dict[str, float | int | None]:
    """Compare a mask with a phantom.

    Parameters
    ----------
    mask
        (z, y, x) boolean, what a segmenter found in ``phantom.volume``.
    phantom
        A phantom with its truth.
    tubes
        Tubes that are scored, as numbered in ``phantom.tube``; all of them by default. The others count as
        true, so finding them is not invention.
    tolerance
        A voxel that is further than this from the true mask and from all gaps, in voxels, is invented.

    Returns
    -------
    dict
        A score is None where there is nothing to measure it on.

        ``found``: share of the lit centreline whose voxels are in the mask.

        ``thickness``: voxels of the mask over true voxels, counted where the centreline is found, so that what is
        missing does not look thin. The ratio of the diameters is its square root.

        ``invented``: length of the skeleton of all invented voxels over the true length of all tubes.

        ``invented_voxels``: number of these voxels.

        ``bridged``: share of the centreline in gaps whose voxels are in the mask.

        ``soma``: share of the soma's voxels that are in the mask.

    Raises
    ------
    ValueError
        A mask of another shape than the phantom's, or no mask.
    """
    mask, truth = mask_pair(mask, phantom.mask)
    known = truth | phantom.gap
    far = mask & (distance_transform_edt(~known) > tolerance) if known.any() else mask
    scored = np.ones(len(phantom.tube), dtype=bool) if tubes is None else np.isin(phantom.tube, list(tubes))
    at = tuple(phantom.voxels.T)
    hit, dark = mask[at], ~phantom.lit & ~phantom.soma[at]
    found = scored & phantom.lit & hit

    thickness = None
    if found.any():
        # Each voxel belongs to the nearest point of all centrelines; those of the points that are found count.
        line = cKDTree(phantom.centreline * phantom.spacing)
        beside = ~phantom.soma
        if phantom.soma.any():
            beside = distance_transform_edt(beside) > tolerance

        def voxels_along(voxels: np.ndarray) -> int:
            return int(found[line.query(np.argwhere(voxels & beside) * phantom.spacing)[1]].sum())

        true = voxels_along(truth)
        thickness = voxels_along(mask & ~far) / true if true else None
    return {
        "found": _share(hit[scored & phantom.lit]),
        "thickness": thickness,
        "invented": float(skeleton_of(far).sum() / phantom.length) if phantom.length else None,
        "invented_voxels": int(far.sum()),
        "bridged": _share(hit[scored & dark]),
        "soma": _share(mask[phantom.soma]),
    }


def _share(hits: np.ndarray) -> float | None:
    """Return the share of True, None of nothing."""
    return float(hits.mean()) if hits.size else None
