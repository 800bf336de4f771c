"""A 3D vision transformer with a decoder: grey volume in, one logit per voxel out.

    volume b 1 z y x ──► ViT3D (transferred) ──► tokens after the tapped blocks, LayerNorm each
         │                                              │
         └──► hybrid only ──────────► decoder ◄─────────┘
                                         │
                                  logits b 1 z y x

The decoders are in :mod:`neurokd.models.decoders`.
"""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from einops import rearrange
from torch import Tensor, nn

from neurokd.models.config import PRESETS, SegmenterConfig
from neurokd.models.decoders import DECODERS
from neurokd.models.families import vit_config
from neurokd.models.storage import model_folder, read_model, write_model
from neurokd.models.transfer import transfer_weights
from neurokd.models.tubular import add_tubes
from neurokd.models.vit import ViT3D, ViTConfig, pad_to_tokens

if TYPE_CHECKING:
    from neurokd.models.teacher import Teacher

__all__ = ["NeuronSegmenter"]


class NeuronSegmenter(nn.Module):
    """Vision transformer and decoder; maps volumes ``b 1 z y x`` in [0, 1] to logits of the same shape.

    Made by :meth:`from_teacher`, :meth:`from_scratch` or :meth:`from_pretrained`; untrained by the constructor.

    Parameters
    ----------
    config
        The architecture.
    """

    def __init__(self, config: SegmenterConfig) -> None:
        super().__init__()
        self.config = config
        self.vit = ViT3D(
            config.vit,
            token=config.token,
            slabs=config.slabs,
            balance_prefix=config.balance_prefix,
            attention=config.attention,
        )
        self.norms = nn.ModuleList(nn.LayerNorm(config.vit.dim) for _ in config.taps)
        self.decoder = DECODERS[config.decoder](config)
        # Start at the share of foreground in neuron volumes (about 1 %), not at a half.
        nn.init.constant_(self.decoder.head.bias, -4.6)
        if config.tube is not None:  # last, so that a seed gives all other parts the weights they have without tubes
            add_tubes(self.vit, config.tube)

    @classmethod
    def from_teacher(
        cls,
        teacher: Teacher,
        *,
        inflation: str = "center",
        preset: str = "small",
        generator: torch.Generator | None = None,
        **settings: Any,
    ) -> NeuronSegmenter:
        """Make a student with the teacher's architecture and, unless ``inflation="scratch"``, its knowledge.

        Parameters
        ----------
        teacher
            From :func:`neurokd.models.teacher.load_teacher`.
        inflation
            ``"center"``, ``"average"`` (arXiv:2405.02686), or ``"scratch"``: same model, random weights, the control.
        preset
            A key of :data:`PRESETS`.
        generator
            Draws the parts that are not transferred; torch's global one by default.
        **settings
            Fields of :class:`neurokd.models.config.SegmenterConfig` (``window``, ``token``, ``decoder``, ``taps``,
            ``ridges``, ``tube``, ...). A token of 8 x 8 voxels under a teacher of patch 14 sees what the teacher sees
            on slices magnified 1.75 times.

        Returns
        -------
        NeuronSegmenter

        Raises
        ------
        ValueError
            If the teacher has a part that is not understood, or a choice is unknown.
        """
        if preset not in PRESETS:
            raise ValueError(f"preset is {preset!r}; it must be one of {sorted(PRESETS)}")
        if inflation not in ("center", "average", "scratch"):
            raise ValueError(f"inflation is {inflation!r}; it must be 'center', 'average' or 'scratch'")
        depth = min(PRESETS[preset]["depth"], len(teacher.vit.blocks))
        vit = vit_config(teacher.vit, depth=depth)
        settings = {"width": PRESETS[preset]["width"]} | settings
        origin = "" if inflation == "scratch" else str(teacher.source)
        config = SegmenterConfig(vit=vit, inflation=inflation, teacher=origin, **settings)
        model = _seeded(cls, config, generator)
        if inflation != "scratch":
            transfer_weights(teacher, model.vit, mode=inflation)
        return model

    @classmethod
    def from_scratch(
        cls,
        *,
        dim: int = 192,
        depth: int = 6,
        heads: int = 3,
        mlp_ratio: float = 4.0,
        generator: torch.Generator | None = None,
        **settings: Any,
    ) -> NeuronSegmenter:
        """Make a student of any width and depth with random weights, to be distilled from a teacher or not.

        Parameters
        ----------
        dim, depth, heads
            Width of a token, number of blocks, attention heads.
        mlp_ratio
            Width inside the MLP over ``dim``.
        generator, **settings
            As in :meth:`from_teacher`.

        Returns
        -------
        NeuronSegmenter

        Raises
        ------
        ValueError
            If ``dim`` is not a multiple of ``heads``, or a choice is unknown.
        """
        token = settings.get("token", SegmenterConfig.token)
        window = settings.get("window", SegmenterConfig.window)
        # No class token: nothing here would read it.
        vit = ViTConfig(
            dim=dim,
            depth=depth,
            heads=heads,
            hidden=round(mlp_ratio * dim),
            patch=tuple(token[1:]),
            grid=tuple(math.ceil(w / t) for w, t in zip(window[1:], token[1:], strict=True)),
            class_token=False,
        )
        return _seeded(cls, SegmenterConfig(vit=vit, **settings), generator)

    def forward(self, volume: Tensor) -> Tensor:
        """Return logits ``b 1 z y x`` of a volume ``b 1 z y x`` in [0, 1] of any size, padded with zeros to tokens."""
        return self.forward_with_tokens(volume)[0]

    def forward_with_tokens(self, volume: Tensor, taps: Sequence[int] = ()) -> tuple[Tensor, list[Tensor]]:
        """Return the logits and, from the same pass, the tokens after the blocks in ``taps``.

        Parameters
        ----------
        volume
            As in :meth:`forward`.
        taps
            Blocks from 0, in any order; they need not be those that the decoder sees.

        Returns
        -------
        tuple
            Logits ``b 1 z y x``, and one map ``b d z y x`` per tap on the grid of tokens, before any norm.

        Raises
        ------
        ValueError
            If the volume has another shape, or there is no such block.
        """
        if volume.ndim != 5 or volume.shape[1] != 1:
            raise ValueError(f"volume has shape {tuple(volume.shape)}; expected b 1 z y x")
        if self.config.gamma != 1:
            volume = volume.clamp_min(0) ** self.config.gamma
        size, padded = volume.shape[2:], pad_to_tokens(volume, self.config.token)
        blocks = sorted({*self.config.taps, *taps})
        after = dict(zip(blocks, self.vit.feature_maps(padded, blocks), strict=True))
        maps = [
            rearrange(norm(rearrange(after[tap], "b d z y x -> b z y x d")), "b z y x d -> b d z y x")
            for norm, tap in zip(self.norms, self.config.taps, strict=True)
        ]
        logits = self.decoder(padded, maps)[..., : size[0], : size[1], : size[2]]
        return logits, [after[tap] for tap in taps]

    def parameter_groups(self) -> dict[str, list[nn.Parameter]]:
        """Split the parameters into ``"transferred"`` (came from the teacher) and ``"new"`` (did not)."""
        transferred = [] if self.config.inflation == "scratch" else list(self.vit.parameters())
        fresh = [self.vit.depth_embed]
        if self.config.tube is not None:
            fresh += self.vit.patch_embed.new_parameters()
        known = {id(p) for p in transferred} - {id(p) for p in fresh}
        return {
            "transferred": [p for p in self.parameters() if id(p) in known],
            "new": [p for p in self.parameters() if id(p) not in known],
        }

    def set_threshold(self, threshold: float) -> None:
        """Set the probability above which a voxel is foreground; it is saved with the model."""
        self.config = replace(self.config, threshold=float(threshold))

    def save_pretrained(self, folder: str | os.PathLike[str], *, overwrite: bool = False) -> Path:
        """Write ``config.json`` and ``model.safetensors`` (float16 if ``model.half()`` was called) into a new folder.

        Parameters
        ----------
        folder
            Is made; must not exist unless ``overwrite``.
        overwrite
            Replace a folder that holds a model.

        Returns
        -------
        Path
            The folder.

        Raises
        ------
        FileExistsError
            If the folder exists and ``overwrite`` is not set, or holds something that is not a model.
        """
        return write_model(folder, self.config, self.state_dict(), overwrite=overwrite)

    @classmethod
    def from_pretrained(cls, name_or_folder: str | os.PathLike[str]) -> NeuronSegmenter:
        """Load a released model by its name, or one written by :meth:`save_pretrained`, in evaluation mode.

        Parameters
        ----------
        name_or_folder
            ``"neurokd-tiny"``, which comes with the package (see its model card), or a folder. What could mean both
            is an error; ``"./neurokd-tiny"`` and a ``Path`` are folders.

        Returns
        -------
        NeuronSegmenter
            With float32 weights, also where the file holds float16.

        Raises
        ------
        FileNotFoundError
            If there is no such model, or a file of it is missing.
        ValueError
            If a file is damaged, the two do not fit together, or the string names a released model and a folder.
        """
        folder = model_folder(name_or_folder)
        config, state = read_model(folder)
        model = cls(config)
        try:
            model.load_state_dict(state)
        except RuntimeError as error:
            raise ValueError(f"the weights in {folder} do not fit its config.json: {error}") from error
        return model.eval()


def _seeded(cls: type[NeuronSegmenter], config: SegmenterConfig, generator: torch.Generator | None) -> NeuronSegmenter:
    """Build with a generator of one's own: torch's initialisers draw from the global one, which is put back after."""
    if generator is None:
        return cls(config)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(int(torch.randint(2**62, (), generator=generator)))
        return cls(config)
