"""Snake sampling and convolution against hand-drawn tubes, scipy's interpolation and plain convolutions."""

import numpy as np
import pytest
import scipy.ndimage
import torch
from einops import einsum
from torch.nn import functional as F

from neurokd.models import snake_op
from neurokd.models.snake import snake_coordinates, snake_sample
from neurokd.models.snake_conv import SnakeConv3d, snake_conv3d

AXES = "zyx"
each_axis = pytest.mark.parametrize("axis", AXES)


def randn(*shape, seed=0):
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def lateral(axis):
    return [number for number in range(3) if number != AXES.index(axis)]


# --- geometry


@pytest.mark.parametrize(
    ("steps", "taps", "along", "displaced"),
    [
        ([1, 2, 4, 8], 5, [-2, -1, 0, 1, 2], [3, 2, 0, 4, 12]),
        ([1, 2, 4, 8], 6, [-2.5, -1.5, -0.5, 0.5, 1.5, 2.5], [3, 2, 0, 0, 4, 12]),
        ([], 1, [0], [0]),
        ([], 2, [-0.5, 0.5], [0, 0]),
    ],
    ids=["odd", "even", "one tap", "two taps"],
)
@each_axis
def test_a_tube_drawn_by_hand(axis, steps, taps, along, displaced):
    first, second = lateral(axis)
    offsets = torch.zeros(1, 2, len(steps), 1, 2, 1)  # two tubes, along y
    offsets[0, 0, :, 0, 1, 0] = torch.tensor(steps)
    offsets[0, 1, :, 0, 1, 0] = -10 * torch.tensor(steps)
    places = snake_coordinates(offsets, axis, taps=taps, start=(7, 8, 9), stride=(1, 3, 1))
    assert places.shape == (1, taps, 1, 2, 1, 3)
    straight, bent = places[0, :, 0, 0, 0], places[0, :, 0, 1, 0]
    expected = torch.tensor([7.0, 8, 9]).repeat(taps, 1)
    expected[:, AXES.index(axis)] += torch.tensor(along)
    assert torch.equal(straight, expected)
    expected[:, 1] += 3
    expected[:, first] += torch.tensor(displaced)
    expected[:, second] -= 10 * torch.tensor(displaced)
    assert torch.equal(bent, expected)


