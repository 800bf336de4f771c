"""One readable training loop on Lightning Fabric, for one CPU core or several GPUs.

    Patches(seed, i) ─► batch ─► loss (+ distillation) ─► step ─► at times: validation, checkpoint

Item i of the patches depends only on the seed and on i, and nothing else here draws random numbers. So an
interrupted and resumed run ends with the same weights as an uninterrupted run.
"""

from __future__ import annotations

import logging
import math
import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import torch
from torch import nn
from torch.utils.data import DataLoader, Subset
from tqdm.auto import tqdm

from neurokd.data.datasets import Sample
from neurokd.data.files import writing_to
from neurokd.data.patches import Patches
from neurokd.inference.sliding import has_bf16, window_of
from neurokd.training.checkpoint import RunState
from neurokd.training.config import TrainConfig, TrainResult
from neurokd.training.frozen import FrozenTeacher
from neurokd.training.known import check_takes_known, loss_and_parts
from neurokd.training.losses import dice_cross_entropy
from neurokd.training.validation import Validation

__all__ = ["train"]

logger = logging.getLogger(__name__)


def train(
    model: nn.Module,
    training: Sequence[Sample],
    validation: Sequence[Sample],
    folder: str | os.PathLike[str],
    *,
    config: TrainConfig = TrainConfig(),
    loss: Callable[..., torch.Tensor] | None = None,
    distillation: FrozenTeacher | None = None,
    callback: Callable[[dict[str, float]], None] | None = None,
    resume: bool = False,
    progress: bool = True,
) -> TrainResult:
    """Train a model that maps volumes ``b 1 z y x`` to logits of that shape; it ends with its best weights.

    Parameters
    ----------
    model
        Any module. Three attributes are used if it has them. ``parameter_groups()``: its ``"transferred"``
        parameters get their own learning rate. ``config.window``: validation uses windows of that size, as
        :func:`neurokd.inference.sliding.predict` does; otherwise windows are as large as the crops.
        ``set_threshold``: it is called with the best threshold.
    training, validation
        Samples with masks, from different source stacks. Unknown voxels count in no loss and no score.
    folder
        Folder for ``last.ckpt`` (everything needed to resume), ``best.safetensors`` (weights) and
        ``history.jsonl``.
    config
        Settings of the run.
    loss
        Loss that maps logits and masks to a scalar, by default
        :func:`neurokd.training.losses.dice_cross_entropy`. For batches with unknown voxels it is also given
        ``known=``, see :class:`neurokd.training.known.KnownVoxels`. If it has ``with_parts`` (see
        :class:`neurokd.training.losses.SegmentationLoss`), the history gets its parts. If it has
        ``settings``, a resumed run must have the same; for other losses only the name is compared.
    distillation
        Teacher that the model also learns to match. :class:`neurokd.training.distill.Distillation` matches
        tokens, :class:`neurokd.training.soft_targets.SoftTargets` matches probabilities. Its projections
        learn at the rate of new parameters.
    callback
        Function that is called with each new record of the history, on the first device only.
    resume
        Continue from ``last.ckpt`` if it exists; otherwise start.
    progress
        Show a progress bar.

    Returns
    -------
    TrainResult

    Raises
    ------
    FileExistsError
        If the folder contains a run and ``resume`` is not set.
    ValueError
        Before the first step: if neither the settings nor the model give a crop size, a sample cannot be used
        (no mask, another shape, NaN, no foreground in any), the loss does not take ``known`` but needs it, or
        the run to be resumed had other settings (the message names them) or its checkpoint is damaged. Later:
        if the loss or its gradient is not finite.
    """
    from lightning_fabric import Fabric
    from safetensors.torch import load_file, save_file

    folder = Path(folder)
    checkpoint = folder / "last.ckpt"
    if checkpoint.exists() and not resume:
        raise FileExistsError(f"{checkpoint} exists; resume=True goes on with it, or choose another folder")
    # Settings and samples are checked here, before anything is written.
    own = window_of(model)
    crop = own if config.crop is None else config.crop
    if crop is None:
        raise ValueError("crop must be given for a model without config.window, got None")
    config = replace(config, crop=crop)
    loss = loss or dice_cross_entropy()
    patches = Patches(
        training,
        size=crop,
        length=config.steps * config.batch_size,
        seed=config.seed,
        foreground=config.foreground,
    )
    if patches.sparse:
        check_takes_known(loss)
    validate = Validation(validation, crop if own is None else own)
    folder.mkdir(parents=True, exist_ok=True)

    precision: Any = config.precision  # Fabric names its precisions in a Literal
    if precision == "auto":
        device = Fabric(accelerator=config.accelerator, devices=1).device
        precision = "bf16-mixed" if has_bf16(device) else "32-true"
    # DDP must expect parameters without a gradient: the ViT's final norm, and projections after a
    # distillation's end.
    strategy = "auto" if config.devices == 1 else "ddp_find_unused_parameters_true"
    fabric = Fabric(
        accelerator=config.accelerator,
        devices=config.devices,
        strategy=strategy,
        precision=precision,
    )
    fabric.launch()
    optimizer = _optimizer(model, config, distillation)
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: _schedule(step, config))
    state = RunState(model, optimizer, scheduler, config, loss, distillation)
    start, result = state.restore(checkpoint) if checkpoint.exists() else (0, TrainResult())
    wrapped, optimizer = fabric.setup(_Together(model, distillation), optimizer)

    # A resumed run skips the patches of the finished steps.
    rest = Subset(patches, range(start * config.batch_size, len(patches)))
    loader = DataLoader(rest, batch_size=config.batch_size // config.devices, num_workers=config.workers)
    loader = fabric.setup_dataloaders(loader)

    hidden = not (progress and fabric.is_global_zero)
    bar = tqdm(total=config.steps, initial=start, desc="training", disable=hidden)
    wrapped.train()
    for step, batch in enumerate(loader, start + 1):
        logits, extra, extra_parts = wrapped(batch["image"], step - 1)
        known = batch["known"] if patches.sparse else None
        value, parts = loss_and_parts(loss, logits.float(), batch["mask"], known)
        value, parts = value + extra, parts | extra_parts
        if not torch.isfinite(value):
            raise ValueError(f"the loss is {value.item()} at step {step}; lower the learning rate")
        fabric.backward(value)
        norm: Any = fabric.clip_gradients(wrapped, optimizer, max_norm=config.clip, error_if_nonfinite=False)
        if not torch.isfinite(norm) and precision != "16-mixed":  # the scaler of 16-mixed skips such steps
            raise ValueError(f"the gradient is not finite at step {step}; lower the learning rate")
        optimizer.step()
        optimizer.zero_grad()
        record = {
            "step": step,
            "loss": float(cast(torch.Tensor, fabric.all_reduce(value.detach()))),
            "lr": float(scheduler.get_last_lr()[-1]),
        } | {name: float(part) for name, part in cast(dict, fabric.all_reduce(parts)).items()}
        scheduler.step()
        result.history.append(record)
        if callback and fabric.is_global_zero:
            callback(record)
        bar.update()
        shown = {"best_dice": f"{result.best_dice:.3f}"} if result.best_step else {}
        bar.set_postfix(loss=f"{record['loss']:.3f}", **shown, refresh=False)

        if step % config.validate_every == 0 or step == config.steps:
            if fabric.is_global_zero:
                score, threshold = validate(model)
                logger.info("step %d: validation Dice %.4f at threshold %.3f", step, score, threshold)
                result.history.append({"step": step, "val_dice": score, "threshold": threshold})
                if score > result.best_dice:
                    result.best_step, result.best_dice, result.threshold = step, score, threshold
                    weights = {k: v.detach().cpu().contiguous() for k, v in model.state_dict().items()}
                    with writing_to(folder / "best.safetensors", overwrite=True) as part:
                        save_file(weights, part)
                state.save(folder, step, result)
                if callback:
                    callback(result.history[-1])
            result = fabric.broadcast(result)
    bar.close()
    fabric.barrier()
    model.load_state_dict(load_file(folder / "best.safetensors"))
    set_threshold: Any = getattr(model, "set_threshold", None)
    if set_threshold:
        set_threshold(result.threshold)
    return result


class _Together(nn.Module):
    """The model and its distillation as one module, so that several devices average all gradients."""

    def __init__(self, model: nn.Module, distillation: FrozenTeacher | None) -> None:
        super().__init__()
        self.model, self.distillation = model, distillation

    def forward(self, volume: torch.Tensor, step: int) -> tuple[torch.Tensor, torch.Tensor, dict]:
        """Return the logits, the loss of the distillation, and the parts of that loss."""
        if self.distillation is None:
            return self.model(volume), volume.new_zeros(()), {}
        return self.distillation(self.model, volume, step=step)


def _optimizer(
    model: nn.Module,
    config: TrainConfig,
    distillation: FrozenTeacher | None,
) -> torch.optim.Optimizer:
    """Return AdamW with a group for each rate; biases, norms and gates have no decay, rate 0 freezes."""
    grouped: Any = getattr(model, "parameter_groups", None)
    split = grouped() if grouped else {"new": list(model.parameters())}
    if distillation is not None:
        split["new"] = [*split["new"], *distillation.learned()]
    rates = {"transferred": config.lr_transferred, "new": config.lr}
    if not config.lr_transferred:
        for parameter in split.get("transferred", []):
            parameter.requires_grad_(False)
    groups = []
    for name, parameters in split.items():
        for decay in (True, False):
            # Weights have more than one axis; biases, norms and gates have one axis longer than 1.
            chosen = [p for p in parameters if p.requires_grad and (p.squeeze().ndim > 1) == decay]
            if chosen:
                weight_decay = config.weight_decay if decay else 0.0
                groups.append({"params": chosen, "lr": rates[name], "weight_decay": weight_decay})
    return torch.optim.AdamW(groups)


def _schedule(step: int, config: TrainConfig) -> float:
    """Return the factor on the learning rates at ``step`` (from 0): a linear rise, then a cosine fall."""
    warmup = max(1, round(config.warmup * config.steps))
    if step < warmup:
        return (step + 1) / warmup
    return 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1, config.steps - warmup)))
