"""The settings and the result of a training run."""

from __future__ import annotations

from dataclasses import dataclass, field

__all__ = ["TrainConfig", "TrainResult"]


@dataclass(frozen=True)
class TrainConfig:
    """Settings of a training run; a resumed run must have the same settings.

    Parameters
    ----------
    steps
        Number of optimiser steps.
    batch_size
        Number of crops per step, on all devices together.
    crop
        Size (z, y, x) of a crop in voxels; None means the model's own window, ``model.config.window``.
    lr, lr_transferred
        Peak learning rates of new parameters and of parameters from the teacher. ``lr_transferred=0`` freezes
        the latter for good (``requires_grad`` off). A step is then cheaper if no layer before them learns, as
        with slab attention and without tubes.
    weight_decay
        Weight decay of AdamW, on weights with more than one axis.
    warmup
        Share of the steps in which the rates rise from zero. After that they fall along a cosine.
    clip
        Largest norm of the gradient; longer gradients are shortened to it.
    foreground
        Share of the crops that are centred on a foreground voxel.
    validate_every
        Number of steps between validations (and checkpoints). The last step is always validated.
    seed
        Seed of the crops.
    precision
        Precision of Lightning Fabric, or ``"auto"``: bf16-mixed if :func:`neurokd.inference.sliding.has_bf16`
        finds support for it, else 32-true.
    accelerator
        Accelerator of Lightning Fabric.
    devices
        Number of devices. Each device takes a share of every batch, and gradients are averaged. For a loss
        that is a mean over crops, one device gives the same. Dice and the mean token of a distillation are
        computed within a device's share, so for them the result differs.
    workers
        Number of worker processes of torch's DataLoader.
    """

    steps: int = 400
    batch_size: int = 2
    crop: tuple[int, int, int] | None = None
    lr: float = 2e-3
    lr_transferred: float = 3e-5
    weight_decay: float = 0.01
    warmup: float = 0.1
    clip: float = 1.0
    foreground: float = 0.75
    validate_every: int = 100
    seed: int = 0
    precision: str = "auto"
    accelerator: str = "auto"
    devices: int = 1
    workers: int = 0

    def __post_init__(self) -> None:
        """Check the numbers."""
        for name in ("steps", "batch_size", "validate_every", "devices"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        if self.batch_size % self.devices:
            numbers = f"{self.batch_size} for {self.devices} devices"
            raise ValueError(f"batch_size must be a multiple of devices, got {numbers}")
        if self.crop is not None:
            object.__setattr__(self, "crop", tuple(self.crop))


@dataclass
class TrainResult:
    """Result of a run; the best weights are in the model itself.

    Parameters
    ----------
    history
        One dict for each step (``step``, ``loss``, ``lr`` and, if the loss names its parts, the parts before
        weighting) and one for each validation (``step``, ``val_dice``, ``threshold``).
    best_step, best_dice, threshold
        Step, mean foreground Dice and threshold of the best validation. If the model has ``set_threshold``,
        it was given this threshold.
    """

    history: list[dict[str, float]] = field(default_factory=list)
    best_step: int = 0
    best_dice: float = -1.0
    threshold: float = 0.5
