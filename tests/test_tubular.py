"""Deformable tubular embedding: what each reading is at zero offset, and how it joins the segmenter."""

import itertools
import math
from typing import get_args

import pytest
import torch
from torch.nn import functional as F

from neurokd.models.choices import Reading
from neurokd.models.inflate import grey_fold, inflate_kernel, resize_kernel
from neurokd.models.segmenter import NeuronSegmenter
from neurokd.models.tube_kernel import TubeConfig, tube_kernel
from neurokd.models.tubular import DeformableTubularEmbed

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
READINGS = get_args(Reading)
each_reading = pytest.mark.parametrize("reading", READINGS)
each_axis = pytest.mark.parametrize("axis", "zyx")


def made(token=(4, 4, 4), *, patch=6, bias=True, bent=True, **config):
    """An embedding of 5 channels from a random teacher's kernel, in float64, offset heads randomised; that kernel."""
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(5, 3, patch, patch, generator=generator, dtype=torch.float64)
    offset = torch.randn(5, generator=generator, dtype=torch.float64) if bias else None
    embed = DeformableTubularEmbed(5, token=token, config=TubeConfig(**({"role": "instead"} | config))).double()
    embed.load_kernel(weight, offset, mean=MEAN, std=STD, inflation="center")
    if bent:
        for view in embed.views:
            torch.nn.init.normal_(view.head.weight, std=0.3, generator=generator)
            torch.nn.init.normal_(view.head.bias, std=0.3, generator=generator)
    return embed, (weight, offset)


