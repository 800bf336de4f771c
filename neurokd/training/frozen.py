"""What every kind of distillation has: a teacher that never learns, and what learns beside the student, if anything."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import Any

from torch import Tensor, nn

__all__ = ["FrozenTeacher"]


class FrozenTeacher(nn.Module, ABC):
    """A frozen teacher that runs the student and says by how much its loss grows.

    What :func:`neurokd.training.loop.train` takes as ``distillation``. A kind of distillation is a subclass with
    :meth:`settings` and :meth:`forward`: :class:`neurokd.training.distill.Distillation` compares tokens,
    :class:`neurokd.training.soft_targets.SoftTargets` probabilities.

    Parameters
    ----------
    teacher
        Is frozen in place: it gets no gradients from now on, and stays in evaluation mode.
    projections
        What learns beside the student, at the rate of new parameters.
    """

    def __init__(self, teacher: nn.Module, projections: nn.ModuleList) -> None:
        super().__init__()
        self.teacher = teacher.requires_grad_(False).eval()
        self.projections = projections

    def train(self, mode: bool = True) -> FrozenTeacher:
        """Set the mode of the projections; the teacher stays in evaluation mode."""
        super().train(mode)
        self.teacher.eval()
        return self

    def learned(self) -> Iterator[nn.Parameter]:
        """Return the parameters that an optimiser should see."""
        return self.projections.parameters()

    @abstractmethod
    def settings(self) -> dict[str, Any]:
        """Return what a resumed run must have alike, the teacher included."""

    def checkpoint(self) -> dict[str, Any]:
        """Return what a resumed run needs."""
        return {"settings": self.settings(), "projections": self.projections.state_dict()}

    @abstractmethod
    def forward(
        self, model: nn.Module, volume: Tensor, *, step: int
    ) -> tuple[Tensor, Tensor, dict[str, Tensor | float]]:
        """Run the student and compare it with the teacher.

        Parameters
        ----------
        model
            The student.
        volume
            ``b 1 z y x`` in [0, 1].
        step
            Steps that are done.

        Returns
        -------
        tuple
            The student's logits, the weighted loss, and for the record its parts before weights.
        """
