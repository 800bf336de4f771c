"""What a teacher sees: probes, average precision, attention, components and their figures, against other truths."""

import itertools

import matplotlib.pyplot as plt
import numpy as np
import pytest
import timm
import torch
from einops import rearrange
from matplotlib.colors import to_rgba

from neurokd.evaluation.probe import average_precision, fit_probe, precision_recall, shuffle_teacher, token_labels
from neurokd.models.attention import attention_maps
from neurokd.models.teacher import Teacher, TeacherSource
from neurokd.viz.features import TokenPCA, plot_maps, plot_probes, plot_slice_features, plot_views
from neurokd.viz.frame import ORANGE
from neurokd.viz.viewer import explore

SPACING = (2.0, 0.5, 0.5)


@pytest.fixture(autouse=True)
def close_figures():
    yield
    plt.close("all")


def small_teacher(architecture="vit_tiny_patch16_224", **options):
    """A teacher of three blocks whose weights mean nothing but are not tiny."""
    vit = timm.create_model(architecture, num_classes=0, dynamic_img_size=True, depth=3, **options).eval()
    generator = torch.Generator().manual_seed(0)
    for parameter in vit.parameters():
        parameter.data = 0.1 * torch.randn(parameter.shape, generator=generator)
    return Teacher(vit, mean=(0.5,) * 3, std=(0.5,) * 3, source=TeacherSource("small", "file", "a test", "0"))


# --- average precision


def test_average_precision_of_an_example_worked_by_hand():
    # Sorted: yes, no, yes, no. At the first hit precision is 1/1, at the second 2/3; recall rises by 1/2 each.
    assert average_precision([0.1, 0.8, 0.4, 0.35], np.array([False, True, False, True])) == pytest.approx(5 / 6)
    assert average_precision([3, 2, 1], np.array([True, True, False])) == 1
    assert average_precision([1, 2, 3, 4], np.array([True, False, False, False])) == 0.25


@pytest.mark.parametrize("seed", range(5))
def test_average_precision_equals_its_definition_with_ties(seed):
    rng = np.random.default_rng(seed)
    scores, labels = rng.integers(0, 6, 40).astype(float), rng.random(40) < 0.3
    labels[0] = True
    area, before = 0.0, 0.0
    for threshold in sorted(set(scores), reverse=True):  # by definition: "yes" from this score on
        said = scores >= threshold
        precision, recall = labels[said].mean(), labels[said].sum() / labels.sum()
        area, before = area + (recall - before) * precision, recall
    assert average_precision(scores, labels) == pytest.approx(area)
    order = rng.permutation(40)
    assert average_precision(scores[order], labels[order]) == pytest.approx(area)


def test_scores_without_information_get_the_share_of_true_labels():
    labels = np.arange(50) % 5 == 0
    assert average_precision(np.zeros(50), labels) == pytest.approx(0.2)
    precision, recall = precision_recall(np.zeros(50), labels)
    assert (precision.tolist(), recall.tolist()) == ([0.2], [1.0])


def test_bad_scores_and_labels_are_named():
    with pytest.raises(ValueError, match="no label is true"):
        average_precision([1.0, 2.0], np.zeros(2, bool))
    with pytest.raises(ValueError, match="finite"):
        average_precision([1.0, np.nan], np.ones(2, bool))
    with pytest.raises(ValueError, match=r"\(2,\) and int64 of \(2,\)"):
        average_precision([1.0, 2.0], np.array([0, 1]))


# --- the probe


def test_one_binary_channel_gives_the_log_odds():
    # Of the tokens with x = 0 a quarter are "yes", of those with x = 1 three quarters: logits -log 3 and log 3.
    x = np.repeat([0.0, 0.0, 1.0, 1.0], [30, 10, 10, 30])[:, None]
    labels = np.repeat([False, True, False, True], [30, 10, 10, 30])
    probe = fit_probe(x, labels, penalty=1e-7)
    np.testing.assert_allclose(probe([[0.0], [1.0]]), [-np.log(3), np.log(3)], atol=1e-3)


