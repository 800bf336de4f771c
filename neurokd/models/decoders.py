"""From tokens to voxels: the two decoders of :class:`neurokd.models.segmenter.NeuronSegmenter`.

The *plain* decoder shows what the tokens hold. The *hybrid* decoder keeps the resolution of the voxels, which
tokens of 8 x 8 voxels cannot carry, and adds the tokens at three scales. Besides the volume it can get
ridges: curvatures of the brightness, which mark tubes before anything is learnt:

    volume ─► conv ──┬──────────────────► + ─► conv ─► logits      full size    + tokens of a shallow block
                     └► conv ──┬────────► + ─► conv ─┘             half size    + tokens of a middle block
                               └► conv ───────────────┘            quarter      + tokens of a deep block
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence

import torch
from einops import rearrange
from torch import Tensor, nn
from torch.nn import functional as F

from neurokd.models.choices import Decoder, Norm
from neurokd.models.config import SegmenterConfig
from neurokd.models.renorm import BatchRenorm3d
from neurokd.models.ridge import HessianRidges

__all__ = ["DECODERS", "HybridDecoder", "PlainDecoder"]

_NORMS: dict[Norm, Callable[[int], nn.Module]] = {
    "group": lambda channels: nn.GroupNorm(8, channels),
    "renorm": BatchRenorm3d,
}


def _conv_block(channels_in: int, channels_out: int, *, norm: Norm, layers: int = 2) -> nn.Sequential:
    """Return convolutions of 3 x 3 x 3 voxels, each followed by a normalisation and GELU."""
    channels = [channels_in] + [channels_out] * layers
    return nn.Sequential(
        *(
            nn.Sequential(nn.Conv3d(i, o, 3, padding=1, bias=False), _NORMS[norm](o), nn.GELU())
            for i, o in itertools.pairwise(channels)
        )
    )


def _resample(x: Tensor, size: Sequence[int]) -> Tensor:
    """Interpolate ``b c z y x`` trilinearly to a size (z, y, x)."""
    return F.interpolate(x, size=tuple(size), mode="trilinear", align_corners=False)


class PlainDecoder(nn.Module):
    """Decoder of tokens alone: a convolution along z maps each token to the logits of its voxels."""

    def __init__(self, config: SegmenterConfig) -> None:
        super().__init__()
        self.token = config.token
        channels = config.vit.dim * len(config.blocks)
        self.head = nn.Conv3d(channels, math.prod(config.token), (3, 1, 1), padding=(1, 0, 0))
        nn.init.normal_(self.head.weight, std=0.01)

    def forward(self, volume: Tensor, maps: list[Tensor]) -> Tensor:
        """Map token maps ``b d z y x`` to logits of the size of ``volume`` (``b 1 z y x``)."""
        dz, dy, dx = self.token
        voxels = self.head(torch.cat(maps, dim=1))  # one channel per voxel of a token
        return rearrange(voxels, "b (dz dy dx) z y x -> b 1 (z dz) (y dy) (x dx)", dz=dz, dy=dy, dx=dx)


class HybridDecoder(nn.Module):
    """A light U-shaped convolutional path on the voxels that adds tokens at each scale, behind a gate."""

    def __init__(self, config: SegmenterConfig) -> None:
        super().__init__()
        widths = [config.width * 2**i for i in range(3)]
        self.ridges = HessianRidges(config.ridges)
        self.dropout = nn.Dropout3d(config.dropout)  # whole channels
        pairs = itertools.pairwise([self.ridges.channels, *widths])
        self.down = nn.ModuleList(_conv_block(i, o, norm=config.norm) for i, o in pairs)
        # Shallow blocks go to the finer scales, the deepest to the coarsest. A single block goes to all.
        self.source = [round(i * (len(config.blocks) - 1) / 2) for i in range(3)]
        self.project = nn.ModuleList(nn.Conv3d(config.vit.dim, width, 1) for width in widths)
        self.gate = nn.ParameterList(nn.Parameter(torch.full((width, 1, 1, 1), 0.1)) for width in widths)
        self.narrow = nn.ModuleList(nn.Conv3d(2 * width, width, 1) for width in widths[:2])
        self.up = nn.ModuleList(_conv_block(width, width, norm=config.norm, layers=1) for width in widths[:2])
        self.head = nn.Conv3d(widths[0], 1, 1)

    def forward(self, volume: Tensor, maps: list[Tensor]) -> Tensor:
        """Map the volume ``b 1 z y x`` and token maps ``b d z y x`` to logits ``b 1 z y x``."""
        scales, x = [], self.dropout(self.ridges(volume))
        for scale, block in enumerate(self.down):
            if scale:
                x = F.max_pool3d(x, [min(2, n) for n in x.shape[2:]])  # an axis of one voxel stays
            x = block(x)
            tokens = self.project[scale](maps[self.source[scale]])
            x = x + self.gate[scale] * _resample(tokens, x.shape[2:])
            scales.append(x)
        for scale in (1, 0):  # back up: from a quarter to half to full size
            x = scales[scale] + _resample(self.narrow[scale](x), scales[scale].shape[2:])
            x = self.up[scale](x)
        return self.head(x)


DECODERS: dict[Decoder, Callable[[SegmenterConfig], PlainDecoder | HybridDecoder]] = {
    "plain": PlainDecoder,
    "hybrid": HybridDecoder,
}
