"""The loop: it learns, resumes exactly (identity 5), and refuses what would lose something."""

import json
import re
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

from neurokd.data.datasets import Sample
from neurokd.evaluation.voxels import dice
from neurokd.inference.sliding import predict
from neurokd.models.segmenter import NeuronSegmenter
from neurokd.training.config import TrainConfig
from neurokd.training.known import KnownVoxels
from neurokd.training.loop import train
from neurokd.training.losses import SegmentationLoss, dice_cross_entropy

SETTINGS = TrainConfig(
    steps=8, batch_size=2, crop=(6, 12, 12), validate_every=3, accelerator="cpu", precision="32-true"
)


class Net(nn.Module):
    """The smallest network that can tell a bright tube from noise."""

    def __init__(self, seed=0):
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            self.layers = nn.Sequential(nn.Conv3d(1, 8, 3, padding=1), nn.GELU(), nn.Conv3d(8, 1, 3, padding=1))

    def forward(self, x):
        return self.layers(x)


def sample(seed):
    rng = np.random.default_rng(seed)
    mask = np.zeros((12, 24, 24), bool)
    mask[5:7, 3:21, 10:13] = True
    volume = np.where(mask, 150, 40) + rng.normal(0, 30, mask.shape)
    return Sample(
        name=f"tube-{seed}", volume=volume.clip(0, 255).astype(np.uint8), mask=mask, tree=None,
        spacing=(1.0, 1.0, 1.0), source=f"tube-{seed}",
    )  # fmt: skip


@pytest.fixture(scope="module")
def samples():
    return [sample(0), sample(1)], [sample(2)]


def weights(model):
    return torch.cat([p.detach().flatten() for p in model.parameters()])


class Interruption(Exception):
    pass


def interrupted_after(step):
    """A callback that behaves like Ctrl-C when a step is done."""

    def callback(record):
        if record["step"] == step:
            raise Interruption

    return callback


def test_interrupted_and_resumed_run_equals_the_uninterrupted_one(samples, tmp_path):
    whole = Net()
    expected = train(whole, *samples, tmp_path / "whole", config=SETTINGS, progress=False)
    broken = Net()
    with pytest.raises(Interruption):  # two steps beyond the checkpoint of step 3: they are done again
        train(broken, *samples, tmp_path / "broken", config=SETTINGS, callback=interrupted_after(5), progress=False)
    resumed = Net(seed=7)  # whatever it starts from is replaced
    result = train(resumed, *samples, tmp_path / "broken", config=SETTINGS, resume=True, progress=False)
    assert torch.equal(weights(resumed), weights(whole))
    last = [torch.load(tmp_path / run / "last.ckpt", weights_only=True)["model"] for run in ("whole", "broken")]
    assert all(torch.equal(last[0][key], last[1][key]) for key in last[0])
    assert result.history == expected.history
    assert (tmp_path / "broken" / "history.jsonl").read_text() == (tmp_path / "whole" / "history.jsonl").read_text()


def test_learns_and_keeps_the_best(samples, tmp_path):
    model = Net()
    config = TrainConfig(
        steps=120, batch_size=4, crop=(6, 12, 12), validate_every=40, lr=1e-2, accelerator="cpu", precision="32-true"
    )
    result = train(model, *samples, tmp_path / "run", config=config, progress=False)
    losses = [r["loss"] for r in result.history if "loss" in r]
    scores = [r["val_dice"] for r in result.history if "val_dice" in r]
    assert len(losses) == 120
    assert np.mean(losses[-10:]) < 0.7 * np.mean(losses[:10])
    assert result.best_dice == max(scores) > 0.8
    records = [json.loads(line) for line in (tmp_path / "run" / "history.jsonl").read_text().splitlines()]
    assert records == result.history


def test_rates_rise_and_fall_and_groups_have_their_own(samples, tmp_path):
    class Split(Net):
        def parameter_groups(self):
            first, second = list(self.layers[0].parameters()), list(self.layers[2].parameters())
            return {"transferred": first, "new": second}

    config = TrainConfig(
        steps=10, batch_size=1, crop=(6, 12, 12), lr=1e-2, lr_transferred=0.0, warmup=0.2, weight_decay=0.0,
        accelerator="cpu", precision="32-true",
    )  # fmt: skip
    model = Split()
    before = model.layers[0].weight.detach().clone(), model.layers[2].weight.detach().clone()
    result = train(model, *samples, tmp_path / "run", config=config, progress=False)
    assert torch.equal(model.layers[0].weight, before[0])
    assert not torch.equal(model.layers[2].weight, before[1])
    rates = [r["lr"] for r in result.history if "lr" in r]
    assert rates[:2] == [0.005, 0.01]
    assert rates[1:] == sorted(rates[1:], reverse=True)
    assert rates[-1] < 1e-3


