"""Two losses on the shape of a neurite: soft-clDice and skeleton recall.

    probability ─┬─► soft-clDice: soft skeleton of either in the other
                 └─► skeleton recall: how much of the tube around the true skeleton is found

A thin branch has few voxels, so Dice hardly changes if it breaks. Both losses weigh it by its length. The
soft skeleton is MONAI's. MONAI's ``SoftclDiceLoss`` is not used: up to version 1.5 it leaves out channel 0,
so with one channel it is constant; from 1.6 on it is computed crop by crop.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from neurokd.training.known import check_known_tensor

__all__ = ["skeleton_recall_loss", "skeleton_tube", "soft_cldice_loss"]


def soft_cldice_loss(
    probability: Tensor,
    mask: Tensor,
    *,
    known: Tensor | None = None,
    iterations: int = 3,
    smooth: float = 1.0,
) -> Tensor:
    """Return one minus soft-clDice, the harmonic mean of topology precision and topology sensitivity.

    Precision is the share of the predicted skeleton inside the mask, ``(sum S(p) m + s) / (sum S(p) + s)``.
    Sensitivity is the share of the true skeleton inside the prediction, ``(sum S(m) p + s) / (sum S(m) +
    s)``. ``S`` is the soft skeleton, sums are over the whole batch, and ``s`` is ``smooth``.

    Parameters
    ----------
    probability
        ``b 1 z y x`` in [0, 1]; not logits.
    mask
        True neurite voxels of the same shape, boolean or 0 and 1.
    known
        Voxels that count, boolean, of the same shape; None means all voxels. Skeletons are made of these
        alone, as if the volume ended at the unknown voxels. In a single annotated slice they are 2D
        skeletons.
    iterations
        Number of erosions of the soft skeleton, at least the radius in voxels of the thickest neurite that
        matters.
    smooth
        Number added to numerators and denominators; it makes the loss 0 if both skeletons are empty.

    Returns
    -------
    Tensor
        A scalar in [0, 1]: 0 for a perfect mask (or if both are empty), near 1 for a miss.

    Raises
    ------
    ValueError
        If shapes differ or are not ``b 1 z y x``, probabilities lie outside [0, 1], or a number is out of
        range.

    Notes
    -----
    See Shit et al. 2021, arXiv:2003.07311, algorithms 1 and 2. As in the paper, add this loss to Dice; do not
    use it alone.
    """
    if iterations < 0:
        raise ValueError(f"iterations must not be negative, got {iterations}")
    if not smooth > 0:
        raise ValueError(f"smooth must be positive, got {smooth}")
    probability, mask = _probability(probability, mask, known), mask.to(probability.dtype)
    return _soft_cldice_loss(probability, mask, known, iterations, smooth)


def _soft_cldice_loss(
    probability: Tensor, mask: Tensor, known: Tensor | None, iterations: int, smooth: float
) -> Tensor:
    with torch.no_grad():
        true_skeleton = _soft_skeleton(mask, known, iterations)
    skeleton = _soft_skeleton(probability, known, iterations)
    precision = ((skeleton * mask).sum() + smooth) / (skeleton.sum() + smooth)
    sensitivity = ((true_skeleton * probability).sum() + smooth) / (true_skeleton.sum() + smooth)
    return 1 - 2 * precision * sensitivity / (precision + sensitivity)


def _soft_skeleton(array: Tensor, known: Tensor | None, iterations: int) -> Tensor:
    """Return MONAI's soft skeleton; with ``known``, the skeleton of the known voxels, and 0 elsewhere."""
    from monai.losses.cldice import soft_dilate, soft_erode, soft_skel

    if known is None:
        return soft_skel(array, iterations)
    unknown = ~known

    def eroded(values: Tensor) -> Tensor:
        return soft_erode(values.masked_fill(unknown, 1))  # erosion is a minimum, which ignores a 1

    def opened(values: Tensor) -> Tensor:
        return soft_dilate(eroded(values).masked_fill(unknown, 0))  # dilation is a maximum, which ignores a 0

    # As soft_skel: the skeleton collects what an opening removes from thinner and thinner versions of the
    # array.
    skeleton = (array - opened(array)).relu()
    for _ in range(iterations):
        array = eroded(array)
        skeleton = skeleton + (1 - skeleton) * (array - opened(array)).relu()
    return skeleton.masked_fill(unknown, 0)


