"""Where a teacher looks: the attention that one of its tokens pays to the patches of the image.

token "class" --softmax(q . k / sqrt(d))--> one share for each patch, head by head
"""

from __future__ import annotations

from typing import Any

import torch
from einops import rearrange
from torch import Tensor

from neurokd.models.families import vit_config
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
    """Return the shares of one token's attention that go to the patches, in one block.

    Parameters
    ----------
    teacher
        Teacher from :func:`neurokd.models.teacher.load_teacher`, of any family that can be inflated.
    images
        Images ``b c y x`` in [0, 1], grey or RGB.
    block
        Number of the block, from 0.
    query
        Row and column of the patch that pays attention; None for the class token.
    magnification
        See :meth:`neurokd.models.teacher.Teacher.feature_maps`. The grid of patches depends on it.

    Returns
    -------
    Tensor
        ``b heads y x``. The shares of all patches, class and register tokens sum to 1, so a map sums to at
        most 1.

    Raises
    ------
    ValueError
        If :func:`neurokd.models.families.vit_config` does not know the architecture, if there is no such
        block or patch, or if ``query`` is None for a teacher without class token (SigLIP).

    Examples
    --------
    >>> teacher = load_teacher()  # patches of 14 pixels, six heads
    >>> attention_maps(teacher, torch.rand(1, 1, 96, 96), block=5, magnification=1.75).shape
    torch.Size([1, 6, 12, 12])
    """
    config, images = vit_config(teacher.vit), teacher.magnify(images, magnification)
    rows, columns = (size // patch for size, patch in zip(images.shape[-2:], teacher.patch, strict=True))
    if not 0 <= block < config.depth:
        raise ValueError(f"block must be 0 to {config.depth - 1}, got {block}")
    if query is None and not config.class_token:
        raise ValueError("query must be (row, column) for a teacher without class token, got None")
    if query is not None and not (0 <= query[0] < rows and 0 <= query[1] < columns):
        raise ValueError(f"query must be a patch among {rows} x {columns}, got {query}")
    token = 0 if query is None else config.prefix + query[0] * columns + query[1]

    # timm's fused attention never stores the shares; the plain one passes them to its dropout, where a hook
    # sees them.
    attention: Any = teacher.vit.blocks[block].attn
    found: list[Tensor] = []
    fused, attention.fused_attn = attention.fused_attn, False
    hook = attention.attn_drop.register_forward_hook(
        lambda *args: found.append(args[2][:, :, token, config.prefix :].clone())  # b heads (y x)
    )
    try:
        teacher.feature_maps(images, [block])
    finally:
        hook.remove()
        attention.fused_attn = fused
    return rearrange(found[0], "b heads (y x) -> b heads y x", y=rows)
