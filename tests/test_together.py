"""All parts at once: any combination is a model that trains, and the fullest one resumes exactly."""

from itertools import product

import pytest
import torch

from neurokd.data.datasets import simulated_neurons
from neurokd.models.segmenter import NeuronSegmenter
from neurokd.models.tube_kernel import TubeConfig
from neurokd.training.config import TrainConfig
from neurokd.training.distill import Distillation, DistillConfig
from neurokd.training.loop import train
from neurokd.training.losses import SegmentationLoss

WINDOW = (8, 32, 32)


@pytest.fixture(scope="module")
def samples():
    neurons = simulated_neurons(2, seed=3, shape=(16, 48, 48))
    return neurons[:1], neurons[1:]


def parts(teacher, *, inflation="center", tube=True, distil=True, seed=0):
    model = NeuronSegmenter.from_teacher(
        teacher,
        preset="tiny",
        inflation=inflation,
        tube=TubeConfig() if tube else None,
        window=WINDOW,
        generator=torch.Generator().manual_seed(seed),
    )
    if not distil:
        return model, None
    generator = torch.Generator().manual_seed(seed)
    return model, Distillation(teacher, model, config=DistillConfig(), generator=generator)


def settings(steps):
    return TrainConfig(steps=steps, batch_size=1, crop=WINDOW, validate_every=2, accelerator="cpu", precision="32-true")


@pytest.mark.parametrize(
    ("inflation", "tube", "distil"), list(product(["scratch", "average", "center"], [False, True], [False, True]))
)
def test_every_combination_trains(teacher, samples, tmp_path, inflation, tube, distil):
    model, distillation = parts(teacher, inflation=inflation, tube=tube, distil=distil)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    result = train(model, *samples, tmp_path, config=settings(2), distillation=distillation, progress=False)
    assert result.best_step == 2
    assert any(not torch.equal(value, before[key]) for key, value in model.state_dict().items())
    assert ("distill_cosine" in result.history[0]) == distil


def interrupted_in(step):
    def callback(record):
        if record["step"] == step and "loss" in record:
            raise KeyboardInterrupt

    return callback


@pytest.mark.weights
@pytest.mark.slow
def test_everything_switched_on_resumes_exactly(real_teacher, samples, tmp_path):
    """Center, tube, distillation and clDice in the preset tiny, with the real teacher."""
    run = {"config": settings(5), "loss": SegmentationLoss(cldice=0.3, skeleton_recall=0.3), "progress": False}
    whole, distillation = parts(real_teacher)
    expected = train(whole, *samples, tmp_path / "whole", distillation=distillation, **run)

    broken, distillation = parts(real_teacher)
    with pytest.raises(KeyboardInterrupt):
        train(broken, *samples, tmp_path / "broken", distillation=distillation, callback=interrupted_in(4), **run)
    resumed, distillation = parts(real_teacher, seed=1)
    result = train(resumed, *samples, tmp_path / "broken", distillation=distillation, resume=True, **run)

    assert result.history == expected.history
    assert {"cldice", "skeleton_recall", "distill_cosine", "distill_gram"} <= set(result.history[0])
    for (name, a), b in zip(whole.named_parameters(), resumed.parameters(), strict=True):
        assert torch.equal(a, b), name