def test_the_gradient_vanishes_at_the_answer_as_autograd_sees_it():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(500, 7)) * 10.0 ** np.arange(-3, 4) + 5
    labels = rng.random(500) < 1 / (1 + np.exp(-(x[:, 2] - 5) * 5 - (x[:, 6] - 5) / 2e3 + 1))
    penalty = 0.03
    probe = fit_probe(x, labels, penalty=penalty)
    spread, target = torch.from_numpy(x.std(axis=0)), torch.from_numpy(labels.astype(float))
    weight = torch.from_numpy(probe.weight * x.std(axis=0)).requires_grad_()  # of standardised channels
    bias = torch.tensor(probe.bias + probe.weight @ x.mean(axis=0), dtype=torch.float64, requires_grad=True)
    logits = ((torch.from_numpy(x) - torch.from_numpy(x.mean(axis=0))) / spread) @ weight + bias
    loss = torch.nn.functional.binary_cross_entropy_with_logits(logits, target) + penalty / 2 * (weight**2).sum()
    loss.backward()
    assert max(weight.grad.abs().max(), bias.grad.abs()) < 5e-5
    assert weight.abs().max() > 0.3
    np.testing.assert_allclose(probe(x), logits.detach(), atol=1e-9)


def test_channels_that_never_change_get_no_weight():
    x = np.column_stack([np.linspace(-1, 1, 40), np.full(40, 1e4), np.zeros(40)])
    probe = fit_probe(x, x[:, 0] > 0.1)
    assert probe.weight[0] > 0
    assert not probe.weight[1:].any()


def test_bad_probes_are_named():
    x = np.zeros((4, 2))
    with pytest.raises(ValueError, match="labels are all False"):
        fit_probe(x, np.zeros(4, bool))
    with pytest.raises(ValueError, match=r"\(4, 2\) and bool of \(3,\)"):
        fit_probe(x, np.ones(3, bool))
    with pytest.raises(ValueError, match="penalty is 0"):
        fit_probe(x, np.arange(4) > 1, penalty=0)


def test_a_token_is_a_neurite_if_one_voxel_is():
    masks = np.zeros((2, 4, 6), bool)
    masks[0, 1, 2] = masks[1, 2, 5] = masks[1, 3, 5] = True
    assert token_labels(masks, token=(2, 3)).tolist() == [
        [[True, False], [False, False]],
        [[False, False], [False, True]],
    ]
    with pytest.raises(ValueError, match="whole tokens"):
        token_labels(masks, token=(3, 3))


# --- the control


def test_shuffling_keeps_the_numbers_of_each_tensor_and_says_so():
    teacher = small_teacher()
    before = {name: value.clone() for name, value in teacher.vit.named_parameters()}
    control = shuffle_teacher(teacher, generator=torch.Generator().manual_seed(0))
    for name, value in control.vit.named_parameters():
        assert torch.equal(before[name], teacher.vit.get_parameter(name))  # the teacher itself is left alone
        assert torch.equal(value.flatten().sort()[0], before[name].flatten().sort()[0])
        assert not torch.equal(value, before[name])
    assert (control.source.kind, control.source.name) == ("control", "small, weights shuffled")
    again = shuffle_teacher(teacher, generator=torch.Generator().manual_seed(0))
    assert all(torch.equal(a, b) for a, b in zip(control.parameters(), again.parameters(), strict=True))


# --- attention


@pytest.mark.parametrize(
    ("architecture", "options"),
    [("vit_tiny_patch16_224", {}), ("vit_small_patch14_reg4_dinov2", {"img_size": 56, "init_values": 1.0})],
)
@pytest.mark.parametrize("query", [None, (1, 2)])
@torch.no_grad()
def test_attention_equals_the_softmax_of_the_formula(architecture, options, query):
    teacher = small_teacher(architecture, **options)
    images = torch.rand(2, 1, 3 * teacher.patch[0], 4 * teacher.patch[1])
    inputs = []
    attention = teacher.vit.blocks[1].attn
    hook = attention.register_forward_pre_hook(lambda _, args: inputs.append(args[0]))
    with_fused = teacher(images)
    hook.remove()
    found = attention_maps(teacher, images, block=1, query=query)
    q, k, _ = rearrange(attention.qkv(inputs[0]), "b n (three h d) -> three b h n d", three=3, h=attention.num_heads)
    shares = (q @ k.mT / q.shape[-1] ** 0.5).softmax(dim=-1)
    prefix = teacher.vit.num_prefix_tokens
    token = 0 if query is None else prefix + query[0] * 4 + query[1]
    expected = rearrange(shares[:, :, token, prefix:], "b h (y x) -> b h y x", y=3)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-7)
    torch.testing.assert_close(teacher(images), with_fused)  # and the teacher is as it was
    assert attention.fused_attn == teacher.vit.blocks[0].attn.fused_attn


def test_a_magnified_image_has_more_patches_to_look_at():
    teacher, image = small_teacher(), torch.rand(1, 1, 32, 48)
    maps = attention_maps(teacher, image, block=2, magnification=2.0)
    assert maps.shape == (1, teacher.vit.blocks[0].attn.num_heads, 4, 6)
    torch.testing.assert_close(maps, attention_maps(teacher, teacher.magnify(image, 2.0), block=2))
    total = maps.sum(dim=(2, 3))
    assert (total < 1).all() and (total > 0.5).all()  # the class token keeps a share for itself


