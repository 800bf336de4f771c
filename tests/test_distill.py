"""Distillation: what the teacher sees lies where the student's tokens lie, the loss is right, the teacher stays."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from einops import rearrange, reduce, repeat

from neurokd.data.datasets import Sample
from neurokd.data.intensity import scale_intensity
from neurokd.models.segmenter import NeuronSegmenter
from neurokd.training.config import TrainConfig
from neurokd.training.distill import Distillation, DistillConfig
from neurokd.training.loop import train
from neurokd.training.losses import SegmentationLoss
from neurokd.training.similarity import cosine_loss, gram_loss, mse_loss
from neurokd.training.views import multi_view_tokens, slice_numbers

TOKEN = (4, 8, 8)


class PatchMeans:
    """A teacher whose only feature is the mean of a patch, and which takes whole patches only."""

    patch = (14, 14)
    calls = 0

    def feature_maps(self, images, blocks):
        self.calls += 1
        return [reduce(images, "b d (y i) (x j) -> b d y x", "mean", i=14, j=14) for _ in blocks]


def small_student(seed=0, **options):
    options = {"dim": 48, "depth": 3, "heads": 3, "window": (8, 32, 32), "width": 8, "decoder": "plain"} | options
    return NeuronSegmenter.from_scratch(**options, generator=torch.Generator().manual_seed(seed))


def distillation(teacher, student, *, cache=None, seed=0, **settings):
    generator = torch.Generator().manual_seed(seed)
    return Distillation(teacher, student, config=DistillConfig(**settings), cache=cache, generator=generator)


def noise(*shape, seed=0):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed))


# --- alignment


def dot(at, shape=(16, 48, 40)):
    """A bright dot of 2 x 4 x 4 voxels in the middle of the token numbered ``at``."""
    volume = torch.zeros(1, 1, *shape)
    z, y, x = (n * t + t // 2 for n, t in zip(at, TOKEN, strict=True))
    volume[..., z - 1 : z + 1, y - 2 : y + 2, x - 2 : x + 2] = 1
    return volume


@pytest.mark.parametrize("magnification", [None, 1.0, 1.75, 3.5, 4.4, 7.0])
@pytest.mark.parametrize("views", [("z",), ("y",), ("x",), ("z", "y", "x")], ids="".join)
@pytest.mark.parametrize("axis", range(3), ids="zyx")
def test_a_dot_moved_by_one_token_moves_the_target_by_one_token(axis, views, magnification):
    settings = {"token": TOKEN, "blocks": [0], "views": views, "magnification": magnification}
    start = [1, 2, 2]
    moved = list(start)
    moved[axis] += 1
    before, after = (multi_view_tokens(PatchMeans(), dot(at), **settings)[0] for at in (start, moved))
    assert before.shape == (1, 1, 4, 6, 5)
    assert np.unravel_index(before.argmax().item(), (4, 6, 5)) == tuple(start)
    assert before.max() > 0.02
    torch.testing.assert_close(after, before.roll(1, dims=2 + axis), rtol=0, atol=1e-6)


def test_patch_means_without_enlarging_are_the_means_of_the_tokens():
    """All slices, tokens of the teacher's own patch: in every view the mean of the token's voxels."""
    volume = noise(2, 1, 28, 42, 14)
    (tokens,) = multi_view_tokens(PatchMeans(), volume, token=(14, 14, 14), blocks=[0], slices=None)
    means = reduce(volume, "b d (z i) (y j) (x k) -> b d z y x", "mean", i=14, j=14, k=14)
    torch.testing.assert_close(tokens, means)


def test_slices_are_spread_and_one_is_that_of_center_inflation():
    assert slice_numbers(12, 4, 1) == [2, 6, 10]
    assert slice_numbers(10, 5, 1) == [2, 7]
    assert slice_numbers(16, 8, 2) == [2, 6, 10, 14]
    assert slice_numbers(8, 4, None) == slice_numbers(8, 4, 9) == list(range(8))


def test_a_view_is_the_teacher_on_the_magnified_slice(teacher):
    """Against the teacher's own magnification, slice by slice, at twice as many patches as tokens."""
    volume, token = noise(1, 1, 4, 24, 40), (1, 8, 8)
    (ours,) = multi_view_tokens(teacher, volume, token=token, blocks=[2], views=("z",), magnification=4, slices=None)
    for z in range(4):
        (theirs,) = teacher.feature_maps(volume[:, :, z], [2], magnification=4)
        assert theirs.shape[2:] == (6, 10)
        expected = reduce(theirs, "b d (y 2) (x 2) -> b d y x", "mean")
        torch.testing.assert_close(ours[:, :, z], expected, rtol=1e-4, atol=1e-4)


