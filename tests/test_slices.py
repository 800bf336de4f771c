"""A slice is the slice, in the brightness of the whole volume, with the right part of the tree plain."""

import matplotlib.pyplot as plt
import numpy as np
import pytest
from matplotlib.collections import LineCollection
from matplotlib.colors import to_rgba

from neurokd.data.swc import Tree
from neurokd.viz.frame import ORANGE
from neurokd.viz.slices import plot_slice

SPACING = (2.0, 0.5, 0.25)
VOLUME = np.random.default_rng(0).integers(0, 200, (20, 30, 40)).astype(np.uint8)
# One edge from slice 2 to 6, one within slice 15, one from there to 19.
TREE = Tree([[4, 2, 2], [20, 10, 6], [30, 12, 15], [31, 13, 15], [35, 20, 19]], np.ones(5), [-1, 0, 1, 2, 3], [1] * 5)


@pytest.fixture(autouse=True)
def close_figures():
    yield
    plt.close("all")


def lines(figure) -> dict[float, set]:
    """Starts and ends of the lines by their opacity."""
    return {
        artist.get_alpha(): {tuple(map(tuple, segment)) for segment in artist.get_segments()}
        for artist in figure.axes[0].collections
        if isinstance(artist, LineCollection)
    }


def test_the_slice_is_that_of_the_volume_and_as_bright_as_in_it() -> None:
    for z in (0, 7, 19):
        (axes,) = plot_slice(VOLUME, z, spacing=SPACING).axes
        np.testing.assert_array_equal(axes.images[0].get_array(), VOLUME[z])
        assert axes.images[0].get_extent() == [-0.125, 39.5 * 0.25, 29.5 * 0.5, -0.25]
        assert axes.images[0].norm.vmax == np.percentile(VOLUME.max(axis=0), 99.5)  # the same for every slice
        assert axes.get_title() == f"slice {z} of 0 to 19, {2 * z:.1f} µm deep"
        assert axes.get_xlabel() == "x (µm)" and len(axes.artists) == 1  # the scale bar
    (axes,) = plot_slice(VOLUME, 3).axes
    assert axes.get_title() == "slice 3 of 0 to 19" and axes.get_ylabel() == "y (voxels)"


@pytest.mark.parametrize(
    ("z", "reach", "near"),
    [(0, 0, []), (0, 2, [0]), (4, 0, [0]), (8, 1, [1]), (15, 0, [1, 2, 3]), (17, 0, [3]), (17, 2, [1, 2, 3])],
)
def test_edges_are_plain_where_they_pass_through(z: int, reach: float, near: list[int]) -> None:
    drawn = lines(plot_slice(VOLUME, z, TREE, spacing=SPACING, reach=reach))
    points = TREE.xyz[:, :2] * [0.25, 0.5]
    edges = [tuple(map(tuple, points[edge])) for edge in TREE.edges]
    assert drawn[1.0] == {edges[k] for k in near}
    assert drawn[0.4] == set(edges) - drawn[1.0]


def test_the_mask_is_that_of_the_slice() -> None:
    mask = VOLUME > 150
    (axes,) = plot_slice(VOLUME, 5, mask=mask).axes
    overlay = axes.images[1].get_array()
    np.testing.assert_array_equal(overlay[..., 3] > 0, mask[5])
    assert tuple(overlay[mask[5]][0]) == to_rgba(ORANGE, 0.6)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"z": 20}, "z is 20; the volume has slices 0 to 19"),
        ({"z": -1}, "z is -1"),
        ({"z": 0, "reach": -1}, "reach is -1"),
        ({"z": 0, "reach": np.nan}, "reach is nan"),
        ({"z": 0, "mask": VOLUME}, "values other than 0"),
        ({"z": 0, "mask": VOLUME[1:] > 9}, "mask has shape"),
    ],
)
def test_what_does_not_fit_is_named(options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        plot_slice(VOLUME, **options)