def rand(*size):
    return torch.rand(size, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


# --- identities of the readings


def folded(weights, places, axis, token, reach):
    """The dense kernel ``d 1 z y x`` of taps at ``places`` along an axis, written out by hat functions.

    It covers the token and ``reach`` voxels more at both ends along the axis.
    """
    size = [n + 2 * reach * (a == axis) for a, n in zip("zyx", token, strict=True)]
    kernel = torch.zeros(len(weights), 1, *size, dtype=torch.float64)
    for weight, place in zip(weights.T, places, strict=True):
        point = [place + reach if a == axis else (n - 1) / 2 for a, n in zip("zyx", token, strict=True)]
        for voxel in itertools.product(*({math.floor(p), math.ceil(p)} for p in point)):
            z, y, x = voxel
            kernel[:, 0, z, y, x] += weight * math.prod(1 - abs(p - v) for p, v in zip(point, voxel, strict=True))
    return kernel


@pytest.mark.parametrize("token", [(5, 5, 5), (4, 4, 4), (2, 4, 3)], ids=str)
@pytest.mark.parametrize("reading", ["literal", "patch", "lines"])
@each_axis
def test_at_zero_offset_tubes_are_rigid_convolutions(axis, reading, token):
    embed, (weight, bias) = made(token, reading=reading, axes=axis, bent=False)
    grey, offset = grey_fold(weight, bias, mean=MEAN, std=STD)
    length = token["zyx".index(axis)]
    if reading == "lines":
        taps, step = resize_kernel(grey, (length, length)).sum(-1).flatten(1), 1.0
    else:
        taps = resize_kernel(grey, token[1:]).flatten(1)
        step = 1.0 if reading == "literal" else length / taps.shape[1]
    middle, reach = (length - 1) / 2, taps.shape[1]
    places = [middle + step * (k - (taps.shape[1] - 1) / 2) for k in range(taps.shape[1])]
    kernel = folded(taps, places, axis, token, reach)
    if token == (5, 5, 5) and reading != "patch":  # on whole voxels nothing is folded: the taps themselves
        assert torch.equal(kernel[kernel != 0].sort().values, taps.flatten().sort().values)
    volume = rand(2, 1, *(3 * n for n in token))
    pad = [reach * (a == axis) for a in "xxyyzz"]
    expected = F.conv3d(F.pad(volume, pad, mode="replicate"), kernel, offset, stride=token)
    torch.testing.assert_close(embed(volume), expected, rtol=0, atol=1e-9)


@pytest.mark.parametrize("inflation", ["average", "center"])
@pytest.mark.parametrize("token", [(4, 4, 4), (2, 4, 8), (1, 3, 3)], ids=str)
@each_axis
def test_at_zero_offset_grid_is_plain_inflation(axis, token, inflation):
    embed, (weight, bias) = made(token, reading="grid", axes=axis, inflation=inflation, bent=False)
    number = "zyx".index(axis)
    turned = (token[number], *(n for i, n in enumerate(token) if i != number))  # the tube's axis as depth
    kernel, offset = inflate_kernel(weight, bias, token=turned, inflation=inflation, mean=MEAN, std=STD)
    volume = rand(2, 1, *(3 * n for n in token))
    expected = F.conv3d(volume, kernel.movedim(2, 2 + number), offset, stride=token)
    torch.testing.assert_close(embed(volume), expected, rtol=0, atol=1e-9)


@each_reading
def test_constant_volume_gives_the_kernels_sum_for_any_offsets(reading):
    for token, bias in itertools.product([(4, 4, 4), (3, 5, 6)], [True, False]):
        embed, (weight, offset) = made(token, reading=reading, bias=bias)
        grey, offset = grey_fold(weight, offset, mean=MEAN, std=STD)
        tokens = embed(torch.full((1, 1, 12, 10, 12), 0.7, dtype=torch.float64))
        expected = grey.sum((1, 2, 3)) * 0.7 + offset
        torch.testing.assert_close(tokens, expected.view(1, 5, 1, 1, 1).expand_as(tokens), rtol=0, atol=1e-9)
        assert all(view.offsets(rand(1, 1, 12, 10, 12)).abs().max() > 0.1 * view.step for view in embed.views)


@pytest.mark.parametrize("order", list(itertools.permutations(range(3))), ids=str)
@each_reading
def test_permuting_the_axes_permutes_the_views(reading, order):
    """Axis i of the turned volume is axis order[i] of the volume; kernels and offset heads are turned alike."""
    embed, _ = made(reading=reading)
    other, _ = made(reading=reading)
    for number, axis in enumerate("zyx"):
        view, turned = embed.views[order[number]], other.views[number]
        assert turned.axis == axis
        # The two lateral axes keep their order or swap it.
        swapped = [order[i] for i in range(3) if i != number] != sorted(order[i] for i in range(3) if i != number)
        with torch.no_grad():
            weight = view.weight
            if swapped and reading == "grid":
                weight = weight.unflatten(2, (4, 4)).transpose(2, 3).flatten(2)
            turned.weight.copy_(weight)
            turned.bias.copy_(view.bias)
            for name in ("weight", "bias"):
                part = getattr(view.head, name).unflatten(0, (2, -1))
                getattr(turned.head, name).copy_((part.flip(0) if swapped else part).flatten(0, 1))
            turned.head.weight.copy_(turned.head.weight.permute(0, 1, *(2 + i for i in order)).clone())
    volume = rand(2, 1, 8, 12, 16)
    turn = (0, 1, *(2 + i for i in order))
    for number in range(3):
        expected = embed.views[order[number]](volume).permute(turn)
        torch.testing.assert_close(other.views[number](volume.permute(turn)), expected, rtol=0, atol=1e-9)
    torch.testing.assert_close(other(volume.permute(turn)), embed(volume).permute(turn), rtol=0, atol=1e-9)


@each_reading
def test_gradcheck_of_the_whole_embedding(reading):
    embed, _ = made((3, 4, 4), reading=reading, role="beside", axes="zx")
    torch.nn.init.normal_(embed.gate)
    names, parameters = zip(*embed.named_parameters(), strict=True)
    volume = rand(1, 1, 3, 4, 8)

    def tokens(*values):
        return torch.func.functional_call(embed, dict(zip(names, values, strict=True)), (volume,))

    assert torch.autograd.gradcheck(tokens, parameters, fast_mode=True)


@each_reading
def test_kernel_keeps_its_sum(reading):
    grey = rand(5, 1, 6, 6)
    for axis in "zyx":
        kernel = tube_kernel(grey, axis, token=(3, 4, 5), config=TubeConfig(reading=reading))
        torch.testing.assert_close(kernel.sum((1, 2)), grey.sum((1, 2, 3)), rtol=0, atol=1e-10)
    drawn = torch.arange(36.0).view(1, 1, 6, 6)
    line = tube_kernel(drawn, "x", token=(6, 6, 6), config=TubeConfig(reading="lines"))
    assert line.flatten().tolist() == drawn[0, 0].sum(1).tolist()


# --- mean of the views, gate, sizes


def test_tokens_are_the_mean_of_the_views():
    embed, _ = made()
    volume = rand(2, 1, 8, 8, 8)
    expected = sum(view(volume) for view in embed.views) / 3
    torch.testing.assert_close(embed(volume), expected, rtol=0, atol=1e-12)


@each_reading
def test_beside_starts_as_the_inflated_embedding_and_can_leave_it(reading):
    embed, (weight, bias) = made((2, 4, 4), reading=reading, role="beside", bent=False)
    kernel, offset = inflate_kernel(weight, bias, token=(2, 4, 4), inflation="center", mean=MEAN, std=STD)
    volume = rand(1, 1, 4, 8, 8)
    tokens = embed(volume)
    assert torch.equal(tokens, F.conv3d(volume, kernel, offset, stride=(2, 4, 4)))
    (tokens * rand(*tokens.shape)).sum().backward()
    assert embed.gate.grad.abs().min() > 0


@each_reading
def test_other_sizes_are_filled_up_with_their_outermost_voxels(reading):
    embed, _ = made((2, 4, 4), patch=4, reading=reading, bent=False, role="beside")
    torch.nn.init.normal_(embed.gate)
    volume = rand(1, 1, 3, 5, 11)
    filled = F.pad(volume, [0, 1, 0, 3, 0, 1], mode="replicate")
    assert torch.equal(embed(volume), embed(filled))
    assert embed(volume[:, :, :2, :4, :4]).shape == (1, 5, 1, 1, 1)
    for small in (volume[:, :, :1], volume[..., :3, :], volume[..., :3], volume[0], volume.repeat(1, 3, 1, 1, 1)):
        with pytest.raises(ValueError, match=r"volume .*\(2, 4, 4\)"):
            embed(small)


@each_reading
def test_autocast_compile_and_strides(reading):
    torch._dynamo.reset()
    embed, _ = made((2, 4, 4), reading=reading, role="beside", axes="yx")
    torch.nn.init.normal_(embed.gate)
    embed, volume = embed.float(), rand(1, 1, 4, 8, 8).float()
    expected = embed(volume)
    turned = volume.permute(4, 3, 2, 1, 0).contiguous().permute(4, 3, 2, 1, 0)
    torch.testing.assert_close(embed(turned), expected)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        low = embed(volume)
    torch.testing.assert_close(low.float(), expected, rtol=0.05, atol=0.05 * expected.abs().max().item())
    compiled = torch.compile(embed, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(volume), expected)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"reading": "spiral"}, "'spiral'"),
        ({"role": "behind"}, "'behind'"),
        ({"axes": "zz"}, "'zz'"),
        ({"slope": -1.0}, r"slope .* -1\.0"),
        ({"token": (4, 4)}, r"token .* \(4, 4\)"),
    ],
)
def test_unknown_choices_are_named(options, message):
    with pytest.raises(ValueError, match=message):
        made(**options)


