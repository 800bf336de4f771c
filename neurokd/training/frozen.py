"""The base of every distillation: a frozen teacher and, optionally, modules that learn with the student."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import Any

from torch import Tensor, nn

__all__ = ["FrozenTeacher"]


class FrozenTeacher(nn.Module, ABC):
    """A frozen teacher that runs the student and adds a term to its loss.

    :func:`neurokd.training.loop.train` takes it as ``distillation``. To add a kind of distillation, write a
    subclass with :meth:`settings` and :meth:`forward`. :class:`neurokd.training.distill.Distillation`
    compares tokens, :class:`neurokd.training.soft_targets.SoftTargets` compares probabilities.

    Parameters
    ----------
    teacher
        Teacher. It is frozen in place: its parameters get no gradients, and it stays in evaluation mode.
    projections
        Modules that learn with the student, at the learning rate of new parameters.
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
        """Return the parameters that the optimiser updates."""
        return self.projections.parameters()

    @abstractmethod
    def settings(self) -> dict[str, Any]:
        """Return the settings that a resumed run must share; they identify the teacher, too."""

    def checkpoint(self) -> dict[str, Any]:
        """Return what a resumed run needs: the settings and the projections."""
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
            Number of finished steps.

        Returns
        -------
        tuple
            The student's logits, the weighted loss, and for the history its parts before weighting.
        """