def test_bad_blocks_and_queries_are_named():
    teacher, image = small_teacher(), torch.rand(1, 1, 32, 48)
    with pytest.raises(ValueError, match="block is 3; the teacher has blocks 0 to 2"):
        attention_maps(teacher, image, block=3)
    with pytest.raises(ValueError, match=r"query is \(2, 0\); the image has 2 x 3 patches"):
        attention_maps(teacher, image, block=0, query=(2, 0))
    with pytest.raises(ValueError, match="no class token"):
        attention_maps(small_teacher(class_token=False, global_pool="avg"), image, block=0)


# --- components


def test_components_are_those_of_the_singular_value_decomposition():
    maps = (
        torch.randn(3, 6, 4, 5, generator=torch.Generator().manual_seed(0))
        * torch.tensor([5, 1, 3, 0.1, 2, 1])[:, None, None]
    )
    pca = TokenPCA.fit(maps, components=4)
    tokens = rearrange(maps.double(), "b d y x -> (b y x) d").numpy()
    _, values, axes = np.linalg.svd(tokens - tokens.mean(axis=0), full_matrices=False)
    np.testing.assert_allclose(np.abs(pca.axes.numpy() @ axes[:4].T), np.eye(4), atol=1e-9)
    np.testing.assert_allclose(pca.share, values[:4] ** 2 / (values**2).sum(), rtol=1e-9)
    found = pca(maps)
    assert found.shape == (3, 4, 4, 5)
    assert ((found**3).mean(dim=(0, 2, 3)) >= 0).all()  # the rarer tokens are the positive ones
    np.testing.assert_allclose(found.mean(dim=(0, 2, 3)), 0, atol=1e-9)
    colours = pca.rgb(maps)
    assert colours.shape == (3, 4, 5, 3)
    assert 0.02 < (colours == 1).mean() < 0.04 and 0.02 < (colours == 0).mean() < 0.04  # 2 % at either end, of 60


def test_what_is_the_same_at_a_place_in_all_images_is_taken_off():
    generator = torch.Generator().manual_seed(0)
    place = 10 * torch.randn(1, 4, 6, 6, generator=generator)
    content = torch.randn(50, 1, 6, 6, generator=generator) * torch.tensor([0.0, 0, 1, 0])[:, None, None]
    plain, per_place = (
        TokenPCA.fit(place + content, components=1),
        TokenPCA.fit(place + content, components=1, per_place=True),
    )
    assert plain.axes[0, 2].abs() < 0.99
    np.testing.assert_allclose(per_place.axes.abs()[0], [0, 0, 1, 0], atol=1e-6)
    # On a finer grid the place is interpolated: what is smooth goes away there, too.
    ramp = torch.linspace(-1, 1, 24)
    fine = 30 * torch.stack([ramp[:, None] + 0 * ramp, ramp + 0 * ramp[:, None]])[None]
    coarse = rearrange(fine, "1 d (y a) (x b) -> 1 d y x a b", a=4, b=4).mean(dim=(-2, -1))
    pca = TokenPCA.fit(coarse + torch.randn(50, 2, 6, 6, generator=generator), components=1, per_place=True)
    assert pca(fine)[:, :, 4:-4, 4:-4].abs().max() < 2


def test_bad_maps_are_named():
    with pytest.raises(ValueError, match=r"d of at least 3, got shape \(1, 2, 4, 4\)"):
        TokenPCA.fit(torch.zeros(1, 2, 4, 4))


# --- figures


def panels(figure):
    return {axes.get_title(): axes for axes in figure.axes if axes.images and axes.get_title()}


def test_maps_lie_on_the_image_whatever_their_grid():
    image = np.random.default_rng(0).random((20, 40))
    coarse, colours = np.arange(8.0).reshape(2, 4), np.random.default_rng(1).random((10, 20, 3))
    figure = plot_maps(
        image, {"coarse": coarse, "colours": torch.from_numpy(colours)}, mask=image > 0.9, mark=None, spacing=SPACING,
        label="a number", limits=(0, 7),
    )  # fmt: skip
    found = panels(figure)
    assert list(found) == ["slice", "coarse", "colours"]
    extents = {tuple(axes.images[0].get_extent()) for axes in found.values()}
    assert extents == {(-0.25, 19.75, 9.75, -0.25)}  # voxel centres at whole multiples of the spacing
    np.testing.assert_array_equal(found["coarse"].images[0].get_array(), coarse)
    np.testing.assert_array_equal(found["colours"].images[0].get_array(), colours)
    assert found["coarse"].images[0].cmap.name == "cividis"
    assert found["coarse"].images[0].get_clim() == (0, 7)
    assert found["slice"].get_xlabel() == "x (µm)"
    assert [axes.get_ylabel() for axes in figure.axes if axes.get_ylabel() == "a number"]
    (outline,) = found["slice"].collections
    assert tuple(outline.get_edgecolor()[0]) == to_rgba(ORANGE)
    figure.canvas.draw()
    renderer = figure.canvas.get_renderer()
    for axes in found.values():
        box = axes.title.get_window_extent(renderer)
        assert figure.bbox.y1 >= box.y1 and figure.bbox.x0 <= box.x0 and box.x1 <= figure.bbox.x1


