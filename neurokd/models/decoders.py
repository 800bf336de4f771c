"""From tokens to voxels: the two decoders of :class:`neurokd.models.segmenter.NeuronSegmenter`.

The *plain* decoder shows what the tokens hold. The *hybrid* decoder keeps the voxels' own resolution, which tokens
of 8 x 8 voxels cannot carry, and adds the tokens to it at three scales. Beside the volume it can be given ridges,
curvatures of the brightness, which say "tube" before anything is learnt:

    volume ─► conv ──┬──────────────────► + ─► conv ─► logits      full size    + shallow tap
                     └► conv ──┬────────► + ─► conv ─┘             half size    + middle tap
                               └► conv ───────────────┘            quarter      + deep tap
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import torch
from einops import rearrange
from torch import Tensor, nn
from torch.nn import functional as F

from neurokd.models.config import SegmenterConfig
from neurokd.models.renorm import BatchRenorm3d
from neurokd.models.ridge import HessianRidges

__all__ = ["DECODERS", "HybridDecoder", "PlainDecoder"]


NORMS = {"group": lambda channels: nn.GroupNorm(8, channels), "renorm": BatchRenorm3d}


def conv_block(channels_in: int, channels_out: int, *, norm: str, layers: int = 2) -> nn.Sequential:
    """Return convolutions of 3 x 3 x 3 voxels, each with a normalisation (a key of `NORMS`) and GELU."""
    channels = [channels_in] + [channels_out] * layers
    return nn.Sequential(
        *(
            nn.Sequential(nn.Conv3d(i, o, 3, padding=1, bias=False), NORMS[norm](o), nn.GELU())
            for i, o in itertools.pairwise(channels)
        )
    )


def resample_to(x: Tensor, size: Sequence[int]) -> Tensor:
    """Interpolate ``b c z y x`` trilinearly to a size (z, y, x)."""
    return F.interpolate(x, size=tuple(size), mode="trilinear", align_corners=False)


class PlainDecoder(nn.Module):
    """Tokens alone: one convolution gives each token's voxels their logits, from it and its neighbours along z."""

    def __init__(self, config: SegmenterConfig) -> None:
        super().__init__()
        self.token = config.token
        channels = config.vit.dim * len(config.taps)
        self.head = nn.Conv3d(channels, math.prod(config.token), (3, 1, 1), padding=(1, 0, 0))
        nn.init.normal_(self.head.weight, std=0.01)

    def forward(self, volume: Tensor, maps: list[Tensor]) -> Tensor:
        """Map token maps ``b d z y x`` to logits of the size of ``volume`` (``b 1 z y x``)."""
        dz, dy, dx = self.token
        voxels = self.head(torch.cat(maps, dim=1))
        return rearrange(voxels, "b (dz dy dx) z y x -> b 1 (z dz) (y dy) (x dx)", dz=dz, dy=dy, dx=dx)


class HybridDecoder(nn.Module):
    """A light U-shaped convolutional path on the voxels, tokens added at each scale: ``y = cnn + gate * tokens``."""

    def __init__(self, config: SegmenterConfig) -> None:
        super().__init__()
        widths = [config.width * 2**i for i in range(3)]
        self.ridges = HessianRidges(config.ridges)
        self.dropout = nn.Dropout3d(config.dropout)  # whole channels
        channels = [self.ridges.channels, *widths]
        self.down = nn.ModuleList(conv_block(i, o, norm=config.norm) for i, o in itertools.pairwise(channels))
        # Shallow taps go to the finer scales, the deepest to the coarsest; with one tap, all get that.
        self.source = [round(i * (len(config.taps) - 1) / 2) for i in range(3)]
        self.project = nn.ModuleList(nn.Conv3d(config.vit.dim, width, 1) for width in widths)
        self.gate = nn.ParameterList(nn.Parameter(torch.full((width, 1, 1, 1), 0.1)) for width in widths)
        self.narrow = nn.ModuleList(nn.Conv3d(2 * width, width, 1) for width in widths[:2])
        self.up = nn.ModuleList(conv_block(width, width, norm=config.norm, layers=1) for width in widths[:2])
        self.head = nn.Conv3d(widths[0], 1, 1)

    def forward(self, volume: Tensor, maps: list[Tensor]) -> Tensor:
        """Map the volume ``b 1 z y x`` and token maps ``b d z y x`` to logits ``b 1 z y x``."""
        scales, x = [], self.dropout(self.ridges(volume))
        for scale, block in enumerate(self.down):
            if scale:
                x = F.max_pool3d(x, [min(2, n) for n in x.shape[2:]])
            x = block(x)
            tokens = self.project[scale](maps[self.source[scale]])
            x = x + self.gate[scale] * resample_to(tokens, x.shape[2:])
            scales.append(x)
        for scale in (1, 0):
            x = scales[scale] + resample_to(self.narrow[scale](x), scales[scale].shape[2:])
            x = self.up[scale](x)
        return self.head(x)


DECODERS = {"plain": PlainDecoder, "hybrid": HybridDecoder}
