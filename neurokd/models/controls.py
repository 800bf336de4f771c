"""Controls: teachers without knowledge, which tell its effect from that of the architecture."""

from __future__ import annotations

import copy

import torch

from neurokd.models.teacher import Teacher, TeacherSource, weights_sha256

__all__ = ["shuffle_teacher"]


def shuffle_teacher(teacher: Teacher, *, generator: torch.Generator) -> Teacher:
    """Permute a teacher's weights within each tensor: the same numbers in every layer, and no knowledge.

    A student's gain from such a teacher over random weights cannot come from what the weights learnt.

    Shuffled weights can be worse than random ones. The tokens of a shuffled DINOv2-S are nearly the same
    everywhere: in a crop of a simulated neuron, at most a tenth of their power varied with the place. With
    the teacher's weights and with random weights, more than a third did. This is a poor start for a student
    that has tokens alone.

    Parameters
    ----------
    teacher
        Teacher to copy; it is not changed.
    generator
        Generator that draws the permutations.

    Returns
    -------
    Teacher
        Shuffled copy, whose source says that it is a control.
    """
    vit = copy.deepcopy(teacher.vit)
    for weight in vit.parameters():
        order = torch.randperm(weight.numel(), generator=generator)
        weight.data = weight.flatten()[order].reshape(weight.shape)
    source = TeacherSource(
        name=f"{teacher.source.name}, shuffled",
        kind="control",
        detail=f"weights of {teacher.source.detail}, permuted within each tensor: knows nothing",
        sha256=weights_sha256(vit),
    )
    return Teacher(vit, mean=teacher.mean, std=teacher.std, source=source)
