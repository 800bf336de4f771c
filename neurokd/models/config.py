"""The settings of a segmenter, and its presets."""

from __future__ import annotations

import math
from dataclasses import dataclass

from neurokd.models.blocks import ViTConfig
from neurokd.models.choices import Attention, Decoder, Initialisation, Norm, check_choice
from neurokd.models.tube_kernel import TubeConfig

__all__ = ["PRESETS", "SegmenterConfig"]

PRESETS = {
    "tiny": {"depth": 4, "width": 16},
    "small": {"depth": 12, "width": 24},
    "base": {"depth": 12, "width": 32},
}
"""``tiny``: the teacher's width and its first 4 blocks, for CPUs; ``small``: a ViT-S; ``base``: a ViT-B."""


@dataclass(frozen=True)
class SegmenterConfig:
    """Everything that is needed to rebuild a :class:`NeuronSegmenter`. It can be written as JSON.

    Parameters
    ----------
    vit
        Architecture of the transformer.
    token
        Size of a token in voxels (z, y, x).
    window
        Size in voxels (z, y, x) of the training crops, and of the windows at inference.
    blocks
        Transformer blocks whose tokens the decoder reads, counted from 0, ascending. The shallowest ones go
        to the finest scale. By default (empty), three blocks spread over the depth.
    decoder
        ``"plain"`` or ``"hybrid"``, see :mod:`neurokd.models.decoders`.
    width
        Channels of the hybrid decoder at full resolution.
    ridges
        Scales in voxels at which the hybrid decoder gets the curvatures of the volume, see
        :class:`neurokd.models.ridge.HessianRidges`. If empty, the decoder gets the volume alone.
    norm
        Normalisation in the hybrid decoder: ``"group"`` uses the statistics of each window; ``"renorm"`` uses
        averages over the training, see :class:`neurokd.models.renorm.BatchRenorm3d`.
    dropout
        Share of the hybrid decoder's input channels (the volume and its curvatures) that each training step
        leaves out.
    gamma
        Power to which the scaled volume is raised first. Below 1, dim neurites come closer to bright ones; at
        0.5, shot noise is the same at every brightness.
    balance_prefix, attention
        See :class:`neurokd.models.vit.ViT3D`.
    tube
        Settings of a patch embedding along tubes, see :class:`neurokd.models.tubular.DeformableTubularEmbed`.
        None means a plain patch embedding.
    inflation
        How the transformer was initialised: ``"center"`` or ``"average"`` from a teacher, or ``"scratch"``.
    teacher
        Description of the teacher's source. It is empty for a model from scratch.
    threshold
        Probability above which a voxel is foreground. Training chooses it on the validation volumes.

    Raises
    ------
    ValueError
        If a setting has a value that is not allowed.
    """

    vit: ViTConfig
    token: tuple[int, int, int] = (4, 8, 8)
    window: tuple[int, int, int] = (16, 96, 96)
    blocks: tuple[int, ...] = ()
    decoder: Decoder = "hybrid"
    width: int = 16
    ridges: tuple[float, ...] = ()
    norm: Norm = "group"
    dropout: float = 0.0
    gamma: float = 1.0
    balance_prefix: bool = True
    attention: Attention = "volume"
    tube: TubeConfig | None = None
    inflation: Initialisation = "scratch"
    teacher: str = ""
    threshold: float = 0.5

    def __post_init__(self) -> None:
        """Check the settings, and restore the types that JSON does not have."""
        if isinstance(self.vit, dict):
            object.__setattr__(self, "vit", ViTConfig(**self.vit))
        if isinstance(self.tube, dict):
            object.__setattr__(self, "tube", TubeConfig(**self.tube))
        if not self.blocks:
            last = self.vit.depth - 1
            object.__setattr__(self, "blocks", sorted({last // 3, 2 * last // 3, last}))
        for name in ("token", "window", "blocks", "ridges"):
            object.__setattr__(self, name, tuple(getattr(self, name)))
        if len(self.token) != 3 or min(self.token) < 1:
            raise ValueError(f"token must be three positive sizes (z, y, x) in voxels, got {self.token}")
        if len(self.window) != 3 or any(w < t for w, t in zip(self.window, self.token, strict=True)):
            raise ValueError(f"window must hold a token of {self.token} voxels (z, y, x), got {self.window}")
        check_choice("decoder", self.decoder, Decoder)
        check_choice("norm", self.norm, Norm)
        check_choice("attention", self.attention, Attention)
        check_choice("inflation", self.inflation, Initialisation)
        if self.ridges and self.decoder == "plain":
            raise ValueError(
                f"ridges must be empty for the decoder 'plain', which reads tokens only, got {self.ridges}"
            )
        if not 0 <= self.dropout < 1:
            raise ValueError(f"dropout must be a share in [0, 1), got {self.dropout}")
        if not self.gamma > 0:
            raise ValueError(f"gamma must be positive, got {self.gamma}")
        if not 0 <= self.threshold <= 1:
            raise ValueError(f"threshold must be in [0, 1], got {self.threshold}")

    @property
    def slabs(self) -> int:
        """Return the number of slabs of tokens in a window."""
        return math.ceil(self.window[0] / self.token[0])
