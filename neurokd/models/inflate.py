"""From 2D weights to 3D weights: small pure functions, each exact in a sense that a test shows.

    teacher kernel        grey fold          token size          depth
    d 3 p p        ->     d 1 p p     ->     d 1 y x      ->     d 1 z y x

* **grey fold**: a grey image seen through the teacher's RGB normalisation, written into the kernel;
* **token size**: a smaller token is a magnified image, so the kernel that sees what the teacher sees is
  ``w' = A^T w A`` with ``A`` the upsampling of one token to the teacher's patch (the *transpose rule*);
  enlarging uses the pseudo-inverse (FlexiViT, arXiv:2212.08013);
* **depth**: *average* ``W3[z] = W'/D`` or *center* ``W3[D // 2] = W'`` (arXiv:2405.02686).

All other weights are copied, under the names of a plain ViT.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from einops import einsum, rearrange, repeat
from torch import Tensor
from torch.nn import functional as F

from neurokd.models.blocks import ViTConfig
from neurokd.models.families import plain_state_dict

__all__ = [
    "grey_fold",
    "inflate_depth",
    "inflate_kernel",
    "inflate_state_dict",
    "resize_kernel",
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
        Its architecture, from :func:`neurokd.models.families.vit_config`.
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
    inflated = {key: value.clone() for key, value in plain_state_dict(state).items() if key.startswith(kept)}
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
