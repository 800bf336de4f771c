"""Checkpoints store all that a run needs to continue exactly, and refuse to continue with other settings."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from neurokd.data.files import writing_to

if TYPE_CHECKING:
    from neurokd.training.config import TrainConfig, TrainResult
    from neurokd.training.frozen import FrozenTeacher

__all__ = ["restore", "save"]


def save(
    folder: Path,
    step: int,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    scheduler: Any,
    config: TrainConfig,
    loss: Callable,
    result: TrainResult,
    distillation: FrozenTeacher | None,
) -> None:
    """Write the checkpoint and the history; each file is written completely or not at all."""
    state = {
        "step": step,
        "config": asdict(config),
        "loss": _loss_settings(loss),
        "result": asdict(result),
        "model": model.state_dict(),
        "optimizer": optimizer.state_dict(),
        "scheduler": scheduler.state_dict(),
        "distillation": None if distillation is None else distillation.checkpoint(),
    }
    with writing_to(folder / "last.ckpt", overwrite=True) as part:
        torch.save(state, part)
    with writing_to(folder / "history.jsonl", overwrite=True) as part:
        part.write_text("".join(json.dumps(record) + "\n" for record in result.history))


def restore(
    checkpoint: Path,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    scheduler: Any,
    config: TrainConfig,
    loss: Callable,
    distillation: FrozenTeacher | None,
) -> tuple[int, dict[str, Any]]:
    """Restore model, optimizer, schedule and projections; return the step and the fields of the result.

    Raises
    ------
    ValueError
        If the checkpoint was made with other settings; the message names them.
    """
    state = torch.load(checkpoint, map_location="cpu", weights_only=True)
    distilled = state.get("distillation")
    stored = state["config"] | state.get("loss", {}) | _named(distilled)
    current = asdict(config) | _loss_settings(loss)
    current |= _named(None if distillation is None else distillation.checkpoint())
    names = {**stored, **current}  # a setting that only one side has counts as a difference, too
    other = {name: stored.get(name) for name in names if stored.get(name) != current.get(name)}
    if other:
        message = f"{checkpoint} was made with other settings: {other}; resume with those or start anew"
        raise ValueError(message)
    model.load_state_dict(state["model"])
    optimizer.load_state_dict(state["optimizer"])
    scheduler.load_state_dict(state["scheduler"])
    if distillation is not None:
        distillation.projections.load_state_dict(distilled["projections"])
    return state["step"], state["result"]


def _loss_settings(loss: Callable) -> dict[str, Any]:
    """Return the name of a loss (its function or class) and, as ``loss.NAME``, the settings it has."""
    settings = loss.settings() if hasattr(loss, "settings") else {}
    name = getattr(loss, "__qualname__", type(loss).__qualname__)
    return {"loss": name} | {f"loss.{field}": value for field, value in settings.items()}


def _named(distillation: dict[str, Any] | None) -> dict[str, Any]:
    """Return the settings of a distillation as ``distillation.NAME``, apart from those of the run."""
    settings = {} if distillation is None else distillation["settings"]
    return {f"distillation.{name}": value for name, value in settings.items()}
