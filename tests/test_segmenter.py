"""The student: what it takes over from its teacher, saving and loading, and any volume through it in windows."""

import json
from dataclasses import replace
from itertools import product

import numpy as np
import pytest
import torch
from conftest import stand_in
from einops import repeat
from test_vit import ARCHITECTURES, randomised
from torch import nn

from neurokd.data.intensity import scale_intensity
from neurokd.inference.sliding import predict
from neurokd.models.decoders import PlainDecoder
from neurokd.models.inflate import inflate_kernel
from neurokd.models.segmenter import NeuronSegmenter


def student(teacher, **options):
    options = {"preset": "tiny", "window": (8, 32, 32), "generator": torch.Generator().manual_seed(0)} | options
    return NeuronSegmenter.from_teacher(teacher, **options)


@pytest.mark.parametrize("inflation", ["center", "average"])
def test_takes_over_blocks_and_inflated_embedding(teacher, inflation):
    model = student(teacher, inflation=inflation, token=(4, 8, 8))
    theirs, ours = teacher.vit.state_dict(), model.vit.state_dict()
    for key, value in ours.items():
        if key.startswith("blocks."):
            assert torch.equal(value, theirs[key]), key
    weight, bias = inflate_kernel(
        theirs["patch_embed.proj.weight"], theirs["patch_embed.proj.bias"],
        token=(4, 8, 8), inflation=inflation, mean=teacher.mean, std=teacher.std,
    )  # fmt: skip
    assert torch.equal(ours["patch_embed.proj.weight"], weight)
    assert torch.equal(ours["patch_embed.proj.bias"], bias)
    assert len(model.vit.blocks) == 4
    assert "stand-in" in model.config.teacher


@pytest.mark.parametrize(
    "architecture",
    ["deit_small_distilled_patch16_224", "vit_so400m_patch16_siglip_256", "vit_small_plus_patch16_dinov3"],
)
def test_a_student_of_another_family_sees_what_its_teacher_sees_and_is_saved_whole(architecture, tmp_path):
    vit = randomised(architecture, **ARCHITECTURES[architecture]).float()
    teacher = stand_in(vit)
    model = student(teacher, token=(4, 4, 4), decoder="plain").eval()
    grey = torch.rand(1, 1, 12, 20)
    volume = repeat(grey, "b c y x -> b c z y x", z=8)
    with torch.no_grad():
        for ours, theirs in zip(
            model.vit.feature_maps(volume, [0, 1, 2]), teacher.feature_maps(grey, [0, 1, 2]), strict=True
        ):
            theirs = repeat(theirs, "b d y x -> b d z y x", z=2)
            torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-5 * theirs.norm(dim=1).max().item())
        loaded = NeuronSegmenter.from_pretrained(model.save_pretrained(tmp_path / "model"))
        assert loaded.config == model.config
        assert torch.equal(loaded(volume), model(volume))
    model(volume).square().mean().backward()
    without = {n for n, p in model.named_parameters() if p.grad is None}
    assert without <= {"vit.norm.weight", "vit.norm.bias"}


def test_scratch_has_the_same_shape_and_nothing_of_the_teacher(teacher):
    scratch, transferred = student(teacher, inflation="scratch"), student(teacher)
    assert {k: v.shape for k, v in scratch.state_dict().items()} == {
        k: v.shape for k, v in transferred.state_dict().items()
    }
    assert not torch.equal(scratch.vit.blocks[0].attn.qkv.weight, transferred.vit.blocks[0].attn.qkv.weight)
    assert scratch.config.teacher == ""
    assert scratch.parameter_groups()["transferred"] == []


def test_every_parameter_is_in_one_group_and_gets_a_gradient(teacher):
    for decoder in ("plain", "hybrid"):
        model = student(teacher, decoder=decoder)
        groups = model.parameter_groups()
        ids = [id(p) for group in groups.values() for p in group]
        assert sorted(ids) == sorted(id(p) for p in model.parameters())
        assert any(p is model.vit.depth_embed for p in groups["new"])
        model(torch.rand(1, 1, 8, 32, 32)).square().mean().backward()
        without = {n for n, p in model.named_parameters() if p.grad is None}
        assert without <= {"vit.norm.weight", "vit.norm.bias"}  # tokens that are read have norms of their own


def test_tokens_reach_the_logits(teacher):
    """The control that many hybrids fail: without the transformer the output is another."""
    for decoder in ("plain", "hybrid"):
        model = student(teacher, decoder=decoder).eval()
        volume = torch.rand(1, 1, 8, 32, 32)
        with torch.no_grad():
            before = model(volume)
            for norm in model.norms:
                nn.init.zeros_(norm.weight)
            assert (model(volume) - before).abs().max() > 1e-3


