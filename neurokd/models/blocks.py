"""The transformer block of a plain ViT and its settings. Parameter names are timm's.

    tokens  b n d  + ls1(attn(norm1(.)))   + ls2(mlp(norm2(.)))

Families differ in four places: the activation (CLIP, SigLIP), LayerScale (DINOv2, DINOv3), a gated MLP (the
larger DINOv2 and DINOv3) and rotary attention (DINOv3, :mod:`neurokd.models.rope`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from einops import rearrange
from torch import Tensor, nn
from torch.nn import functional as F

from neurokd.models.choices import check_choice
from neurokd.models.rope import rotate

__all__ = ["Block", "ViTConfig"]


@dataclass(frozen=True)
class ViTConfig:
    """Settings of a plain 2D ViT.

    Parameters
    ----------
    dim, depth, heads, hidden
        Width of a token, number of blocks, number of attention heads, width inside the MLP.
    patch
        The teacher's patch size in pixels (y, x).
    grid
        Grid (y, x) of patches on which the position embedding was trained. It has no effect if there is none.
    class_token
        Whether a class token stands before the patch tokens.
    registers
        Number of register tokens (Darcet et al. 2024, arXiv:2309.16588). The distillation token of a
        distilled DeiT counts as one, because it has the same place and treatment.
    learned_position
        Whether a learned position embedding is added to the tokens.
    position_on_prefix
        Whether class and register tokens have learned position embeddings as well.
    rope_temperature
        Temperature of the rotary position embedding (DINOv3), see :mod:`neurokd.models.rope`. None means no
        rotation.
    layer_scale
        Whether a learned vector scales each branch (LayerScale, DINOv2).
    pre_norm
        Whether tokens are normalised before the first block (CLIP).
    activation
        ``"gelu"``, ``"gelu_tanh"`` (some SigLIP), ``"quick_gelu"`` (OpenAI's CLIP), or ``"swiglu"``: an MLP
        with a gate (Shazeer 2020, arXiv:2002.05202; the larger DINOv2 and DINOv3).
    qkv_bias
        Whether the query, key and value projections have a bias.
    final_norm
        Whether a norm follows the last block.
    norm_eps
        Epsilon of every LayerNorm.

    Raises
    ------
    ValueError
        If the sizes do not fit together, or the activation is unknown.
    """

    dim: int
    depth: int
    heads: int
    hidden: int
    patch: tuple[int, int]
    grid: tuple[int, int]
    class_token: bool = True
    registers: int = 0
    learned_position: bool = True
    position_on_prefix: bool = True
    rope_temperature: float | None = None
    layer_scale: bool = False
    pre_norm: bool = False
    activation: str = "gelu"
    qkv_bias: bool = True
    final_norm: bool = True
    norm_eps: float = 1e-6

    def __post_init__(self) -> None:
        """Check the settings, and restore the tuples that JSON does not have."""
        if self.dim % self.heads:
            raise ValueError(f"dim must be a multiple of heads = {self.heads}, got {self.dim}")
        if self.rope_temperature is not None and (self.dim // self.heads) % 4:
            raise ValueError(f"dim must be a multiple of 4 * {self.heads} heads with RoPE, got {self.dim}")
        check_choice("activation", self.activation, _ACTIVATIONS)
        object.__setattr__(self, "patch", tuple(self.patch))
        object.__setattr__(self, "grid", tuple(self.grid))

    @property
    def prefix(self) -> int:
        """Return the number of tokens before the patch tokens."""
        return int(self.class_token) + self.registers


class QuickGELU(nn.Module):
    """``x * sigmoid(1.702 x)``, the approximation of GELU that OpenAI's CLIP was trained with."""

    def forward(self, x: Tensor) -> Tensor:
        """Map a tensor of any shape elementwise."""
        return x * torch.sigmoid(1.702 * x)


_ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {
    "gelu": nn.GELU,
    "gelu_tanh": partial(nn.GELU, approximate="tanh"),
    "quick_gelu": QuickGELU,
    "swiglu": nn.SiLU,
}


class LayerScale(nn.Module):
    """A learned factor per channel (Touvron et al. 2021, arXiv:2103.17239)."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.full((dim,), 0.1))

    def forward(self, x: Tensor) -> Tensor:
        """Scale the channels of ``... d``."""
        return x * self.gamma


class Attention(nn.Module):
    """Multi-head self-attention over all tokens of a volume."""

    def __init__(self, config: ViTConfig) -> None:
        super().__init__()
        self.heads = config.heads
        self.qkv = nn.Linear(config.dim, 3 * config.dim, bias=config.qkv_bias)
        self.proj = nn.Linear(config.dim, config.dim)

    def forward(
        self,
        x: Tensor,
        bias: Tensor | None = None,
        rotation: tuple[Tensor, Tensor] | None = None,
    ) -> Tensor:
        """Map the tokens ``b n d`` to the same shape.

        Parameters
        ----------
        x
            Tokens ``b n d``.
        bias
            Number that is added to the logits of each key, ``n``.
        rotation
            Cosine and sine (``n d/2``, with d the channels of a head) of the angles by which queries and keys
            are turned.

        Returns
        -------
        Tensor
            ``b n d``.
        """
        q, k, v = rearrange(self.qkv(x), "b n (three h d) -> three b h n d", three=3, h=self.heads)
        if rotation is not None:
            q, k = rotate(q, *rotation), rotate(k, *rotation)
        mask = None if bias is None else rearrange(bias, "n -> 1 1 1 n")
        x = F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
        return self.proj(rearrange(x, "b h n d -> b n (h d)"))


class Mlp(nn.Module):
    """Two linear layers with an activation between them."""

    def __init__(self, config: ViTConfig) -> None:
        super().__init__()
        self.fc1 = nn.Linear(config.dim, config.hidden)
        self.act = _ACTIVATIONS[config.activation]()
        self.fc2 = nn.Linear(config.hidden, config.dim)

    def forward(self, x: Tensor) -> Tensor:
        """Map ``b n d`` token by token."""
        return self.fc2(self.act(self.fc1(x)))


class SwiGLU(nn.Module):
    """Two linear layers with a gate between them: ``fc2(silu(fc1_g(x)) * fc1_x(x))``."""

    def __init__(self, config: ViTConfig) -> None:
        super().__init__()
        self.fc1_g = nn.Linear(config.dim, config.hidden)
        self.fc1_x = nn.Linear(config.dim, config.hidden)
        self.act = _ACTIVATIONS[config.activation]()
        self.fc2 = nn.Linear(config.hidden, config.dim)

    def forward(self, x: Tensor) -> Tensor:
        """Map ``b n d`` token by token."""
        return self.fc2(self.act(self.fc1_g(x)) * self.fc1_x(x))


class Block(nn.Module):
    """Pre-norm transformer block."""

    def __init__(self, config: ViTConfig) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(config.dim, eps=config.norm_eps)
        self.attn = Attention(config)
        self.ls1 = LayerScale(config.dim) if config.layer_scale else nn.Identity()
        self.norm2 = nn.LayerNorm(config.dim, eps=config.norm_eps)
        self.mlp = SwiGLU(config) if config.activation == "swiglu" else Mlp(config)
        self.ls2 = LayerScale(config.dim) if config.layer_scale else nn.Identity()

    def forward(
        self,
        x: Tensor,
        bias: Tensor | None = None,
        rotation: tuple[Tensor, Tensor] | None = None,
    ) -> Tensor:
        """Map ``b n d`` to the same shape. :class:`Attention` describes ``bias`` and ``rotation``."""
        x = x + self.ls1(self.attn(self.norm1(x), bias, rotation))
        return x + self.ls2(self.mlp(self.norm2(x)))