def test_a_run_is_not_overwritten_and_settings_are_compared(samples, tmp_path):
    train(Net(), *samples, tmp_path, config=SETTINGS, progress=False)
    with pytest.raises(FileExistsError, match=r"last\.ckpt exists"):
        train(Net(), *samples, tmp_path, config=SETTINGS, progress=False)
    other = TrainConfig(**{**SETTINGS.__dict__, "lr": 1e-4})
    with pytest.raises(ValueError, match=r"other settings: \{'lr': 0.002\}"):
        train(Net(), *samples, tmp_path, config=other, resume=True, progress=False)


def test_a_run_goes_on_with_its_own_loss_only(samples, tmp_path):
    def run(loss):
        return train(Net(), *samples, tmp_path, config=SETTINGS, loss=loss, resume=True, progress=False)

    first = run(SegmentationLoss(cldice=0.3))
    assert run(SegmentationLoss(cldice=0.3)) == first  # nothing is left to do
    with pytest.raises(ValueError, match=r"other settings: \{'loss\.cldice': 0\.3\}"):
        run(SegmentationLoss(cldice=0.2))
    with pytest.raises(ValueError, match=r"'loss\.radius': 2"):
        run(SegmentationLoss(cldice=0.3, radius=1))
    for other in (None, torch.nn.functional.binary_cross_entropy_with_logits):  # losses that tell their name only
        with pytest.raises(ValueError, match="'loss': 'SegmentationLoss'"):
            run(other)


def flipped(content, at):
    return content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :]


