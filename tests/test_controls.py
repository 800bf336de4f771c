"""A control knows nothing, says so, and has the teacher's own numbers."""

import torch

from neurokd.models.controls import shuffle_teacher


def test_a_shuffled_teacher_has_the_same_numbers_in_every_tensor_at_other_places(teacher):
    before = {name: weight.clone() for name, weight in teacher.vit.named_parameters()}
    shuffled = shuffle_teacher(teacher, generator=torch.Generator().manual_seed(0))
    again = shuffle_teacher(teacher, generator=torch.Generator().manual_seed(0))
    for name, weight in shuffled.vit.named_parameters():
        assert torch.equal(weight.flatten().sort().values, before[name].flatten().sort().values)
        assert torch.equal(weight, again.vit.get_parameter(name))
        assert torch.equal(teacher.vit.get_parameter(name), before[name])
    assert not torch.equal(shuffled.vit.blocks[0].attn.qkv.weight, before["blocks.0.attn.qkv.weight"])
    images = torch.rand(1, 1, 32, 32)
    assert not torch.allclose(shuffled(images), teacher(images), atol=1e-2)
    assert shuffled.source.kind == "control"
    assert shuffled.source.sha256 == again.source.sha256 != teacher.source.sha256
    assert "knows nothing" in str(shuffled.source)
    assert not any(weight.requires_grad for weight in shuffled.parameters())
