"""Two devices train as one: two CPU processes through Fabric (gloo), in a script of their own, which is this file.

python tests/test_devices.py FOLDER
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from conftest import stand_in_teacher
from torch.nn.functional import binary_cross_entropy_with_logits

from neurokd.data.datasets import simulated_neurons
from neurokd.models.segmenter import NeuronSegmenter
from neurokd.training.config import TrainConfig
from neurokd.training.distill import Distillation, DistillConfig
from neurokd.training.loop import train
from neurokd.training.losses import dice_cross_entropy

WINDOW, STEPS = (8, 32, 32), 3
# Every term a mean over crops, so that the mean of two devices is that of the whole batch; Dice is not, nor is a
# mean token: those are taken over what a device sees.
PER_CROP = {"loss": binary_cross_entropy_with_logits, "subtract_mean": False}
PER_DEVICE = {"loss": dice_cross_entropy(), "subtract_mean": True}


def run(folder, *, devices, loss, subtract_mean):
    """Train a student of the preset tiny with a teacher; return what this process saw at each step, and the history."""
    neurons = simulated_neurons(2, seed=3, shape=(16, 48, 48))
    generator = torch.Generator().manual_seed(0)
    teacher = stand_in_teacher()
    model = NeuronSegmenter.from_teacher(teacher, preset="tiny", window=WINDOW, generator=generator)
    config = DistillConfig(
        project=True, subtract_mean=subtract_mean, views=("z",), slices=1, schedule="linear", steps=2
    )
    distillation = Distillation(teacher, model, config=config, generator=generator)
    seen = []

    def weights():
        return torch.cat([p.detach().flatten() for p in [*model.parameters(), *distillation.learned()]])

    def watching(logits, mask):
        seen.append({"mask": mask.clone(), "weights": weights()})
        return loss(logits, mask)

    settings = TrainConfig(
        steps=STEPS, batch_size=4, crop=WINDOW, validate_every=STEPS, accelerator="cpu", precision="32-true",
        devices=devices,
    )  # fmt: skip
    options = {"config": settings, "loss": watching, "distillation": distillation, "progress": False}
    result = train(model, neurons[:1], neurons[1:], folder, **options)
    return {"seen": seen, "end": weights(), "history": result.history}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """What each of two processes saw, ``NAME-RANK.pt``."""
    folder = tmp_path_factory.mktemp("devices")
    root = str(Path(__file__).resolve().parents[1])
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": root}
    done = subprocess.run(
        [sys.executable, __file__, str(folder)], env=environment, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("name", ["per_crop", "per_device"])
def test_two_devices_hold_the_same_weights_at_every_step(folder, name):
    first, second = (torch.load(folder / f"{name}-{rank}.pt") for rank in (0, 1))
    assert len(first["seen"]) == STEPS
    for a, b in zip(first["seen"], second["seen"], strict=True):
        assert torch.equal(a["weights"], b["weights"])
        assert not torch.equal(a["mask"], b["mask"])
    assert not torch.equal(first["seen"][0]["weights"], first["seen"][-1]["weights"])
    assert first["history"] == second["history"]


@pytest.mark.slow
def test_two_devices_do_what_one_does_with_the_whole_batch(folder, tmp_path):
    one = run(tmp_path, devices=1, **PER_CROP)
    both = [torch.load(folder / f"per_crop-{rank}.pt") for rank in (0, 1)]
    for step, whole in enumerate(one["seen"]):
        shares = [process["seen"][step] for process in both]
        assert torch.equal(torch.stack([s["mask"] for s in shares], dim=1).flatten(0, 1), whole["mask"])
    losses = [[r["loss"] for r in outcome["history"] if "loss" in r] for outcome in (one, both[0])]
    assert losses[1] == pytest.approx(losses[0], rel=1e-5)
    moved = (one["end"] - one["seen"][0]["weights"]).norm()
    assert (both[0]["end"] - one["end"]).norm() < 1e-3 * moved


if __name__ == "__main__":
    for name, options in {"per_crop": PER_CROP, "per_device": PER_DEVICE}.items():
        outcome = run(Path(sys.argv[1], name), devices=2, **options)
        torch.save(outcome, Path(sys.argv[1], f"{name}-{torch.distributed.get_rank()}.pt"))
