"""What training minimises: Dice and cross-entropy, and as options two losses that look at the shape of a neurite.

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

    Neurites are about 1 % of the voxels: cross-entropy alone is content with background, Dice alone has no gradient
    where a crop holds no neurite. Dice is taken over the whole batch, so that one empty crop does not count as a miss.

    Returns
    -------
    torch.nn.Module
        Maps logits and masks, both ``b 1 z y x``, to a scalar; with ``known``, a third tensor, boolean, of that shape,
        to what Dice and cross-entropy are of the known voxels alone.

    Examples
    --------
    >>> loss = dice_cross_entropy()
    >>> loss(torch.full((1, 1, 4, 4, 4), 20.0), torch.ones(1, 1, 4, 4, 4)).item() < 1e-4
    True
    """
    from monai.losses import DiceCELoss

    return KnownVoxels(DiceCELoss(sigmoid=True, batch=True))


class SegmentationLoss(nn.Module):
    """Dice plus cross-entropy, plus soft-clDice and skeleton recall as far as they have a weight.

    Parameters
    ----------
    cldice
        Weight of :func:`neurokd.training.skeleton_losses.soft_cldice_loss`, not negative.
    skeleton_recall
        Weight of :func:`neurokd.training.skeleton_losses.skeleton_recall_loss`, not negative.
    iterations
        Of soft-clDice.
    radius
        Of the tube of skeleton recall.

    Raises
    ------
    ValueError
        If a number is out of range.

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
        numbers = {"cldice": cldice, "skeleton_recall": skeleton_recall, "iterations": iterations, "radius": radius}
        for name, value in numbers.items():
            if not value >= 0:
                raise ValueError(f"{name} is {value}; it must not be negative")
        self.cldice, self.skeleton_recall = cldice, skeleton_recall
        self.iterations, self.radius = iterations, radius
        self.dice_ce = dice_cross_entropy()

    def settings(self) -> dict[str, float]:
        """Return its numbers by name: a resumed run must have the same."""
        return {name: getattr(self, name) for name in ("cldice", "skeleton_recall", "iterations", "radius")}

    def forward(self, logits: Tensor, mask: Tensor, known: Tensor | None = None) -> Tensor:
        """Map logits and masks, both ``b 1 z y x``, to a scalar, not negative; see :meth:`with_parts`."""
        return self.with_parts(logits, mask, known)[0]

    def with_parts(self, logits: Tensor, mask: Tensor, known: Tensor | None = None) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the loss and, for the record, its parts before their weights (detached).

        Parameters
        ----------
        logits, mask
            Both ``b 1 z y x``.
        known
            The voxels that count, boolean, of the same shape; None: all. Each part says what it makes of it.
        """
        mask = mask.to(logits.dtype)
        parts = {"dice_ce": self.dice_ce(logits, mask, known)}
        value = parts["dice_ce"]
        # The sigmoid is taken here, so its range needs no check, which would wait for the accelerator.
        probability = logits.sigmoid()
        if self.cldice:
            parts["cldice"] = _soft_cldice_loss(probability, mask, known, self.iterations, smooth=1.0)
            value = value + self.cldice * parts["cldice"]
        if self.skeleton_recall:
            parts["skeleton_recall"] = _skeleton_recall_loss(probability, mask, known, self.radius, smooth=1.0)
            value = value + self.skeleton_recall * parts["skeleton_recall"]
        return value, {name: part.detach() for name, part in parts.items()}