@pytest.mark.parametrize("taps", [3, 4, 9, 16])
@each_axis
def test_the_middle_is_never_displaced(axis, taps):
    moving = 2 * ((taps - 1) // 2)
    bent = snake_coordinates(randn(2, 2, moving, 2, 3, 4), axis, taps=taps, step=0.5)
    straight = snake_coordinates(torch.zeros(2, 2, moving, 2, 3, 4).double(), axis, taps=taps, step=0.5)
    middle = slice((taps - 1) // 2, taps // 2 + 1)
    assert torch.equal(bent[:, middle], straight[:, middle])
    moved = (bent != straight).any(dim=(0, 2, 3, 4))
    assert moved.sum(0).tolist() == [0 if number == AXES.index(axis) else moving for number in range(3)]


@pytest.mark.parametrize("taps", [5, 6])
@each_axis
def test_samples_equal_scipys_interpolation_also_beyond_the_border(axis, taps):
    volume, offsets = randn(2, 3, 5, 6, 7), 2 * randn(2, 2, 4, 3, 4, 2, seed=1)
    options = {"taps": taps, "step": 0.7, "start": (0.5, -1, 2), "stride": (1, 2, 3.5)}
    places = snake_coordinates(offsets, axis, **options).numpy()
    assert places.min() < -1
    assert places.max() > 8
    ours = snake_sample(volume, offsets, axis, **options)
    for b in range(2):
        for c in range(3):
            truth = scipy.ndimage.map_coordinates(
                volume[b, c].numpy(), np.moveaxis(places[b], -1, 0), order=1, mode="nearest"
            )
            np.testing.assert_allclose(ours[b, c].numpy(), truth, rtol=0, atol=1e-12)


@each_axis
def test_constant_volume_stays_constant(axis):
    sampled = snake_sample(torch.full((1, 2, 4, 5, 6), 3.0), 9 * torch.randn(1, 2, 6, 4, 5, 6), axis)
    torch.testing.assert_close(sampled, torch.full_like(sampled, 3.0))


@each_axis
def test_the_right_voxel_where_a_float32_index_ends(axis):
    """Beyond 2^24 voxels the index of a voxel is no float32 any more."""
    size = (258, 258, 258)
    assert np.prod(size) > 2**24
    volume = torch.zeros(1, 1, *size, dtype=torch.float16)
    volume[0, 0, -3:, -3:, -3:] = torch.arange(27.0).reshape(3, 3, 3)
    offsets = torch.zeros(1, 2, 2, 1, 1, 1)
    line = [slice(1, 2)] * 3
    line[AXES.index(axis)] = slice(None)
    expected = torch.arange(27.0).reshape(3, 3, 3)[tuple(line)].flatten()
    sampled = snake_sample(volume.float(), offsets, axis, start=(256, 256, 256)).flatten()
    torch.testing.assert_close(sampled, expected, rtol=0, atol=2e-3)


# --- convolution


@pytest.mark.parametrize("budget", [2**20, 300, 1], ids=["whole", "planes", "rows"])
@pytest.mark.parametrize("taps", [3, 7])
@each_axis
def test_convolution_is_the_kernel_times_the_samples_in_value_and_gradient(axis, taps, budget, monkeypatch):
    monkeypatch.setitem(snake_op._CHUNK_ELEMENTS, "cpu", budget)
    volume, offsets, weight = randn(2, 3, 4, 5, 6), randn(2, 2, taps - 1, 4, 5, 6, seed=1), randn(4, 3, taps, seed=2)
    inputs, bias = [x.requires_grad_() for x in (volume, offsets, weight)], randn(4, seed=3)
    ours = snake_conv3d(*inputs, bias, axis=axis)
    plain = einsum(weight, snake_sample(volume, offsets, axis), "o c k, b c k z y x -> b o z y x")
    torch.testing.assert_close(ours, plain + bias.view(4, 1, 1, 1), rtol=0, atol=1e-11)
    grad = randn(*ours.shape, seed=4)
    for one, other in zip(
        torch.autograd.grad(ours, inputs, grad), torch.autograd.grad(plain, inputs, grad), strict=True
    ):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-11)


@pytest.mark.parametrize("taps", [1, 3, 5, 9])
@each_axis
def test_zero_offsets_give_a_plain_convolution(axis, taps):
    volume, weight, bias = randn(2, 3, 5, 6, 7), randn(4, 3, taps, seed=1), randn(4, seed=2)
    shape, pad, number = [1, 1, 1], [0] * 6, AXES.index(axis)
    shape[number] = taps
    pad[4 - 2 * number] = pad[5 - 2 * number] = taps // 2
    plain = F.conv3d(F.pad(volume, pad, mode="replicate"), weight.reshape(4, 3, *shape), bias)
    ours = snake_conv3d(volume, torch.zeros(2, 2, taps - 1, 5, 6, 7).double(), weight, bias, axis=axis)
    torch.testing.assert_close(ours, plain, rtol=0, atol=1e-12)


@pytest.mark.parametrize("axes", ["z", "y", "x", "zyx"])
def test_layer_starts_as_the_convolution_with_the_axes_lines(axes):
    layer = SnakeConv3d(3, 4, kernel_size=5, axes=axes).double()
    cross = torch.zeros(4, 3, 5, 5, 5, dtype=torch.float64)
    for axis, weight in zip(axes, layer.weight, strict=True):
        cross[{"z": np.s_[:, :, :, 2, 2], "y": np.s_[:, :, 2, :, 2], "x": np.s_[:, :, 2, 2]}[axis]] += weight
    volume = randn(1, 3, 6, 7, 8)
    plain = F.conv3d(F.pad(volume, [2] * 6, mode="replicate"), cross, layer.bias)
    torch.testing.assert_close(layer(volume), plain, rtol=0, atol=1e-12)


@each_axis
def test_gradcheck_away_from_whole_numbers(axis):
    volume, weight = randn(1, 2, 3, 4, 3), randn(2, 2, 5, seed=1)
    # Steps of about 0.3 are summed to about 0.3 and 0.6: the interpolation's kinks at 0 and 1 are not met.
    offsets = 0.3 + 0.05 * randn(1, 2, 4, 3, 4, 3, seed=2).tanh()
    inputs = [x.requires_grad_() for x in (volume, offsets, weight)]
    assert torch.autograd.gradcheck(lambda v, o, w: snake_conv3d(v, o, w, axis=axis), inputs)
    assert torch.autograd.gradcheck(lambda v, o: snake_sample(v, o, axis), inputs[:2])


@each_axis
def test_curved_tube_is_followed_within_half_a_voxel(axis):
    """One bright curve, one straight tube in its middle: gradient descent on the steps alone finds the curve."""
    length, width, taps, centre = 41, 33, 31, (20.0, 16.0, 16.0)
    along = torch.arange(length) - centre[0]
    curve = torch.stack([5 * torch.sin(along / 9), 0.025 * along**2])  # lateral places against the centre
    grid = torch.arange(width) - centre[1]
    u, v = (grid.view(1, -1, 1) - curve[0].view(-1, 1, 1)), (grid.view(1, 1, -1) - curve[1].view(-1, 1, 1))
    tube = torch.exp(-(u**2 + v**2) / (2 * 1.5**2))
    number = AXES.index(axis)
    volume = tube.movedim(0, number)[None, None]
    start = list(centre[1:])
    start.insert(number, centre[0])

    free = torch.zeros(1, 2, taps - 1, 1, 1, 1, requires_grad=True)
    optimizer = torch.optim.Adam([free], lr=0.05)
    for _ in range(150):
        loss = -snake_sample(volume, free.tanh(), axis, start=start).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    places = snake_coordinates(free.tanh(), axis, start=start)[0, :, 0, 0, 0].detach()
    seen = slice(int(centre[0]) - taps // 2, int(centre[0]) + taps // 2 + 1)
    truth = curve[:, seen].T + centre[1]
    straight = (truth - centre[1]).norm(dim=1)
    assert straight.max() > 5  # a tube that does not bend misses it
    assert (places[:, lateral(axis)] - truth).norm(dim=1).max() < 0.5


def test_what_is_held_does_not_grow_with_taps_times_channels(monkeypatch):
    largest, real = [], F.grid_sample

    def spy(*args, **options):
        out = real(*args, **options)
        largest.append(out.numel())
        return out

    monkeypatch.setattr(F, "grid_sample", spy)
    monkeypatch.setitem(snake_op._CHUNK_ELEMENTS, "cpu", 5000)
    saved = []
    volume, weight = torch.rand(1, 8, 16, 16, 16, requires_grad=True), torch.rand(8, 8, 9, requires_grad=True)
    offsets = torch.rand(1, 2, 8, 16, 16, 16, requires_grad=True)
    with torch.autograd.graph.saved_tensors_hooks(
        lambda x: (saved.append((x.data_ptr(), x.numel())), x)[1], lambda x: x
    ):
        out = snake_conv3d(volume, offsets, weight, axis="z")
    assert sum(size for _, size in set(saved)) < 1.1 * (volume.numel() + offsets.numel())
    out.sum().backward()
    assert max(largest) <= 5000 < 8 * volume.numel()


def test_layer_learns_where_to_look():
    layer = SnakeConv3d(2, 3, kernel_size=3)
    layer(torch.rand(1, 2, 5, 6, 7)).square().sum().backward()
    for name, parameter in layer.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().max() > 0, name


def test_autocast_computes_places_in_full_precision():
    layer = SnakeConv3d(4, 4, kernel_size=5)
    for head in layer.heads:
        torch.nn.init.normal_(head.weight, std=0.1)
    volume = torch.rand(1, 4, 6, 40, 40, requires_grad=True)
    offsets = [x.detach() for x in layer.offsets(volume)]
    exact = snake_conv3d(volume, offsets[0], layer.weight[0], axis="z")
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(snake_conv3d(volume, offsets[0], layer.weight[0], axis="z"), exact)
        low = snake_conv3d(volume.bfloat16(), offsets[0].bfloat16(), layer.weight[0], axis="z")
        out = layer(volume)
        snake_conv3d(volume, offsets[0], layer.weight[0], axis="z").mean().backward()  # some people call it in there
    assert low.dtype == torch.bfloat16
    torch.testing.assert_close(low.float(), exact, rtol=0.1, atol=0.1)
    torch.testing.assert_close(out, layer(volume), rtol=0.1, atol=0.1)
    assert torch.isfinite(volume.grad).all()


@pytest.mark.parametrize("taps", [3, 5])
def test_compiles_as_one_graph(taps):
    torch._dynamo.reset()
    layer = SnakeConv3d(2, 3, kernel_size=taps)
    for head in layer.heads:
        torch.nn.init.normal_(head.weight, std=0.1)
    volume = torch.rand(1, 2, 5, 6, 7, requires_grad=True)
    compiled = torch.compile(layer, fullgraph=True, backend="aot_eager")
    inputs = [volume, *layer.parameters()]
    plain, fast = layer(volume), compiled(volume)
    torch.testing.assert_close(fast, plain)
    grads = zip(
        torch.autograd.grad(fast.square().sum(), inputs), torch.autograd.grad(plain.square().sum(), inputs), strict=True
    )
    for one, other in grads:
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4)


def test_operator_says_the_truth_about_itself():
    """torch's own check of a custom operator: schema, fake tensors, autograd registration, dynamic shapes."""
    volume, moved = randn(2, 2, 3, 4, 5).requires_grad_(), randn(2, 2, 2, 3, 4, 5, seed=1).requires_grad_()
    kernel = randn(3, 2, 2, seed=2).requires_grad_()
    for axis in range(3):
        torch.library.opcheck(snake_op.snake_taps, (volume, moved, kernel, axis))


@each_axis
def test_strides_do_not_matter(axis):
    volume, offsets, weight = randn(2, 3, 4, 5, 6), randn(2, 2, 4, 4, 5, 6, seed=1), randn(4, 3, 5, seed=2)
    turned = volume.permute(4, 2, 0, 3, 1).contiguous().permute(2, 4, 1, 3, 0)
    assert not turned.is_contiguous()
    other = offsets.transpose(2, 5).contiguous().transpose(2, 5)
    expected = snake_conv3d(volume, offsets, weight, axis=axis)
    assert torch.equal(snake_conv3d(turned, other, weight.mT.contiguous().mT, axis=axis), expected)
    assert torch.equal(snake_sample(turned, other, axis), snake_sample(volume, offsets, axis))
    one = snake_conv3d(volume[:1], offsets[:1], weight, axis=axis)
    torch.testing.assert_close(one, expected[:1], rtol=0, atol=1e-12)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda v, o, w: snake_conv3d(v, o, w, axis="t"), "'t'"),
        (lambda v, o, w: snake_conv3d(v, o, w[..., :4], axis="z"), r"\(4, 3, 4\)"),
        (lambda v, o, w: snake_conv3d(v, o[:, :, :2], w, axis="z"), r"\(1, 2, 2, 4, 5, 6\)"),
        (lambda v, o, w: snake_sample(v[0], o, "z"), r"\(3, 4, 5, 6\)"),
        (lambda v, o, w: snake_sample(v, o, "z", taps=7), "taps .* 7"),
        (lambda v, o, w: snake_coordinates(o[:, :1], "z"), r"\(1, 1, 4"),
        (lambda v, o, w: SnakeConv3d(3, 3, kernel_size=4), "kernel_size .* 4"),
        (lambda v, o, w: SnakeConv3d(3, 3, axes="zz"), "'zz'"),
    ],
)
def test_what_does_not_fit_is_named(call, message):
    with pytest.raises(ValueError, match=message):
        call(torch.rand(1, 3, 4, 5, 6), torch.rand(1, 2, 4, 4, 5, 6), torch.rand(4, 3, 5))
