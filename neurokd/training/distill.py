"""Distillation: a 3D student is asked to see in a volume what a frozen 2D teacher sees in its slices.

    volume ─┬─► student ─► logits (to the segmentation loss)
            │      └─► tokens of some blocks ─► [projection] ─► cosine, MSE ─┐
            │                         └───────────────────────► Gram ────────┼─► weight(step) x sum
            └─► teacher in three views, no gradient (neurokd.training.views) ┘

The papers behind this package do not say that they match features; this is an extension of ours. Its parts are
known: matching of hidden tokens through a projection (Romero et al. 2015, arXiv:1412.6550), and of token-to-token
similarities, the Gram matrix (Tung & Mori 2019, arXiv:1907.09682; as an anchor in DINOv3, arXiv:2508.10104).

Two uses: a student of any width and depth learns from the teacher (weight scheduled to zero); a student inflated
from that teacher is held near it while it is tuned (the Gram part alone, constant weight).
"""

from __future__ import annotations

import math
import os
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import torch
from einops import rearrange
from torch import Tensor, nn

from neurokd.models.segmenter import NeuronSegmenter
from neurokd.models.snake import AXES
from neurokd.models.vit import pad_to_tokens
from neurokd.training.frozen import FrozenTeacher
from neurokd.training.similarity import cosine_loss, gram_loss, mse_loss
from neurokd.training.views import TokenCache, multi_view_tokens

if TYPE_CHECKING:
    from neurokd.models.teacher import Teacher

__all__ = ["DistillConfig", "Distillation"]


@dataclass(frozen=True)
class DistillConfig:
    """Settings of a distillation; a resumed run must have the same.

    Parameters
    ----------
    blocks
        Pairs (student's block, teacher's block), from 0. By default the blocks that the student's decoder sees,
        each against the same block where the student was inflated from a teacher, else against the teacher's block
        at the same share of its depth.
    views, magnification, slices
        As in :func:`neurokd.training.views.multi_view_tokens`.
    cosine, mse, gram
        Weights of the three losses of :mod:`neurokd.training.similarity`.
    weight
        Of all of them, beside the segmentation loss.
    schedule
        ``"constant"``; ``"cosine"`` or ``"linear"``: down to zero at ``steps``, after which the teacher is not run.
    steps
        Length of the schedule in steps; None for a constant weight.
    subtract_mean
        First subtract the mean token of the batch, from each side its own. In the last blocks most of a token is
        the same everywhere (mean cosine between tokens of a neuron 0.93 for DINOv2-S), and says nothing of place.
    project
        Learn a linear projection of the student's tokens for cosine and MSE; by default where widths differ.
    gram_tokens
        Most tokens of a volume whose similarities are compared: memory grows with the square. Drawn by step.
    """

    blocks: tuple[tuple[int, int], ...] | None = None
    views: tuple[str, ...] = tuple(AXES)
    magnification: float | None = None
    slices: int | None = 2
    cosine: float = 1.0
    mse: float = 0.0
    gram: float = 1.0
    weight: float = 1.0
    schedule: str = "constant"
    steps: int | None = None
    subtract_mean: bool = True
    project: bool | None = None
    gram_tokens: int = 1024

    def __post_init__(self) -> None:
        """Check the choices; what concerns the views is checked where they are made."""
        if self.blocks is not None:
            object.__setattr__(self, "blocks", tuple((int(s), int(t)) for s, t in self.blocks))
        object.__setattr__(self, "views", tuple(self.views))
        for name in ("cosine", "mse", "gram", "weight"):
            if not getattr(self, name) >= 0:
                raise ValueError(f"{name} is {getattr(self, name)}; it must not be negative")
        if not self.cosine + self.mse + self.gram:
            raise ValueError("cosine, mse and gram are all 0; one must be positive")
        if self.schedule not in ("constant", "cosine", "linear"):
            raise ValueError(f"schedule is {self.schedule!r}; it must be 'constant', 'cosine' or 'linear'")
        if self.schedule != "constant" and (self.steps is None or self.steps < 1):
            raise ValueError(f"steps is {self.steps}; schedule {self.schedule!r} needs the step at which it is zero")
        if self.schedule == "constant" and self.steps is not None:
            raise ValueError(f"steps is {self.steps}, but a constant weight has no end; choose 'cosine' or 'linear'")
        if self.gram_tokens < 2:
            raise ValueError(f"gram_tokens is {self.gram_tokens}; similarity needs at least 2 tokens")

    def weight_at(self, step: int) -> float:
        """Return the weight when ``step`` steps are done."""
        if self.schedule == "constant":
            return self.weight
        share = min(step / self.steps, 1.0)
        return self.weight * (1 - share if self.schedule == "linear" else 0.5 * (1 + math.cos(math.pi * share)))


