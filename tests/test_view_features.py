"""A teacher's tokens beside a slice: the numbers against torch, numpy and the teacher itself."""

import io

import matplotlib
import numpy as np
import pytest
import torch
from PIL import Image
from test_attention_maps import small_teacher

import neurokd
from neurokd.data.intensity import scale_intensity
from neurokd.models.attention_maps import attention_maps
from neurokd.viz.viewers.token_views import Components, TokenViews

RNG = np.random.default_rng(0)
VOLUME = RNG.integers(1, 256, (5, 12, 16)).astype(np.uint8)
VOLUME[4] = 0
SETTINGS = {"block": 1, "magnification": 2.0, "slab": 1, "spacing": None, "gamma": 0.5, "width": 400}


@pytest.fixture(scope="module")
def teacher():
    return small_teacher()


@pytest.fixture(scope="module")
def views(teacher):
    return TokenViews(teacher, VOLUME, **SETTINGS)


def image_of(volume: np.ndarray, low: int, high: int) -> torch.Tensor:
    return torch.from_numpy(scale_intensity(volume)[low:high].max(axis=0))[None, None].double()


def middle_of_cells(views: TokenViews, picture: np.ndarray, name: str, rows: int, columns: int) -> np.ndarray:
    """The pixel in the middle of each cell of a grid over a panel, ``rows columns 3``; they must be off the cross."""
    panel = picture[views.panels[name].place]
    down, across = ((np.arange(n) + 0.5) * size / n for n, size in zip((rows, columns), panel.shape[:2], strict=True))
    return panel[np.ix_(down.astype(int), across.astype(int))]


def test_likeness_is_the_cosine_with_the_token_at_the_cursor(teacher, views) -> None:
    (tokens,) = teacher.feature_maps(image_of(VOLUME, 2, 3), [1], magnification=2.0)
    rows, columns = tokens.shape[2:]
    for y, x in ((0, 0), (7, 11), (11, 15)):
        one = tokens[0, :, y * rows // 12, x * columns // 16]
        expected = torch.cosine_similarity(tokens[0], one[:, None, None], dim=0).numpy()
        found = views.likeness(2, y, x, slab=1)
        np.testing.assert_allclose(found, expected, atol=1e-5)
        assert found[y * rows // 12, x * columns // 16] == pytest.approx(1, abs=1e-6)
        assert found.std() > 0.01


def test_a_slab_is_shown_as_its_maximum(teacher, views) -> None:
    (tokens,) = teacher.feature_maps(image_of(VOLUME, 1, 4), [1], magnification=2.0)
    np.testing.assert_allclose(views.look(2, 3)[0], tokens[0].permute(1, 2, 0).numpy(), atol=1e-5)


@pytest.mark.parametrize("head", [None, 0, 1])
def test_maps_are_drawn_in_cividis(teacher, views, head) -> None:
    picture = views.draw(2, 0, 0, slab=1, head=head)
    shares = attention_maps(teacher, image_of(VOLUME, 2, 3), block=1, magnification=2.0)[0].numpy()
    shares = shares.mean(axis=0) if head is None else shares[head]
    for name, values in (("attention", shares / shares.max()), ("likeness", views.likeness(2, 0, 0, slab=1))):
        expected = 255 * matplotlib.colormaps["cividis"](np.clip(values, 0, 1))[..., :3]
        found = middle_of_cells(views, picture, name, *values.shape)
        np.testing.assert_allclose(found[1:, 1:], expected[1:, 1:], atol=2)


def test_components_are_those_of_the_singular_value_decomposition() -> None:
    tokens = RNG.normal(size=(200, 6)).astype(np.float32) @ np.diag([5, 3, 2, 1, 1, 0.5]).astype(np.float32) + 7
    tokens[:5, 0] += 60  # few and far off
    components = Components(tokens)
    _, _, expected = np.linalg.svd(tokens - tokens.mean(axis=0), full_matrices=False)
    np.testing.assert_allclose(np.abs(components.axes.T @ expected[:3].T), np.eye(3), atol=1e-4)
    colours = components.rgb(tokens)
    assert colours.shape == (200, 3) and colours.min() == 0 and colours.max() == 1
    assert (colours[:5, 0] > 0.9).all()  # what is rare is bright
    projected = (tokens - tokens.mean(axis=0)) @ components.axes
    low, high = np.percentile(projected, (2, 98), axis=0)
    np.testing.assert_allclose(colours, np.clip((projected - low) / (high - low), 0, 1), atol=1e-5)


def test_a_black_slice_has_one_colour_whatever_the_place(views) -> None:
    picture = views.draw(4, 0, 0, slab=1, head=None)
    cells = middle_of_cells(views, picture, "tokens", 4, 4)[1:, 1:]
    assert (cells == cells[0, 0]).all()
    assert middle_of_cells(views, views.draw(2, 0, 0, slab=1, head=None), "tokens", 4, 4).std() > 10


def test_a_teacher_without_class_token_has_no_attention() -> None:
    teacher = small_teacher("vit_base_patch16_siglip_224")
    views = TokenViews(teacher, VOLUME, **SETTINGS)
    assert views.heads == 0 and list(views.panels) == ["slice", "tokens", "likeness"]
    views.draw(2, 0, 0, slab=1, head=None)
    assert "head" not in neurokd.view_features(teacher, VOLUME, block=1).controls


def test_controls_and_clicks_redraw(teacher) -> None:
    widget = neurokd.view_features(teacher, VOLUME, block=1, magnification=2.0, spacing=(2, 1, 1), width=400)
    views = TokenViews(teacher, VOLUME, **(SETTINGS | {"spacing": (2, 1, 1)}))
    assert list(widget.controls) == ["z", "y", "x", "slab", "head"]
    for name, value in {"z": 3, "slab": 3, "head": 1}.items():
        widget.controls[name].value = value
    panel = views.panels["likeness"]
    column, row = panel.left + 4.5 * panel.columns / 16, panel.top + 9.5 * panel.rows / 12
    widget.drag(1, column, row, column, row)
    picture = np.array(Image.open(io.BytesIO(widget.picture.value)))
    np.testing.assert_array_equal(picture, views.draw(3, 9, 4, slab=3, head=1))
    assert "z 3, y 9, x 4" in widget.text.value and "6.0, 9.0, 4.0 µm" in widget.text.value


def test_bad_input_is_named(teacher) -> None:
    with pytest.raises(ValueError, match="volume"):
        neurokd.view_features(teacher, np.ones((3, 12, 12)))
    for setting, value in (("block", 99), ("magnification", 0), ("slab", 0), ("width", 20), ("gamma", 0)):
        with pytest.raises(ValueError, match=setting):
            neurokd.view_features(teacher, VOLUME, **{setting: value})