def test_views_are_the_same_up_to_the_order_of_axes(teacher):
    volume, settings = noise(1, 1, 16, 16, 24), {"token": (8, 8, 8), "blocks": [1]}
    (along_x,) = multi_view_tokens(teacher, volume, views=("x",), **settings)
    turned = rearrange(volume, "b c z y x -> b c x z y")
    (along_z,) = multi_view_tokens(teacher, turned, views=("z",), **settings)
    torch.testing.assert_close(rearrange(along_z, "b d x z y -> b d z y x"), along_x)


def test_what_a_volume_gives_does_not_depend_on_its_batch(teacher):
    volume, settings = noise(3, 1, 8, 16, 16), {"token": TOKEN, "blocks": [0, 3]}
    together = multi_view_tokens(teacher, volume, **settings)
    alone = multi_view_tokens(teacher, volume[1:2], **settings)
    assert all(torch.equal(a[1:2], b) for a, b in zip(together, alone, strict=True))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"token": (3, 8, 8)}, r"whole tokens of \(3, 8, 8\)"),
        ({"views": ("z", "z")}, "views"),
        ({"views": ("w",)}, "'w'"),
        ({"magnification": 0}, "magnification must be positive or None, got 0"),
        ({"slices": 0}, "slices must be at least 1, or None for all, got 0"),
    ],
)
def test_bad_views_are_named(options, message):
    with pytest.raises(ValueError, match=message):
        multi_view_tokens(PatchMeans(), torch.zeros(1, 1, 8, 16, 16), **{"token": TOKEN, "blocks": [0]} | options)


@pytest.mark.weights
@pytest.mark.parametrize(("block", "magnification"), [(2, None), (11, 3.5)])
def test_real_teacher_sees_a_dot_move_by_one_token(real_teacher, block, magnification):
    """The last block needs neurites larger than one patch a token: at the default it may place a dot beside itself."""
    settings = {"token": TOKEN, "blocks": [block], "magnification": magnification}
    background = 0.2 * noise(1, 1, 12, 40, 40)
    (empty,) = multi_view_tokens(real_teacher, background, **settings)
    for at in [(1, 2, 2), (2, 2, 2), (1, 3, 2), (1, 2, 3)]:
        (tokens,) = multi_view_tokens(real_teacher, torch.maximum(background, dot(at, (12, 40, 40))), **settings)
        change = (tokens - empty).norm(dim=1)[0]
        assert np.unravel_index(change.argmax().item(), change.shape) == at


@pytest.mark.weights
@torch.no_grad()
def test_a_student_inflated_from_the_real_teacher_is_at_its_anchor(real_teacher):
    """Identity 2 through the whole chain: on a volume constant in z, tokens as large as patches, the loss is zero."""
    student = NeuronSegmenter.from_teacher(real_teacher, preset="tiny", token=(2, 14, 14), window=(6, 70, 84)).eval()
    anchor = distillation(real_teacher, student, views=("z",), slices=1, mse=1.0)
    volume = repeat(noise(1, 1, 70, 84), "b c y x -> b c z y x", z=6)
    _, value, parts = anchor(student, volume, step=0)
    assert anchor.blocks == ((1, 1), (2, 2), (3, 3))
    assert set(parts) == {"distill_cosine", "distill_mse", "distill_gram", "distill_weight"}
    assert value < 1e-6
    _, shifted, _ = anchor(student, volume.roll(14, dims=-1) + 0.1 * noise(*volume.shape, seed=1), step=0)
    assert shifted > 100 * value + 1e-3


# --- losses


def test_losses_by_hand():
    student, teacher = torch.tensor([[[1.0, 0.0], [0.0, 3.0]]]), torch.tensor([[[2.0, 0.0], [1.0, 1.0]]])
    cosine = 0.5**0.5
    torch.testing.assert_close(cosine_loss(student, teacher), torch.tensor((0 + 1 - cosine) / 2))
    torch.testing.assert_close(gram_loss(student, teacher), torch.tensor(2 * cosine**2 / 4))
    other = torch.tensor([[[-1.0, 0.0], [0.0, -3.0]]])
    torch.testing.assert_close(cosine_loss(student, other), torch.tensor(2.0))
    assert gram_loss(student, other) == 0  # the similarities within each are the same
    # normalised over two channels, [1, 0] becomes [1, -1] and [-1, 0] the opposite
    torch.testing.assert_close(mse_loss(student, other), torch.tensor(4.0))