@pytest.mark.parametrize(
    "damage",
    [
        lambda content, inside: b"",
        lambda content, inside: content[: len(content) // 2],
        lambda content, inside: content[:-1],
        lambda content, inside: flipped(content, at=inside),
        lambda content, inside: b"\0" * len(content),
    ],
    ids=["empty", "half", "one byte short", "one bit of a weight", "zeros"],
)
def test_a_damaged_checkpoint_is_named_and_nothing_changes(damage, samples, tmp_path):
    train(Net(), *samples, tmp_path, config=SETTINGS, progress=False)
    checkpoint = tmp_path / "last.ckpt"
    content = checkpoint.read_bytes()
    weight = torch.load(checkpoint, weights_only=True)["model"]["layers.0.weight"].numpy().tobytes()
    damaged = damage(content, content.index(weight))
    checkpoint.write_bytes(damaged)
    model = Net(seed=7)
    with pytest.raises(ValueError, match=rf"^{re.escape(str(checkpoint))} must be a complete checkpoint, got a file"):
        train(model, *samples, tmp_path, config=SETTINGS, resume=True, progress=False)
    assert torch.equal(weights(model), weights(Net(seed=7)))
    assert checkpoint.read_bytes() == damaged


def test_callback_gets_every_record_as_it_is_made(samples, tmp_path):
    records = []
    result = train(Net(), *samples, tmp_path, config=SETTINGS, callback=records.append, progress=False)
    assert records == result.history
    assert [r["step"] for r in records if "val_dice" in r] == [3, 6, 8]


def test_a_loss_that_is_not_finite_stops_the_run(samples, tmp_path):
    with pytest.raises(ValueError, match="loss is nan at step 1"):
        train(Net(), *samples, tmp_path, config=SETTINGS, loss=lambda x, y: x.sum() * float("nan"), progress=False)


def test_a_gradient_that_is_not_finite_stops_the_run(samples, tmp_path):
    def loss(logits, mask):
        return torch.sqrt(0 * logits.sum())  # 0, with an infinite slope

    with pytest.raises(ValueError, match="gradient is not finite at step 1"):
        train(Net(), *samples, tmp_path, config=SETTINGS, loss=loss, progress=False)


@pytest.mark.parametrize("bad", [{"steps": 0}, {"batch_size": 3, "devices": 2}])
def test_bad_settings_are_named(bad):
    with pytest.raises(ValueError, match=next(iter(bad))):
        TrainConfig(**bad)


def test_dice_cross_entropy_by_hand():
    loss = dice_cross_entropy()
    logits = torch.tensor([2.0, -1.0, 0.5, -3.0]).view(1, 1, 1, 2, 2)
    mask = torch.tensor([1.0, 0.0, 1.0, 0.0]).view(1, 1, 1, 2, 2)
    p = logits.sigmoid()
    soft_dice = (2 * (p * mask).sum() + 1e-5) / (p.sum() + mask.sum() + 1e-5)
    entropy = -(mask * p.log() + (1 - mask) * (1 - p).log()).mean()
    torch.testing.assert_close(loss(logits, mask), 1 - soft_dice + entropy)


def test_an_empty_mask_gives_a_finite_gradient():
    logits = torch.zeros(2, 1, 4, 4, 4, requires_grad=True)
    dice_cross_entropy()(logits, torch.zeros_like(logits)).backward()
    assert torch.isfinite(logits.grad).all()
    assert (logits.grad > 0).all()  # towards background


def test_a_frozen_transformer_within_slabs_has_no_backward_pass(teacher, samples, tmp_path):
    model = NeuronSegmenter.from_teacher(teacher, preset="tiny", attention="slab", window=(4, 16, 16))
    before = {name: weight.clone() for name, weight in model.vit.state_dict().items()}
    config = replace(SETTINGS, lr_transferred=0.0, crop=(4, 16, 16))
    train(model, *samples, tmp_path, config=config, progress=False)
    assert all(torch.equal(weight, before[name]) for name, weight in model.vit.state_dict().items())
    tokens = model.vit.feature_maps(torch.rand(1, 1, 4, 16, 16), [0])[0]
    assert not tokens.requires_grad
    assert any(p.requires_grad for p in model.parameters())


# --- sparse annotation, and validation samples


def sparse(seed, *, noise):
    """The sample with three annotated slices; `noise` fills mask and volume everywhere else."""
    dense, rng = sample(seed), np.random.default_rng(noise)
    known = np.zeros(dense.mask.shape, bool)
    known[[2, 5, 6]] = True
    mask = np.where(known, dense.mask, rng.random(known.shape) < 0.5)
    return replace(dense, mask=mask, known=known)


@pytest.mark.parametrize("loss", [None, SegmentationLoss(cldice=0.3, skeleton_recall=0.3)])
def test_what_the_mask_says_where_nothing_is_known_changes_nothing(loss, tmp_path):
    runs = []
    for noise in (1, 2):
        samples = [sparse(0, noise=noise), sample(1)], [sparse(2, noise=noise)]
        model = Net()
        result = train(model, *samples, tmp_path / str(noise), config=SETTINGS, loss=loss, progress=False)
        runs.append((weights(model), result))
    assert torch.equal(runs[0][0], runs[1][0]) and runs[0][1] == runs[1][1]
    assert 0 < runs[0][1].best_dice < 1


def test_a_loss_gets_known_only_where_a_batch_has_unknown_voxels(samples, tmp_path):
    seen = []

    def loss(logits, mask, known=None):
        seen.append(known)
        return dice_cross_entropy()(logits, mask, known)

    train(Net(), *samples, tmp_path / "dense", config=SETTINGS, loss=loss, progress=False)
    assert seen == [None] * 8
    training = [sparse(0, noise=0), sample(1)]
    train(Net(), training, samples[1], tmp_path / "both", config=SETTINGS, loss=loss, progress=False)
    shares = [known if known is None else known.float().mean().item() for known in seen[8:]]
    assert any(share is not None and 0 < share < 1 for share in shares)
    assert all(share is None or 0 < share < 1 for share in shares)

    bce = torch.nn.BCEWithLogitsLoss()
    with pytest.raises(ValueError, match=r"loss must take known= .* got BCEWithLogitsLoss"):
        train(Net(), training, samples[1], tmp_path / "bce", config=SETTINGS, loss=bce, progress=False)
    train(Net(), training, samples[1], tmp_path / "bce", config=SETTINGS, loss=KnownVoxels(bce), progress=False)
    with pytest.raises(ValueError, match="'loss': 'BCEWithLogitsLoss'"):  # recorded by the name of what it wraps
        train(Net(), training, samples[1], tmp_path / "bce", config=SETTINGS, resume=True, progress=False)


@pytest.mark.parametrize("part", ["training", "validation"])
@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda s: replace(s, mask=None), "sample 'tube-2' must have a mask, got None"),
        (lambda s: replace(s, mask=s.volume / 255), "mask of sample 'tube-2' must be boolean"),
        (
            lambda s: replace(s, volume=np.where(s.mask, np.nan, s.volume)),
            "volume of sample 'tube-2' cannot be used: volume must be finite, got .* NaN",
        ),
        (lambda s: replace(s, volume=s.volume * 0), "volume of sample 'tube-2' cannot be used: volume is constant"),
        (lambda s: replace(s, mask=s.mask & False), "must have foreground"),
        (lambda s: None, "no samples|at least one sample"),
    ],
)
def test_a_sample_that_cannot_be_used_is_named_before_the_first_step(part, change, words, tmp_path):
    bad = [new for new in [change(sample(2))] if new is not None]
    parts = {"training": [sample(0)], "validation": [sample(1)]} | {part: bad}
    with pytest.raises(ValueError, match=words):
        train(Net(), **parts, folder=tmp_path / "run", config=SETTINGS, progress=False)
    assert not (tmp_path / "run").exists()


