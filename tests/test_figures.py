"""Figures: what is drawn, where, how long and in which colour; not merely that something is."""

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from matplotlib.collections import LineCollection
from matplotlib.colors import to_rgba
from mpl_toolkits.axes_grid1.anchored_artists import AnchoredSizeBar

from neurokd.data.tree import Tree
from neurokd.viz.colours import COLOURS
from neurokd.viz.figures.history import plot_history
from neurokd.viz.figures.kernels import plot_kernels
from neurokd.viz.figures.projections import plot_comparison, plot_projections
from neurokd.viz.frame import Frame

SPACING = (2.0, 0.5, 0.25)
VOLUME = np.random.default_rng(0).integers(0, 255, (6, 30, 40)).astype(np.uint8)
MASK = VOLUME > 200
TREE = Tree(
    xyz=np.array([[4.0, 2, 1], [20, 10, 3], [30, 12, 5]]),
    radius=np.ones(3),
    parent=np.array([-1, 0, 1]),
    type=np.array([1, 3, 3]),
)


@pytest.fixture(autouse=True)
def close_figures():
    yield
    plt.close("all")


def nothing_is_clipped_or_overlaps(figure) -> None:
    figure.canvas.draw()
    renderer, box = figure.canvas.get_renderer(), figure.bbox
    texts = [text for axes in figure.axes for text in (axes.title, axes.xaxis.label, axes.yaxis.label)]
    boxes = [text.get_window_extent(renderer) for text in texts if text.get_text()]
    boxes += [axes.get_legend().get_window_extent(renderer) for axes in figure.axes if axes.get_legend()]
    assert boxes
    for text in boxes:
        assert box.x0 <= text.x0 and text.x1 <= box.x1 and box.y0 <= text.y0 and text.y1 <= box.y1
    panels = [axes.get_window_extent(renderer) for axes in figure.axes if axes.axison]
    for k, one in enumerate(panels):
        for two in panels[:k]:
            assert not (one.x0 < two.x1 and two.x0 < one.x1 and one.y0 < two.y1 and two.y0 < one.y1)


def test_projections_are_maxima_with_voxels_at_their_place() -> None:
    figure = plot_projections(VOLUME, spacing=SPACING, orthogonal=True, title="a stack")
    panels = {axes.get_xlabel()[0] + axes.get_ylabel()[0]: axes for axes in figure.axes if axes.images}
    for plane, axis in (("xy", 0), ("xz", 1)):
        np.testing.assert_array_equal(panels[plane].images[0].get_array(), VOLUME.max(axis=axis))
    np.testing.assert_array_equal(panels["zy"].images[0].get_array(), VOLUME.max(axis=2).T)
    # Voxel k's centre lies at k * spacing; y and z run downwards.
    assert panels["xy"].images[0].get_extent() == [-0.125, 39.5 * 0.25, 29.5 * 0.5, -0.25]
    assert panels["zy"].images[0].get_extent() == [-1, 11, 29.5 * 0.5, -0.25]
    assert all(axes.get_aspect() == 1 and "µm" in axes.get_xlabel() for axes in panels.values())
    nothing_is_clipped_or_overlaps(figure)
    assert "voxels" in plot_projections(VOLUME).axes[0].get_xlabel()


def test_mask_and_tree_lie_on_the_voxels_they_mean() -> None:
    (axes,) = plot_projections(VOLUME, MASK, TREE, spacing=SPACING).axes
    overlay = axes.images[1].get_array()
    np.testing.assert_array_equal(overlay[..., 3] > 0, MASK.max(axis=0))
    assert tuple(overlay[MASK.max(axis=0)][0]) == to_rgba(COLOURS["mask"], 0.6)
    (lines,) = (artist for artist in axes.collections if isinstance(artist, LineCollection))
    expected = {((1.0, 1.0), (5.0, 5.0)), ((5.0, 5.0), (7.5, 6.0))}  # x * 0.25, y * 0.5
    assert {tuple(sorted(map(tuple, segment))) for segment in lines.get_segments()} == expected
    np.testing.assert_array_equal(axes.lines[0].get_xydata(), [[1.0, 1.0]])
    assert axes.get_xlim() == (-0.125, 39.5 * 0.25)  # the tree does not change the view