# --- in the segmenter


def student(teacher, **options):
    options = {"preset": "tiny", "window": (8, 32, 32), "generator": torch.Generator().manual_seed(0)} | options
    return NeuronSegmenter.from_teacher(teacher, **options).eval()


@pytest.mark.parametrize("inflation", ["center", "average", "scratch"])
@torch.no_grad()
def test_beside_changes_nothing_at_step_0(teacher, inflation):
    volume = torch.rand(1, 1, 8, 32, 32)
    plain = student(teacher, inflation=inflation)(volume)
    for reading in READINGS:
        model = student(teacher, inflation=inflation, tube=TubeConfig(reading=reading))
        assert torch.equal(model(volume), plain)
        torch.nn.init.ones_(model.vit.patch_embed.gate)
        assert (model(volume) - plain).abs().max() > 1e-4


@torch.no_grad()
def test_instead_along_z_is_plain_inflation_at_step_0(teacher):
    volume = torch.rand(1, 1, 8, 32, 32)
    tube = TubeConfig(role="instead", axes="z", inflation="average")
    tubes, plain = student(teacher, inflation="average", tube=tube), student(teacher, inflation="average")
    torch.testing.assert_close(tubes(volume), plain(volume), rtol=0, atol=1e-5)
    assert "vit.patch_embed.proj.weight" not in tubes.state_dict()


