"""How far apart two sets of tokens are: the three losses of distillation, each exactly zero for equal tokens."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F

__all__ = ["cosine_loss", "gram_loss", "mse_loss"]


def cosine_loss(student: Tensor, teacher: Tensor) -> Tensor:
    """Return one minus the cosine of each pair of tokens, averaged.

    Parameters
    ----------
    student, teacher
        Tokens ``... d`` of one shape.

    Returns
    -------
    Tensor
        A scalar in [0, 2]. Written as half the squared distance of the unit vectors, which is the same and exactly
        zero for equal tokens.
    """
    apart = F.normalize(student, dim=-1, eps=1e-6) - F.normalize(teacher, dim=-1, eps=1e-6)
    return 0.5 * apart.square().sum(-1).mean()


def mse_loss(student: Tensor, teacher: Tensor) -> Tensor:
    """Return the mean squared difference of tokens that are first normalised, each over its channels.

    Parameters
    ----------
    student, teacher
        Tokens ``... d`` of one shape.

    Returns
    -------
    Tensor
        A scalar in [0, 4], since normalised channels have mean square 1. It is twice the cosine loss of tokens whose
        mean over channels is taken away first.
    """
    # A centred token's channels may vary by hundredths: the usual eps of 1e-5 would count among their variance.
    return F.mse_loss(*(F.layer_norm(tokens, tokens.shape[-1:], eps=1e-8) for tokens in (student, teacher)))


def gram_loss(student: Tensor, teacher: Tensor) -> Tensor:
    """Return the mean squared difference of the cosines between all pairs of tokens of a volume.

    Parameters
    ----------
    student, teacher
        ``b n d`` and ``b n e``: widths may differ, since only similarities within each side are compared.

    Returns
    -------
    Tensor
        A scalar in [0, 4].

    Notes
    -----
    Tung & Mori 2019, arXiv:1907.09682; with unit tokens, as in DINOv3's Gram anchoring, arXiv:2508.10104.
    """
    units = (F.normalize(tokens, dim=-1, eps=1e-6) for tokens in (student, teacher))
    return F.mse_loss(*(unit @ unit.mT for unit in units))
