"""A vision transformer for volumes with timm's parameter names.

The 2D teacher and the 3D student differ in two places only: the patch embedding is a 3D convolution, and a
learned depth embedding, which starts at zero, is added to the position embedding. The blocks are those of a
plain ViT (Dosovitskiy et al. 2021, arXiv:2010.11929; :mod:`neurokd.models.blocks`), so their weights can be
copied:

    volume  b 1 z y x
      |  patch_embed.proj       one token per (tz, ty, tx) voxels
    tokens  b (z y x) d  + pos_embed (y, x), the same in each slab  + depth_embed (z)
      |  [cls_token] [reg_token] in front
      |  blocks (those of DINOv3 turn queries and keys by (y, x), the same in each slab)
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
from neurokd.models.choices import Attention, check_choice
from neurokd.models.rope import rotary_angles

__all__ = ["ViT3D", "ViTConfig"]


class PatchEmbed(nn.Module):
    """A convolution whose kernel and stride are the token, so that each token covers its own voxels."""

    def __init__(self, dim: int, token: tuple[int, int, int]) -> None:
        super().__init__()
        self.proj = nn.Conv3d(1, dim, kernel_size=token, stride=token)

    def forward(self, volume: Tensor) -> Tensor:
        """Map the voxels ``b 1 z y x`` to tokens ``b d z y x``."""
        return self.proj(volume)


class ViT3D(nn.Module):
    """A plain vision transformer for grey volumes, whose patches are boxes of voxels.

    Parameters
    ----------
    config
        The 2D architecture.
    token
        Size of a token in voxels (z, y, x).
    slabs
        Number of slabs in the depth embedding. It is interpolated for volumes with another number.
    balance_prefix
        Add ``log(slabs)`` to the logits of the class and register keys. In a volume that is constant along z,
        every patch token is there once per slab, so the softmax gives the prefix tokens too small a share.
        The logarithm restores the share that they have in 2D.
    attention
        With ``"volume"`` every token attends to all tokens. With ``"slab"`` it attends to the tokens of its
        own slab only, and each slab has its own class and register tokens. A center-inflated transformer then
        equals the 2D teacher on the middle slice of every slab, whatever lies above and below, and the depth
        embedding stays zero.

    Raises
    ------
    ValueError
        If ``attention`` is unknown.

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
        balance_prefix: bool = False,
        attention: Attention = "volume",
    ) -> None:
        super().__init__()
        check_choice("attention", attention, Attention)
        self.config, self.balance_prefix, self.attention = config, balance_prefix, attention
        self.token = (token[0], token[1], token[2])
        # DeformableTubularEmbed takes this place where tubes are wanted.
        self.patch_embed: nn.Module = PatchEmbed(config.dim, self.token)
        places = math.prod(config.grid) + (config.prefix if config.position_on_prefix else 0)
        self.cls_token = self._embedding(1) if config.class_token else None
        self.reg_token = self._embedding(config.registers) if config.registers else None
        self.pos_embed = self._embedding(places) if config.learned_position else None
        # Slabs that do not attend to each other do not need to know their depth.
        self.depth_embed = self._embedding(slabs).requires_grad_(attention == "volume")
        self.norm_pre = nn.LayerNorm(config.dim, eps=config.norm_eps) if config.pre_norm else nn.Identity()
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.depth))
        self.norm = nn.LayerNorm(config.dim, eps=config.norm_eps) if config.final_norm else nn.Identity()
        self._initialise()

    def _embedding(self, count: int) -> nn.Parameter:
        """Return a learned embedding ``1 n d`` of zeros."""
        return nn.Parameter(torch.zeros(1, count, self.config.dim))

    def _initialise(self) -> None:
        """Draw the usual initial weights of a ViT: truncated normals of standard deviation 0.02."""
        for name, parameter in self.named_parameters():
            embedding = name.endswith(("cls_token", "reg_token", "pos_embed"))
            if embedding or (parameter.ndim > 1 and "embed" not in name):
                nn.init.trunc_normal_(parameter, std=0.02)
        for module in self.modules():
            if isinstance(module, nn.Linear) and module.bias is not None:
                nn.init.zeros_(module.bias)

    def grid(self, volume: Tensor) -> tuple[int, int, int]:
        """Return the token grid ``(z, y, x)`` of a volume ``b 1 z y x``."""
        sizes = tuple(volume.shape[2:])
        if len(sizes) != 3 or any(size % token for size, token in zip(sizes, self.token, strict=True)):
            shape = tuple(volume.shape)
            raise ValueError(f"volume must be b 1 z y x in whole tokens of {self.token}, got shape {shape}")
        z, y, x = (size // token for size, token in zip(sizes, self.token, strict=True))
        return z, y, x

    def positions(self, grid: tuple[int, int, int]) -> tuple[Tensor | float, Tensor]:
        """Return the embeddings ``1 n d`` that are added to the prefix tokens and to the patch tokens."""
        depth: Tensor = rearrange(self.depth_embed, "1 z d -> 1 d z")
        if grid[0] != depth.shape[-1]:
            depth = F.interpolate(depth, size=grid[0], mode="linear", align_corners=False)
        if self.pos_embed is None:
            return 0.0, repeat(depth, "1 d z -> 1 (z y x) d", y=grid[1], x=grid[2])
        prefix = self.config.prefix if self.config.position_on_prefix else 0
        plane = rearrange(self.pos_embed[:, prefix:], "1 (y x) d -> 1 d y x", y=self.config.grid[0])
        if grid[1:] != self.config.grid:
            # timm resizes in this way, so a resized image gets the positions that the teacher gives it.
            resized = F.interpolate(plane.float(), size=grid[1:], mode="bicubic", antialias=True)  # 1 d y x
            plane = resized.to(plane.dtype)
        # Every slab gets the same positions in the plane; the depth embedding tells slabs apart.
        patches = rearrange(plane, "1 d y x -> 1 d 1 y x") + rearrange(depth, "1 d z -> 1 d z 1 1")
        return (self.pos_embed[:, :prefix] if prefix else 0.0), rearrange(patches, "1 d z y x -> 1 (z y x) d")

    def groups(self, grid: tuple[int, int, int]) -> int:
        """Return the number of groups in which tokens attend to each other: the slabs, or 1."""
        return grid[0] if self.attention == "slab" else 1

    def embed(self, volume: Tensor) -> Tensor:
        """Map a volume ``b 1 z y x`` to the tokens ``(b groups) n d`` that enter the first block."""
        grid = self.grid(volume)
        on_prefix, on_patches = self.positions(grid)
        tokens = rearrange(self.patch_embed(volume), "b d z y x -> b (z y x) d") + on_patches
        tokens = rearrange(tokens, "b (g n) d -> (b g) n d", g=self.groups(grid))
        parts: list[Tensor] = [part for part in (self.cls_token, self.reg_token) if part is not None]
        if parts:
            prefix = repeat(torch.cat(parts, dim=1) + on_prefix, "1 n d -> b n d", b=len(tokens))
            tokens = torch.cat([prefix.to(tokens.dtype), tokens], dim=1)
        return self.norm_pre(tokens)

    def key_bias(self, grid: tuple[int, int, int], tokens: Tensor) -> Tensor | None:
        """Return the numbers ``n`` that are added to the logits of the keys, or None if all would be 0."""
        slabs = grid[0] // self.groups(grid)  # slabs in one attention
        if not self.balance_prefix or slabs == 1 or not self.config.prefix:
            return None
        # Each patch of a z-constant volume appears `slabs` times, and exp(logit + log(slabs)) counts a prefix
        # key equally often. All shares of the softmax are then those of the 2D teacher.
        bias = tokens.new_zeros(tokens.shape[1])
        bias[: self.config.prefix] = math.log(slabs)
        return bias

    def rotation(self, grid: tuple[int, int, int], tokens: Tensor) -> tuple[Tensor, Tensor] | None:
        """Return cosine and sine ``n d/2`` of the angles that turn queries and keys, or None."""
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

    def block_outputs(self, volume: Tensor, blocks: Sequence[int]) -> list[Tensor]:
        """Return the unnormalised tokens ``(b groups) n d`` after some blocks.

        Parameters
        ----------
        volume
            ``b 1 z y x``, whole tokens along each axis.
        blocks
            Numbers of the blocks, from 0, ascending. Later blocks are not computed.

        Returns
        -------
        list of Tensor
            One per block.

        Raises
        ------
        ValueError
            If the volume does not divide into tokens, or ``blocks`` is empty, not ascending or out of range.
        """
        ascending = bool(blocks) and list(blocks) == sorted(set(blocks))
        if not ascending or blocks[0] < 0 or blocks[-1] >= len(self.blocks):
            last = len(self.blocks) - 1
            raise ValueError(f"blocks must be ascending numbers from 0 to {last}, got {list(blocks)}")
        tokens = self.embed(volume)
        grid = self.grid(volume)
        bias, rotation = self.key_bias(grid, tokens), self.rotation(grid, tokens)
        outputs = []
        for index, block in enumerate(self.blocks[: blocks[-1] + 1]):
            tokens = block(tokens, bias, rotation)
            if index in blocks:
                outputs.append(tokens)
        return outputs

    def feature_maps(self, volume: Tensor, blocks: Sequence[int]) -> list[Tensor]:
        """Return the unnormalised patch tokens after some blocks as maps.

        Parameters
        ----------
        volume, blocks
            See :meth:`block_outputs`.

        Returns
        -------
        list of Tensor
            One ``b d z y x`` per block, on the grid of tokens.
        """
        grid = self.grid(volume)
        shape = {"g": self.groups(grid), "y": grid[1], "x": grid[2]}
        return [
            rearrange(tokens[:, self.config.prefix :], "(b g) (z y x) d -> b d (g z) y x", **shape)
            for tokens in self.block_outputs(volume, blocks)
        ]

    def forward(self, volume: Tensor) -> Tensor:
        """Return all tokens ``(b groups) n d`` of a volume ``b 1 z y x`` after the final norm, prefix first.

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
