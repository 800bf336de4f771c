"""Controls: teachers that know nothing, to tell knowledge from architecture and from the scale of weights."""

from __future__ import annotations

import copy

import torch

from neurokd.models.teacher import Teacher, TeacherSource, weights_sha256

__all__ = ["shuffle_teacher"]


def shuffle_teacher(teacher: Teacher, *, generator: torch.Generator) -> Teacher:
    """Permute a teacher's weights within each tensor: the same numbers in every layer, and no knowledge.

    What a student gains from such a teacher over random weights cannot come from what the weights have learnt.

    It need not be as good as random weights. Tokens of a shuffled DINOv2-S are nearly the same everywhere: in a crop of
    a simulated neuron at most a tenth of their power varied with place, where it was more than a third with the
    teacher's weights and with random ones. For a student that has tokens alone this is a poor beginning.

    Parameters
    ----------
    teacher
        Is left as it is.
    generator
        Draws the permutations.

    Returns
    -------
    Teacher
        Its source says that it is a control.
    """
    vit = copy.deepcopy(teacher.vit)
    for weight in vit.parameters():
        weight.data = weight.flatten()[torch.randperm(weight.numel(), generator=generator)].reshape(weight.shape)
    source = TeacherSource(
        name=f"{teacher.source.name}, shuffled",
        kind="control",
        detail=f"weights of {teacher.source.detail}, permuted within each tensor: knows nothing",
        sha256=weights_sha256(vit),
    )
    return Teacher(vit, mean=teacher.mean, std=teacher.std, source=source)
