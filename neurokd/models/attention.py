"""Where a teacher looks: the attention of one of its tokens to the patches of the image.

token "class" --softmax(q . k / sqrt(d))--> one share for each patch, head by head
"""

from __future__ import annotations

import torch
from einops import rearrange
from torch import Tensor

from neurokd.models.teacher import Teacher

__all__ = ["attention_maps"]


@torch.no_grad()
def attention_maps(
    teacher: Teacher,
    images: Tensor,
    *,
    block: int,
    query: tuple[int, int] | None = None,
    magnification: float = 1.0,
) -> Tensor:
    """Return how one token's attention in one block is shared out over the patches.

    Parameters
    ----------
    teacher
        From :func:`neurokd.models.teacher.load_teacher`.
    images
        ``b c y x`` in [0, 1], grey or RGB.
    block
        Number of the block, from 0.
    query
        Row and column of the patch that looks; None for the class token.
    magnification
        As in :meth:`neurokd.models.teacher.Teacher.feature_maps`; the grid of patches depends on it.

    Returns
    -------
    Tensor
        ``b heads y x``. A map sums to what is left by the class and register tokens, so to at most 1.

    Raises
    ------
    ValueError
        No such block or patch, or None for a teacher without class token.
    """
    vit, images = teacher.vit, teacher.magnify(images, magnification)
    rows, columns = (size // patch for size, patch in zip(images.shape[-2:], teacher.patch, strict=True))
    prefix = vit.num_prefix_tokens
    if not 0 <= block < len(vit.blocks):
        raise ValueError(f"block is {block}; the teacher has blocks 0 to {len(vit.blocks) - 1}")
    if query is None and vit.cls_token is None:
        raise ValueError("this teacher has no class token; name a patch, query=(row, column)")
    if query is not None and not (0 <= query[0] < rows and 0 <= query[1] < columns):
        raise ValueError(f"query is {query}; the image has {rows} x {columns} patches")
    token = 0 if query is None else prefix + query[0] * columns + query[1]

    attention, found = vit.blocks[block].attn, []
    # timm's fused attention never holds the shares; the plain one hands them to its dropout.
    fused, attention.fused_attn = attention.fused_attn, False
    hook = attention.attn_drop.register_forward_hook(lambda *args: found.append(args[2][:, :, token, prefix:].clone()))
    try:
        vit.forward_intermediates(teacher.normalise(images), indices=[block], stop_early=True, intermediates_only=True)
    finally:
        hook.remove()
        attention.fused_attn = fused
    return rearrange(found[0], "b heads (y x) -> b heads y x", y=rows)