@torch.no_grad()
def skeleton_tube(mask: Tensor, *, known: Tensor | None = None, radius: int = 2) -> Tensor:
    """Return the tube around the skeleton of a mask, inside the mask.

    Parameters
    ----------
    mask
        Neurite voxels ``b 1 z y x``, boolean or 0 and 1.
    known
        Voxels that count, boolean, of the same shape; None means all voxels. Each connected piece of the
        known mask gets its own tube; a piece within one slice gets a 2D skeleton.
    radius
        Number of times that the skeleton is thickened by its 6-neighbours; 0 leaves it bare.

    Returns
    -------
    Tensor
        Boolean tensor with the shape and device of ``mask``.

    Raises
    ------
    ValueError
        If the mask is not ``b 1 z y x``, or the radius is negative.

    Notes
    -----
    As in Kirchhoff et al. 2024, arXiv:2404.03010: skeletonise (scikit-image, on the CPU), dilate twice,
    multiply by the mask. There are two differences. Every piece gets a skeleton, also tubes of even thickness
    in which scikit-image finds none. Each crop gets its own skeleton, which may end a little before the
    border of the crop.
    """
    from neurokd.evaluation.topology import skeleton_of  # imports scikit-image, so it is loaded only here

    if mask.ndim != 5 or mask.shape[1] != 1:
        raise ValueError(f"mask must be b 1 z y x, got shape {tuple(mask.shape)}")
    if radius < 0:
        raise ValueError(f"radius must not be negative, got {radius}")
    tubes = (mask > 0.5 if known is None else (mask > 0.5) & known).cpu().numpy()
    for crop in tubes[:, 0]:  # z y x
        crop[:] = _tube(crop, skeleton_of(crop), radius) if known is None else _tubes_of_pieces(crop, radius)
    return torch.from_numpy(np.ascontiguousarray(tubes)).to(mask.device)


def _tube(mask: NDArray[np.bool_], skeleton: NDArray[np.bool_], radius: int) -> NDArray[np.bool_]:
    """Return the skeleton thickened inside the mask."""
    from scipy.ndimage import binary_dilation

    # For scipy, iterations=0 means "until nothing changes".
    if radius and skeleton.any():
        skeleton = binary_dilation(skeleton, iterations=radius)
    return mask & skeleton


def _tubes_of_pieces(mask: NDArray[np.bool_], radius: int) -> NDArray[np.bool_]:
    """Return the tubes of the connected pieces of a mask; each is made in the bounding box of its piece."""
    from scipy import ndimage
    from skimage.morphology import skeletonize

    from neurokd.evaluation.topology import skeleton_of

    tubes = np.zeros_like(mask)
    pieces, _ = ndimage.label(mask, np.ones((3, 3, 3)))
    for number, box in enumerate(ndimage.find_objects(pieces), 1):
        piece = pieces[box] == number
        if 1 in piece.shape:  # a flat piece: in 3D, scikit-image would thin it away
            axis = piece.shape.index(1)
            skeleton = np.expand_dims(skeletonize(piece.squeeze(axis)), axis)
        else:
            skeleton = skeleton_of(piece)
        tubes[box] |= _tube(piece, skeleton, radius)
    return tubes


def skeleton_recall_loss(
    probability: Tensor, mask: Tensor, *, known: Tensor | None = None, radius: int = 2, smooth: float = 1.0
) -> Tensor:
    """Return one minus the soft recall of the tube around the true skeleton.

    This is ``1 - (sum tube p + s) / (sum tube + s)`` with sums over the whole batch and ``s`` for ``smooth``.
    The gradient goes through the probabilities only. Too much foreground costs nothing here, so add this loss
    to Dice.

    Parameters
    ----------
    probability
        ``b 1 z y x`` in [0, 1]; not logits.
    mask
        True neurite voxels of the same shape, boolean or 0 and 1.
    known
        Voxels that count, boolean, of the same shape; None means all voxels. See :func:`skeleton_tube`.
    radius
        Radius of the tube, see :func:`skeleton_tube`.
    smooth
        Number added to numerator and denominator.

    Returns
    -------
    Tensor
        A scalar in [0, 1]; 0 if the mask is empty.

    Raises
    ------
    ValueError
        See :func:`soft_cldice_loss`.

    Notes
    -----
    See the soft recall of Kirchhoff et al. 2024, arXiv:2404.03010; their loss is the negative soft recall.
    """
    if not smooth > 0:
        raise ValueError(f"smooth must be positive, got {smooth}")
    return _skeleton_recall_loss(_probability(probability, mask, known), mask, known, radius, smooth)


def _skeleton_recall_loss(
    probability: Tensor, mask: Tensor, known: Tensor | None, radius: int, smooth: float
) -> Tensor:
    tube = skeleton_tube(mask, known=known, radius=radius).to(probability.dtype)  # holds known voxels only
    return 1 - ((tube * probability).sum() + smooth) / (tube.sum() + smooth)


def _probability(probability: Tensor, mask: Tensor, known: Tensor | None) -> Tensor:
    """Return ``probability`` after checking its shape, its range and ``known``."""
    if probability.ndim != 5 or probability.shape[1] != 1 or probability.shape != mask.shape:
        raise ValueError(
            "probability must be b 1 z y x and have the shape of mask, "
            f"got {tuple(probability.shape)} and {tuple(mask.shape)}"
        )
    low, high = (value.item() for value in torch.aminmax(probability.detach()))
    if not (low >= 0 and high <= 1):
        raise ValueError(f"probability must be in [0, 1], got {low:.4g} to {high:.4g}: are these logits?")
    if known is not None:
        check_known_tensor(known, probability)
    return probability