def test_mse_is_twice_the_cosine_loss_without_the_mean_over_channels_whatever_the_lengths():
    student, teacher = noise(5, 7, 48, seed=1), noise(5, 7, 48, seed=2)
    without = (tokens - tokens.mean(-1, keepdim=True) for tokens in (student, teacher))
    expected = 2 * cosine_loss(*without)
    for length in (1.0, 0.01, 100.0):
        torch.testing.assert_close(mse_loss(length * student, teacher), expected, rtol=1e-3, atol=0)


@pytest.mark.parametrize("subtract", [True, False])
@pytest.mark.parametrize("loss", ["cosine", "mse", "gram"])
def test_zero_when_tokens_are_equal_and_not_otherwise(teacher, loss, subtract):
    student = small_student(dim=192)
    off = {"cosine": 0.0, "mse": 0.0, "gram": 0.0}
    same_width = distillation(teacher, student, subtract_mean=subtract, **off | {loss: 1.0})
    assert not list(same_width.learned())
    tokens = same_width.targets(noise(2, 1, 8, 32, 32))
    assert same_width.compare(tokens, tokens)[0] == 0
    value, parts = same_width.compare([t.flip(-1) for t in tokens], tokens)
    assert value > 1e-4
    assert parts == {loss: value}


def test_centring_takes_away_what_all_tokens_share(teacher):
    student = small_student(dim=192, depth=1)
    centred, plain = (distillation(teacher, student, gram=0.0, subtract_mean=subtract) for subtract in (True, False))
    theirs = [noise(1, 192, 2, 4, 4, seed=1) - 0.5]
    ours = [noise(1, 192, 2, 4, 4, seed=2) - 0.5]
    common = noise(1, 192, 1, 1, 1, seed=3) * 50
    before, after = ([m + shift for m in maps] for maps, shift in ((ours, common), (theirs, common)))
    assert plain.compare(before, after)[0] < 1e-2
    torch.testing.assert_close(centred.compare(before, after)[0], centred.compare(ours, theirs)[0], rtol=1e-3, atol=0)


def test_falls_by_half_in_50_steps_on_one_batch_and_the_teacher_stays(teacher):
    """A smaller student of its own: 48 wide, 3 deep, from a teacher of 192 and 6."""
    student = small_student()
    distil = distillation(teacher, student).train()
    assert distil.blocks == ((0, 1), (1, 3), (2, 5))
    assert not teacher.training
    before = {key: value.clone() for key, value in teacher.state_dict().items()}
    parameters = [*student.parameters(), *distil.learned()]
    optimizer = torch.optim.AdamW(parameters, lr=2e-3)
    volume, values = noise(1, 1, 8, 32, 32), []
    for _ in range(50):
        _, value, _ = distil(student, volume, step=0)
        optimizer.zero_grad()
        value.backward()
        optimizer.step()
        values.append(value.item())
    assert values[-1] < 0.5 * values[0]
    after = teacher.state_dict()
    assert all(torch.equal(after[key], value) for key, value in before.items())
    assert all(p.grad is None and not p.requires_grad for p in teacher.parameters())
    assert all(p.grad is not None for p in distil.learned())


def test_the_logits_are_those_of_the_student_from_the_same_pass(teacher):
    student = small_student()
    passes = []
    student.vit.register_forward_pre_hook(lambda *_: passes.append(1))
    student.decoder.register_forward_hook(lambda *_: passes.append(1))
    volume = noise(1, 1, 7, 30, 32)  # not whole tokens
    logits, _, _ = distillation(teacher, student)(student, volume, step=0)
    assert len(passes) == 1
    assert torch.equal(logits, student(volume))


def test_similarities_of_many_tokens_are_drawn_by_step(teacher):
    student = small_student()
    distil = distillation(teacher, student, cosine=0.0, gram_tokens=8)
    assert not list(distil.learned())  # Gram alone needs no projection, whatever the widths
    volume = noise(1, 1, 8, 32, 32)
    first, again, other = (distil(student, volume, step=step)[1].item() for step in (3, 3, 4))
    assert first == again != other
    # all drawn subsets together estimate the loss of all pairs, but for the diagonal, where it is zero
    whole = distillation(teacher, student, cosine=0.0)(student, volume, step=0)[1].item() * 32 / 31
    drawn = np.mean([distil(student, volume, step=step)[1].item() for step in range(60)]) * 8 / 7
    assert drawn == pytest.approx(whole, rel=0.15)


