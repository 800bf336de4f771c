"""The settings of a training run, and what it gives."""

from __future__ import annotations

from dataclasses import dataclass, field

__all__ = ["TrainConfig", "TrainResult"]


@dataclass(frozen=True)
class TrainConfig:
    """Settings of a run; a resumed run must have the same.

    Parameters
    ----------
    steps
        Optimiser steps.
    batch_size
        Crops per step, over all devices together.
    crop
        Size (z, y, x) of a crop in voxels; None: the model's own window, ``model.config.window``.
    lr, lr_transferred
        Peak learning rates of new parameters and of those that came from the teacher. With ``lr_transferred=0`` the
        latter are frozen, and stay so (``requires_grad`` off). That makes a step cheaper where nothing before them
        learns: with attention within slabs, and without tubes.
    weight_decay
        Of AdamW, on weights with more than one axis.
    warmup
        Share of the steps during which the rates rise from zero; then they fall along a cosine.
    clip
        Largest norm of the gradient.
    foreground
        Share of the crops that are centred on a foreground voxel.
    validate_every
        Steps between validations (and checkpoints); the last step is always validated.
    seed
        Seed of the crops.
    precision
        A precision of Lightning Fabric, or ``"auto"``: bf16-mixed where :func:`neurokd.inference.sliding.has_bf16`
        says so, else 32-true.
    accelerator, workers
        As in Lightning Fabric and torch's DataLoader.
    devices
        Each takes its share of every batch, and gradients are averaged. That is what one device does where the loss
        is a mean over crops. Dice and a distillation's mean token are taken over a device's share, which is not the
        same.
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
                raise ValueError(f"{name} is {getattr(self, name)}; it must be at least 1")
        if self.batch_size % self.devices:
            raise ValueError(f"batch_size {self.batch_size} does not divide over {self.devices} devices")
        if self.crop is not None:
            object.__setattr__(self, "crop", tuple(self.crop))


@dataclass
class TrainResult:
    """What a run gave; the model itself holds the best weights.

    Parameters
    ----------
    history
        One dict per step (``step``, ``loss``, ``lr``, and the loss's parts before their weights where it names them)
        and per validation (``step``, ``val_dice``, ``threshold``).
    best_step, best_dice, threshold
        The validation with the highest mean foreground Dice, and the threshold that gave it. A model with
        ``set_threshold`` has that threshold.
    """

    history: list[dict[str, float]] = field(default_factory=list)
    best_step: int = 0
    best_dice: float = -1.0
    threshold: float = 0.5
