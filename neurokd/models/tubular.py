"""Deformable tubular transfer: a teacher's 2D patch kernel laid along tubes that bend with the neurite.

One view per axis, fused into one token; every token has its own steps aside, read off its own voxels:

    volume ─┬─► tubes along z ─┐
            ├─► tubes along y ─┼─► fusion ──► tokens              mode "instead"
            ├─► tubes along x ─┘      └─ x gate (0 at first) ─┐
            └─► inflated patch embedding ─────────────────────┴─► tokens     mode "beside"

After DINeuro (Cheng et al. 2024, arXiv:2410.22078) as its abstract and public summaries describe it: 2D patch kernel
flattened, a tubular kernel for each axis, views combined. The offsets, the fusions, the gate and the four readings of
"flattened" (:mod:`neurokd.models.tube_kernel`) are ours.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from einops import einsum, rearrange, repeat
from torch import Tensor, nn
from torch.nn import functional as F

from neurokd.models.inflate import grey_fold, inflate_kernel
from neurokd.models.snake import axis_number, lateral_axes, sample_at, snake_coordinates
from neurokd.models.tube_kernel import TubeConfig, tube_kernel
from neurokd.models.vit import ViT3D

__all__ = ["DeformableTubularEmbed", "add_tubes"]


class TubeView(nn.Module):
    """The tokens of one axis: ``token = sum_kq w_kq V(c + t_k e_axis + D_k + q) + b``, with D from the voxels."""

    def __init__(self, dim: int, axis: str, token: Sequence[int], config: TubeConfig) -> None:
        super().__init__()
        self.axis, self.token, self.slope = axis, tuple(token), config.slope
        length = self.token[axis_number(axis)]
        flat = config.reading in ("literal", "patch")
        self.taps = token[1] * token[2] if flat else length
        self.step = length / self.taps if config.reading == "patch" else 1.0
        across = [token[lateral] for lateral in lateral_axes(axis)] if config.reading == "grid" else [1, 1]
        points = [torch.arange(size) - (size - 1) / 2 for size in across]
        points = list(torch.cartesian_prod(*points).unbind(-1))
        points.insert(axis_number(axis), torch.zeros(math.prod(across)))
        self.register_buffer("points", torch.stack(points, dim=-1), persistent=False)  # q 3
        bound = (self.taps * math.prod(across)) ** -0.5  # as nn.Conv3d starts
        self.weight = nn.Parameter(torch.empty(dim, self.taps, math.prod(across)).uniform_(-bound, bound))
        self.bias = nn.Parameter(torch.empty(dim).uniform_(-bound, bound))
        moving = 2 * ((self.taps - 1) // 2)
        self.head = nn.Conv3d(1, 2 * moving, self.token, stride=self.token) if moving else None
        if self.head is not None:
            nn.init.zeros_(self.head.weight)
            nn.init.zeros_(self.head.bias)

    def offsets(self, volume: Tensor) -> Tensor:
        """Return the steps aside of the moving taps of each token, ``b 2 n z y x``, in voxels."""
        if self.head is None:
            grid = (n // t for n, t in zip(volume.shape[2:], self.token, strict=True))
            return volume.new_zeros(len(volume), 2, 0, *grid)
        steps = self.step * self.slope * torch.tanh(self.head(volume))
        return rearrange(steps, "b (lateral n) z y x -> b lateral n z y x", lateral=2)

    def coordinates(self, volume: Tensor) -> Tensor:
        """Return where the tokens of a volume of whole tokens look, ``b k q z y x 3``, in voxels (z, y, x)."""
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
        samples = sample_at(volume, self.coordinates(volume))
        tokens = einsum(self.weight, samples, "d k q, b one k q z y x -> b d z y x")
        return tokens + rearrange(self.bias, "d -> d 1 1 1").to(tokens.dtype)


class DeformableTubularEmbed(nn.Module):
    """Patch embedding along tubes that bend, beside an inflated one or instead of it.

    The constructor gives untrained weights; :meth:`load_kernel` brings a teacher's.

    Parameters
    ----------
    dim
        Width of a token.
    token
        Size (z, y, x) of a token in voxels.
    config
        Settings.

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

    def __init__(self, dim: int, *, token: Sequence[int], config: TubeConfig | None = None) -> None:
        super().__init__()
        if len(token) != 3 or min(token) < 1:
            raise ValueError(f"token is {tuple(token)}; it must be three positive sizes (z, y, x) in voxels")
        self.token, self.config = tuple(token), config or TubeConfig()
        self.views = nn.ModuleList(TubeView(dim, axis, self.token, self.config) for axis in self.config.axes)
        count = len(self.config.axes)
        if self.config.fusion == "gate":
            self.fuse = nn.Linear(count * dim, count)
            nn.init.zeros_(self.fuse.weight)
        elif self.config.fusion == "concat":
            self.fuse = nn.Linear(count * dim, dim)
            with torch.no_grad():
                self.fuse.weight.copy_(repeat(torch.eye(dim) / count, "d e -> d (view e)", view=count))
        else:
            self.fuse = None
        if self.fuse is not None:
            nn.init.zeros_(self.fuse.bias)
        beside = self.config.mode == "beside"
        self.proj = nn.Conv3d(1, dim, self.token, stride=self.token) if beside else None
        self.gate = nn.Parameter(torch.zeros(dim, 1, 1, 1)) if beside else None

    @torch.no_grad()
    def load_kernel(
        self, weight: Tensor, bias: Tensor | None, *, mean: Sequence[float], std: Sequence[float], mode: str = "center"
    ) -> None:
        """Take over a teacher's patch embedding.

        Parameters
        ----------
        weight, bias
            RGB kernel ``d 3 p p`` and bias ``d`` or None.
        mean, std
            The teacher's normalisation, as in :func:`neurokd.models.inflate.grey_fold`.
        mode
            Inflation of the embedding that the tubes stand beside, ``"center"`` or ``"average"``.
        """
        grey, offset = grey_fold(weight, bias, mean=mean, std=std)
        for view in self.views:
            view.weight.copy_(tube_kernel(grey, view.axis, token=self.token, config=self.config))
            view.bias.copy_(offset)
        if self.proj is not None:
            inflated, offset = inflate_kernel(weight, bias, token=self.token, mode=mode, mean=mean, std=std)
            self.proj.weight.copy_(inflated)
            self.proj.bias.copy_(offset)

    def new_parameters(self) -> list[nn.Parameter]:
        """Return what does not come from the teacher: offset heads, fusion and gate."""
        parts = [view.head for view in self.views] + [self.fuse]
        new = [parameter for part in parts if part is not None for parameter in part.parameters()]
        return new if self.gate is None else [*new, self.gate]

    def fused(self, volume: Tensor) -> Tensor:
        """Return the tokens ``b d z y x`` of the tubes alone, for a volume of whole tokens."""
        views = torch.stack([view(volume) for view in self.views])
        if self.fuse is None:
            return views.mean(0)
        mixed = self.fuse(rearrange(views, "view b d z y x -> b z y x (view d)"))
        if self.config.fusion == "gate":
            return einsum(mixed.softmax(-1), views, "b z y x view, view b d z y x -> b d z y x")
        return rearrange(mixed, "b z y x d -> b d z y x")

    def forward(self, volume: Tensor) -> Tensor:
        """Map ``b 1 z y x`` to tokens ``b d z y x``.

        A size that is not a multiple of the token is filled up with its outermost voxels, as the tubes see it anyway.

        Raises
        ------
        ValueError
            If the volume is not ``b 1 z y x`` or smaller than one token.
        """
        size = tuple(volume.shape[2:])
        if volume.ndim != 5 or volume.shape[1] != 1 or any(n < t for n, t in zip(size, self.token, strict=True)):
            shape = tuple(volume.shape)
            raise ValueError(f"volume has shape {shape}; expected b 1 z y x with at least one token of {self.token}")
        pad = [-n % t for n, t in zip(size, self.token, strict=True)]
        if any(pad):
            volume = F.pad(volume, [0, pad[2], 0, pad[1], 0, pad[0]], mode="replicate")
        if self.proj is None:
            return self.fused(volume)
        return self.proj(volume) + self.gate * self.fused(volume)


def add_tubes(vit: ViT3D, config: TubeConfig) -> None:
    """Give a transformer for grey volumes a tubular patch embedding.

    Parameters
    ----------
    vit
        Is changed. Where the settings say ``"beside"`` its own patch embedding goes on with the weights it has, and
        nothing that it computes changes until the gate does.
    config
        Settings.
    """
    plain = vit.patch_embed.proj
    vit.patch_embed = DeformableTubularEmbed(vit.config.dim, token=vit.token, config=config)
    if config.mode == "beside":
        vit.patch_embed.proj = plain