def test_the_marked_patch_is_boxed_everywhere():
    figure = plot_maps(np.ones((20, 40)), {"a": np.eye(4), "b": np.eye(4)}, mark=(1, 2))
    for axes in panels(figure).values():
        (box,) = (patch for patch in axes.patches if patch.get_width() > 1)
        assert (box.get_x(), box.get_y(), box.get_width(), box.get_height()) == (19.5, 4.5, 10, 5)


def test_without_a_label_each_map_has_a_scale_of_its_own():
    found = panels(plot_maps(np.ones((4, 4)), {"a": np.eye(2), "b": 5 * np.eye(2)}))
    assert [found[name].images[0].get_clim() for name in "ab"] == [(0, 1), (0, 5)]


def test_views_are_slice_slab_and_projection():
    volume = np.random.default_rng(0).integers(0, 255, (12, 8, 10)).astype(np.uint8)
    found = panels(plot_views(volume, volume > 200, z=1, thickness=5, spacing=SPACING))
    assert list(found) == ["slice 1", "maximum of slices 0 to 3", "maximum of all 12 slices"]
    for axes, part in zip(found.values(), (slice(1, 2), slice(0, 4), slice(None)), strict=True):
        np.testing.assert_array_equal(axes.images[0].get_array(), volume[part].max(axis=0))
    with pytest.raises(ValueError, match="z is 12"):
        plot_views(volume, z=12)


def test_the_sliders_picture_shows_the_tokens_of_that_slice():
    teacher = small_teacher()
    volume = np.random.default_rng(0).integers(0, 255, (6, 32, 48)).astype(np.uint8)
    images = torch.rand(4, 1, 64, 96)
    pca = TokenPCA.fit(teacher.feature_maps(images, [2])[0], per_place=True)
    for z, magnification in itertools.product((0, 3), (1.0, 2.0)):
        found = panels(plot_slice_features(teacher, pca, volume, z=z, magnification=magnification, block=2))
        scaled = torch.from_numpy(volume[z] / np.percentile(volume[volume > 0], 99.5)).float().clamp(0, 1)
        expected = pca(teacher.feature_maps(scaled[None, None], [2], magnification=magnification)[0])[0]
        assert list(found)[:2] == [f"slice {z}", f"a token covers {16 / magnification:.1f} voxels"]
        np.testing.assert_allclose(
            found["component 2"].images[0].get_array(), expected[1], atol=0.02 * expected.abs().max()
        )
    with pytest.raises(ValueError, match="z is -1"):
        plot_slice_features(teacher, pca, volume, z=-1)


def test_curves_say_their_average_precision():
    labels = np.array([False, True, False, True])
    figure = plot_probes({"probe": ([0.1, 0.8, 0.4, 0.35], labels)}, {"probe": {2: 0.3, 5: 0.5}, "other": {0: 0.2}})
    blocks, curve = figure.axes
    assert [text.get_text() for text in curve.get_legend().get_texts()] == ["probe: 0.83", "chance: 0.50"]
    np.testing.assert_array_equal(blocks.lines[0].get_xydata(), [(2, 0.3), (5, 0.5)])
    np.testing.assert_array_equal(curve.lines[0].get_xdata(), [0, 0.5, 0.5, 1, 1])


# --- sliders


def test_a_slider_draws_anew_and_hides_no_error():
    calls = []

    def draw(z, size):
        calls.append((z, size))
        return plt.figure()

    widget = explore(draw, z=(0, 10, 5), size=[2, 3])
    assert calls == [(5, 2)]
    slider, menu = widget.kwargs_widgets
    slider.value = 10
    menu.value = 3
    assert calls == [(5, 2), (10, 2), (10, 3)]
    assert slider.continuous_update is False
    assert not plt.get_fignums()

    def broken(z):
        raise RuntimeError("no such slice")

    with pytest.raises(RuntimeError, match="no such slice"):
        explore(broken, z=(0, 3))
