"""Losses for masks of which only some voxels are known.

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
    """Make a loss that compares voxel by voxel ignore unknown voxels.

    Only the known voxels are passed to the loss, so its means and sums are over them. (MONAI's ``MaskedLoss``
    multiplies logits and mask by ``known`` instead. Unknown voxels then stay in the mean of a cross-entropy,
    with probability 0.5.) A loss that looks at neighbours needs an argument ``known`` of its own.

    Parameters
    ----------
    loss
        Loss that maps logits and masks, both ``b 1 ...``, to a scalar. It must not depend on the places of
        the voxels or on the crop to which they belong.

    Examples
    --------
    >>> loss = KnownVoxels(torch.nn.BCEWithLogitsLoss())
    >>> train(model, training, validation, folder, loss=loss)
    """

    def __init__(self, loss: Callable[[Tensor, Tensor], Tensor]) -> None:
        super().__init__()
        self.loss = loss
        self.__qualname__ = _name_of(loss)  # a run records the name of the wrapped loss

    def forward(self, logits: Tensor, mask: Tensor, known: Tensor | None = None) -> Tensor:
        """Map logits and masks, both ``b 1 z y x``, to a scalar.

        Parameters
        ----------
        logits, mask
            See the wrapped loss.
        known
            Voxels that count, boolean, of the same shape; None means all voxels.

        Returns
        -------
        Tensor
            A scalar.

        Raises
        ------
        ValueError
            If ``known`` is not boolean, has another shape, or holds no True.
        """
        if known is None:
            return self.loss(logits, mask)
        check_known_tensor(known, logits)
        return self.loss(*(rearrange(t[known], "n -> 1 1 n") for t in (logits, mask)))


def check_known_tensor(known: Tensor, logits: Tensor) -> None:
    """Raise ``ValueError`` unless ``known`` is boolean, has the shape of the logits and holds a True."""
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
        parameters = list(inspect.signature(call).parameters.values())
    except ValueError:  # some functions written in C have no signature
        parameters = []
    if not any(p.name == "known" or p.kind is p.VAR_KEYWORD for p in parameters):
        raise ValueError(
            "loss must take known= because some voxels of the training samples are not known, "
            f"got {_name_of(loss)}; "
            "KnownVoxels(loss) adds it to a loss that compares voxel by voxel"
        )


def _name_of(loss: Callable) -> str:
    """Return the name of a loss function, or of the class of a loss object."""
    return getattr(loss, "__qualname__", type(loss).__qualname__)


def loss_and_parts(
    loss: Loss,
    logits: Tensor,
    mask: Tensor,
    known: Tensor | None,
) -> tuple[Tensor, dict[str, Tensor]]:
    """Return a loss and, if it has ``with_parts``, its parts; ``known`` is passed if it holds a False."""
    options = {} if known is None or known.all() else {"known": known}
    if hasattr(loss, "with_parts"):
        return loss.with_parts(logits, mask, **options)
    return loss(logits, mask, **options), {}
