"""timm's 2D vision transformers in one vocabulary: which can be inflated, and how their weights are named.

    timm class                  families                               what is special
    VisionTransformer           DINO, MAE, DeiT, CLIP, SigLIP, DINOv2  this project's names
    VisionTransformerDistilled  distilled DeiT                         distillation token, used as a register
    Eva                         DINOv3, EVA                            rotary; q and v biases apart, no k bias

A part without counterpart in :class:`neurokd.models.vit.ViT3D` is an error that names it. An architecture is
never approximated.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from neurokd.models.blocks import ViTConfig

if TYPE_CHECKING:
    from timm.models.eva import Eva
    from timm.models.vision_transformer import VisionTransformer

__all__ = ["vit_config"]

_FAMILIES = "DINO, DINOv2 (with and without registers), DINOv3, MAE, DeiT (also distilled), CLIP and SigLIP"
_ACTIVATIONS = {"GELU": "gelu", "GELUTanh": "gelu_tanh", "QuickGELU": "quick_gelu"}
_HEADS = ("head.", "head_dist.", "fc_norm.", "attn_pool.")
"""Parts after the last block, which a teacher does not use."""


def vit_config(vit: VisionTransformer | Eva, *, depth: int | None = None) -> ViTConfig:
    """Read the architecture off a timm vision transformer.

    Parameters
    ----------
    vit
        A timm model: DINO, DINOv2 (with and without registers), DINOv3, MAE, DeiT (also distilled), CLIP,
        SigLIP, or any other that is made of the same parts.
    depth
        Number of blocks to keep, from the first; all by default.

    Returns
    -------
    ViTConfig
        Settings for :class:`neurokd.models.vit.ViT3D`.

    Raises
    ------
    ValueError
        If a part of the model has no counterpart here; the message names it.
    """
    part = next(_unknown_parts(vit), None)
    if part is not None:
        got = f"{type(vit).__name__}: {part}"
        raise ValueError(f"vit must be a plain vision transformer of timm, such as {_FAMILIES}, got {got}")
    block: Any = vit.blocks[0]
    rope = getattr(vit, "rope", None)
    gated = type(block.mlp).__name__ in ("SwiGLU", "GluMlp")
    tokens = [getattr(vit, name, None) for name in ("reg_token", "dist_token")]
    return ViTConfig(
        dim=vit.embed_dim,
        depth=len(vit.blocks) if depth is None else depth,
        heads=block.attn.num_heads,
        hidden=block.mlp.fc2.in_features,
        patch=tuple(vit.patch_embed.patch_size),
        grid=tuple(vit.patch_embed.grid_size),
        class_token=vit.cls_token is not None,
        registers=sum(token.shape[1] for token in tokens if token is not None),
        learned_position=vit.pos_embed is not None,
        position_on_prefix=vit.pos_embed is not None and not vit.no_embed_class,
        rope_temperature=None if rope is None else rope.temperature,
        layer_scale=_layer_scales(block)[0],
        pre_norm=not _absent(vit.norm_pre),
        activation="swiglu" if gated else _ACTIVATIONS[type(block.mlp.act).__name__],
        qkv_bias=block.attn.qkv.bias is not None or getattr(block.attn, "q_bias", None) is not None,
        final_norm=not _absent(vit.norm),
        norm_eps=block.norm1.eps,
    )


def _absent(part: nn.Module | None) -> bool:
    return part is None or isinstance(part, nn.Identity)


def _layer_scales(block: Any) -> tuple[bool, bool]:
    """Tell for each branch whether it is scaled. ViT blocks do this by modules, EVA blocks by parameters."""
    if hasattr(block, "gamma_1"):
        return block.gamma_1 is not None, block.gamma_2 is not None
    return not _absent(block.ls1), not _absent(block.ls2)


def _unknown_parts(vit: Any) -> Iterator[str]:
    """Name the parts that have no counterpart here. Later checks rely on earlier ones."""
    from timm.models import deit, eva, vision_transformer

    # isinstance would accept subclasses, which may compute something else with the same weights.
    if type(vit) not in (vision_transformer.VisionTransformer, deit.VisionTransformerDistilled, eva.Eva):
        yield "it is not a plain vision transformer"
    rope = getattr(vit, "rope", None)
    if vit.pos_embed is None and rope is None:
        yield "it has no position embedding"
    if rope is not None and type(rope).__name__ != "RotaryEmbeddingDinoV3":
        yield f"its rotary embedding is {type(rope).__name__}, not DINOv3's"
    if type(vit.patch_embed).__name__ != "PatchEmbed":
        yield f"its patches are embedded by {type(vit.patch_embed).__name__}"
    if vit.patch_embed.proj.in_channels != 3:
        yield f"its images have {vit.patch_embed.proj.in_channels} channels, not 3"
    if not _absent(vit.patch_embed.norm):
        yield "its patch embedding is followed by a norm"
    block = vit.blocks[0]
    if type(block).__name__ not in ("Block", "EvaBlock"):
        yield f"its blocks are {type(block).__name__}"
    attn, mlp = block.attn, block.mlp
    if type(attn).__name__ not in ("Attention", "EvaAttention"):
        yield f"its attention is {type(attn).__name__}"
    if rope is not None:
        halves = rope.rotate_half and attn.rotate_half
        layout = (halves, rope.normalize_coords, rope.grid_offset, rope.grid_indexing, rope.min_period)
        if layout != (True, "separate", 0, "ij", None):
            yield f"its rotary embedding is laid out in another way than DINOv3's: {layout}"
    for part in ("q_norm", "k_norm", "norm", "gate"):
        if not _absent(getattr(attn, part, None)):
            yield f"its attention has a {part}"
    if attn.qkv is None:
        yield "its attention has separate projections for q, k and v"
    if attn.qkv.out_features != 3 * vit.embed_dim:
        yield f"its attention heads are together {attn.qkv.out_features // 3} wide, not {vit.embed_dim}"
    if attn.proj.bias is None or mlp.fc2.bias is None:
        yield "its projections have no bias"
    if len(set(_layer_scales(block))) > 1:
        yield "only one branch of its blocks has LayerScale"
    norms = [m for m in (block.norm1, block.norm2, vit.norm_pre, vit.norm) if not _absent(m)]
    if not all(isinstance(norm, nn.LayerNorm) for norm in norms):
        yield f"its norms are {type(block.norm1).__name__}"
    if len({norm.eps for norm in norms}) > 1:
        yield f"its norms have different epsilons, {sorted({norm.eps for norm in norms})}"
    if not _absent(getattr(mlp, "norm", None)):
        yield "its MLP has a norm"
    gate = (type(mlp.act).__name__, getattr(mlp, "gate_last", False))
    if type(mlp).__name__ not in ("Mlp", "SwiGLU", "GluMlp"):
        yield f"its MLP is {type(mlp).__name__}"
    if type(mlp).__name__ != "Mlp" and gate != ("SiLU", False):
        yield f"the gate of its MLP is {gate[0]}" + (" on the second half" if gate[1] else "")
    if type(mlp).__name__ == "Mlp" and gate[0] not in _ACTIVATIONS:
        yield f"its activation is {gate[0]}"


def plain_state_dict(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Give the weights of any family the names of a plain ViT.

    Parameters
    ----------
    state
        State dict of a timm model that :func:`vit_config` accepts.

    Returns
    -------
    dict
        State dict in which ``qkv.bias`` is one tensor (EVA and DINOv3 have no key bias, so zeros take its
        place), LayerScale is ``ls1.gamma`` and ``ls2.gamma``, a packed SwiGLU is split into ``fc1_g`` and
        ``fc1_x``, and a distillation token is ``reg_token``. Other entries are unchanged.
    """
    plain = {}
    for key, value in state.items():
        if key.endswith(".q_bias"):
            stem = key.removesuffix("q_bias")
            plain[f"{stem}qkv.bias"] = torch.cat([value, torch.zeros_like(value), state[f"{stem}v_bias"]])
        elif key.endswith((".gamma_1", ".gamma_2")):
            plain[f"{key[:-7]}ls{key[-1]}.gamma"] = value
        elif ".mlp.fc1." in key and len(value) == 2 * state[key[: key.index("fc1.")] + "fc2.weight"].shape[1]:
            for name, half in zip(("fc1_g.", "fc1_x."), value.chunk(2), strict=True):
                plain[key.replace("fc1.", name)] = half
        elif not key.endswith(".v_bias"):
            plain["reg_token" if key == "dist_token" else key] = value
    return plain