@torch.no_grad()
def test_the_plain_decoder_puts_each_voxel_where_it_belongs(teacher):
    """Tokens that hold their own voxels come out as the volume that they were cut from."""
    config = replace(student(teacher, decoder="plain", token=(2, 4, 3)).config, blocks=(0,))
    decoder = PlainDecoder(config)
    nn.init.zeros_(decoder.head.weight)
    nn.init.zeros_(decoder.head.bias)
    for voxel in range(24):
        decoder.head.weight[voxel, voxel, 1] = 1.0  # from the token itself, nothing from those above and below
    volume = torch.rand(1, 1, 6, 8, 9)
    tokens = torch.zeros(1, config.vit.dim, 3, 2, 3)
    for z, y, x in product(range(3), range(2), range(3)):
        tokens[0, :24, z, y, x] = volume[0, 0, 2 * z : 2 * z + 2, 4 * y : 4 * y + 4, 3 * x : 3 * x + 3].flatten()
    assert torch.equal(decoder(volume, [tokens]), volume)


def test_from_scratch_has_the_shape_asked_for_and_can_be_kept(tmp_path):
    model = NeuronSegmenter.from_scratch(
        dim=48, depth=5, heads=3, mlp_ratio=2, window=(8, 40, 36), generator=torch.Generator().manual_seed(0)
    ).eval()
    assert [tuple(block.mlp.fc1.weight.shape) for block in model.vit.blocks] == [(96, 48)] * 5
    assert model.config.blocks == (1, 2, 4)
    assert model.config.vit.grid == (5, 5)
    assert model.parameter_groups()["transferred"] == []
    volume = torch.rand(1, 1, 8, 40, 36)
    with torch.no_grad():
        assert torch.equal(
            NeuronSegmenter.from_pretrained(model.save_pretrained(tmp_path / "m"))(volume), model(volume)
        )
    with pytest.raises(ValueError, match=r"dim .* 50"):
        NeuronSegmenter.from_scratch(dim=50)


@torch.no_grad()
def test_tokens_beside_the_logits_are_those_of_the_transformer(teacher):
    model, volume = student(teacher).eval(), torch.rand(2, 1, 8, 30, 32)
    logits, maps = model.forward_with_tokens(volume, [3, 0, 3])
    assert torch.equal(logits, model(volume))
    expected = model.vit.feature_maps(nn.functional.pad(volume, [0, 0, 0, 2]), [0, 3])
    for map_, which in zip(maps, (1, 0, 1), strict=True):
        assert torch.equal(map_, expected[which])
    with pytest.raises(ValueError, match=r"blocks .*4\]"):
        model.forward_with_tokens(volume, [4])


def test_same_generator_same_model_and_the_global_state_is_left_alone(teacher):
    torch.manual_seed(1)
    expected = torch.rand(3)
    torch.manual_seed(1)
    a, b = student(teacher), student(teacher)
    assert torch.equal(torch.rand(3), expected)
    assert all(torch.equal(x, y) for x, y in zip(a.state_dict().values(), b.state_dict().values(), strict=True))


@pytest.mark.parametrize("size", [(8, 32, 32), (3, 20, 17), (9, 33, 40)])
@pytest.mark.parametrize("decoder", ["plain", "hybrid"])
@torch.no_grad()
def test_any_size_and_padding_does_not_show(teacher, decoder, size):
    model = student(teacher, decoder=decoder).eval()
    volume = torch.rand(1, 1, *size)
    logits = model(volume)
    assert logits.shape == volume.shape
    padded = nn.functional.pad(volume, [0, -size[2] % 8, 0, -size[1] % 8, 0, -size[0] % 4])
    assert torch.equal(model(padded)[..., : size[0], : size[1], : size[2]], logits)


def test_starts_near_the_share_of_foreground(teacher):
    model = student(teacher).eval()
    with torch.no_grad():
        probability = model(torch.rand(1, 1, 8, 32, 32)).sigmoid()
    assert 0.001 < probability.mean() < 0.1


