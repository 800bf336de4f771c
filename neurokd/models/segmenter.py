"""A 3D vision transformer with a decoder: grey volume in, one logit per voxel out.

    volume b 1 z y x ──► ViT3D (transferred) ──► tokens after some blocks, one LayerNorm each
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
from typing import TYPE_CHECKING, Any, cast

import torch
from einops import rearrange
from torch import Tensor, nn

from neurokd.models.choices import Initialisation, check_choice
from neurokd.models.config import PRESETS, SegmenterConfig
from neurokd.models.decoders import DECODERS
from neurokd.models.families import vit_config
from neurokd.models.storage import model_folder, read_model, write_model
from neurokd.models.transfer import transfer_weights
from neurokd.models.tubular import DeformableTubularEmbed, add_tubes
from neurokd.models.vit import ViT3D, ViTConfig, pad_to_tokens

if TYPE_CHECKING:
    from neurokd.models.teacher import Teacher

__all__ = ["NeuronSegmenter"]


class NeuronSegmenter(nn.Module):
    """Vision transformer and decoder. It maps volumes ``b 1 z y x`` in [0, 1] to logits of the same shape.

    Use :meth:`from_teacher`, :meth:`from_scratch` or :meth:`from_pretrained`; the constructor draws weights.

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
        self.norms = nn.ModuleList(nn.LayerNorm(config.vit.dim) for _ in config.blocks)
        self.decoder = DECODERS[config.decoder](config)
        # Start at the share of foreground in neuron volumes, about 1 %: sigmoid(-4.6) = 0.01.
        nn.init.constant_(cast("Tensor", self.decoder.head.bias), -4.6)
        # Tubes come last, so that a seed gives all other parts the same weights with and without tubes.
        if config.tube is not None:
            add_tubes(self.vit, config.tube)

    @classmethod
    def from_teacher(
        cls,
        teacher: Teacher,
        *,
        inflation: Initialisation = "center",
        preset: str = "small",
        generator: torch.Generator | None = None,
        **settings: Any,
    ) -> NeuronSegmenter:
        """Make a student with the teacher's architecture and, unless ``inflation="scratch"``, its knowledge.

        Parameters
        ----------
        teacher
            Teacher from :func:`neurokd.models.teacher.load_teacher`.
        inflation
            ``"center"`` or ``"average"`` (arXiv:2405.02686), or ``"scratch"``: the same model with random
            weights, as a control.
        preset
            Key of :data:`PRESETS`.
        generator
            Generator of the weights that are not transferred; torch's global one by default.
        **settings
            Fields of :class:`neurokd.models.config.SegmenterConfig` (``window``, ``token``, ``decoder``,
            ``blocks``, ``ridges``, ``tube``, ...). With a token of 8 x 8 voxels and a teacher of patch 14,
            the student sees what the teacher sees on slices magnified 1.75 times.

        Returns
        -------
        NeuronSegmenter
            Student in training mode.

        Raises
        ------
        ValueError
            If a part of the teacher has no counterpart here, or a setting is not allowed.
        """
        check_choice("preset", preset, PRESETS)
        check_choice("inflation", inflation, Initialisation)
        depth = min(PRESETS[preset]["depth"], len(teacher.vit.blocks))
        vit = vit_config(teacher.vit, depth=depth)
        settings = {"width": PRESETS[preset]["width"]} | settings
        origin = "" if inflation == "scratch" else str(teacher.source)
        config = SegmenterConfig(vit=vit, inflation=inflation, teacher=origin, **settings)
        model = _seeded(cls, config, generator)
        if inflation != "scratch":
            transfer_weights(teacher, model.vit, inflation=inflation)
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
        """Make a student of any width and depth with random weights. It can be distilled from a teacher.

        Parameters
        ----------
        dim, depth, heads
            Width of a token, number of blocks, number of attention heads.
        mlp_ratio
            Width inside the MLP, divided by ``dim``.
        generator, **settings
            See :meth:`from_teacher`.

        Returns
        -------
        NeuronSegmenter
            Student in training mode.

        Raises
        ------
        ValueError
            If ``dim`` is not a multiple of ``heads``, or a setting is not allowed.
        """
        token = settings.get("token", SegmenterConfig.token)
        window = settings.get("window", SegmenterConfig.window)
        # There is no class token, because nothing here would read it.
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
        """Return the logits ``b 1 z y x`` of a volume ``b 1 z y x`` in [0, 1].

        The volume can have any size: zeros fill it up to whole tokens, and the logits have its own size.
        """
        return self.forward_with_tokens(volume)[0]

    def forward_with_tokens(self, volume: Tensor, blocks: Sequence[int] = ()) -> tuple[Tensor, list[Tensor]]:
        """Return the logits and, from the same pass, the tokens after some blocks.

        Parameters
        ----------
        volume
            See :meth:`forward`.
        blocks
            Numbers of the blocks, from 0, in any order. They may differ from those that the decoder reads.

        Returns
        -------
        tuple
            Logits ``b 1 z y x``, and one map ``b d z y x`` per block on the grid of tokens, before any norm.

        Raises
        ------
        ValueError
            If the volume has another shape, or there is no such block.
        """
        if volume.ndim != 5 or volume.shape[1] != 1:
            raise ValueError(f"volume must be b 1 z y x, got shape {tuple(volume.shape)}")
        if self.config.gamma != 1:
            volume = volume.clamp_min(0) ** self.config.gamma
        size, padded = volume.shape[2:], pad_to_tokens(volume, self.config.token)
        # One pass serves the decoder and the caller, up to the deepest block that either of them asks for.
        numbers = sorted({*self.config.blocks, *blocks})
        outputs = dict(zip(numbers, self.vit.feature_maps(padded, numbers), strict=True))
        maps = [
            rearrange(norm(rearrange(outputs[block], "b d z y x -> b z y x d")), "b z y x d -> b d z y x")
            for norm, block in zip(self.norms, self.config.blocks, strict=True)
        ]
        logits = self.decoder(padded, maps)  # b 1 z y x, with the padding
        logits = logits[..., : size[0], : size[1], : size[2]]
        return logits, [outputs[block] for block in blocks]

    def parameter_groups(self) -> dict[str, list[nn.Parameter]]:
        """Split the parameters into ``"transferred"`` (from the teacher) and ``"new"`` (all others)."""
        transferred = [] if self.config.inflation == "scratch" else list(self.vit.parameters())
        fresh = [self.vit.depth_embed]
        if isinstance(self.vit.patch_embed, DeformableTubularEmbed):
            fresh += self.vit.patch_embed.new_parameters()
        known = {id(p) for p in transferred} - {id(p) for p in fresh}
        return {
            "transferred": [p for p in self.parameters() if id(p) in known],
            "new": [p for p in self.parameters() if id(p) not in known],
        }

    def set_threshold(self, threshold: float) -> None:
        """Set the probability above which a voxel is foreground. It is saved with the model."""
        self.config = replace(self.config, threshold=float(threshold))

    def save_pretrained(self, folder: str | os.PathLike[str], *, overwrite: bool = False) -> Path:
        """Write ``config.json`` and ``model.safetensors`` into a new folder (float16 after ``model.half()``).

        Parameters
        ----------
        folder
            Folder to create. It must not exist unless ``overwrite`` is set.
        overwrite
            Whether a folder that holds a model is replaced.

        Returns
        -------
        Path
            The folder.

        Raises
        ------
        FileExistsError
            If the folder exists and ``overwrite`` is not set, or it holds something that is not a model.
        """
        return write_model(folder, self.config, self.state_dict(), overwrite=overwrite)

    @classmethod
    def from_pretrained(cls, name_or_folder: str | os.PathLike[str]) -> NeuronSegmenter:
        """Load a released model by its name, or one written by :meth:`save_pretrained`, in evaluation mode.

        Parameters
        ----------
        name_or_folder
            ``"neurokd-tiny"``, which comes with the package (see its model card), or a folder. A string that
            could mean both is an error; ``"./neurokd-tiny"`` and a ``Path`` always mean a folder.

        Returns
        -------
        NeuronSegmenter
            Model with float32 weights, also if the file holds float16.

        Raises
        ------
        FileNotFoundError
            If there is no such model, or one of its files is missing.
        ValueError
            If a file is damaged, if the two files do not fit together, or if the string names both a released
            model and a folder.
        """
        folder = model_folder(name_or_folder)
        config, state = read_model(folder)
        model = cls(config)
        try:
            model.load_state_dict(state)
        except RuntimeError as error:
            raise ValueError(f"the weights in {folder} must fit its config.json: {error}") from error
        return model.eval()


def _seeded(
    cls: type[NeuronSegmenter],
    config: SegmenterConfig,
    generator: torch.Generator | None,
) -> NeuronSegmenter:
    """Build a model whose weights come from ``generator``.

    torch's initialisers draw from the global generator, which is therefore seeded and then restored.
    """
    if generator is None:
        return cls(config)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(int(torch.randint(2**62, (), generator=generator)))
        return cls(config)
