"""Batch renormalisation against torch's BatchNorm, and what it is there for: a window's content does not matter."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import neurokd as nkd
from neurokd.models.decoders import _conv_block
from neurokd.models.renorm import BatchRenorm3d


def randomised(channels: int = 6, **settings) -> BatchRenorm3d:
    torch.manual_seed(0)
    norm = BatchRenorm3d(channels, **settings)
    nn.init.normal_(norm.weight)
    nn.init.normal_(norm.bias)
    return norm.double()


def test_the_first_step_is_batch_norm_and_so_are_its_gradients():
    norm, reference = randomised(), nn.BatchNorm3d(6).double()
    reference.load_state_dict({"weight": norm.weight, "bias": norm.bias}, strict=False)
    x = torch.randn(2, 6, 4, 5, 6, dtype=torch.float64)
    found = []
    for module in (norm, reference):
        leaf = x.clone().requires_grad_()
        y = module.train()(leaf)
        y.square().sum().backward()
        found.append((y, leaf.grad, module.weight.grad, module.bias.grad))
    for ours, theirs in zip(*found, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-9)


def test_once_settled_training_and_inference_give_the_same():
    norm = randomised(warmup=1)
    torch.manual_seed(1)
    for _ in range(300):
        norm(2 + 3 * torch.randn(1, 6, 6, 6, 6, dtype=torch.float64))
    x = 2 + 3 * torch.randn(1, 6, 6, 6, 6, dtype=torch.float64)
    before = norm.eval()(x)  # by the averages that the training step below begins with
    torch.testing.assert_close(norm.train()(x), before, rtol=1e-4, atol=1e-4)
    assert norm.running_mean.mean() == pytest.approx(2, abs=0.2)
    assert norm.running_std.mean() == pytest.approx(3, abs=0.2)


def test_averages_are_of_use_from_the_first_step():
    norm = randomised()
    x = 5 + torch.randn(1, 6, 8, 8, 8, dtype=torch.float64)
    norm(x)
    torch.testing.assert_close(norm.running_mean, x.mean((0, 2, 3, 4)), rtol=1e-9, atol=1e-9)


def test_a_bright_neighbour_changes_a_dim_neurite_under_group_norm_only():
    volume = torch.zeros(1, 1, 8, 16, 64)
    volume[..., 4, 8, :20] = 0.1
    beside = volume.clone()
    beside[..., 4, 8, 50:] = 1.0
    changes = {}
    for norm in ("group", "renorm"):
        torch.manual_seed(0)
        block = _conv_block(1, 8, norm=norm).eval()
        with torch.no_grad():
            changes[norm] = (block(beside) - block(volume))[..., :20].abs().max().item()
    assert changes["renorm"] == 0
    assert changes["group"] > 0.1


def test_settings_are_checked_saved_and_old_configs_load(tmp_path):
    model = nkd.NeuronSegmenter.from_scratch(dim=24, depth=1, heads=2, width=8, norm="renorm", gamma=0.5, dropout=0.25)
    model.save_pretrained(tmp_path / "m")
    again = nkd.NeuronSegmenter.from_pretrained(tmp_path / "m")
    assert again.config == model.config
    volume = torch.rand(1, 1, 8, 32, 32)
    with torch.no_grad():
        torch.testing.assert_close(again(volume), model.eval()(volume))
    for wrong in ({"norm": "batch"}, {"dropout": 1.0}, {"gamma": 0.0}):
        with pytest.raises(ValueError, match=f"{next(iter(wrong))} must be"):
            nkd.NeuronSegmenter.from_scratch(dim=24, depth=1, heads=2, width=8, **wrong)


def test_gamma_is_a_power_of_the_volume():
    torch.manual_seed(0)
    plain = nkd.NeuronSegmenter.from_scratch(dim=24, depth=1, heads=2, width=8).eval()
    root = nkd.NeuronSegmenter.from_scratch(dim=24, depth=1, heads=2, width=8, gamma=0.5).eval()
    root.load_state_dict(plain.state_dict())
    volume = torch.rand(1, 1, 8, 32, 32)
    with torch.no_grad():
        torch.testing.assert_close(root(volume), plain(volume.sqrt()))