# --- schedule, cache, errors


@pytest.mark.parametrize(("schedule", "quarter"), [("linear", 2.25), ("cosine", 1.5 + 1.5 * 0.5**0.5)])
def test_schedule(schedule, quarter):
    config = DistillConfig(weight=3.0, schedule=schedule, steps=100)
    values = [config.weight_at(step) for step in (0, 25, 50, 75, 100, 1000)]
    assert values == pytest.approx([3.0, quarter, 1.5, 3.0 - quarter, 0.0, 0.0])
    assert values[-2:] == [0, 0]  # exactly, so that the teacher is not run
    assert {DistillConfig(weight=3.0).weight_at(step) for step in (0, 50, 1000)} == {3.0}


def test_at_weight_zero_the_teacher_is_not_run(teacher):
    student = small_student()
    distil = distillation(teacher, student, schedule="linear", steps=5)
    distil.targets = lambda _: pytest.fail("the teacher was run")
    volume = noise(1, 1, 8, 32, 32)
    logits, value, parts = distil(student, volume, step=5)
    assert torch.equal(logits, student(volume))
    assert (value.item(), parts) == (0, {"distill_weight": 0.0})


def test_cached_tokens_are_those_computed(teacher, tmp_path, monkeypatch):
    student, volume = small_student(), noise(2, 1, 8, 32, 32)
    plain = distillation(teacher, student).targets(volume)
    cached = distillation(teacher, student, cache=tmp_path)
    computed = cached.targets(volume)
    assert len(list(tmp_path.glob("*.safetensors"))) == 2
    other = distillation(teacher, student, cache=tmp_path, views=("z",))
    assert not torch.equal(other.targets(volume)[0], computed[0])
    assert len(list(tmp_path.glob("*.safetensors"))) == 4
    monkeypatch.setattr(teacher, "feature_maps", lambda *_: pytest.fail("the teacher was run"))
    found = cached.targets(volume.flip(0))  # found by content, one by one
    for p, c, f in zip(plain, computed, found, strict=True):
        assert torch.equal(c, f.flip(0))
        torch.testing.assert_close(c, p, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"cosine": -1.0}, "cosine must not be negative, got -1"),
        ({"cosine": 0.0, "gram": 0.0}, "must be positive, got 0 for all"),
        ({"schedule": "step"}, "'step'"),
        ({"schedule": "linear"}, "steps must be at least 1 .*, got None"),
        ({"steps": 9}, "steps must be None with schedule 'constant', got 9"),
        ({"gram_tokens": 1}, "gram_tokens must be at least 2, got 1"),
        ({"blocks": ((2, 6),)}, r"below \(3, 6\), got \(\(2, 6\),\)"),
        ({"blocks": ()}, "blocks"),
        ({"project": False}, r"project must be True .* got False with widths \(48, 192\)"),
    ],
)
def test_bad_settings_are_named(teacher, settings, message):
    with pytest.raises(ValueError, match=message):
        distillation(teacher, small_student(), **settings)


# --- in the loop


def sample(seed):
    rng = np.random.default_rng(seed)
    mask = np.zeros((8, 32, 32), bool)
    mask[3:5, 3:29, 13:17] = True
    volume = np.where(mask, 150, 40) + rng.normal(0, 30, mask.shape)
    return Sample(name=f"tube-{seed}", volume=volume.clip(0, 255).astype(np.uint8), mask=mask)


SETTINGS = TrainConfig(
    steps=6, batch_size=2, crop=(8, 32, 32), validate_every=2, accelerator="cpu", precision="32-true"
)
LOSS = SegmentationLoss(cldice=0.3, skeleton_recall=0.2)


class Interruption(Exception):
    pass


