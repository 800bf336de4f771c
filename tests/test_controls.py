"""A control knows nothing, says so, and has the teacher's own numbers."""

import pytest
import torch

from neurokd.data.datasets import simulated_neurons
from neurokd.data.intensity import scale_intensity
from neurokd.models.controls import shuffle_teacher
from neurokd.models.segmenter import NeuronSegmenter


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


@pytest.mark.weights
def test_tokens_of_a_shuffled_teacher_hardly_vary_with_place(real_teacher):
    """Why the shuffled control may do worse than random weights where tokens are all there is."""
    (neuron,) = simulated_neurons(1, seed=1, shape=(16, 96, 96))
    volume, varying = torch.from_numpy(scale_intensity(neuron.volume))[None, None], {}
    for name, inflation in {"teacher": "center", "shuffled": "center", "random": "scratch"}.items():
        generator = torch.Generator().manual_seed(0)
        teacher = shuffle_teacher(real_teacher, generator=generator) if name == "shuffled" else real_teacher
        student = NeuronSegmenter.from_teacher(teacher, preset="tiny", inflation=inflation, generator=generator).eval()
        with torch.no_grad():
            _, maps = student.forward_with_tokens(volume, student.config.blocks)
        tokens = [tokens.flatten(2) for tokens in maps]
        varying[name] = [float((t - t.mean(2, keepdim=True)).square().sum() / t.square().sum()) for t in tokens]
    assert max(varying["shuffled"]) <= 0.1
    assert min(*varying["teacher"], *varying["random"]) > 1 / 3
