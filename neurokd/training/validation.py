"""Validation during training: find the threshold with the best mean Dice over the validation samples."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from neurokd.data.annotation import annotated
from neurokd.data.datasets import Sample
from neurokd.evaluation.voxels import best_threshold, dice
from neurokd.inference.sliding import predict

__all__ = ["Validation"]


class Validation:
    """Validation samples, on which a threshold is chosen; they are checked like training samples.

    Parameters
    ----------
    samples
        Samples with masks, at least one of them with foreground. Unknown voxels do not count.
    window
        Size (z, y, x) of the windows in which the samples are segmented.

    Raises
    ------
    ValueError
        If there are no samples, a sample has no mask or unusable arrays, or no sample has foreground.
    """

    def __init__(self, samples: Sequence[Sample], window: tuple[int, int, int]) -> None:
        if not len(samples):
            raise ValueError("validation must hold at least one sample, got none")
        self.window, self.volumes = window, [sample.volume for sample in samples]
        checked = [annotated(sample)[2:] for sample in samples]  # the scaled images are not kept
        self.masks, self.known = zip(*checked, strict=True)
        if not any(mask.any() for mask in self.masks):
            names = [sample.name for sample in samples]
            raise ValueError(f"validation must have foreground, got empty masks for {names}")

    def __call__(self, model: nn.Module) -> tuple[float, float]:
        """Return the highest mean foreground Dice of a model, and the threshold that gives it."""
        chances = [predict(model, volume, window=self.window) for volume in self.volumes]
        threshold = best_threshold(chances, self.masks, known=self.known)
        truths = zip(chances, self.masks, self.known, strict=True)
        scores = [dice(chance > threshold, mask, known=known) for chance, mask, known in truths]
        return sum(scores) / len(scores), threshold
