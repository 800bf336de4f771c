"""The settings of a segmenter, and the sizes it comes in."""

from __future__ import annotations

import math
from dataclasses import dataclass

from neurokd.models.tube_kernel import TubeConfig
from neurokd.models.vit import ViTConfig

__all__ = ["PRESETS", "SegmenterConfig"]

PRESETS = {
    "tiny": {"depth": 4, "width": 16},
    "small": {"depth": 12, "width": 24},
    "base": {"depth": 12, "width": 32},
}
"""``tiny``: the teacher's width, its first 4 blocks, for CPUs; ``small``: all of a ViT-S; ``base``: all of a ViT-B."""


@dataclass(frozen=True)
class SegmenterConfig:
    """All that has to be known to rebuild a :class:`NeuronSegmenter`, JSON-serialisable.

    Parameters
    ----------
    vit
        Architecture of the transformer.
    token
        Voxels (z, y, x) of a token.
    window
        Size (z, y, x) in voxels of the crops it is trained on and of the windows it sees later.
    taps
        Blocks (from 0, ascending) whose tokens the decoder sees, shallow ones at fine resolution. None: three spread
        over the depth.
    decoder
        ``"plain"`` or ``"hybrid"``.
    width
        Channels of the hybrid decoder at full resolution.
    ridges
        Scales, voxels, of the curvatures that the hybrid decoder sees beside the volume, see
        :class:`neurokd.models.ridge.HessianRidges`; none: the volume alone.
    norm
        Normalisation of the hybrid decoder: ``"group"`` over each window, or ``"renorm"`` by averages over the
        training, see :class:`neurokd.models.renorm.BatchRenorm3d`.
    dropout
        Share of the hybrid decoder's input channels (the volume and its curvatures) that each training step leaves out.
    gamma
        Power to which the scaled volume is raised first. Below 1, dim neurites come closer to bright ones; at 0.5 shot
        noise is the same at every brightness.
    balance_prefix, attention
        See :class:`neurokd.models.vit.ViT3D`.
    tube
        Patch embedding along tubes that bend, see :class:`neurokd.models.tubular.DeformableTubularEmbed`; None: plain.
    inflation
        ``"center"``, ``"average"`` or ``"scratch"``: how the transformer was initialised.
    teacher
        The teacher's source in words; empty for a scratch model.
    threshold
        Probability above which a voxel is foreground; training sets it on validation.
    """

    vit: ViTConfig
    token: tuple[int, int, int] = (4, 8, 8)
    window: tuple[int, int, int] = (16, 96, 96)
    taps: tuple[int, ...] | None = None
    decoder: str = "hybrid"
    width: int = 16
    ridges: tuple[float, ...] = ()
    norm: str = "group"
    dropout: float = 0.0
    gamma: float = 1.0
    balance_prefix: bool = True
    attention: str = "volume"
    tube: TubeConfig | None = None
    inflation: str = "scratch"
    teacher: str = ""
    threshold: float = 0.5

    def __post_init__(self) -> None:
        """Check the choices, and turn JSON's lists and dicts back."""
        if isinstance(self.vit, dict):
            object.__setattr__(self, "vit", ViTConfig(**self.vit))
        if isinstance(self.tube, dict):
            object.__setattr__(self, "tube", TubeConfig(**self.tube))
        if self.taps is None:
            last = self.vit.depth - 1
            object.__setattr__(self, "taps", sorted({last // 3, 2 * last // 3, last}))
        for name in ("token", "window", "taps", "ridges"):
            object.__setattr__(self, name, tuple(getattr(self, name)))
        if len(self.token) != 3 or min(self.token) < 1:
            raise ValueError(f"token is {self.token}; it must be three positive sizes (z, y, x) in voxels")
        if len(self.window) != 3 or any(w < t for w, t in zip(self.window, self.token, strict=True)):
            raise ValueError(f"window is {self.window}; it must hold at least one token of {self.token} (z, y, x)")
        if self.decoder not in ("plain", "hybrid"):
            raise ValueError(f"decoder is {self.decoder!r}; it must be 'plain' or 'hybrid'")
        if self.ridges and self.decoder == "plain":
            raise ValueError(f"ridges are {self.ridges}; the plain decoder sees tokens only, so they must be empty")
        if self.norm not in ("group", "renorm"):
            raise ValueError(f"norm must be 'group' or 'renorm', got {self.norm!r}")
        if not 0 <= self.dropout < 1:
            raise ValueError(f"dropout must be a share in [0, 1), got {self.dropout}")
        if not self.gamma > 0:
            raise ValueError(f"gamma must be positive, got {self.gamma}")
        if not 0 <= self.threshold <= 1:
            raise ValueError(f"threshold is {self.threshold}; it must lie between 0 and 1")

    @property
    def slabs(self) -> int:
        """Slabs of tokens in a window."""
        return math.ceil(self.window[0] / self.token[0])
