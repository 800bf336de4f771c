"""Two losses that look at the shape of a neurite: soft-clDice and skeleton recall.

    probability ─┬─► soft-clDice: soft skeleton of either in the other
                 └─► skeleton recall: how much of the tube around the true skeleton is found

A thin branch has few voxels, so Dice hardly sees it break; both losses weigh it by its length. MONAI has the soft
skeleton. Its ``SoftclDiceLoss`` is not used: up to 1.5 it leaves out channel 0, so that with one channel it is
constant, and from 1.6 on it is taken crop by crop.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from neurokd.training.known import check_known_tensor

__all__ = ["skeleton_recall_loss", "skeleton_tube", "soft_cldice_loss"]


def soft_cldice_loss(
    probability: Tensor, mask: Tensor, *, known: Tensor | None = None, iterations: int = 3, smooth: float = 1.0
) -> Tensor:
    """Return one minus soft-clDice, the harmonic mean of what each one's soft skeleton finds of itself in the other.

    With soft skeletons ``S``, sums over the whole batch and ``s`` for ``smooth``: topology precision
    ``(sum S(p) m + s) / (sum S(p) + s)``, topology sensitivity ``(sum S(m) p + s) / (sum S(m) + s)``.

    Parameters
    ----------
    probability
        ``b 1 z y x`` in [0, 1]; not logits.
    mask
        True neurite voxels of the same shape, boolean or 0 and 1.
    known
        The voxels that count, boolean, of the same shape; None: all. Skeletons are made of these alone, as if the
        volume ended where nothing is known: in a single annotated slice they are 2D skeletons of the slice.
    iterations
        Erosions of the soft skeleton: at least the radius in voxels of the thickest neurite that matters.
    smooth
        Added to numerators and denominators; it decides where there is no skeleton.

    Returns
    -------
    Tensor
        A scalar in [0, 1]: 0 for a perfect mask (and where both are empty), near 1 for a miss.

    Raises
    ------
    ValueError
        If shapes differ or are not ``b 1 z y x``, probabilities lie outside [0, 1], or a number is out of range.

    Notes
    -----
    Shit et al. 2021, arXiv:2003.07311, algorithms 1 and 2. As there, the loss is meant beside Dice, not alone.
    """
    if iterations < 0 or not smooth > 0:
        raise ValueError(f"iterations is {iterations} and smooth {smooth}; need iterations >= 0 and smooth > 0")
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
    """Return MONAI's soft skeleton; with ``known`` that of the known voxels, and 0 elsewhere."""
    from monai.losses.cldice import soft_dilate, soft_erode, soft_skel

    if known is None:
        return soft_skel(array, iterations)
    unknown = ~known

    def eroded(values: Tensor) -> Tensor:
        return soft_erode(values.masked_fill(unknown, 1))  # a minimum of values up to 1 does not see a 1

    def opened(values: Tensor) -> Tensor:
        return soft_dilate(eroded(values).masked_fill(unknown, 0))  # nor a maximum a 0

    # As soft_skel: what an opening takes away, of ever thinner versions of the array.
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
        The voxels that count, boolean, of the same shape; None: all. Each connected piece of the known mask has a tube
        of its own, and a piece within one slice gets the 2D skeleton.
    radius
        Voxels by which the skeleton is thickened (6-neighbours, so many times); 0 leaves it bare.

    Returns
    -------
    Tensor
        Boolean, shape and device of ``mask``.

    Raises
    ------
    ValueError
        If the mask has another shape, or the radius is negative.

    Notes
    -----
    Kirchhoff et al. 2024, arXiv:2404.03010: skeletonise (scikit-image, on the CPU), dilate twice, multiply by the
    mask. Here no piece goes without a skeleton (scikit-image finds none in some even tubes), and each crop has one of
    its own, which may end a little short of the crop's border.
    """
    from neurokd.evaluation.topology import skeleton_of  # brings scikit-image

    if mask.ndim != 5 or mask.shape[1] != 1 or radius < 0:
        raise ValueError(f"mask has shape {tuple(mask.shape)} and radius is {radius}; need b 1 z y x and radius >= 0")
    tubes = (mask > 0.5 if known is None else (mask > 0.5) & known).cpu().numpy()
    for crop in tubes[:, 0]:  # z y x
        crop[:] = _tube(crop, skeleton_of(crop), radius) if known is None else _tubes_of_pieces(crop, radius)
    return torch.from_numpy(np.ascontiguousarray(tubes)).to(mask.device)


def _tube(mask: NDArray[np.bool_], skeleton: NDArray[np.bool_], radius: int) -> NDArray[np.bool_]:
    """Return the skeleton thickened inside the mask."""
    from scipy.ndimage import binary_dilation

    # scipy takes iterations=0 for "until nothing changes"
    return mask & binary_dilation(skeleton, iterations=radius) if radius and skeleton.any() else mask & skeleton


def _tubes_of_pieces(mask: NDArray[np.bool_], radius: int) -> NDArray[np.bool_]:
    """Return the tubes of the connected pieces of a mask, each made in its own box."""
    from scipy import ndimage
    from skimage.morphology import skeletonize

    from neurokd.evaluation.topology import skeleton_of

    tubes = np.zeros_like(mask)
    pieces, _ = ndimage.label(mask, np.ones((3, 3, 3)))
    for number, box in enumerate(ndimage.find_objects(pieces), 1):
        piece = pieces[box] == number
        if 1 in piece.shape:  # scikit-image thins a flat piece away in 3D, not in 2D
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

    ``1 - (sum tube p + s) / (sum tube + s)``, sums over the whole batch, ``s`` for ``smooth``. The gradient goes
    through the probabilities only. Too much foreground costs nothing here: use it beside Dice.

    Parameters
    ----------
    probability
        ``b 1 z y x`` in [0, 1]; not logits.
    mask
        True neurite voxels of the same shape, boolean or 0 and 1.
    known
        The voxels that count, boolean, of the same shape; None: all. See :func:`skeleton_tube`.
    radius
        Of the tube, see :func:`skeleton_tube`.
    smooth
        Added to numerator and denominator.

    Returns
    -------
    Tensor
        A scalar in [0, 1]; 0 where the mask is empty.

    Raises
    ------
    ValueError
        As :func:`soft_cldice_loss`.

    Notes
    -----
    Kirchhoff et al. 2024, arXiv:2404.03010, equation of the soft recall; theirs is its negative.
    """
    if not smooth > 0:
        raise ValueError(f"smooth is {smooth}; it must be positive")
    return _skeleton_recall_loss(_probability(probability, mask, known), mask, known, radius, smooth)


def _skeleton_recall_loss(
    probability: Tensor, mask: Tensor, known: Tensor | None, radius: int, smooth: float
) -> Tensor:
    tube = skeleton_tube(mask, known=known, radius=radius).to(probability.dtype)  # lies inside what is known
    return 1 - ((tube * probability).sum() + smooth) / (tube.sum() + smooth)


def _probability(probability: Tensor, mask: Tensor, known: Tensor | None) -> Tensor:
    """Return ``probability`` if it can be one for ``mask``; raise what is wrong otherwise."""
    if probability.ndim != 5 or probability.shape[1] != 1 or probability.shape != mask.shape:
        raise ValueError(
            f"probability has shape {tuple(probability.shape)} and mask {tuple(mask.shape)}; both must be b 1 z y x"
        )
    low, high = (value.item() for value in torch.aminmax(probability.detach()))
    if not (low >= 0 and high <= 1):
        raise ValueError(f"probability lies in [{low:.4g}, {high:.4g}], not in [0, 1]; are these logits? Take sigmoid")
    if known is not None:
        check_known_tensor(known, probability)
    return probability