def test_dim_neurites_are_lifted() -> None:
    volume = np.zeros((3, 50, 50))
    volume[1, :40] = 1000.0  # soma
    volume[1, 45] = 100.0  # neurite, a tenth as bright: sqrt(0.1) on the page
    image = plot_projections(volume).axes[0].images[0]
    assert image.norm(100.0) == pytest.approx(np.sqrt(0.1), abs=1e-6)
    assert image.norm(0.0) == 0


def test_comparison_colours_what_was_found_missed_and_invented() -> None:
    truth, prediction = np.zeros((2, 4, 5), bool), np.zeros((2, 4, 5), bool)
    truth[0, 0, :2] = True
    prediction[0, 0, 1:3] = True
    prediction[1, 0, 0] = True  # the neurite at x = 0, one slice off: neither column is found, the missed one shows
    truth[1, 3, 3] = prediction[1, 3, 3] = prediction[0, 3, 3] = True  # found, with an invented voxel above it
    figure = plot_comparison(np.arange(40).reshape(2, 4, 5), truth, prediction, TREE, title="row", truth_name="by hand")
    panels = {axes.get_title(): axes for axes in figure.axes}
    assert list(panels) == ["stack", "by hand", "prediction", "trace"]
    assert panels["stack"].get_ylabel() == "row"
    shown = np.zeros((4, 5, 4))
    for layer in panels["prediction"].images:  # painted one over the other
        pixels = layer.get_array()
        shown = np.where(pixels[..., 3:] > 0, pixels, shown)
    assert tuple(shown[0, 0]) == to_rgba(COLOURS["missed"])
    assert tuple(shown[0, 1]) == tuple(shown[3, 3]) == to_rgba(COLOURS["found"])
    assert tuple(shown[0, 2]) == to_rgba(COLOURS["invented"])
    assert np.count_nonzero(shown[..., 3]) == 4
    legend = panels["prediction"].get_legend()
    entries = zip(legend.get_texts(), legend.get_patches(), strict=True)
    colours = {text.get_text(): patch.get_facecolor() for text, patch in entries}
    assert colours == {name: to_rgba(COLOURS[name]) for name in ("found", "missed", "invented")}
    np.testing.assert_array_equal(panels["by hand"].images[0].get_array()[..., 3] > 0, truth.max(axis=0))


def test_panels_without_data_are_left_out() -> None:
    figure = plot_comparison(VOLUME, None, MASK)
    assert [axes.get_title() for axes in figure.axes] == ["stack", "prediction"]
    np.testing.assert_array_equal(figure.axes[1].images[0].get_array()[..., 3] > 0, MASK.max(axis=0))
    assert figure.axes[1].get_legend() is None


@pytest.mark.parametrize("height", [5.0, 6.0, 6.6, 8.0])
def test_rows_stack_without_clipping(height: float) -> None:
    figure = plt.figure(figsize=(12, height), layout="constrained")
    for row, name in zip(figure.subfigures(2, 1), ("simulated", "real"), strict=True):
        cube = np.random.default_rng(1).random((4, 40, 40))
        assert plot_comparison(cube, cube > 0.5, cube > 0.6, TREE, title=name, figure=row) is row
    nothing_is_clipped_or_overlaps(figure)


@pytest.mark.parametrize(
    ("size", "spacing", "label", "length"),
    [(150, 0.38, "10 µm", 10), (409, None, "100 voxels", 100), (40, 0.25, "2 µm", 2), (8, 0.1, "0.2 µm", 0.2)],
)
def test_scale_bar_is_as_long_as_it_says(size: int, spacing, label: str, length: float) -> None:
    volume = np.zeros((2, 10, size))
    axes = plot_comparison(volume, spacing=spacing and (1, 1, spacing)).axes[0]
    (bar,) = (artist for artist in axes.artists if isinstance(artist, AnchoredSizeBar))
    assert bar.txt_label.get_text() == label
    figure = axes.figure
    figure.canvas.draw()
    on_page = bar.size_bar.get_children()[0].get_window_extent(figure.canvas.get_renderer()).width
    across = axes.transData.transform([[0, 0], [length, 0]])
    assert on_page == pytest.approx(across[1, 0] - across[0, 0], rel=1e-6)


