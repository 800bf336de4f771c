"""Checkpoints store all that a run needs to continue exactly, and refuse to continue with other settings."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from neurokd.data.files import writing_to
from neurokd.training.config import TrainConfig, TrainResult
from neurokd.training.frozen import FrozenTeacher

__all__ = ["RunState"]


@dataclass(frozen=True)
class RunState:
    """The parts of a run that a checkpoint stores: those that learn, and the settings of the others.

    Parameters
    ----------
    model, optimizer, scheduler
        Parts whose state is stored and restored.
    config, loss
        Parts whose settings are stored; a resumed run must have the same.
    distillation
        Teacher with settings and with projections that learn, or None.
    """

    model: nn.Module
    optimizer: torch.optim.Optimizer
    scheduler: torch.optim.lr_scheduler.LRScheduler
    config: TrainConfig
    loss: Callable[..., torch.Tensor]
    distillation: FrozenTeacher | None

    def save(self, folder: Path, step: int, result: TrainResult) -> None:
        """Write the checkpoint and the history; each file is written completely or not at all."""
        state = {
            "step": step,
            "config": asdict(self.config),
            "loss": _loss_settings(self.loss),
            "result": asdict(result),
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scheduler": self.scheduler.state_dict(),
            "distillation": None if self.distillation is None else self.distillation.checkpoint(),
        }
        with writing_to(folder / "last.ckpt", overwrite=True) as part:
            torch.save(state, part)
        with writing_to(folder / "history.jsonl", overwrite=True) as part:
            part.write_text("".join(json.dumps(record) + "\n" for record in result.history))

    def restore(self, checkpoint: Path) -> tuple[int, TrainResult]:
        """Restore model, optimizer, schedule and projections; return the step and the result so far.

        Raises
        ------
        ValueError
            If the checkpoint is cut short or damaged, or was made with other settings; the message names the
            file and the settings.
        """
        state = _read(checkpoint)
        distilled: Any = state.get("distillation")
        stored = state["config"] | state.get("loss", {}) | _named(distilled)
        current = asdict(self.config) | _loss_settings(self.loss)
        current |= _named(None if self.distillation is None else self.distillation.checkpoint())
        names = {**stored, **current}  # a setting that only one side has counts as a difference, too
        other = {name: stored.get(name) for name in names if stored.get(name) != current.get(name)}
        if other:
            message = f"{checkpoint} was made with other settings: {other}; resume with those or start anew"
            raise ValueError(message)
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.scheduler.load_state_dict(state["scheduler"])
        if self.distillation is not None:
            self.distillation.projections.load_state_dict(distilled["projections"])
        return state["step"], TrainResult(**state["result"])


def _read(checkpoint: Path) -> dict[str, Any]:
    """Return the content of a checkpoint, or raise a ValueError if the file is cut short or damaged."""
    message = f"{checkpoint} must be a complete checkpoint, got a file that is cut short or damaged"
    with checkpoint.open("rb") as file:  # a file that may not be opened is another error
        try:
            with zipfile.ZipFile(file) as archive:
                damaged = archive.testzip()  # torch.load does not compare checksums
            if damaged is not None:
                raise zipfile.BadZipFile(f"the checksum of {damaged} is wrong")
            file.seek(0)
            return torch.load(file, map_location="cpu", weights_only=True)
        except Exception as error:  # what zipfile and torch raise depends on the damaged byte
            raise ValueError(message) from error


def _loss_settings(loss: Callable) -> dict[str, Any]:
    """Return the name of a loss (its function or class) and, as ``loss.NAME``, the settings it has."""
    settings = loss.settings() if hasattr(loss, "settings") else {}
    name = getattr(loss, "__qualname__", type(loss).__qualname__)
    return {"loss": name} | {f"loss.{field}": value for field, value in settings.items()}


def _named(distillation: dict[str, Any] | None) -> dict[str, Any]:
    """Return the settings of a distillation as ``distillation.NAME``, apart from those of the run."""
    settings = {} if distillation is None else distillation["settings"]
    return {f"distillation.{name}": value for name, value in settings.items()}
