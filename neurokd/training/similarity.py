"""The three losses of distillation: distances of two sets of tokens, exactly zero for equal tokens."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F

__all__ = ["cosine_loss", "gram_loss", "mse_loss"]


def cosine_loss(student: Tensor, teacher: Tensor) -> Tensor:
    """Return one minus the cosine of each pair of tokens, averaged over the pairs.

    Parameters
    ----------
    student, teacher
        Tokens ``... d`` of one shape.

    Returns
    -------
    Tensor
        A scalar in [0, 2].
    """
    # Half the squared distance of unit vectors is one minus their cosine, and is exactly zero for equal
    # tokens.
    apart = F.normalize(student, dim=-1, eps=1e-6) - F.normalize(teacher, dim=-1, eps=1e-6)
    return 0.5 * apart.square().sum(-1).mean()


def mse_loss(student: Tensor, teacher: Tensor) -> Tensor:
    """Return the mean squared difference of tokens; each token is first normalised over its channels.

    Parameters
    ----------
    student, teacher
        Tokens ``... d`` of one shape.

    Returns
    -------
    Tensor
        A scalar in [0, 4], since normalised channels have mean square 1. It is twice the cosine loss of
        tokens from which the mean over channels was subtracted.
    """
    # The channels of a centred token may differ only by hundredths. Their variance is then not much larger
    # than the usual eps of 1e-5, so eps is smaller here.
    ours, theirs = (F.layer_norm(tokens, tokens.shape[-1:], eps=1e-8) for tokens in (student, teacher))
    return F.mse_loss(ours, theirs)


def gram_loss(student: Tensor, teacher: Tensor) -> Tensor:
    """Return the mean squared difference of cosines, over all pairs of tokens of a volume.

    Parameters
    ----------
    student, teacher
        Tokens ``b n d`` and ``b n e``. Widths may differ, because only similarities within each side are
        compared.

    Returns
    -------
    Tensor
        A scalar in [0, 4].

    Notes
    -----
    See Tung & Mori 2019, arXiv:1907.09682. Tokens have unit length, as in DINOv3's Gram anchoring,
    arXiv:2508.10104.
    """
    ours, theirs = (F.normalize(tokens, dim=-1, eps=1e-6) for tokens in (student, teacher))
    return F.mse_loss(ours @ ours.mT, theirs @ theirs.mT)  # Gram matrices, b n n