def test_wrong_masks_and_volumes() -> None:
    with pytest.raises(ValueError, match="mask"):
        plot_projections(VOLUME, np.ones((2, 2, 2)))
    with pytest.raises(ValueError, match="prediction"):
        plot_comparison(VOLUME, MASK, VOLUME / 255)
    with pytest.raises(ValueError, match="volume"):
        plot_projections(VOLUME[0])
    with pytest.raises(ValueError, match="truth"):
        Frame(VOLUME.shape, None).draw_verdict(plt.subplots()[1], MASK, VOLUME / 255)
    plot_projections(np.zeros((2, 3, 4)))  # black, but no error: a prediction may be empty
    plot_projections(MASK)


def test_kernels_slice_by_slice() -> None:
    plane = np.random.default_rng(0).normal(size=(10, 4, 4)) * np.arange(1, 11)[:, None, None]
    weight = np.zeros((10, 1, 3, 4, 4))
    weight[:, 0, 1] = plane  # center inflation
    figure = plot_kernels(torch.tensor(weight), channels=[7, 2])
    grid = np.array([axes for axes in figure.axes if axes.images], dtype=object).reshape(2, 3)
    for row, channel in zip(grid, (7, 2), strict=True):
        np.testing.assert_allclose([axes.images[0].get_array() for axes in row], weight[channel, 0], atol=1e-6)
        assert row[0].get_ylabel() == f"channel {channel}"
    limits = {axes.images[0].get_clim() for axes in grid.flat}
    assert len(limits) == 1 and sum(limits.pop()) == 0  # one scale for all, white is zero
    assert [axes.get_title() for axes in grid[0]] == ["z = 0", "z = 1", "z = 2"]
    nothing_is_clipped_or_overlaps(figure)
    strongest = [axes.get_ylabel() for axes in plot_kernels(weight[:, 0]).axes if axes.get_ylabel().startswith("ch")]
    order = np.argsort(-np.linalg.norm(plane.reshape(10, -1), axis=1))[:6]
    assert strongest == [f"channel {k}" for k in order]
    with pytest.raises(ValueError, match="weight"):
        plot_kernels(np.zeros((10, 3, 3, 4, 4)))
    with pytest.raises(ValueError, match="channels"):
        plot_kernels(weight, channels=[10])


def test_history() -> None:
    records = [{"step": k, "loss": 2.0 - 0.01 * k, "lr": 1e-3} for k in range(1, 101)]
    records += [{"step": 50, "val_dice": 0.3, "threshold": 0.5}, {"step": 100, "val_dice": 0.2, "threshold": 0.5}]
    figure = plot_history(records, title="a run")
    loss, dice = figure.axes
    np.testing.assert_allclose(loss.lines[0].get_xydata(), [(k, 2.0 - 0.01 * k) for k in range(1, 101)])
    # The mean of a straight line lies on it, and whole windows do not reach its ends.
    mean = loss.lines[1].get_xydata()
    np.testing.assert_allclose(mean[:, 1], 2.0 - 0.01 * mean[:, 0])
    np.testing.assert_allclose(mean[:, 0], np.arange(3, 99))
    np.testing.assert_allclose(dice.lines[0].get_xydata(), [(50, 0.3), (100, 0.2)])
    np.testing.assert_allclose(dice.lines[1].get_xydata(), [(50, 0.3)])
    assert "0.300" in dice.get_legend().get_texts()[0].get_text()
    nothing_is_clipped_or_overlaps(figure)
    short = plot_history([*records[:20], {"step": 20, "val_dice": 0.3}])  # one point of a run stands at its place in it
    assert len(short.axes[0].lines) == 1 and short.axes[0].get_xlim() == short.axes[1].get_xlim()
    assert short.axes[1].get_xlim()[0] <= 1
    assert len(plot_history(records[:3]).axes) == len(plot_history(records[-2:]).axes) == 1
    with pytest.raises(ValueError, match="records"):
        plot_history([])
