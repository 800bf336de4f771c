"""One readable training loop on Lightning Fabric, for one CPU core as for several GPUs.

    Patches(seed, i) ─► batch ─► loss (+ distillation) ─► step ─► at times: validation Dice, best weights, checkpoint

Item i of the patches depends on the seed and on i alone, and nothing else here draws random numbers. So a run that
was interrupted and resumed ends with the same weights as one that was not.
"""

from __future__ import annotations

import logging
import math
import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import torch
from torch import nn
from torch.utils.data import DataLoader, Subset
from tqdm.auto import tqdm

from neurokd.data.datasets import Sample
from neurokd.data.files import writing_to
from neurokd.data.patches import Patches
from neurokd.inference.sliding import has_bf16, window_of
from neurokd.training.checkpoint import restore, save
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
    """Train a model that maps volumes ``b 1 z y x`` to logits of that shape, and leave it with its best weights.

    Parameters
    ----------
    model
        Any module; where it has ``parameter_groups()``, its ``"transferred"`` parameters get their own rate. Where it
        has ``config.window``, validation uses windows of that size, as :func:`neurokd.inference.sliding.predict`
        will; other models are validated in windows as large as the crops. Where it has ``set_threshold``, it is
        given the threshold that was best.
    training, validation
        Samples with masks, from different source stacks. Voxels that are not known count in no loss and no score.
    folder
        Gets ``last.ckpt`` (everything needed to resume), ``best.safetensors`` (weights), ``history.jsonl``.
    config
        Settings.
    loss
        Maps logits and masks to a scalar; :func:`neurokd.training.losses.dice_cross_entropy` by default. For batches
        with unknown voxels it is called with ``known=``, too, see :class:`neurokd.training.known.KnownVoxels`. Where
        it has ``with_parts`` (as :class:`neurokd.training.losses.SegmentationLoss`), the history gets its parts;
        where it has ``settings``, a resumed run must have the same. Of any other loss only the name is compared.
    distillation
        A teacher that the model is asked to match as well: its tokens by
        :class:`neurokd.training.distill.Distillation`, its probabilities by
        :class:`neurokd.training.soft_targets.SoftTargets`. What learns beside the model has the rate of new parameters.
    callback
        Called with each record of the history as it is made, on the first device only.
    resume
        Go on from ``last.ckpt``; without one, start.
    progress
        Show a progress bar.

    Returns
    -------
    TrainResult

    Raises
    ------
    FileExistsError
        If the folder holds a run and ``resume`` is not set.
    ValueError
        Before the first step: if neither the settings nor the model say how large crops are, a sample cannot be
        used (no mask, another shape, NaN, no foreground in any), the
        loss does not take ``known`` but has to, or the run to be resumed had other settings (the message names
        them). Later: if the loss or its gradient is not finite.
    """
    from lightning_fabric import Fabric
    from safetensors.torch import load_file, save_file

    folder = Path(folder)
    checkpoint = folder / "last.ckpt"
    if checkpoint.exists() and not resume:
        raise FileExistsError(f"{checkpoint} exists; resume=True goes on with it, or choose another folder")
    # All that can be wrong with settings and samples is found here, before anything is written.
    own = window_of(model)
    if config.crop is None:
        if own is None:
            raise ValueError("crop must be given for a model without config.window, got None")
        config = replace(config, crop=own)
    loss = loss or dice_cross_entropy()
    patches = Patches(
        training,
        size=config.crop,
        length=config.steps * config.batch_size,
        seed=config.seed,
        foreground=config.foreground,
    )
    if patches.sparse:
        check_takes_known(loss)
    validate = Validation(validation, config.crop if own is None else own)
    folder.mkdir(parents=True, exist_ok=True)

    precision = config.precision
    if precision == "auto":
        device = Fabric(accelerator=config.accelerator, devices=1).device
        precision = "bf16-mixed" if has_bf16(device) else "32-true"
    # Some parameters have no gradient: the ViT's final norm always, projections when the distillation has ended.
    strategy = "auto" if config.devices == 1 else "ddp_find_unused_parameters_true"
    fabric = Fabric(accelerator=config.accelerator, devices=config.devices, strategy=strategy, precision=precision)
    fabric.launch()
    optimizer = _optimizer(model, config, distillation)
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: _schedule(step, config))
    result, start = TrainResult(), 0
    if checkpoint.exists():
        start, fields = restore(checkpoint, model, optimizer, scheduler, config, loss, distillation)
        result = TrainResult(**fields)
    wrapped, optimizer = fabric.setup(_Together(model, distillation), optimizer)

    rest = Subset(patches, range(start * config.batch_size, len(patches)))
    loader = DataLoader(rest, batch_size=config.batch_size // config.devices, num_workers=config.workers)
    loader = fabric.setup_dataloaders(loader)

    bar = tqdm(total=config.steps, initial=start, desc="training", disable=not (progress and fabric.is_global_zero))
    wrapped.train()
    for step, batch in enumerate(loader, start + 1):
        logits, extra, extra_parts = wrapped(batch["image"], step - 1)
        value, parts = loss_and_parts(loss, logits.float(), batch["mask"], batch["known"] if patches.sparse else None)
        value, parts = value + extra, parts | extra_parts
        if not torch.isfinite(value):
            raise ValueError(f"the loss is {value.item()} at step {step}; lower the learning rate")
        fabric.backward(value)
        norm = fabric.clip_gradients(wrapped, optimizer, max_norm=config.clip, error_if_nonfinite=False)
        if not torch.isfinite(norm) and precision != "16-mixed":  # whose scaler skips such steps and goes on
            raise ValueError(f"the gradient is not finite at step {step}; lower the learning rate")
        optimizer.step()
        optimizer.zero_grad()
        record = {
            "step": step,
            "loss": fabric.all_reduce(value.detach()).item(),
            "lr": scheduler.get_last_lr()[-1],
        } | {name: float(part) for name, part in fabric.all_reduce(parts).items()}
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
                    with writing_to(folder / "best.safetensors", overwrite=True) as part:
                        save_file({k: v.detach().cpu().contiguous() for k, v in model.state_dict().items()}, part)
                save(folder, step, model, optimizer, scheduler, config, loss, result, distillation)
                if callback:
                    callback(result.history[-1])
            result = fabric.broadcast(result)
    bar.close()
    fabric.barrier()
    model.load_state_dict(load_file(folder / "best.safetensors"))
    if hasattr(model, "set_threshold"):
        model.set_threshold(result.threshold)
    return result


class _Together(nn.Module):
    """The model and what learns beside it as one module, so that several devices average all gradients alike."""

    def __init__(self, model: nn.Module, distillation: FrozenTeacher | None) -> None:
        super().__init__()
        self.model, self.distillation = model, distillation

    def forward(self, volume: torch.Tensor, step: int) -> tuple[torch.Tensor, torch.Tensor, dict]:
        """Return logits, what is added to their loss, and its parts."""
        if self.distillation is None:
            return self.model(volume), volume.new_zeros(()), {}
        return self.distillation(self.model, volume, step=step)


def _optimizer(model: nn.Module, config: TrainConfig, distillation: FrozenTeacher | None) -> torch.optim.Optimizer:
    """AdamW with a group per rate, and no decay on biases, norms and gates; what has no rate is frozen."""
    split = model.parameter_groups() if hasattr(model, "parameter_groups") else {"new": list(model.parameters())}
    if distillation is not None:
        split["new"] = [*split["new"], *distillation.learned()]
    rates = {"transferred": config.lr_transferred, "new": config.lr}
    if not config.lr_transferred:
        for parameter in split.get("transferred", []):
            parameter.requires_grad_(False)
    groups = []
    for name, parameters in split.items():
        for decay in (True, False):
            chosen = [p for p in parameters if p.requires_grad and (p.squeeze().ndim > 1) == decay]
            if chosen:
                weight_decay = config.weight_decay if decay else 0.0
                groups.append({"params": chosen, "lr": rates[name], "weight_decay": weight_decay})
    return torch.optim.AdamW(groups)


def _schedule(step: int, config: TrainConfig) -> float:
    """Return the factor on the learning rates of step ``step`` (from 0): linear up, cosine down."""
    warmup = max(1, round(config.warmup * config.steps))
    if step < warmup:
        return (step + 1) / warmup
    return 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1, config.steps - warmup)))
