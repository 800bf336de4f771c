"""The training loss: Dice and cross-entropy and, optionally, two losses on the shape of a neurite.

    logits ──► Dice + cross-entropy ─────────────────────────────────────┐
       └─► sigmoid ─► soft-clDice: soft skeleton of either in the other ─┼─► weighted sum
                  └─► skeleton recall: how much of the tube around the   │
                      true skeleton is found ────────────────────────────┘

The two losses on skeletons are in :mod:`neurokd.training.skeleton_losses`.
"""

from __future__ import annotations

from torch import Tensor, nn

from neurokd.training.known import KnownVoxels
from neurokd.training.skeleton_losses import _skeleton_recall_loss, _soft_cldice_loss

__all__ = ["SegmentationLoss", "dice_cross_entropy"]


def dice_cross_entropy() -> nn.Module:
    """Return soft Dice plus cross-entropy on logits, foreground only.

    Neurites are about 1 % of the voxels. With cross-entropy alone, a model that predicts only background
    scores well. Dice alone has no gradient in a crop without neurites. Dice is computed over the whole batch,
    so that an empty crop does not count as a miss.

    Returns
    -------
    torch.nn.Module
        Loss that maps logits and masks, both ``b 1 z y x``, to a scalar. The third argument ``known``, a
        boolean tensor of that shape, restricts it to the known voxels.

    Examples
    --------
    >>> loss = dice_cross_entropy()
    >>> loss(torch.full((1, 1, 4, 4, 4), 20.0), torch.ones(1, 1, 4, 4, 4)).item() < 1e-4
    True
    """
    from monai.losses import DiceCELoss

    return KnownVoxels(DiceCELoss(sigmoid=True, batch=True))


class SegmentationLoss(nn.Module):
    """Dice plus cross-entropy, plus soft-clDice and skeleton recall if their weights are not 0.

    Parameters
    ----------
    cldice
        Weight of :func:`neurokd.training.skeleton_losses.soft_cldice_loss`, not negative.
    skeleton_recall
        Weight of :func:`neurokd.training.skeleton_losses.skeleton_recall_loss`, not negative.
    iterations
        Number of erosions of soft-clDice.
    radius
        Radius of the tube of skeleton recall, in voxels.

    Raises
    ------
    ValueError
        If a number is negative.

    Examples
    --------
    >>> loss = SegmentationLoss(cldice=0.3)
    >>> value, parts = loss.with_parts(torch.zeros(1, 1, 8, 16, 16), torch.ones(1, 1, 8, 16, 16))
    >>> sorted(parts)
    ['cldice', 'dice_ce']
    """

    def __init__(
        self, *, cldice: float = 0.0, skeleton_recall: float = 0.0, iterations: int = 3, radius: int = 2
    ) -> None:
        super().__init__()
        self.cldice, self.skeleton_recall = cldice, skeleton_recall
        self.iterations, self.radius = iterations, radius
        for name, value in self.settings().items():
            if not value >= 0:
                raise ValueError(f"{name} must not be negative, got {value}")
        self.dice_ce = dice_cross_entropy()

    def settings(self) -> dict[str, float]:
        """Return the settings by name; a resumed run must have the same."""
        return {name: getattr(self, name) for name in ("cldice", "skeleton_recall", "iterations", "radius")}

    def forward(self, logits: Tensor, mask: Tensor, known: Tensor | None = None) -> Tensor:
        """Map logits and masks, both ``b 1 z y x``, to a scalar >= 0; see :meth:`with_parts`."""
        return self.with_parts(logits, mask, known)[0]

    def with_parts(
        self,
        logits: Tensor,
        mask: Tensor,
        known: Tensor | None = None,
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the loss and, for the history, its parts before weighting (detached).

        Parameters
        ----------
        logits, mask
            Logits and masks, both ``b 1 z y x``.
        known
            Voxels that count, boolean, of the same shape; None means all voxels. See each part for what it
            does with them.
        """
        mask = mask.to(logits.dtype)
        parts = {"dice_ce": self.dice_ce(logits, mask, known)}
        value = parts["dice_ce"]
        # A sigmoid lies in [0, 1], so the private functions skip the range check, which would wait for the
        # GPU.
        probability = logits.sigmoid()
        if self.cldice:
            parts["cldice"] = _soft_cldice_loss(probability, mask, known, self.iterations, smooth=1.0)
            value = value + self.cldice * parts["cldice"]
        if self.skeleton_recall:
            recall = _skeleton_recall_loss(probability, mask, known, self.radius, smooth=1.0)
            parts["skeleton_recall"] = recall
            value = value + self.skeleton_recall * recall
        return value, {name: part.detach() for name, part in parts.items()}
