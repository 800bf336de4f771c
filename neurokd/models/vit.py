"""A vision transformer for volumes, readable and with timm's parameter names.

The 2D teacher and the 3D student differ in two places only: the patch embedding (a 3D convolution) and the
position embedding (a learned depth part is added, which starts at zero). Blocks are those of a plain ViT
(Dosovitskiy et al. 2021, arXiv:2010.11929; :mod:`neurokd.models.blocks`), so that their weights are copied:

    volume  b c z y x
      |  patch_embed.proj       one token per (tz, ty, tx) voxels
    tokens  b (z y x) d  + pos_embed (y, x), the same in each slab  + depth_embed (z)
      |  [cls_token] [reg_token] in front
      |  blocks, where DINOv3's turn queries and keys by (y, x), the same in each slab
    tokens  b n d

A *slab* is one layer of tokens along z.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from einops import rearrange, repeat
from torch import Tensor, nn
from torch.nn import functional as F

from neurokd.models.blocks import Block, ViTConfig
from neurokd.models.rope import rotary_angles

__all__ = ["ViT3D", "ViTConfig"]


class PatchEmbed(nn.Module):
    """One token per ``token`` voxels, by a convolution as wide as its stride."""

    def __init__(self, config: ViTConfig, token: tuple[int, int, int], channels: int) -> None:
        super().__init__()
        self.proj = nn.Conv3d(channels, config.dim, kernel_size=token, stride=token)

    def forward(self, volume: Tensor) -> Tensor:
        """Map ``b c z y x`` voxels to ``b d z y x`` tokens."""
        return self.proj(volume)


class ViT3D(nn.Module):
    """A plain vision transformer whose patches are boxes of a volume.

    Parameters
    ----------
    config
        The 2D architecture.
    token
        Voxels ``(z, y, x)`` of one token.
    slabs
        Number of slabs for which the depth embedding is made; it is resampled for others.
    channels
        Input channels, 1 for grey volumes.
    balance_prefix
        Add ``log(slabs)`` to the logits of the class and register keys. A volume constant in z repeats each patch
        token once per slab, so the softmax gives the prefix tokens too small a share; the logarithm restores the
        2D share exactly.
    attention
        ``"volume"``: every token sees all others; ``"slab"``: those of its slab only, each slab with class and
        register tokens of its own, so that a center-inflated transformer is the 2D teacher on the middle slice of
        every slab, whatever lies above and below. The depth embedding then stays zero.

    Examples
    --------
    >>> config = ViTConfig(dim=32, depth=2, heads=4, hidden=64, patch=(8, 8), grid=(4, 4))
    >>> vit = ViT3D(config, token=(2, 8, 8))
    >>> vit(torch.zeros(1, 1, 6, 32, 40)).shape  # class token and 3 x 4 x 5 patches
    torch.Size([1, 61, 32])
    """

    def __init__(
        self,
        config: ViTConfig,
        *,
        token: tuple[int, int, int],
        slabs: int = 1,
        channels: int = 1,
        balance_prefix: bool = False,
        attention: str = "volume",
    ) -> None:
        super().__init__()
        if attention not in ("volume", "slab"):
            raise ValueError(f"attention is {attention!r}; it must be 'volume' or 'slab'")
        self.config, self.token, self.balance_prefix = config, tuple(token), balance_prefix
        self.attention = attention
        self.patch_embed = PatchEmbed(config, self.token, channels)
        self.cls_token = nn.Parameter(torch.zeros(1, 1, config.dim)) if config.class_token else None
        self.reg_token = nn.Parameter(torch.zeros(1, config.registers, config.dim)) if config.registers else None
        places = math.prod(config.grid) + (config.prefix if config.position_on_prefix else 0)
        self.pos_embed = nn.Parameter(torch.zeros(1, places, config.dim)) if config.learned_position else None
        # Slabs that do not see each other need not know where they lie.
        self.depth_embed = nn.Parameter(torch.zeros(1, slabs, config.dim), requires_grad=attention == "volume")
        self.norm_pre = nn.LayerNorm(config.dim, eps=config.norm_eps) if config.pre_norm else nn.Identity()
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.depth))
        self.norm = nn.LayerNorm(config.dim, eps=config.norm_eps) if config.final_norm else nn.Identity()
        self._initialise()

    def _initialise(self) -> None:
        """Draw a scratch model's weights as ViTs usually are: truncated normals of standard deviation 0.02."""
        for name, parameter in self.named_parameters():
            if name.endswith(("cls_token", "reg_token", "pos_embed")) or (parameter.ndim > 1 and "embed" not in name):
                nn.init.trunc_normal_(parameter, std=0.02)
        for module in self.modules():
            if isinstance(module, nn.Linear) and module.bias is not None:
                nn.init.zeros_(module.bias)

    def grid(self, volume: Tensor) -> tuple[int, int, int]:
        """Return the token grid ``(z, y, x)`` of a volume ``b c z y x``."""
        sizes = tuple(volume.shape[2:])
        if len(sizes) != 3 or any(size % token for size, token in zip(sizes, self.token, strict=True)):
            raise ValueError(f"volume of size {sizes} does not divide into tokens of {self.token} voxels (z, y, x)")
        return tuple(size // token for size, token in zip(sizes, self.token, strict=True))

    def positions(self, grid: tuple[int, int, int]) -> tuple[Tensor | float, Tensor]:
        """Return the embeddings added to the prefix tokens and to the patch tokens, ``1 n d`` each."""
        depth = rearrange(self.depth_embed, "1 z d -> 1 d z")
        if grid[0] != depth.shape[-1]:
            depth = F.interpolate(depth, size=grid[0], mode="linear", align_corners=False)
        if self.pos_embed is None:
            return 0.0, repeat(depth, "1 d z -> 1 (z y x) d", y=grid[1], x=grid[2])
        prefix = self.config.prefix if self.config.position_on_prefix else 0
        plane = rearrange(self.pos_embed[:, prefix:], "1 (y x) d -> 1 d y x", y=self.config.grid[0])
        if grid[1:] != self.config.grid:
            # As timm does it, so that a resized image gets the same positions from the teacher and from us.
            plane = F.interpolate(plane.float(), size=grid[1:], mode="bicubic", antialias=True).to(plane.dtype)
        patches = rearrange(plane, "1 d y x -> 1 d 1 y x") + rearrange(depth, "1 d z -> 1 d z 1 1")
        return (self.pos_embed[:, :prefix] if prefix else 0.0), rearrange(patches, "1 d z y x -> 1 (z y x) d")

    def groups(self, grid: tuple[int, int, int]) -> int:
        """Return into how many groups attention divides the tokens of a volume."""
        return grid[0] if self.attention == "slab" else 1

    def embed(self, volume: Tensor) -> Tensor:
        """Map a volume ``b c z y x`` to the tokens ``(b groups) n d`` that enter the first block."""
        grid = self.grid(volume)
        on_prefix, on_patches = self.positions(grid)
        tokens = rearrange(self.patch_embed(volume), "b d z y x -> b (z y x) d") + on_patches
        tokens = rearrange(tokens, "b (g n) d -> (b g) n d", g=self.groups(grid))
        prefix = [p for p in (self.cls_token, self.reg_token) if p is not None]
        if prefix:
            prefix = repeat(torch.cat(prefix, dim=1) + on_prefix, "1 n d -> b n d", b=len(tokens))
            tokens = torch.cat([prefix.to(tokens.dtype), tokens], dim=1)
        return self.norm_pre(tokens)

    def key_bias(self, grid: tuple[int, int, int], tokens: Tensor) -> Tensor | None:
        """Return what is added to each key's logits (``n``), or None where nothing is."""
        slabs = grid[0] // self.groups(grid)  # that attention sees together
        if not self.balance_prefix or slabs == 1 or not self.config.prefix:
            return None
        bias = tokens.new_zeros(tokens.shape[1])
        bias[: self.config.prefix] = math.log(slabs)
        return bias

    def rotation(self, grid: tuple[int, int, int], tokens: Tensor) -> tuple[Tensor, Tensor] | None:
        """Return cosine and sine (``n d/2``) of the angles that turn queries and keys, or None where nothing does."""
        config = self.config
        if config.rope_temperature is None:
            return None
        angles = rotary_angles(
            (grid[0] // self.groups(grid), *grid[1:]),
            head_dim=config.dim // config.heads,
            temperature=config.rope_temperature,
            prefix=config.prefix,
            like=tokens,
        )
        return angles.cos(), angles.sin()

    def block_outputs(self, volume: Tensor, taps: Sequence[int]) -> list[Tensor]:
        """Return the tokens ``(b groups) n d`` after the blocks in ``taps`` (from 0, ascending), unnormalised.

        Blocks beyond the last tap are not computed.
        """
        if not taps or list(taps) != sorted(set(taps)) or not 0 <= taps[0] <= taps[-1] < len(self.blocks):
            raise ValueError(f"taps are {list(taps)}; they must ascend within 0 to {len(self.blocks) - 1}")
        tokens = self.embed(volume)
        grid = self.grid(volume)
        bias, rotation = self.key_bias(grid, tokens), self.rotation(grid, tokens)
        outputs = []
        for index, block in enumerate(self.blocks[: taps[-1] + 1]):
            tokens = block(tokens, bias, rotation)
            if index in taps:
                outputs.append(tokens)
        return outputs

    def feature_maps(self, volume: Tensor, taps: Sequence[int]) -> list[Tensor]:
        """Return the patch tokens after the blocks in ``taps`` as maps ``b d z y x``."""
        grid = self.grid(volume)
        shape = {"g": self.groups(grid), "y": grid[1], "x": grid[2]}
        outputs = self.block_outputs(volume, taps)
        return [rearrange(t[:, self.config.prefix :], "(b g) (z y x) d -> b d (g z) y x", **shape) for t in outputs]

    def forward(self, volume: Tensor) -> Tensor:
        """Return all tokens ``(b groups) n d`` of a volume ``b c z y x``, prefix first, after the final norm.

        Raises
        ------
        ValueError
            If the volume does not divide into tokens.
        """
        return self.norm(self.block_outputs(volume, [len(self.blocks) - 1])[0])


def pad_to_tokens(volume: Tensor, token: tuple[int, int, int]) -> Tensor:
    """Pad a volume ``b c z y x`` with zeros at its far ends to whole tokens of ``token`` voxels (z, y, x)."""
    z, y, x = (-n % t for n, t in zip(volume.shape[2:], token, strict=True))
    return F.pad(volume, [0, x, 0, y, 0, z])
