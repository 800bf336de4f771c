"""From 2D weights to 3D weights: small pure functions, each exact in a sense that a test shows.

    teacher kernel        grey fold          token size          depth
    d 3 p p        ->     d 1 p p     ->     d 1 y x      ->     d 1 z y x

* **Grey fold**: one kernel for grey values does the work of the RGB kernel and the normalisation before it.
* **Token size**: a smaller token is a magnified image. The kernel that gives what the teacher sees on the
  magnified image is ``w' = A^T w A``, where ``A`` upsamples one token to the teacher's patch (the *transpose
  rule*). A larger token uses the pseudo-inverse (FlexiViT, arXiv:2212.08013).
* **Depth**: *average* ``W3[z] = W'/D`` or *center* ``W3[D // 2] = W'`` (arXiv:2405.02686).

All other weights are copied under the names of a plain ViT.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from einops import einsum, rearrange, repeat
from torch import Tensor
from torch.nn import functional as F

from neurokd.models.blocks import ViTConfig
from neurokd.models.choices import Inflation, check_choice
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

    A grey image that is repeated over three channels and normalised gives
    ``sum_c W_c (v - mu_c) / sigma_c + b``. This is linear in ``v``, with the kernel
    ``W' = sum_c W_c / sigma_c`` and the bias ``b' = b - sum_c mu_c / sigma_c * sum_hw W_c``.

    Parameters
    ----------
    weight
        Kernel ``d 3 y x``.
    bias
        Bias ``d``, or None (CLIP's patch embedding has none; the folded one does).
    mean, std
        The teacher's normalisation, three values each.

    Returns
    -------
    tuple of Tensor
        Kernel ``d 1 y x`` and bias ``d``.
    """
    mu, sigma = (torch.as_tensor(value, dtype=weight.dtype, device=weight.device) for value in (mean, std))
    folded = einsum(weight, 1 / sigma, "d c y x, c -> d y x")
    offset = einsum(weight, mu / sigma, "d c y x, c -> d")
    return rearrange(folded, "d y x -> d 1 y x"), (0 if bias is None else bias) - offset


def _upsampling(small: int, large: int) -> Tensor:
    """Return the matrix ``large x small`` of bicubic interpolation in one dimension, in float64."""
    # Interpolation is linear, so its matrix has the interpolated unit vectors as columns.
    basis = rearrange(torch.eye(small, dtype=torch.float64), "i j -> j 1 i 1")
    columns = F.interpolate(basis, size=(large, 1), mode="bicubic", align_corners=False)  # j 1 i 1
    return rearrange(columns, "j 1 i 1 -> i j")


def _resize_matrix(old: int, new: int) -> Tensor:
    """Return the matrix ``new x old`` that carries a kernel of ``old`` taps to ``new`` taps.

    With the upsampling ``A`` from ``new`` to ``old``, the old kernel gives ``w . A v`` on a magnified patch.
    This equals ``A^T w . v``, so a smaller kernel is made by ``A^T``. A larger kernel must give ``w . v`` on
    the patch magnified from ``old`` to ``new``, so it is made by the transposed pseudo-inverse of that
    upsampling.
    """
    if new <= old:
        return _upsampling(new, old).T
    return torch.linalg.pinv(_upsampling(old, new)).T


def resize_kernel(weight: Tensor, size: tuple[int, int]) -> Tensor:
    """Carry a 2D kernel to another patch size, so that it sees the same thing.

    Parameters
    ----------
    weight
        Kernel ``d c y x``.
    size
        New size ``(y, x)`` in pixels.

    Returns
    -------
    Tensor
        Kernel ``d c y x`` of the new size. Where an axis shrinks, the sum over its taps is kept.

    Raises
    ------
    ValueError
        If a size is below 1.

    Notes
    -----
    The transpose rule treats the patch as a separate image: at its border the interpolation repeats the last
    pixel, where the magnified whole image would have shown the neighbouring patch.
    """
    if any(s < 1 for s in size):
        raise ValueError(f"size must be at least 1 in both directions, got {size}")
    rows, columns = (_resize_matrix(old, new) for old, new in zip(weight.shape[-2:], size, strict=True))
    resized = einsum(rows, weight.double(), columns, "yy y, d c y x, xx x -> d c yy xx")
    return resized.to(weight.dtype)