def test_resumes_exactly_with_distillation_and_topology_losses(teacher, tmp_path):
    """Identity 5 with everything on, projections and the draw of similarities included."""
    samples = [sample(0), sample(1)], [sample(2)]
    settings = {"schedule": "cosine", "steps": 5, "gram_tokens": 8}

    def run(folder, *, seed=0, stop=None, resume=False, **changed):
        student = small_student(seed)
        distil = distillation(teacher, student, seed=seed, **settings | changed)

        def callback(record):
            if record["step"] == stop and "loss" in record:
                raise Interruption

        options = {"config": SETTINGS, "loss": LOSS, "distillation": distil, "callback": callback, "resume": resume}
        result = train(student, *samples, tmp_path / folder, **options, progress=False)
        return [*student.parameters(), *distil.learned()], result

    expected, whole = run("whole")
    with pytest.raises(Interruption):  # after step 3; the checkpoint is that of step 2
        run("broken", stop=3)
    got, result = run("broken", seed=7, resume=True)
    assert all(torch.equal(a, b) for a, b in zip(got, expected, strict=True))
    assert result.history == whole.history
    assert not all(torch.equal(a, b) for a, b in zip(expected, run("other", seed=7)[0], strict=True))

    steps = [record for record in whole.history if "loss" in record]
    assert [round(r["distill_weight"], 3) for r in steps] == [1.0, 0.905, 0.655, 0.345, 0.095, 0.0]
    assert "distill_gram" not in steps[-1]
    for r in steps:
        topology = r["dice_ce"] + 0.3 * r["cldice"] + 0.2 * r["skeleton_recall"]
        distilled = r["distill_weight"] * (r.get("distill_cosine", 0) + r.get("distill_gram", 0))
        assert r["loss"] == pytest.approx(topology + distilled, rel=1e-5)

    with pytest.raises(ValueError, match=r"other settings: \{'distillation.weight': 1.0\}"):
        run("whole", resume=True, weight=0.5)
    with pytest.raises(ValueError, match=r"distillation\.teacher.*stand-in"):
        train(small_student(), *samples, tmp_path / "whole", config=SETTINGS, resume=True, progress=False)


def test_projections_learn_in_the_loop(teacher, tmp_path):
    student = small_student()
    distil = distillation(teacher, student)
    before = [p.clone() for p in distil.learned()]
    config = replace(SETTINGS, steps=2)
    train(student, [sample(0)], [sample(1)], tmp_path, config=config, distillation=distil, progress=False)
    weights = [p for p in zip(before, distil.learned(), strict=True) if p[0].ndim > 1]
    assert len(weights) == 3
    assert not any(torch.equal(a, b) for a, b in weights)


def test_an_anchor_holds_the_tokens_while_fine_tuning(teacher, tmp_path):
    """The student's own teacher: where the task alone carries the tokens away, they stay near with it."""
    config = replace(SETTINGS, steps=30, batch_size=1, validate_every=30, lr_transferred=1e-3)
    drift = {}
    for weight in (0.0, 10.0):
        student = NeuronSegmenter.from_teacher(
            teacher, preset="tiny", token=(4, 16, 16), window=(8, 32, 32), generator=torch.Generator().manual_seed(0)
        )
        anchor = distillation(teacher, student, views=("z",), slices=1, weight=weight)
        assert not list(anchor.learned())
        run = {"config": config, "distillation": anchor, "progress": False}
        train(student, [sample(0)], [sample(1)], tmp_path / str(weight), **run)
        volume = torch.from_numpy(scale_intensity(sample(5).volume))[None, None]
        _, maps = student.eval().forward_with_tokens(volume, student.config.blocks)
        drift[weight] = anchor.compare(maps, anchor.targets(volume))[0].item()
    assert drift[10.0] < 0.75 * drift[0.0]


@pytest.mark.weights
@pytest.mark.slow
@pytest.mark.parametrize("inflation", ["center", "average", "scratch"])
def test_every_initialisation_trains_with_the_real_teacher(real_teacher, tmp_path, inflation):
    student = NeuronSegmenter.from_teacher(
        real_teacher, inflation=inflation, preset="tiny", window=(8, 32, 32),
        generator=torch.Generator().manual_seed(0),
    )  # fmt: skip
    distil = distillation(real_teacher, student, slices=1)
    config = replace(SETTINGS, steps=3, validate_every=3, lr=1e-3)
    result = train(
        student, [sample(0)], [sample(1)], tmp_path, config=config, loss=LOSS, distillation=distil, progress=False
    )
    assert all(np.isfinite(value) for record in result.history for value in record.values())
    deepest = {"scratch": 11}.get(inflation, 3)
    assert distil.blocks[-1] == (3, deepest)
