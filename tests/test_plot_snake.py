"""Tubes are drawn where their taps are, over the volume's own projections."""

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch

from neurokd.viz.figures.snake import plot_snake

SPACING = (2.0, 0.5, 0.25)
VOLUME = np.zeros((7, 9, 11))
VOLUME[3, 4, 2:9] = np.arange(1.0, 8)  # a line along x
TAPS = np.array([[1.0, 4, 3], [3, 4.5, 5], [3, 4, 7]])


@pytest.fixture(autouse=True)
def close_figures():
    yield
    plt.close("all")


def panels_of(figure):
    space, *flat = figure.axes
    return {"xyz": space} | {axes.get_xlabel()[0] + axes.get_ylabel()[0]: axes for axes in flat}


def test_taps_lie_on_the_voxels_they_mean():
    panels = panels_of(plot_snake(VOLUME, {"a": TAPS, "b": torch.tensor(TAPS + 1)}, spacing=SPACING))
    assert list(panels) == ["xyz", "xy", "zy", "xz"]
    for shown, axes in panels.items():
        columns = ["zyx".index(axis) for axis in shown]
        lines = [line for line in axes.lines if not line.get_label().startswith("_")]
        for line, taps in zip(lines, (TAPS, TAPS + 1), strict=True):
            drawn = line.get_data_3d() if shown == "xyz" else line.get_data()
            np.testing.assert_allclose(np.stack(drawn, axis=1), (taps * SPACING)[:, columns])
    for plane, axis in (("xy", 0), ("xz", 1)):
        np.testing.assert_array_equal(panels[plane].images[0].get_array(), VOLUME.max(axis=axis))
    assert all("µm" in axes.get_xlabel() for axes in panels.values())


@pytest.mark.parametrize(("taps", "middle"), [(TAPS, (3, 4.5, 5)), (TAPS[:2], (2, 4.25, 4))], ids=["odd", "even"])
def test_a_ring_marks_the_middle(taps, middle):
    for shown, axes in panels_of(plot_snake(VOLUME, {"a": taps})).items():
        rings = [line for line in axes.lines if line.get_label().startswith("_")]
        expected = [middle["zyx".index(axis)] for axis in shown]
        for ring in rings:
            drawn = ring.get_data_3d() if shown == "xyz" else ring.get_data()
            np.testing.assert_allclose(np.stack(drawn, axis=1), [expected])
        assert len(rings) == 2


def test_space_shows_the_brightest_voxels_in_equal_scale():
    space = plot_snake(VOLUME, {"a": TAPS}, spacing=SPACING, brightest=3 / VOLUME.size).axes[0]
    x, y, z = space.collections[0]._offsets3d
    np.testing.assert_allclose(np.stack([z, y, x], axis=1), np.array([[3, 4, 6], [3, 4, 7], [3, 4, 8]]) * SPACING)
    lengths = [abs(high - low) for low, high in (space.get_xlim(), space.get_ylim(), space.get_zlim())]
    np.testing.assert_allclose(lengths, [11 * 0.25, 9 * 0.5, 7 * 2.0])
    ratio = space._box_aspect / lengths
    np.testing.assert_allclose(ratio, ratio[0])


def test_names_and_title_are_on_the_page():
    figure = plot_snake(VOLUME, {"straight": TAPS, "fitted": TAPS}, title="a neurite")
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == ["straight", "fitted"]
    assert figure.get_suptitle() == "a neurite"
    assert "voxels" in figure.axes[1].get_xlabel()


@pytest.mark.parametrize(
    ("tubes", "options", "message"),
    [
        ({}, {}, "tubes.* 0"),
        ({str(k): TAPS for k in range(5)}, {}, "tubes.* 5"),
        ({"a": TAPS[:, :2]}, {}, r"shape \(3, 2\)"),
        ({"a": TAPS}, {"brightest": 0}, "brightest"),
    ],
)
def test_what_does_not_fit_is_named(tubes, options, message):
    with pytest.raises(ValueError, match=message):
        plot_snake(VOLUME, tubes, **options)
