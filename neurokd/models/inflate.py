"""From 2D weights to 3D weights: small pure functions, each exact in a sense that a test shows.

    teacher kernel        grey fold          token size          depth
    d 3 p p        ->     d 1 p p     ->     d 1 y x      ->     d 1 z y x

* **grey fold**: a grey image seen through the teacher's RGB normalisation, written into the kernel;
* **token size**: a smaller token is a magnified image, so the kernel that sees what the teacher sees is
  ``w' = A^T w A`` with ``A`` the upsampling of one token to the teacher's patch (the *transpose rule*);
  enlarging uses the pseudo-inverse (FlexiViT, arXiv:2212.08013);
* **depth**: *average* ``W3[z] = W'/D`` or *center* ``W3[D // 2] = W'`` (arXiv:2405.02686).

All other weights are copied.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import torch
from einops import einsum, rearrange, repeat
from torch import Tensor
from torch.nn import functional as F

from neurokd.models.vit import ViTConfig

if TYPE_CHECKING:
    from timm.models.vision_transformer import VisionTransformer

__all__ = [
    "grey_fold",
    "inflate_depth",
    "inflate_kernel",
    "inflate_state_dict",
    "resize_kernel",
    "vit_config",
]


def grey_fold(
    weight: Tensor, bias: Tensor | None, *, mean: Sequence[float], std: Sequence[float]
) -> tuple[Tensor, Tensor]:
    """Fold an RGB kernel and its input normalisation into one kernel for grey values in [0, 1].

    A grey image repeated over three channels and normalised gives
    ``sum_c W_c (v - mu_c) / sigma_c + b``, which is linear in ``v``:
    ``W' = sum_c W_c / sigma_c`` and ``b' = b - sum_c mu_c / sigma_c * sum_hw W_c``.

    Parameters
    ----------
    weight
        Kernel ``d 3 y x``.
    bias
        ``d``, or None (CLIP's embedding has none; the folded one does).
    mean, std
        The teacher's normalisation, three values each.

    Returns
    -------
    tuple of Tensor
        Kernel ``d 1 y x`` and bias ``d``.
    """
    mean, std = (torch.as_tensor(value, dtype=weight.dtype, device=weight.device) for value in (mean, std))
    folded = einsum(weight, 1 / std, "d c y x, c -> d y x")
    offset = einsum(weight, mean / std, "d c y x, c -> d")
    return rearrange(folded, "d y x -> d 1 y x"), (0 if bias is None else bias) - offset


def _upsampling(small: int, large: int) -> Tensor:
    """Return the matrix ``large x small`` of bicubic interpolation in one dimension, in float64."""
    basis = rearrange(torch.eye(small, dtype=torch.float64), "i j -> j 1 i 1")
    columns = F.interpolate(basis, size=(large, 1), mode="bicubic", align_corners=False)
    return rearrange(columns, "j 1 i 1 -> i j")


def resize_matrix(old: int, new: int) -> Tensor:
    """Return the matrix ``new x old`` that carries a kernel of ``old`` taps to ``new`` taps.

    Smaller: the transpose of the upsampling from ``new`` to ``old``, so that the new kernel on a patch gives what
    the old kernel gives on the magnified patch. Larger: the pseudo-inverse of the upsampling, transposed, so that
    the new kernel on a magnified patch gives what the old kernel gives on the patch.
    """
    if new <= old:
        return _upsampling(new, old).T
    return torch.linalg.pinv(_upsampling(old, new)).T


def resize_kernel(weight: Tensor, size: tuple[int, int]) -> Tensor:
    """Carry a 2D kernel to another patch size, the same in what it sees.

    Parameters
    ----------
    weight
        Kernel ``d c y x``.
    size
        New size ``(y, x)`` in pixels.

    Returns
    -------
    Tensor
        Kernel ``d c y x`` of the new size. Where an axis shrinks, its sum over taps is kept.

    Notes
    -----
    The transpose rule treats the patch as an image of its own: at its border the interpolation repeats the last
    pixel, where the magnified whole image would have seen the neighbouring patch.
    """
    if any(s < 1 for s in size):
        raise ValueError(f"size is {size}; both must be at least 1")
    rows, columns = (resize_matrix(old, new) for old, new in zip(weight.shape[-2:], size, strict=True))
    resized = einsum(rows, weight.double(), columns, "yy y, d c y x, xx x -> d c yy xx")
    return resized.to(weight.dtype)


def inflate_depth(weight: Tensor, depth: int, *, mode: str) -> Tensor:
    """Give a 2D kernel a depth so that its sum over depth stays the 2D kernel.

    Parameters
    ----------
    weight
        Kernel ``d c y x``.
    depth
        Voxels along z, at least 1.
    mode
        ``"average"``: ``W / depth`` in every slice; ``"center"``: ``W`` in slice ``depth // 2``, zero elsewhere.

    Returns
    -------
    Tensor
        Kernel ``d c z y x``.
    """
    if depth < 1:
        raise ValueError(f"depth is {depth}; it must be at least 1")
    if mode == "average":
        return repeat(weight / depth, "d c y x -> d c z y x", z=depth)
    if mode == "center":
        inflated = weight.new_zeros(*weight.shape[:2], depth, *weight.shape[2:])
        inflated[:, :, depth // 2] = weight
        return inflated
    raise ValueError(f"mode is {mode!r}; it must be 'average' or 'center'")


def inflate_kernel(
    weight: Tensor,
    bias: Tensor | None,
    *,
    token: tuple[int, int, int],
    mode: str,
    mean: Sequence[float],
    std: Sequence[float],
) -> tuple[Tensor, Tensor]:
    """Carry a teacher's RGB patch embedding to one for grey volumes: fold, resize, inflate.

    Parameters
    ----------
    weight
        Kernel ``d 3 p p``.
    bias
        ``d``, or None.
    token
        Size (z, y, x) of the new kernel in voxels, each at least 1.
    mode
        ``"average"`` or ``"center"``, as in :func:`inflate_depth`.
    mean, std
        As in :func:`grey_fold`.

    Returns
    -------
    tuple of Tensor
        Kernel ``d 1 z y x`` and bias ``d``.

    Raises
    ------
    ValueError
        A size below 1, or another mode.
    """
    weight, bias = grey_fold(weight, bias, mean=mean, std=std)
    return inflate_depth(resize_kernel(weight, tuple(token[1:])), token[0], mode=mode), bias


def vit_config(vit: VisionTransformer, *, depth: int | None = None) -> ViTConfig:
    """Read the architecture off a timm vision transformer.

    Parameters
    ----------
    vit
        A timm model.
    depth
        Keep the first ``depth`` blocks only; all by default.

    Returns
    -------
    ViTConfig
        Which :class:`neurokd.models.vit.ViT3D` understands.

    Raises
    ------
    ValueError
        If a part of the model has no counterpart here; the message names it.
    """
    from timm.models import vision_transformer as timm_vit

    def refuse(part: str) -> None:
        raise ValueError(
            f"{type(vit).__name__} cannot be a teacher: {part}. What can: timm's plain vision transformers, such as "
            "DINO, DINOv2 (with and without registers), CLIP, DeiT and MAE."
        )

    if type(vit) is not timm_vit.VisionTransformer:
        refuse("it is not a plain VisionTransformer")
    if vit.pos_embed is None:
        refuse("it has no learned position embedding")
    if not isinstance(vit.patch_embed.norm, torch.nn.Identity):
        refuse("its patch embedding is followed by a norm")
    block = vit.blocks[0]
    if type(block) is not timm_vit.Block:
        refuse(f"its blocks are {type(block).__name__}")
    for part in ("q_norm", "k_norm", "norm"):
        if not isinstance(getattr(block.attn, part, torch.nn.Identity()), torch.nn.Identity):
            refuse(f"its attention has a {part}")
    if getattr(block.attn, "gate", None) is not None:
        refuse("its attention is gated")
    if type(block.mlp).__name__ != "Mlp" or not isinstance(block.mlp.norm, torch.nn.Identity):
        refuse(f"its MLP is {type(block.mlp).__name__}")
    activations = {"GELU": "gelu", "QuickGELU": "quick_gelu"}
    activation = type(block.mlp.act).__name__
    if activation not in activations:
        refuse(f"its activation is {activation}")

    registers = vit.reg_token.shape[1] if vit.reg_token is not None else 0
    return ViTConfig(
        dim=vit.embed_dim,
        depth=len(vit.blocks) if depth is None else depth,
        heads=block.attn.num_heads,
        hidden=block.mlp.fc1.out_features,
        patch=tuple(vit.patch_embed.patch_size),
        grid=tuple(vit.patch_embed.grid_size),
        class_token=vit.cls_token is not None,
        registers=registers,
        position_on_prefix=not vit.no_embed_class,
        layer_scale=not isinstance(block.ls1, torch.nn.Identity),
        pre_norm=not isinstance(vit.norm_pre, torch.nn.Identity),
        activation=activations[activation],
        qkv_bias=block.attn.qkv.bias is not None,
        final_norm=not isinstance(vit.norm, torch.nn.Identity),
        norm_eps=block.norm1.eps,
    )


def inflate_state_dict(
    state: Mapping[str, Tensor],
    config: ViTConfig,
    *,
    token: tuple[int, int, int],
    mode: str,
    mean: Sequence[float],
    std: Sequence[float],
    slabs: int = 1,
) -> dict[str, Tensor]:
    """Turn a timm ViT's state dict into one for :class:`neurokd.models.vit.ViT3D`.

    Parameters
    ----------
    state
        State dict of the 2D model; heads and blocks beyond ``config.depth`` are left out.
    config
        Its architecture, from :func:`vit_config`.
    token, mode, mean, std
        As in :func:`inflate_kernel`.
    slabs
        Slabs of the depth embedding, which starts at zero.

    Returns
    -------
    dict
        Complete for ``ViT3D(config, token=token, slabs=slabs)``.
    """
    blocks = tuple(f"blocks.{i}." for i in range(config.depth))
    kept = ("cls_token", "reg_token", "pos_embed", "norm_pre.", "norm.", *blocks)
    inflated = {key: value.clone() for key, value in state.items() if key.startswith(kept)}
    kernel, bias = inflate_kernel(
        state["patch_embed.proj.weight"],
        state.get("patch_embed.proj.bias"),
        token=token,
        mode=mode,
        mean=mean,
        std=std,
    )
    inflated |= {"patch_embed.proj.weight": kernel, "patch_embed.proj.bias": bias}
    inflated["depth_embed"] = kernel.new_zeros(1, slabs, config.dim)
    return inflated
