"""Distillation: a 3D student learns to give the tokens that a frozen 2D teacher gives for the slices.

    volume ─┬─► student ─► logits (to the segmentation loss)
            │      └─► tokens of some blocks ─► [projection] ─► cosine, MSE ─┐
            │                         └───────────────────────► Gram ────────┼─► weight(step) x sum
            └─► teacher in three views, no gradient (neurokd.training.views) ┘

The papers behind this package do not describe feature matching, so this is an extension of ours. Its parts
are known: matching of hidden tokens through a projection (Romero et al. 2015, arXiv:1412.6550), and matching
of token-to-token similarities, the Gram matrix (Tung & Mori 2019, arXiv:1907.09682; as an anchor in DINOv3,
arXiv:2508.10104).

There are two uses. A student of any width and depth learns from the teacher; the weight then falls to zero.
Or a student that was inflated from the teacher stays near it during tuning; then use the Gram part alone,
with a constant weight.
"""

from __future__ import annotations

import math
import os
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, cast

import torch
from einops import rearrange
from torch import Tensor, nn

from neurokd.models.segmenter import NeuronSegmenter
from neurokd.models.snake import AXES
from neurokd.models.vit import pad_to_tokens
from neurokd.training.frozen import FrozenTeacher
from neurokd.training.similarity import cosine_loss, gram_loss, mse_loss
from neurokd.training.views import SliceTeacher, TokenCache, multi_view_tokens

if TYPE_CHECKING:
    from neurokd.models.teacher import Teacher

__all__ = ["DistillConfig", "Distillation"]


