"""Losses where only some voxels are known.

logits, mask b 1 z y x ──► loss(logits, mask)               every voxel of the batch is known
logits, mask, known    ──► loss(logits, mask, known=known)  otherwise
└─► KnownVoxels: logits[known], mask[known] ──► a loss that compares voxel by voxel
"""

from __future__ import annotations

import inspect
from collections.abc import Callable

import torch
from einops import rearrange
from torch import Tensor, nn

__all__ = ["KnownVoxels"]

Loss = Callable[..., Tensor]


class KnownVoxels(nn.Module):
    """Make a loss that compares voxel by voxel ignore the voxels that are not known.

    The known voxels are taken out and given to the loss alone, so that means and sums are over them. (MONAI's
    ``MaskedLoss`` multiplies logits and mask by ``known`` instead; then unknown voxels stay in the mean of a
    cross-entropy, as voxels of probability 0.5.) A loss that looks at neighbours needs its own argument ``known``.

    Parameters
    ----------
    loss
        Maps logits and masks, both ``b 1 ...``, to a scalar, and does not depend on where voxels lie or to which
        crop they belong.

    Examples
    --------
    >>> loss = KnownVoxels(torch.nn.BCEWithLogitsLoss())
    >>> train(model, training, validation, folder, loss=loss)
    """

    def __init__(self, loss: Callable[[Tensor, Tensor], Tensor]) -> None:
        super().__init__()
        self.loss = loss
        self.__qualname__ = getattr(loss, "__qualname__", type(loss).__qualname__)  # the name that a run records

    def forward(self, logits: Tensor, mask: Tensor, known: Tensor | None = None) -> Tensor:
        """Map logits and masks, both ``b 1 z y x``, to a scalar.

        Parameters
        ----------
        logits, mask
            See the wrapped loss.
        known
            Boolean, of the same shape, somewhere True; None: all voxels.

        Returns
        -------
        Tensor
            A scalar.

        Raises
        ------
        ValueError
            If ``known`` is not boolean, of another shape, or nowhere True.
        """
        if known is None:
            return self.loss(logits, mask)
        check_known_tensor(known, logits)
        return self.loss(*(rearrange(t[known], "n -> 1 1 n") for t in (logits, mask)))


def check_known_tensor(known: Tensor, logits: Tensor) -> None:
    """Raise ``ValueError`` unless ``known`` is boolean, shaped as the logits, and somewhere True."""
    if known.dtype != torch.bool or known.shape != logits.shape:
        raise ValueError(
            f"known must be boolean of shape {tuple(logits.shape)}, got {known.dtype} of {tuple(known.shape)}"
        )
    if not known.any():
        raise ValueError("known must be True somewhere, got no known voxel")


def check_takes_known(loss: Loss) -> None:
    """Raise ``ValueError`` unless a loss has an argument ``known``."""
    call = getattr(loss, "with_parts", loss.forward if isinstance(loss, nn.Module) else loss)
    try:
        parameters = inspect.signature(call).parameters
    except ValueError:  # some functions written in C have none
        parameters = {}
    if "known" not in parameters and not any(p.kind is p.VAR_KEYWORD for p in parameters.values()):
        name = getattr(loss, "__qualname__", type(loss).__qualname__)
        raise ValueError(
            f"loss must take known= because some voxels of the training samples are not known, got {name}; "
            "KnownVoxels(loss) adds it to a loss that compares voxel by voxel"
        )


def loss_and_parts(loss: Loss, logits: Tensor, mask: Tensor, known: Tensor | None) -> tuple[Tensor, dict[str, Tensor]]:
    """Return a loss and its parts by name, if it tells them; ``known`` is passed where it is False anywhere."""
    options = {} if known is None or known.all() else {"known": known}
    if hasattr(loss, "with_parts"):
        return loss.with_parts(logits, mask, **options)
    return loss(logits, mask, **options), {}