def test_save_and_load_give_the_same_model(teacher, tmp_path):
    model = student(teacher, decoder="plain", token=(2, 8, 8)).eval()
    model.set_threshold(0.37)
    folder = model.save_pretrained(tmp_path / "model")
    assert sorted(p.name for p in folder.iterdir()) == ["config.json", "model.safetensors"]
    loaded = NeuronSegmenter.from_pretrained(folder)
    assert loaded.config == model.config
    volume = torch.rand(1, 1, 8, 32, 32)
    with torch.no_grad():
        assert torch.equal(loaded(volume), model(volume))

    with pytest.raises(FileExistsError, match=r"folder .*model"):
        model.save_pretrained(folder)
    model.save_pretrained(folder, overwrite=True)
    (folder / "notes.txt").write_text("mine")
    with pytest.raises(FileExistsError):
        model.save_pretrained(folder, overwrite=True)  # not a model's folder any more
    assert (folder / "notes.txt").exists()


def test_damaged_models_are_named(teacher, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"absent.* config\.json"):
        NeuronSegmenter.from_pretrained(tmp_path / "absent")
    folder = student(teacher).save_pretrained(tmp_path / "model")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"width": 24}))
    with pytest.raises(ValueError, match=r"weights .*model .*config\.json"):
        NeuronSegmenter.from_pretrained(folder)
    (folder / "config.json").write_text(json.dumps(config | {"colour": "red"}))
    with pytest.raises(ValueError, match=r"config\.json.*colour"):
        NeuronSegmenter.from_pretrained(folder)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"preset": "huge"}, "'huge'"),
        ({"inflation": "mean"}, "'mean'"),
        ({"decoder": "unet"}, "'unet'"),
        ({"token": (4, 8)}, "token"),
        ({"token": (16, 8, 8)}, "window"),
    ],
)
def test_unknown_choices_are_named(teacher, options, message):
    with pytest.raises(ValueError, match=message):
        student(teacher, **options)


class Identity(nn.Module):
    """Gives its input as logits, so that what the windows do to a volume can be seen."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(()))

    def forward(self, x):
        return self.weight * x


@pytest.mark.parametrize("shape", [(5, 9, 7), (20, 30, 40)], ids=["smaller than the window", "several windows"])
def test_windows_put_everything_back_in_its_place(shape):
    volume = np.random.default_rng(0).integers(1, 255, shape).astype(np.uint8)
    probability = predict(Identity(), volume, window=(8, 16, 16))
    expected = torch.sigmoid(torch.from_numpy(scale_intensity(volume))).numpy()
    np.testing.assert_allclose(probability, expected, atol=1e-6)
    assert probability.dtype == np.float32


def test_empty_surroundings_are_not_looked_at():
    volume = np.zeros((40, 60, 60), np.uint8)
    volume[18:22, 25:35, 28:30] = np.random.default_rng(0).integers(1, 255, (4, 10, 2))
    seen = []

    class Spy(Identity):
        def forward(self, x):
            seen.append(x.shape)
            return super().forward(x)

    probability = predict(Spy(), volume, window=(8, 16, 16))
    assert probability.shape == volume.shape
    assert probability[0, 0, 0] < 1e-4  # far from any signal
    assert probability[20, 30, 28] >= 0.5
    assert sum(shape.numel() for shape in seen) < volume.size


def test_a_window_is_skipped_for_its_raw_voxels_only():
    """A dark region that is scaled to zero is looked at; a border that holds no zeros is not."""
    rng = np.random.default_rng(0)
    volume = rng.normal(1000, 5, (16, 32, 192)).round().astype(np.int16)
    volume[:, :, 128:160] = rng.integers(860, 940, (16, 32, 32))  # below black, but recorded
    volume[:, :, 160:] = -32_768
    seen = []

    class Spy(Identity):
        def forward(self, x):
            seen.append(x)
            return super().forward(x)

    probability = predict(Spy(), volume, window=(16, 32, 32), overlap=0)
    assert len(seen) == 5 and all(x.any() for x in seen[:4]) and not seen[4].any()
    assert probability[8, 16, 144] == 0.5 and probability[8, 16, 176] < 1e-4


@pytest.mark.parametrize("value", [0, 7])
def test_in_a_constant_volume_nothing_is_found_and_that_is_said(teacher, caplog, value):
    probability = predict(student(teacher), np.full((8, 32, 32), value, np.uint8))
    assert probability.dtype == np.float32 and not probability.any() and probability.shape == (8, 32, 32)
    assert f"constant ({value})" in caplog.text


def test_predict_restores_the_mode_and_needs_a_window(teacher):
    model = student(teacher).train()
    volume = np.random.default_rng(0).integers(0, 255, (8, 32, 32)).astype(np.uint8)
    predict(model, volume)
    assert model.training
    with pytest.raises(ValueError, match="window"):
        predict(Identity(), volume)
