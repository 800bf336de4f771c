"""Soft targets: the divergence is right, the teacher stays, and a run with another teacher is not gone on with."""

import json

import numpy as np
import pytest
import torch
from torch import nn

from neurokd.data.datasets import simulated_neurons
from neurokd.inference.sliding import predict
from neurokd.models.segmenter import NeuronSegmenter
from neurokd.training.config import TrainConfig
from neurokd.training.loop import train
from neurokd.training.soft_targets import SoftTargets


class Scaled(nn.Module):
    def __init__(self, factor):
        super().__init__()
        self.factor = nn.Parameter(torch.tensor(factor))

    def forward(self, volume):
        return self.factor * (volume - 0.5)


@pytest.mark.parametrize("temperature", [1.0, 3.0])
def test_the_divergence_of_two_coins_by_hand(temperature):
    rng = np.random.default_rng(0)
    ours, theirs = rng.normal(0, 4, (2, 2, 1, 3, 4, 5))
    p, q = (1 / (1 + np.exp(-x / temperature)) for x in (theirs, ours))
    expected = temperature**2 * np.mean(p * np.log(p / q) + (1 - p) * np.log((1 - p) / (1 - q)))
    logits = torch.tensor(ours, requires_grad=True)
    soft = SoftTargets(nn.Identity(), temperature=temperature)
    value = soft.divergence(logits, torch.tensor(theirs))
    assert value.item() == pytest.approx(expected, rel=1e-5)
    value.backward()
    np.testing.assert_allclose(logits.grad, temperature * (q - p) / p.size, atol=1e-7)  # Hinton et al., equation 2


def test_a_student_that_equals_its_teacher_is_left_alone_and_the_teacher_always():
    teacher, volume = Scaled(3.0), torch.rand(1, 1, 4, 5, 6)
    soft = SoftTargets(teacher, weight=2.0).train()
    assert not teacher.training and not list(soft.learned())
    for factor, moved in ((3.0, False), (2.0, True)):
        student = Scaled(factor)
        logits, value, parts = soft(student, volume, step=0)
        value.backward()
        assert torch.equal(logits, student(volume))
        assert value.item() == 2 * parts["soft_targets"].item()
        assert (value.item() > 1e-3) == moved
        assert (abs(student.factor.grad.item()) > 1e-3) == moved
        assert teacher.factor.grad is None


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"temperature": 0}, "temperature must be positive, got 0"),
        ({"weight": -1.0}, "weight must not be negative, got -1"),
        ({"temperature": np.nan}, "temperature must be positive, got nan"),
    ],
)
def test_bad_settings_are_named_and_the_teacher_is_not_touched(wrong, said):
    teacher = Scaled(3.0)
    with pytest.raises(ValueError, match=said):
        SoftTargets(teacher, **wrong)
    assert teacher.training and teacher.factor.requires_grad


def small(seed):
    return NeuronSegmenter.from_scratch(
        dim=48, depth=1, heads=3, width=8, window=(8, 32, 32), generator=torch.Generator().manual_seed(seed)
    )


def test_the_student_nears_the_teacher_and_goes_on_with_no_other(tmp_path):
    """Masks say "nothing anywhere", the teacher says "neurite": with the teacher, probabilities rise."""
    nothing, other = simulated_neurons(2, seed=0, shape=(16, 40, 40))
    nothing.mask[:] = False
    nothing.mask[0, 0, 0] = True  # crops need a foreground
    config = TrainConfig(steps=30, batch_size=1, crop=(8, 32, 32), lr=1e-2, validate_every=30)
    sure = Scaled(0.0)
    sure.forward = lambda volume: torch.full_like(volume, 4.0)
    means = {}
    for name, teacher in {"alone": None, "taught": SoftTargets(sure, weight=10.0)}.items():
        model = small(0)
        run = {"config": config, "distillation": teacher, "progress": False}
        train(model, [nothing], [other], tmp_path / name, **run)
        means[name] = predict(model, nothing.volume).mean()
    assert means["taught"] > 5 * means["alone"]
    lines = (tmp_path / "taught" / "history.jsonl").read_text().splitlines()
    assert json.loads(lines[29])["soft_targets"] < 0.8 * json.loads(lines[0])["soft_targets"]
    again = {"config": config, "resume": True, "progress": False}
    train(small(0), [nothing], [other], tmp_path / "taught", distillation=SoftTargets(sure, weight=10.0), **again)
    for unlike in (SoftTargets(Scaled(1.0), weight=10.0), SoftTargets(sure, weight=9.0), None):
        with pytest.raises(ValueError, match=r"other settings: .*distillation\."):
            train(small(0), [nothing], [other], tmp_path / "taught", distillation=unlike, **again)