def _average(weight: Tensor, depth: int) -> Tensor:
    return repeat(weight / depth, "d c y x -> d c z y x", z=depth)


def _center(weight: Tensor, depth: int) -> Tensor:
    inflated = weight.new_zeros(*weight.shape[:2], depth, *weight.shape[2:])  # d c z y x
    inflated[:, :, depth // 2] = weight
    return inflated


_INFLATIONS: dict[Inflation, Callable[[Tensor, int], Tensor]] = {"average": _average, "center": _center}


def inflate_depth(weight: Tensor, depth: int, *, inflation: Inflation) -> Tensor:
    """Give a 2D kernel a depth so that its sum over the depth stays the 2D kernel.

    Parameters
    ----------
    weight
        Kernel ``d c y x``.
    depth
        Voxels along z, at least 1.
    inflation
        ``"average"``: ``W / depth`` in every slice; ``"center"``: ``W`` in slice ``depth // 2``, zero
        elsewhere.

    Returns
    -------
    Tensor
        Kernel ``d c z y x``.

    Raises
    ------
    ValueError
        If the depth is below 1, or the inflation is unknown.
    """
    if depth < 1:
        raise ValueError(f"depth must be at least 1, got {depth}")
    check_choice("inflation", inflation, _INFLATIONS)
    return _INFLATIONS[inflation](weight, depth)


def inflate_kernel(
    weight: Tensor,
    bias: Tensor | None,
    *,
    token: tuple[int, int, int],
    inflation: Inflation,
    mean: Sequence[float],
    std: Sequence[float],
) -> tuple[Tensor, Tensor]:
    """Carry a teacher's RGB patch embedding to one for grey volumes: fold, resize, inflate.

    Parameters
    ----------
    weight
        Kernel ``d 3 p p``.
    bias
        Bias ``d``, or None.
    token
        Size (z, y, x) of the new kernel in voxels, each at least 1.
    inflation
        ``"average"`` or ``"center"``, see :func:`inflate_depth`.
    mean, std
        The teacher's normalisation, see :func:`grey_fold`.

    Returns
    -------
    tuple of Tensor
        Kernel ``d 1 z y x`` and bias ``d``.

    Raises
    ------
    ValueError
        If a size is below 1, or the inflation is unknown.
    """
    depth, *plane = token
    weight, bias = grey_fold(weight, bias, mean=mean, std=std)  # d 1 p p
    return inflate_depth(resize_kernel(weight, (plane[0], plane[1])), depth, inflation=inflation), bias


def inflate_state_dict(
    state: Mapping[str, Tensor],
    config: ViTConfig,
    *,
    token: tuple[int, int, int],
    inflation: Inflation,
    mean: Sequence[float],
    std: Sequence[float],
    slabs: int = 1,
) -> dict[str, Tensor]:
    """Turn a timm ViT's state dict into one for :class:`neurokd.models.vit.ViT3D`.

    Parameters
    ----------
    state
        State dict of the 2D model. Heads, and blocks beyond ``config.depth``, are left out.
    config
        Architecture of the 2D model, from :func:`neurokd.models.families.vit_config`.
    token, inflation, mean, std
        See :func:`inflate_kernel`.
    slabs
        Number of slabs in the depth embedding, which starts at zero.

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
        inflation=inflation,
        mean=mean,
        std=std,
    )
    inflated |= {"patch_embed.proj.weight": kernel, "patch_embed.proj.bias": bias}
    inflated["depth_embed"] = kernel.new_zeros(1, slabs, config.dim)
    return inflated
