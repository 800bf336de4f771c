"""Copy a teacher's weights into a 3D transformer, with tubes or without."""

from __future__ import annotations

from typing import TYPE_CHECKING

from neurokd.models.choices import Inflation
from neurokd.models.inflate import inflate_state_dict
from neurokd.models.tubular import DeformableTubularEmbed
from neurokd.models.vit import ViT3D

if TYPE_CHECKING:
    from neurokd.models.teacher import Teacher

__all__ = ["transfer_weights"]


def transfer_weights(teacher: Teacher, vit: ViT3D, *, inflation: Inflation) -> None:
    """Fill a 3D transformer with a teacher's weights.

    Parameters
    ----------
    teacher
        Teacher from :func:`neurokd.models.teacher.load_teacher`.
    vit
        Transformer to fill. Its architecture must be the one that :func:`neurokd.models.families.vit_config`
        reads off the teacher. The depth embedding becomes zero; offset heads and gate of tubes keep their
        values.
    inflation
        Inflation of the patch embedding, ``"center"`` or ``"average"``.

    Raises
    ------
    ValueError
        If the inflation is unknown.
    RuntimeError
        If the architectures differ.
    """
    state = inflate_state_dict(
        teacher.vit.state_dict(),
        vit.config,
        token=vit.token,
        inflation=inflation,
        mean=teacher.mean,
        std=teacher.std,
        slabs=vit.depth_embed.shape[1],
    )
    embed, patch = vit.patch_embed, teacher.vit.patch_embed.proj
    if isinstance(embed, DeformableTubularEmbed):
        embed.load_kernel(patch.weight, patch.bias, mean=teacher.mean, std=teacher.std, inflation=inflation)
        state = {key: value for key, value in state.items() if not key.startswith("patch_embed.")}
        state |= {f"patch_embed.{key}": value for key, value in embed.state_dict().items()}
    vit.load_state_dict(state)
