"""Distillation of a trained segmenter into another, usually a smaller one, by its probabilities.

    volume ─┬─► student ─► logits (to the segmentation loss) ─┐
            └─► segmenter, frozen ─► logits ──────────────────┴─► weight x T² x KL

The masks say what is a neurite, the probabilities also where the larger model is in doubt.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from neurokd.models.teacher import weights_sha256
from neurokd.training.frozen import FrozenTeacher

__all__ = ["SoftTargets"]


class SoftTargets(FrozenTeacher):
    """A frozen segmenter whose probabilities the student is asked to give, too (Hinton et al. 2015, arXiv:1503.02531).

    Given to :func:`neurokd.training.loop.train` as its distillation. With the logits of both divided by a temperature
    T, it adds to the loss ``weight * T**2`` times the mean over voxels of KL(teacher || student), of the two outcomes
    "neurite" and "not". So was `neurokd-tiny` made.

    Parameters
    ----------
    teacher
        Maps volumes ``b 1 z y x`` in [0, 1] to logits of that shape; any trained model will do.
    weight
        Of the divergence, beside the segmentation loss; at least 0.
    temperature
        T, above 0. Above 1 the voxels of which the teacher is sure count for less beside the others.

    Raises
    ------
    ValueError
        If the weight is negative or the temperature not above 0.

    Examples
    --------
    >>> large = NeuronSegmenter.from_pretrained("runs/large")
    >>> small = NeuronSegmenter.from_scratch(dim=192, depth=6, heads=3)
    >>> train(small, training, validation, folder, distillation=SoftTargets(large))
    """

    def __init__(self, teacher: nn.Module, *, weight: float = 1.0, temperature: float = 1.0) -> None:
        if not weight >= 0 or not temperature > 0:
            raise ValueError(f"weight is {weight} and temperature {temperature}; need weight >= 0 and temperature > 0")
        super().__init__(teacher, nn.ModuleList())  # beside the student nothing learns
        self.weight, self.temperature = weight, temperature
        self.sha256 = weights_sha256(teacher)

    def settings(self) -> dict[str, Any]:
        """Return what a resumed run must have alike, the teacher by the SHA-256 of its weights."""
        return {"teacher": self.sha256, "weight": self.weight, "temperature": self.temperature}

    def divergence(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Return the loss before its weight, from the logits of student and teacher."""
        ours, theirs = logits.float() / self.temperature, targets.float() / self.temperature
        soft = theirs.sigmoid()
        # Cross-entropy minus the teacher's own entropy: zero where the two agree.
        entropy = F.binary_cross_entropy_with_logits(theirs, soft)
        return self.temperature**2 * (F.binary_cross_entropy_with_logits(ours, soft) - entropy)

    def forward(
        self, model: nn.Module, volume: Tensor, *, step: int
    ) -> tuple[Tensor, Tensor, dict[str, Tensor | float]]:
        """Run the student and compare it with the teacher, see :class:`neurokd.training.frozen.FrozenTeacher`."""
        logits = model(volume)
        with torch.no_grad():
            targets = self.teacher(volume)
        value = self.divergence(logits, targets)
        return logits, self.weight * value, {"soft_targets": value.detach()}