@dataclass(frozen=True)
class DistillConfig:
    """Settings of a distillation; a resumed run must have the same settings.

    Parameters
    ----------
    blocks
        Pairs (student's block, teacher's block), counted from 0. By default, the student's blocks are those
        that its decoder sees. If the student was inflated, each is paired with the same block of the teacher.
        Otherwise it is paired with the teacher's block at the same share of the depth.
    views, magnification, slices
        See :func:`neurokd.training.views.multi_view_tokens`.
    cosine, mse, gram
        Weights of the three losses of :mod:`neurokd.training.similarity`.
    weight
        Weight of the sum of these losses, relative to the segmentation loss.
    schedule
        ``"constant"``, ``"cosine"`` or ``"linear"``. The last two fall to zero at ``steps``; after that the
        teacher does not run.
    steps
        Length of the schedule in steps; None for a constant weight.
    subtract_mean
        Subtract the mean token of the batch first, separately for student and teacher. In the last blocks,
        most of a token is the same everywhere (the mean cosine between tokens of a neuron is 0.93 for
        DINOv2-S) and tells nothing about its place.
    project
        Learn a linear projection of the student's tokens for cosine and MSE; by default only if widths
        differ.
    gram_tokens
        Largest number of tokens of a volume whose similarities are compared, because memory grows with its
        square. More tokens are sampled anew at every step.
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
        """Check the choices; `multi_view_tokens` checks the settings of the views."""
        if self.blocks is not None:
            object.__setattr__(self, "blocks", tuple((int(s), int(t)) for s, t in self.blocks))
        object.__setattr__(self, "views", tuple(self.views))
        for name in ("cosine", "mse", "gram", "weight"):
            if not getattr(self, name) >= 0:
                raise ValueError(f"{name} must not be negative, got {getattr(self, name)}")
        if not self.cosine + self.mse + self.gram:
            raise ValueError("one of cosine, mse and gram must be positive, got 0 for all")
        if self.schedule not in ("constant", "cosine", "linear"):
            raise ValueError(f"schedule must be 'constant', 'cosine' or 'linear', got {self.schedule!r}")
        if self.schedule != "constant" and (self.steps is None or self.steps < 1):
            raise ValueError(f"steps must be at least 1 with schedule {self.schedule!r}, got {self.steps}")
        if self.schedule == "constant" and self.steps is not None:
            raise ValueError(f"steps must be None with schedule 'constant', got {self.steps}")
        if self.gram_tokens < 2:
            raise ValueError(f"gram_tokens must be at least 2, got {self.gram_tokens}")

    def weight_at(self, step: int) -> float:
        """Return the weight after ``step`` steps."""
        if self.steps is None:  # constant
            return self.weight
        share = min(step / self.steps, 1.0)
        left = 1 - share if self.schedule == "linear" else 0.5 * (1 + math.cos(math.pi * share))
        return self.weight * left


class Distillation(FrozenTeacher):
    """A frozen teacher, projections of the student's tokens to its width, and the loss between the two.

    Give it to :func:`neurokd.training.loop.train`. It runs the student, so that tokens and logits come from
    one forward pass. Only the student and the projections learn.

    Parameters
    ----------
    teacher
        Teacher from :func:`neurokd.models.teacher.load_teacher`. It is frozen and stays in evaluation mode.
    student
        Model that will be trained. Only its settings are read; it is not stored.
    config
        Settings of the distillation.
    cache
        Folder for the teacher's tokens, for patches that are used again (see
        :class:`neurokd.training.views.TokenCache`).
    generator
        Random generator for the initial projections; by default torch's global one.

    Raises
    ------
    ValueError
        If a block in ``config.blocks`` does not exist, or the widths differ and ``config.project`` is False.

    Examples
    --------
    >>> student = NeuronSegmenter.from_scratch(dim=96, depth=4, heads=3)
    >>> settings = DistillConfig(schedule="cosine", steps=400)
    >>> distillation = Distillation(teacher, student, config=settings)
    >>> train(student, training, validation, folder, distillation=distillation)
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
            allowed = f"pairs (student's block, teacher's block), each from 0 and below {depths}"
            raise ValueError(f"blocks must be {allowed}, got {blocks}")
        widths = student.config.vit.dim, teacher.vit.embed_dim
        project = widths[0] != widths[1] if config.project is None else config.project
        if widths[0] != widths[1] and not project and config.cosine + config.mse:
            raise ValueError(f"project must be True for cosine or mse, got False with widths {widths}")
        projections = nn.ModuleList(
            # The mean token is subtracted later, and a bias with it.
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
        """Return the settings that a resumed run must share; a text names the teacher."""
        return asdict(self.config) | {"blocks": self.blocks, "teacher": self.source}

    @torch.no_grad()
    def targets(self, volume: Tensor) -> list[Tensor]:
        """Return the teacher's tokens ``b d z y x`` for a volume ``b 1 z y x``, one map for each pair."""

        def look(padded: Tensor) -> list[Tensor]:
            theirs = sorted({block for _, block in self.blocks})
            settings = {name: getattr(self.config, name) for name in ("views", "magnification", "slices")}
            teacher = cast(SliceTeacher, self.teacher)
            maps = multi_view_tokens(teacher, padded, token=self.token, blocks=theirs, **settings)
            return [maps[theirs.index(block)] for _, block in self.blocks]

        padded = pad_to_tokens(volume, self.token)
        return look(padded) if self.cache is None else self.cache(padded, look)

    def compare(self, student: list[Tensor], teacher: list[Tensor], *, step: int = 0) -> tuple[Tensor, dict]:
        """Compare the maps ``b d z y x`` and ``b e z y x`` of each pair of blocks.

        Parameters
        ----------
        student, teacher
            One map for each pair of blocks.
        step
            Number of finished steps; it chooses the tokens of the Gram loss.

        Returns
        -------
        tuple
            The weighted sum of the losses (without the schedule), and the mean of each loss over the pairs,
            detached.
        """
        config = self.config
        parts: dict[str, list[Tensor]] = {}
        # Mixed precision is off: similarities near 1 need more than the 8 bits of bfloat16.
        with torch.autocast(student[0].device.type, enabled=False):
            for ours, theirs, projection in zip(student, teacher, self.projections, strict=True):
                ours, theirs = (rearrange(m.float(), "b d z y x -> b (z y x) d") for m in (ours, theirs))
                matched = projection(ours)
                if config.subtract_mean:  # over batch and tokens, for each channel
                    sides = (ours, theirs, matched)
                    ours, theirs, matched = (tokens - tokens.mean((0, 1), keepdim=True) for tokens in sides)
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
        self, model: nn.Module, volume: Tensor, *, step: int
    ) -> tuple[Tensor, Tensor, dict[str, Tensor | float]]:
        """Run the student and compare its tokens with those of the teacher.

        The student must have ``forward_with_tokens(volume, blocks)``. See
        :meth:`neurokd.training.frozen.FrozenTeacher.forward`; the record also has the weight of the step.
        """
        weight = self.config.weight_at(step)
        if weight == 0:  # the schedule has ended, so the teacher need not run
            return model(volume), volume.new_zeros(()), {"distill_weight": 0.0}
        student = cast("NeuronSegmenter", model)
        logits, maps = student.forward_with_tokens(volume, [block for block, _ in self.blocks])
        value, parts = self.compare(maps, self.targets(volume), step=step)
        record = {f"distill_{name}": part for name, part in parts.items()}
        return logits, weight * value, record | {"distill_weight": weight}


def _default_blocks(teacher: Teacher, student: NeuronSegmenter) -> tuple[tuple[int, int], ...]:
    """Pair the blocks that the student's decoder sees with the teacher's (see :class:`DistillConfig`)."""
    ours = student.config.blocks
    if student.config.inflation != "scratch":
        return tuple((block, block) for block in ours)
    # Different depths: block 2 of 4 is half-way, as is block 6 of 12. Blocks are counted from 0, hence + 1
    # and - 1.
    ratio = len(teacher.vit.blocks) / student.config.vit.depth
    return tuple((block, max(0, round((block + 1) * ratio) - 1)) for block in ours)


def _projection(dim: int, out: int, generator: torch.Generator | None, *, bias: bool) -> nn.Sequential:
    """Return a linear map of normalised tokens.

    Tokens of a residual stream grow with depth. Without the norm, the gradient of the map would grow with
    them.
    """
    linear = nn.Linear(dim, out, bias=bias)
    nn.init.trunc_normal_(linear.weight, std=dim**-0.5, generator=generator)
    if bias:
        nn.init.zeros_(linear.bias)
    return nn.Sequential(nn.LayerNorm(dim, elementwise_affine=False), linear)


def _choose(n: int, most: int, step: int, device: torch.device) -> Tensor:
    """Return the numbers of the tokens that are compared: all, or a sample that depends only on the step."""
    if n <= most:
        return torch.arange(n, device=device)
    return torch.randperm(n, generator=torch.Generator().manual_seed(step))[:most].to(device)