class Distillation(FrozenTeacher):
    """A frozen teacher, the student's projections onto it, and the loss between the two.

    Given to :func:`neurokd.training.loop.train`, which asks it to run the student: the tokens come from the same pass
    as the logits. Only the projections learn.

    Parameters
    ----------
    teacher
        From :func:`neurokd.models.teacher.load_teacher`; it is frozen and stays in evaluation mode.
    student
        The model that will be trained; it is looked at, not kept.
    config
        Settings.
    cache
        Folder for the teacher's tokens (see :class:`neurokd.training.views.TokenCache`), for patches that come again.
    generator
        Draws the projections; torch's global one by default.

    Raises
    ------
    ValueError
        If a block in ``config.blocks`` does not exist, or widths differ and ``config.project`` forbids a projection.

    Examples
    --------
    >>> student = NeuronSegmenter.from_scratch(dim=96, depth=4, heads=3)
    >>> settings = DistillConfig(schedule="cosine", steps=400)
    >>> train(student, training, validation, folder, distillation=Distillation(teacher, student, config=settings))
    """

    def __init__(
        self,
        teacher: Teacher,
        student: NeuronSegmenter,
        *,
        config: DistillConfig = DistillConfig(),
        cache: str | os.PathLike[str] | None = None,
        generator: torch.Generator | None = None,
    ) -> None:
        blocks = _default_blocks(teacher, student) if config.blocks is None else config.blocks
        depths = student.config.vit.depth, len(teacher.vit.blocks)
        if not blocks or any(not (0 <= s < depths[0] and 0 <= t < depths[1]) for s, t in blocks):
            raise ValueError(f"blocks are {blocks}; student and teacher have {depths} blocks, counted from 0")
        widths = student.config.vit.dim, teacher.vit.embed_dim
        project = widths[0] != widths[1] if config.project is None else config.project
        if widths[0] != widths[1] and not project and config.cosine + config.mse:
            raise ValueError(f"widths {widths} differ: cosine and mse need a projection, gram alone does not")
        projections = nn.ModuleList(
            # a bias would be taken away with the mean token
            _projection(*widths, generator, bias=not config.subtract_mean)
            if project and config.cosine + config.mse
            else nn.Identity()
            for _ in blocks
        )
        super().__init__(teacher, projections)
        self.config, self.token, self.blocks = config, student.config.token, blocks
        self.source = str(teacher.source)
        seen = (self.source, self.token, self.blocks, config.views, config.magnification, config.slices)
        self.cache = None if cache is None else TokenCache(cache, settings=str(seen))

    def settings(self) -> dict[str, Any]:
        """Return what a resumed run must have alike, the teacher by its source in words."""
        return asdict(self.config) | {"blocks": self.blocks, "teacher": self.source}

    @torch.no_grad()
    def targets(self, volume: Tensor) -> list[Tensor]:
        """Return the teacher's tokens ``b d z y x`` of a volume ``b 1 z y x``, one map per pair of blocks."""

        def look(padded: Tensor) -> list[Tensor]:
            theirs = sorted({block for _, block in self.blocks})
            settings = {name: getattr(self.config, name) for name in ("views", "magnification", "slices")}
            maps = multi_view_tokens(self.teacher, padded, token=self.token, blocks=theirs, **settings)
            return [maps[theirs.index(block)] for _, block in self.blocks]

        padded = pad_to_tokens(volume, self.token)
        return look(padded) if self.cache is None else self.cache(padded, look)

    def compare(self, student: list[Tensor], teacher: list[Tensor], *, step: int = 0) -> tuple[Tensor, dict]:
        """Compare the maps ``b d z y x`` and ``b e z y x`` of each pair of blocks; ``step`` as in :meth:`forward`.

        Returns the weighted sum of the losses (without the schedule), and each one's mean over the pairs, detached.
        """
        config, parts = self.config, {}
        with torch.autocast(student[0].device.type, enabled=False):  # similarities near 1 need more than 8 bits
            for ours, theirs, projection in zip(student, teacher, self.projections, strict=True):
                ours, theirs = (rearrange(m.float(), "b d z y x -> b (z y x) d") for m in (ours, theirs))
                matched = projection(ours)
                if config.subtract_mean:
                    ours, theirs, matched = (t - t.mean((0, 1), keepdim=True) for t in (ours, theirs, matched))
                if config.cosine:
                    parts.setdefault("cosine", []).append(cosine_loss(matched, theirs))
                if config.mse:
                    parts.setdefault("mse", []).append(mse_loss(matched, theirs))
                if config.gram:
                    chosen = _choose(ours.shape[1], config.gram_tokens, step, ours.device)
                    parts.setdefault("gram", []).append(gram_loss(ours[:, chosen], theirs[:, chosen]))
            means = {name: torch.stack(values).mean() for name, values in parts.items()}
            value = sum(getattr(config, name) * mean for name, mean in means.items())
        return value, {name: mean.detach() for name, mean in means.items()}

    def forward(
        self, model: NeuronSegmenter, volume: Tensor, *, step: int
    ) -> tuple[Tensor, Tensor, dict[str, Tensor | float]]:
        """Run the student, which needs ``forward_with_tokens(volume, blocks)``, and compare it with the teacher.

        See :class:`neurokd.training.frozen.FrozenTeacher`; the weight of the step is recorded, too.
        """
        weight = self.config.weight_at(step)
        if weight == 0:
            return model(volume), volume.new_zeros(()), {"distill_weight": 0.0}
        logits, maps = model.forward_with_tokens(volume, [block for block, _ in self.blocks])
        value, parts = self.compare(maps, self.targets(volume), step=step)
        record = {f"distill_{name}": part for name, part in parts.items()}
        return logits, weight * value, record | {"distill_weight": weight}