def fill(vit: nn.Module, state: Mapping[str, Tensor]) -> None:
    """Load all weights, as timm or a teacher's authors published them, into a timm model without its head.

    Parameters
    ----------
    vit
        A timm model. The parts after its last block (pooling, classifier) are removed.
    state
        Weights. Those of heads are left out.

    Raises
    ------
    ValueError
        If a weight is missing, has no place or has another shape; the message names it.
    """
    from timm.models import eva, vision_transformer

    if isinstance(vit, vision_transformer.VisionTransformer | eva.Eva):
        vit.reset_classifier(0, "")  # removes an attention pool, too
        vit.fc_norm = nn.Identity()
    if isinstance(vit, vision_transformer.VisionTransformer):
        state = vision_transformer.checkpoint_filter_fn(dict(state), vit, adapt_layer_scale=True)
    elif isinstance(vit, eva.Eva):
        state = eva.checkpoint_filter_fn(_without_zero_biases(vit, state), vit)
    state = {key: value.float() for key, value in state.items() if not key.startswith(_HEADS)}
    own = vit.state_dict()
    missing, unexpected = sorted(own.keys() - state.keys()), sorted(state.keys() - own.keys())
    if missing or unexpected:
        raise ValueError(f"weights must be complete, got missing {missing[:3]}, unexpected {unexpected[:3]}")
    for key, value in state.items():
        if value.shape != own[key].shape:
            raise ValueError(f"{key} must have shape {tuple(own[key].shape)}, got {tuple(value.shape)}")
    vit.load_state_dict(state)


def _without_zero_biases(vit: Eva, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Leave out the biases of q and v if the model has none, after a check that they are 0.

    Meta's DINOv3 files have these biases. timm leaves them out without a check.
    """
    if "storage_tokens" not in state or getattr(vit.blocks[0].attn, "q_bias", None) is not None:
        return dict(state)
    for key, value in state.items():
        if key.endswith("qkv.bias"):
            q, _, v = value.chunk(3)  # the original model masks the key bias
            if q.any() or v.any():
                raise ValueError(f"{key} must be zero unless the architecture's name ends in _qkvb")
    return {key: value for key, value in state.items() if not key.endswith("qkv.bias")}
