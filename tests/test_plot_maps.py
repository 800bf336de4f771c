"""Maps lie on the image that they belong to, whatever their grid, and their numbers can be read off."""

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from matplotlib.colors import to_rgba
from test_figures import nothing_is_clipped_or_overlaps

from neurokd.viz.colours import COLOURS
from neurokd.viz.figures.maps import plot_maps

SPACING = (2.0, 0.5, 0.5)
IMAGE = np.random.default_rng(0).random((20, 40))


@pytest.fixture(autouse=True)
def close_figures():
    yield
    plt.close("all")


def panels(figure):
    return {axes.get_title(): axes for axes in figure.axes if axes.images and axes.get_title()}


def test_maps_lie_on_the_image_whatever_their_grid():
    coarse, colours = np.arange(8.0).reshape(2, 4), np.random.default_rng(1).random((10, 20, 3))
    maps = {"coarse": coarse, "colours": torch.from_numpy(colours)}
    figure = plot_maps(IMAGE, maps, mask=IMAGE > 0.9, spacing=SPACING, label="a number", limits=(0, 7), title="slice")
    found = panels(figure)
    assert list(found) == ["slice", "coarse", "colours"]
    extents = {tuple(axes.images[0].get_extent()) for axes in found.values()}
    assert extents == {(-0.25, 19.75, 9.75, -0.25)}  # voxel centres at whole multiples of the spacing
    np.testing.assert_array_equal(found["coarse"].images[0].get_array(), coarse)
    np.testing.assert_array_equal(found["colours"].images[0].get_array(), colours)
    assert found["slice"].get_xlabel() == "x (µm)"
    (outline,) = found["slice"].collections
    assert tuple(outline.get_edgecolor()[0]) == to_rgba(COLOURS["mask"])
    nothing_is_clipped_or_overlaps(figure)


def test_a_label_gives_all_maps_one_scale_and_says_where_it_ends():
    maps = {"a": np.eye(2), "b": np.diag([5.0, 1.0])}
    for limits, extend in (((0, 5), "neither"), ((0, 2), "max"), ((1, 2), "both"), (None, "max")):
        figure = plot_maps(IMAGE, maps, label="attention", limits=limits)
        found, (bar,) = panels(figure), [axes for axes in figure.axes if axes.get_ylabel() == "attention"]
        for name in "ab":
            assert found[name].images[0].get_clim() == pytest.approx(limits or (0, 4.72))  # all but 1 %
        assert found["a"].images[0].cmap.name == "cividis"
        assert bar._colorbar.extend == extend
    found = panels(plot_maps(IMAGE, maps))
    assert [found[name].images[0].get_clim() for name in "ab"] == [(0, 1), (0, 5)]


def test_the_marked_cell_is_boxed_everywhere():
    for axes in panels(plot_maps(IMAGE, {"a": np.eye(4), "b": np.eye(4)}, mark=(1, 2))).values():
        (box,) = (patch for patch in axes.patches if patch.get_width() > 1)
        assert (box.get_x(), box.get_y(), box.get_width(), box.get_height()) == (19.5, 4.5, 10, 5)


def test_rows_are_filled_and_the_rest_is_blank():
    figure = plot_maps(IMAGE, {name: np.eye(2) for name in "abcde"}, columns=4)
    assert [axes.axison for axes in figure.axes] == [True] * 6 + [False] * 2
    nothing_is_clipped_or_overlaps(figure)


@pytest.mark.parametrize(
    ("maps", "options", "match"),
    [
        ({}, {}, "maps"),
        ({"a": np.ones(4)}, {}, r"'a'.*\(4,\)"),
        ({"a": np.ones((2, 2))}, {"mark": (0, 2)}, r"mark.*\(0, 2\)"),
        ({"a": np.ones((2, 2)), "b": np.ones((4, 4))}, {"mark": (0, 0)}, "mark"),
        ({"a": np.ones((2, 2))}, {"mask": np.ones((4, 4), bool)}, "mask"),
    ],
)
def test_bad_maps_are_named(maps, options, match):
    with pytest.raises(ValueError, match=match):
        plot_maps(IMAGE, maps, **options)
