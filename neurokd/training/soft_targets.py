"""Distillation of a trained segmenter into another, usually smaller one, through its probabilities.

    volume ─┬─► student ─► logits (to the segmentation loss) ─┐
            └─► segmenter, frozen ─► logits ──────────────────┴─► weight x T² x KL

Masks say which voxels are neurite. Probabilities also say where the larger model is uncertain.
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
    """A frozen segmenter whose probabilities the student learns (Hinton et al. 2015, arXiv:1503.02531).

    Give it to :func:`neurokd.training.loop.train` as ``distillation``. The logits of teacher and student are
    divided by a temperature T. The mean over voxels of KL(teacher || student), for the two outcomes "neurite"
    and "not neurite", is multiplied by ``weight * T**2`` and added to the loss. `neurokd-tiny` was made this
    way.

    Parameters
    ----------
    teacher
        Any trained model that maps volumes ``b 1 z y x`` in [0, 1] to logits of that shape.
    weight
        Weight of the divergence, relative to the segmentation loss; at least 0.
    temperature
        Temperature T, above 0. With T above 1, voxels of which the teacher is certain count less than the
        others.

    Raises
    ------
    ValueError
        If the weight is negative or the temperature is not positive.

    Examples
    --------
    >>> large = NeuronSegmenter.from_pretrained("runs/large")
    >>> small = NeuronSegmenter.from_scratch(dim=192, depth=6, heads=3)
    >>> train(small, training, validation, folder, distillation=SoftTargets(large))
    """

    def __init__(self, teacher: nn.Module, *, weight: float = 1.0, temperature: float = 1.0) -> None:
        if not weight >= 0:
            raise ValueError(f"weight must not be negative, got {weight}")
        if not temperature > 0:
            raise ValueError(f"temperature must be positive, got {temperature}")
        super().__init__(teacher, nn.ModuleList())  # only the student learns
        self.weight, self.temperature = weight, temperature
        self.sha256 = weights_sha256(teacher)

    def settings(self) -> dict[str, Any]:
        """Return the settings that a resumed run must share; a SHA-256 of the weights names the teacher."""
        return {"teacher": self.sha256, "weight": self.weight, "temperature": self.temperature}

    def divergence(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Return the loss before weighting, from the logits of student and teacher."""
        ours, theirs = logits.float() / self.temperature, targets.float() / self.temperature
        soft = theirs.sigmoid()
        # KL divergence = cross-entropy minus the teacher's own entropy; it is zero if the two agree.
        entropy = F.binary_cross_entropy_with_logits(theirs, soft)
        return self.temperature**2 * (F.binary_cross_entropy_with_logits(ours, soft) - entropy)

    def forward(
        self, model: nn.Module, volume: Tensor, *, step: int
    ) -> tuple[Tensor, Tensor, dict[str, Tensor | float]]:
        """Run the student and compare it; see :meth:`neurokd.training.frozen.FrozenTeacher.forward`."""
        logits = model(volume)
        with torch.no_grad():
            targets = self.teacher(volume)
        value = self.divergence(logits, targets)
        return logits, self.weight * value, {"soft_targets": value.detach()}