def _default_blocks(teacher: Teacher, student: NeuronSegmenter) -> tuple[tuple[int, int], ...]:
    """Pair the blocks that the student's decoder sees with blocks of the teacher, see :class:`DistillConfig`."""
    ours = student.config.blocks
    if student.config.inflation != "scratch":
        return tuple((block, block) for block in ours)
    ratio = len(teacher.vit.blocks) / student.config.vit.depth
    return tuple((block, max(0, round((block + 1) * ratio) - 1)) for block in ours)


def _projection(dim: int, onto: int, generator: torch.Generator | None, *, bias: bool) -> nn.Sequential:
    """Return a normalised linear map: tokens of a residual stream grow with depth, its step size should not."""
    linear = nn.Linear(dim, onto, bias=bias)
    nn.init.trunc_normal_(linear.weight, std=dim**-0.5, generator=generator)
    if bias:
        nn.init.zeros_(linear.bias)
    return nn.Sequential(nn.LayerNorm(dim, elementwise_affine=False), linear)


def _choose(n: int, most: int, step: int, device: torch.device) -> Tensor:
    """Return which tokens are compared: all, or a draw that depends on the step alone, for exact resume."""
    if n <= most:
        return torch.arange(n, device=device)
    return torch.randperm(n, generator=torch.Generator().manual_seed(step))[:most].to(device)