@pytest.mark.parametrize("role", ["beside", "instead"])
@pytest.mark.parametrize("inflation", ["center", "scratch"])
def test_groups_gradients_and_a_round_trip(teacher, inflation, role, tmp_path):
    model = student(teacher, inflation=inflation, tube=TubeConfig(role=role, slope=0.5))
    if role == "beside":
        torch.nn.init.normal_(model.vit.patch_embed.gate)
    groups = model.parameter_groups()
    names = {id(p): name for name, p in model.named_parameters()}
    group = {names[id(p)]: key for key, parameters in groups.items() for p in parameters}
    assert sorted(group) == sorted(names.values())
    embed = {name.removeprefix("vit.patch_embed."): key for name, key in group.items() if "patch_embed" in name}
    kernels = {f"views.{i}.{part}" for i in range(3) for part in ("weight", "bias")}
    kernels |= {"proj.weight", "proj.bias"} if role == "beside" else set()
    heads = {f"views.{i}.head.{part}" for i in range(3) for part in ("weight", "bias")}
    new = heads | ({"gate"} if role == "beside" else set())
    assert {name for name, key in embed.items() if key == "new"} == new | (kernels if inflation == "scratch" else set())
    assert set(embed) == new | kernels

    volume = torch.rand(1, 1, 8, 32, 32)
    model(volume).square().mean().backward()
    without = {name for name, p in model.named_parameters() if p.grad is None or not p.grad.any()}
    assert not {name for name in without if "patch_embed" in name}

    loaded = NeuronSegmenter.from_pretrained(model.save_pretrained(tmp_path / "model"))
    assert loaded.config == model.config
    with torch.no_grad():
        assert torch.equal(loaded(volume), model(volume))


@torch.no_grad()
def test_from_scratch_with_tubes_has_the_other_weights_of_one_without():
    options = {"dim": 24, "depth": 2, "token": (2, 8, 8), "window": (4, 16, 16)}
    volume = torch.rand(1, 1, 4, 16, 16)
    plain, tubes = (
        NeuronSegmenter.from_scratch(**options, tube=tube, generator=torch.Generator().manual_seed(0)).eval()
        for tube in (None, TubeConfig())
    )
    assert torch.equal(tubes(volume), plain(volume))
    assert tubes.parameter_groups()["transferred"] == []


def test_tube_and_plain_embedding_hold_the_same_teacher(teacher):
    model = student(teacher, tube=TubeConfig(axes="z", inflation="center"))
    embed = model.vit.patch_embed
    kernel = embed.proj.weight.flatten(3).squeeze(1)
    torch.testing.assert_close(embed.views[0].weight, kernel, rtol=0, atol=0)
    torch.testing.assert_close(embed.views[0].bias, embed.proj.bias, rtol=0, atol=0)
