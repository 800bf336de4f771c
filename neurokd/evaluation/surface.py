"""How far the surfaces of two masks are apart: HD95, which is the name of three different numbers.

    surface of the prediction --> distances to the truth's  \\  which 95th percentile? of each direction, then
    surface of the truth -----> distances to the prediction's /  the larger; of both together; or by area

=================== ================================================ =====================================
function            surface elements                                 percentile
=================== ================================================ =====================================
:func:`hd95`        voxels at the surface, one weight each           of each direction, then the **max**
:func:`hd95_pooled` the same                                         of both directions **pooled**
:func:`hd95_area`   corners between voxels, weighted by their piece  of each direction by **area**, then the
                    of surface (DeepMind's `surface-distance`)       max
=================== ================================================ =====================================

:func:`hd95` is the one in our tables. If exactly one mask is empty, each is the diagonal of the volume: a
missed neuron counts, and never gives NaN. Both empty = 0.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.spatial import cKDTree

from neurokd.data.volume import Spacing, check_spacing
from neurokd.evaluation.voxels import mask_pair

__all__ = ["hd95", "hd95_area", "hd95_pooled"]


def hd95(prediction: ArrayLike, truth: ArrayLike, *, spacing: Sequence[float]) -> float:
    """Return HD95, the **max of the two directed 95th percentiles** of the surface distances, in µm.

    Directed: for each surface voxel of one mask, the Euclidean distance to the nearest surface voxel of the
    other. Surface voxels are those that a face of the background or the volume's border touches. If exactly
    one mask is empty, the distance is the diagonal of the volume: a missed neuron counts, and never gives
    NaN. Both empty = 0.

    Parameters
    ----------
    prediction, truth
        (z, y, x) masks as in :func:`dice`.
    spacing
        Voxel size `(z, y, x)`, µm.

    Returns
    -------
    float
        >= 0, µm. Computed by :func:`monai.metrics.compute_hausdorff_distance`.

    Raises
    ------
    ValueError
        A mask that :func:`dice` refuses, or a spacing that is not three positive numbers.

    Notes
    -----
    Two other numbers go by the same name, :func:`hd95_pooled` and :func:`hd95_area`. They may differ from
    this one by a factor of four, or any other, on one pair of masks.
    """
    prediction, truth, spacing = _checked(prediction, truth, spacing)
    if not (prediction.any() and truth.any()):
        return _without_surface(prediction, truth, spacing)

    import torch
    from monai.metrics import compute_hausdorff_distance

    found, true = torch.from_numpy(prediction)[None, None], torch.from_numpy(truth)[None, None]  # 1 1 z y x
    with warnings.catch_warnings():  # MONAI 1.5 calls a function of its own that it has deprecated
        warnings.simplefilter("ignore", FutureWarning)
        distance = compute_hausdorff_distance(found, true, include_background=True, percentile=95, spacing=spacing)
    return distance.item()


def hd95_pooled(prediction: ArrayLike, truth: ArrayLike, *, spacing: Sequence[float]) -> float:
    """Return the 95th percentile of the surface distances of **both directions pooled**, in µm.

    Surface voxels and distances are those of :func:`hd95`. The mask with the larger surface has more weight,
    so a missing branch may drown among the many surface voxels that agree.

    Parameters
    ----------
    prediction, truth, spacing
        See :func:`hd95`.

    Returns
    -------
    float
        >= 0, µm.

    Raises
    ------
    ValueError
        See :func:`hd95`.
    """
    prediction, truth, spacing = _checked(prediction, truth, spacing)
    if not (prediction.any() and truth.any()):
        return _without_surface(prediction, truth, spacing)
    surfaces = _edges(prediction, truth)
    return float(np.percentile(np.concatenate(_distances(surfaces, spacing)), 95))


def hd95_area(prediction: ArrayLike, truth: ArrayLike, *, spacing: Sequence[float]) -> float:
    """Return the max of the two directed 95th percentiles **by area of surface**, in µm.

    The definition of DeepMind's `surface-distance` ("robust Hausdorff distance"; Nikolov et al. 2021,
    doi:10.2196/26151): surface elements lie at the corners between eight voxels and weigh as much as the
    piece of surface there, and the percentile is the distance within which 95 % of the area lies. Areas by
    MONAI.

    Parameters
    ----------
    prediction, truth, spacing
        See :func:`hd95`.

    Returns
    -------
    float
        >= 0, µm.

    Raises
    ------
    ValueError
        See :func:`hd95`.
    """
    prediction, truth, spacing = _checked(prediction, truth, spacing)
    if not (prediction.any() and truth.any()):
        return _without_surface(prediction, truth, spacing)
    *surfaces, area, truth_area = _edges(prediction, truth, spacing=spacing)
    areas = (area[surfaces[0]], truth_area[surfaces[1]])
    distances = _distances(surfaces, spacing)
    return max(_percentile_by_weight(*one) for one in zip(distances, areas, strict=True))


def _checked(
    prediction: ArrayLike, truth: ArrayLike, spacing: Sequence[float]
) -> tuple[NDArray[np.bool_], NDArray[np.bool_], Spacing]:
    """Return boolean masks of one shape, and the spacing as floats."""
    return *mask_pair(prediction, truth), check_spacing(spacing)


def _without_surface(prediction: NDArray[np.bool_], truth: NDArray[np.bool_], spacing: Spacing) -> float:
    """Return the distance where one mask is empty, or both."""
    both_empty = prediction.any() == truth.any()
    return 0.0 if both_empty else float(np.linalg.norm(np.multiply(truth.shape, spacing)))


def _edges(prediction: NDArray[np.bool_], truth: NDArray[np.bool_], **settings: Spacing) -> list[NDArray]:
    """Return the surfaces in a box around both masks; with a spacing, also the area of each element."""
    from monai.metrics.utils import get_mask_edges

    return [np.asarray(part) for part in get_mask_edges(prediction, truth, **settings)]


def _distances(surfaces: Sequence[NDArray[np.bool_]], spacing: Spacing) -> list[NDArray[np.float64]]:
    """Return the distance from each element of either surface to the nearest of the other, µm."""
    points = [np.argwhere(surface) * spacing for surface in surfaces]  # (n, 3) each
    return [cKDTree(there).query(here)[0] for here, there in (points, points[::-1])]


def _percentile_by_weight(distances: NDArray[np.float64], weights: NDArray) -> float:
    """Return the least distance within which 95 % of the weight lies."""
    order = np.argsort(distances)
    weight_so_far = np.cumsum(weights[order], dtype=np.float64)
    return float(distances[order][np.searchsorted(weight_so_far, 0.95 * weight_so_far[-1])])