def test_training_and_validation_take_masks_of_any_type_and_one_empty_stack(tmp_path):
    results = []
    for kind in (bool, np.uint8, np.float32):
        training, validation = ([replace(sample(seed), mask=sample(seed).mask.astype(kind))] for seed in (0, 2))
        nothing = replace(sample(1), mask=np.zeros(sample(1).mask.shape, kind))
        folder = tmp_path / kind.__name__
        results.append(train(Net(), [*training, nothing], validation, folder, config=SETTINGS, progress=False))
    assert results[0] == results[1] == results[2]


# --- crops, windows and thresholds


class WindowedNet(Net):
    """A network that says which window it was made for, notes what it sees, and keeps a threshold."""

    def __init__(self, window):
        super().__init__()
        self.config, self.threshold, self.seen = SimpleNamespace(window=window), None, {True: set(), False: set()}

    def forward(self, x):
        self.seen[self.training].add(tuple(x.shape[2:]))
        return self.layers(x)

    def set_threshold(self, threshold):
        self.threshold = threshold


@pytest.mark.parametrize("crop", [None, (6, 12, 12)])
def test_the_threshold_is_chosen_and_set_as_predict_will_use_it(crop, samples, tmp_path):
    model = WindowedNet(window=(4, 16, 8))
    config = replace(SETTINGS, crop=crop)
    result = train(model, *samples, tmp_path, config=config, progress=False)
    assert model.seen == {True: {crop or (4, 16, 8)}, False: {(4, 16, 8)}}  # training, validation
    assert model.threshold == result.threshold
    again = predict(model, samples[1][0].volume) > model.threshold  # as a user calls it
    assert dice(again, samples[1][0].mask) == result.best_dice
    # The run went with crops of that size, and goes on with them however they are said.
    resumed = replace(SETTINGS, crop=crop or (4, 16, 8))
    assert train(WindowedNet((4, 16, 8)), *samples, tmp_path, config=resumed, resume=True, progress=False) == result


def test_a_model_without_window_needs_a_crop(samples, tmp_path):
    with pytest.raises(ValueError, match="crop must be given for a model without config"):
        train(Net(), *samples, tmp_path / "run", config=replace(SETTINGS, crop=None), progress=False)
    assert not (tmp_path / "run").exists()
    assert TrainConfig().crop is None
    with pytest.raises(ValueError, match="window must be given"):
        predict(Net(), samples[0][0].volume)


def test_a_trained_segmenter_is_saved_with_its_threshold(samples, tmp_path):
    model = NeuronSegmenter.from_scratch(dim=24, depth=2, heads=2, width=8, window=(8, 16, 16), blocks=(0, 1))
    config = replace(SETTINGS, crop=None, steps=2, lr=1e-2)
    result = train(model, *samples, tmp_path / "run", config=config, progress=False)
    again = NeuronSegmenter.from_pretrained(model.save_pretrained(tmp_path / "model"))
    assert again.config.threshold == result.threshold != 0.5
