"""What a segmenter found of a phantom: the share of the centreline, the thickness, and what it invented."""

from __future__ import annotations

from collections.abc import Collection

import numpy as np
from numpy.typing import ArrayLike
from scipy.ndimage import distance_transform_edt
from scipy.spatial import cKDTree

from neurokd.data.phantoms import Phantom
from neurokd.evaluation.topology import skeleton_of
from neurokd.evaluation.voxels import mask_pair

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

        ``thickness``: voxels of the mask over true voxels, counted where the centreline is found, so that
        what is missing does not look thin. The ratio of the diameters is its square root.

        ``invented``: length of the skeleton of all invented voxels over the true length of all tubes.

        ``invented_voxels``: number of these voxels.

        ``bridged``: share of the centreline in gaps whose voxels are in the mask.

        ``soma``: share of the soma's voxels that are in the mask.

    Raises
    ------
    ValueError
        A mask of another shape than the phantom's, or no mask.
    """
    seen, truth = mask_pair(mask, phantom.mask)
    known = truth | phantom.gap
    far = seen & (distance_transform_edt(~known) > tolerance) if known.any() else seen
    scored = np.ones(len(phantom.tube), dtype=bool) if tubes is None else np.isin(phantom.tube, list(tubes))
    line_index = tuple(phantom.voxels.T)  # the voxels of the centreline
    hit, dark = seen[line_index], ~phantom.lit & ~phantom.soma[line_index]
    found = scored & phantom.lit & hit

    thickness = None
    if found.any():
        # Each voxel belongs to the nearest point of all centrelines; those of found points count.
        line = cKDTree(phantom.centreline * phantom.spacing)
        no_soma = ~phantom.soma
        if phantom.soma.any():
            no_soma = distance_transform_edt(no_soma) > tolerance

        def count_along_line(voxels: np.ndarray) -> int:
            """Count the voxels, away from the soma, whose nearest point of the centreline is found."""
            return int(found[line.query(np.argwhere(voxels & no_soma) * phantom.spacing)[1]].sum())

        true = count_along_line(truth)
        thickness = count_along_line(seen & ~far) / true if true else None
    return {
        "found": _share(hit[scored & phantom.lit]),
        "thickness": thickness,
        "invented": float(skeleton_of(far).sum() / phantom.length) if phantom.length else None,
        "invented_voxels": int(far.sum()),
        "bridged": _share(hit[scored & dark]),
        "soma": _share(seen[phantom.soma]),
    }


def _share(hits: np.ndarray) -> float | None:
    """Return the share of True, None of nothing."""
    return float(hits.mean()) if hits.size else None
