"""Deformable tubular transfer: a teacher's 2D patch kernel laid along tubes that bend with the neurite.

One view per axis; their mean is the token. Each token has its own sideways steps, computed from its own
voxels:

    volume ─┬─► tubes along z ─┐
            ├─► tubes along y ─┼─► mean ───────────────────────► tokens     role "instead"
            ├─► tubes along x ─┘     └─ x gate (0 at first) ─┐
            └─► inflated patch embedding ────────────────────┴─► tokens     role "beside"

After DINeuro (Cheng et al. 2024, arXiv:2410.22078) as its abstract and public summaries describe it: a
flattened 2D patch kernel, a tubular kernel for each axis, combined views. The offsets, the mean, the gate and
the four readings of "flattened" (:mod:`neurokd.models.tube_kernel`) are ours.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import cast

import torch
from einops import einsum, rearrange
from torch import Tensor, nn
from torch.nn import functional as F

from neurokd.models.choices import Inflation
from neurokd.models.inflate import grey_fold, inflate_kernel
from neurokd.models.snake import axis_number, lateral_axes, sample_at, snake_coordinates
from neurokd.models.tube_kernel import TubeConfig, tube_kernel
from neurokd.models.vit import ViT3D

__all__ = ["DeformableTubularEmbed", "add_tubes"]


class TubeView(nn.Module):
    """The tokens of one axis, ``sum_kq w_kq V(c + t_k e_axis + D_k + q) + b``, with D from the voxels."""

    points: Tensor

    def __init__(self, dim: int, axis: str, token: tuple[int, int, int], config: TubeConfig) -> None:
        super().__init__()
        self.axis, self.token, self.slope = axis, token, config.slope
        length = token[axis_number(axis)]
        flat = config.reading in ("literal", "patch")
        self.taps = token[1] * token[2] if flat else length
        self.step = length / self.taps if config.reading == "patch" else 1.0
        # Each tap reads the points q across the tube: the whole slice for "grid", its centre for the others.
        sides = [token[lateral] for lateral in lateral_axes(axis)] if config.reading == "grid" else [1, 1]
        lateral = torch.cartesian_prod(*(torch.arange(size) - (size - 1) / 2 for size in sides))  # q 2
        points = list(lateral.unbind(-1))
        points.insert(axis_number(axis), torch.zeros(math.prod(sides)))
        self.register_buffer("points", torch.stack(points, dim=-1), persistent=False)  # q 3
        bound = (self.taps * math.prod(sides)) ** -0.5  # nn.Conv3d starts with the same bound
        self.weight = nn.Parameter(torch.empty(dim, self.taps, math.prod(sides)).uniform_(-bound, bound))
        self.bias = nn.Parameter(torch.empty(dim).uniform_(-bound, bound))
        moving = 2 * ((self.taps - 1) // 2)  # all taps but the middle one, or the middle two
        self.head = nn.Conv3d(1, 2 * moving, token, stride=token) if moving else None
        if self.head is not None:
            for parameter in self.head.parameters():
                nn.init.zeros_(parameter)

    def offsets(self, volume: Tensor) -> Tensor:
        """Return the sideways steps of the moving taps of each token, ``b 2 n z y x``, in voxels."""
        if self.head is None:
            grid = (n // t for n, t in zip(volume.shape[2:], self.token, strict=True))
            return volume.new_zeros(len(volume), 2, 0, *grid)
        steps = self.step * self.slope * torch.tanh(self.head(volume))  # b (2 n) z y x
        return rearrange(steps, "b (lateral n) z y x -> b lateral n z y x", lateral=2)

    def coordinates(self, volume: Tensor) -> Tensor:
        """Return the places (z, y, x) in voxels that the tokens read, ``b k q z y x 3``, for whole tokens."""
        centres = snake_coordinates(
            self.offsets(volume),
            self.axis,
            taps=self.taps,
            step=self.step,
            start=[(size - 1) / 2 for size in self.token],
            stride=self.token,
        )
        return rearrange(centres, "b k z y x p -> b k 1 z y x p") + rearrange(self.points, "q p -> q 1 1 1 p")

    def forward(self, volume: Tensor) -> Tensor:
        """Map a volume ``b 1 z y x`` of whole tokens to tokens ``b d z y x``."""
        samples = sample_at(volume, self.coordinates(volume))  # b 1 k q z y x
        tokens = einsum(self.weight, samples, "d k q, b one k q z y x -> b d z y x")
        return tokens + rearrange(self.bias, "d -> d 1 1 1").to(tokens.dtype)


class DeformableTubularEmbed(nn.Module):
    """Patch embedding along tubes that bend, beside an inflated one or instead of it.

    The constructor gives untrained weights; :meth:`load_kernel` takes over a teacher's.

    Parameters
    ----------
    dim
        Width of a token.
    token
        Size (z, y, x) of a token in voxels.
    config
        Settings; the defaults of :class:`neurokd.models.tube_kernel.TubeConfig` if None.

    Raises
    ------
    ValueError
        If the token is not three positive sizes.

    Examples
    --------
    >>> embed = DeformableTubularEmbed(32, token=(4, 8, 8))
    >>> embed(torch.rand(2, 1, 8, 24, 20)).shape  # 20 voxels are 3 tokens, the last one clamped
    torch.Size([2, 32, 2, 3, 3])
    """

    def __init__(self, dim: int, *, token: tuple[int, int, int], config: TubeConfig | None = None) -> None:
        super().__init__()
        if len(token) != 3 or min(token) < 1:
            raise ValueError(f"token must be three positive sizes (z, y, x) in voxels, got {tuple(token)}")
        self.token, self.config = (token[0], token[1], token[2]), config or TubeConfig()
        self.views = nn.ModuleList(TubeView(dim, axis, self.token, self.config) for axis in self.config.axes)
        alone = self.config.role == "instead"
        self.proj = None if alone else nn.Conv3d(1, dim, self.token, stride=self.token)
        self.gate = None if alone else nn.Parameter(torch.zeros(dim, 1, 1, 1))

    @torch.no_grad()
    def load_kernel(
        self,
        weight: Tensor,
        bias: Tensor | None,
        *,
        mean: Sequence[float],
        std: Sequence[float],
        inflation: Inflation = "center",
    ) -> None:
        """Take over a teacher's patch embedding.

        Parameters
        ----------
        weight, bias
            RGB kernel ``d 3 p p``, and bias ``d`` or None.
        mean, std
            The teacher's normalisation, see :func:`neurokd.models.inflate.grey_fold`.
        inflation
            Inflation of the embedding that the tubes stand beside, ``"center"`` or ``"average"``. The tubes
            follow ``config.inflation``.
        """
        grey, offset = grey_fold(weight, bias, mean=mean, std=std)
        for view in cast("Iterable[TubeView]", self.views):
            view.weight.copy_(tube_kernel(grey, view.axis, token=self.token, config=self.config))
            view.bias.copy_(offset)
        if self.proj is not None:
            kernel, offset = inflate_kernel(
                weight,
                bias,
                token=self.token,
                inflation=inflation,
                mean=mean,
                std=std,
            )
            self.proj.load_state_dict({"weight": kernel, "bias": offset})

    def new_parameters(self) -> list[nn.Parameter]:
        """Return the parameters that do not come from the teacher: offset heads and gate."""
        heads = [view.head for view in cast("Iterable[TubeView]", self.views)]
        new = [parameter for head in heads if head is not None for parameter in head.parameters()]
        return new if self.gate is None else [*new, self.gate]

    def tube_tokens(self, volume: Tensor) -> Tensor:
        """Return the tokens ``b d z y x`` of the tubes alone, for a volume of whole tokens."""
        return torch.stack([view(volume) for view in self.views]).mean(0)

    def forward(self, volume: Tensor) -> Tensor:
        """Map ``b 1 z y x`` to tokens ``b d z y x``.

        If a size is not a multiple of the token, the outermost voxels are repeated up to the next multiple.
        Sampling along the tubes treats the border in the same way.

        Raises
        ------
        ValueError
            If the volume is not ``b 1 z y x`` or is smaller than one token.
        """
        shape = tuple(volume.shape)
        if len(shape) != 5 or shape[1] != 1 or any(n < t for n, t in zip(shape[2:], self.token, strict=True)):
            raise ValueError(f"volume must be b 1 z y x of at least {self.token} voxels, got shape {shape}")
        pad = [-n % t for n, t in zip(shape[2:], self.token, strict=True)]
        if any(pad):
            volume = F.pad(volume, [0, pad[2], 0, pad[1], 0, pad[0]], mode="replicate")
        if self.proj is None or self.gate is None:
            return self.tube_tokens(volume)
        return self.proj(volume) + self.gate * self.tube_tokens(volume)


def add_tubes(vit: ViT3D, config: TubeConfig) -> None:
    """Give a transformer for grey volumes a tubular patch embedding.

    Parameters
    ----------
    vit
        Transformer to change. In the role ``"beside"`` its patch embedding stays with the weights that it
        has, and the transformer computes the same until the gate changes.
    config
        Settings.
    """
    tubes = DeformableTubularEmbed(vit.config.dim, token=vit.token, config=config)
    if config.role == "beside":
        tubes.proj = cast("nn.Conv3d", vit.patch_embed.proj)
    vit.patch_embed = tubes
