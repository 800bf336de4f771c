"""Browsing a volume: the callbacks as plain functions, against pictures worked out by hand."""

import base64
import importlib.util
import io
import subprocess
import sys

import numpy as np
import pytest
from matplotlib.colors import to_rgb
from PIL import Image

import neurokd
from neurokd.data.tree import Tree
from neurokd.viz.colours import COLOURS
from neurokd.viz.viewers.canvas import NUMBER, Paper, grey_ramp, judge, paint, png
from neurokd.viz.viewers.planes import Planes
from neurokd.viz.viewers.slabs import Slabs, dice_by_level, grey_levels, resample

RNG = np.random.default_rng(0)
SHAPE = (6, 8, 10)


def rgb(name: str) -> tuple[int, ...]:
    return tuple(round(255 * part) for part in to_rgb(COLOURS[name]))


def panel(planes: Planes, picture: np.ndarray, name: str) -> np.ndarray:
    (place,) = (one for one in planes.panels if one.plane == name)
    return picture[place.top : place.top + place.rows, place.left : place.left + place.columns]


def voxel(planes: Planes, picture: np.ndarray, name: str, across: int, down: int) -> np.ndarray:
    """All pixels of one voxel."""
    pixels = panel(planes, picture, name)
    columns, rows = (planes.shape[axis] for axis in name)
    column, row = (np.arange(n) * voxels // n for n, voxels in ((pixels.shape[1], columns), (pixels.shape[0], rows)))
    return pixels[np.ix_(row == down, column == across)].reshape(-1, 3)


def tree(*points: tuple[float, float, float], radius: float = 0.5) -> Tree:
    n = len(points)
    return Tree(points, np.full(n, radius), np.arange(-1, n - 1), np.full(n, 3))


# --- levels, Dice, slabs

VOLUMES = {
    "uint8": RNG.integers(0, 200, SHAPE).astype(np.uint8),
    "uint16": RNG.integers(100, 60000, SHAPE).astype(np.uint16),
    "few values": RNG.integers(-2, 3, SHAPE),
    "probability": RNG.random(SHAPE, dtype=np.float32),
    "rounded probability": np.round(RNG.random(SHAPE, dtype=np.float32) * 200) / np.float32(200),
    "floats": RNG.normal(size=SHAPE),
    "mask": RNG.random(SHAPE) < 0.3,
    "constant": np.full(SHAPE, 7, np.uint16),
    "zeros": np.zeros(SHAPE, np.uint8),
}


@pytest.mark.parametrize("name", VOLUMES)
def test_every_level_is_an_exact_threshold_and_its_dice_that_of_the_masks(name: str) -> None:
    volume, truth = VOLUMES[name], RNG.random(SHAPE) < 0.2
    codes, levels = grey_levels(volume)
    assert codes.dtype == np.uint8 and len(levels) <= 256 and (np.diff(levels.astype(float)) > 0).all()
    assert not (volume > levels[-1]).any() or volume.dtype == bool
    dice = dice_by_level(codes, truth, len(levels))
    for k, level in enumerate(levels):
        np.testing.assert_array_equal(codes > k, volume > level)
        assert dice[k] == pytest.approx(neurokd.dice(volume > level, truth), abs=1e-15)


def test_nothing_to_find_and_nothing_found_is_one() -> None:
    codes = np.zeros((2, 2, 2), np.uint8)
    assert dice_by_level(codes, np.zeros((2, 2, 2), bool), 1) == [1.0]
    assert dice_by_level(codes, np.ones((2, 2, 2), bool), 1) == [0.0]


def test_a_half_is_among_the_levels_of_a_probability() -> None:
    assert 0.5 in grey_levels(VOLUMES["probability"])[1]


def test_slabs_are_maxima_along_each_axis() -> None:
    volume = VOLUMES["uint8"]
    slabs = Slabs(volume)
    for low, high in ((0, 1), (2, 5), (0, 6), (2, 5)):
        np.testing.assert_array_equal(slabs.project("z", low, high), volume[low:high].max(0))
        np.testing.assert_array_equal(slabs.project("y", low, high), volume[:, low:high].max(1))
        np.testing.assert_array_equal(slabs.project("x", low, high), volume[:, :, low:high].max(2).T)


def test_resampling_repeats_or_takes_the_maximum() -> None:
    plane = np.array([[1, 5, 2], [7, 3, 4]])
    np.testing.assert_array_equal(resample(plane, (4, 3)), plane[[0, 0, 1, 1]])
    np.testing.assert_array_equal(resample(plane, (1, 3)), [[7, 5, 4]])
    np.testing.assert_array_equal(resample(np.arange(10)[None], (1, 3)), [[2, 5, 9]])


# --- colours


def test_grey_is_black_at_zero_white_at_the_brightest_and_bent_by_gamma() -> None:
    ramp = grey_ramp(np.arange(201, dtype=np.uint8), np.array([[0, 100]], np.uint8), gamma=0.5)
    np.testing.assert_allclose(ramp[[0, 25, 100, 200]], [0, 0.5, 1, 1])
    ramp = grey_ramp(np.array([-2.0, 0.0, 2.0]), np.full((3, 3), 2, np.uint8), gamma=1)
    np.testing.assert_allclose(ramp[:3], [0, 0.5, 1])


def test_colours_lie_over_the_grey_by_their_opacity() -> None:
    ramp = np.linspace(0, 1, 256)
    codes, labels = np.array([[0, 51, 255]], np.uint8), np.full((1, 3), NUMBER["mask"], np.uint8)
    np.testing.assert_array_equal(paint(codes, labels, ramp, opacity=0.0)[0, :, 0], [0, 51, 255])
    assert (paint(codes, labels, ramp, opacity=1.0) == rgb("mask")).all()
    half = paint(codes, labels, ramp, opacity=0.5)[0]
    np.testing.assert_allclose(half, (np.array(rgb("mask")) + codes[0][:, None]) / 2, atol=1)


def test_a_column_counts_as_found_else_as_missed_else_as_invented() -> None:
    predicted = np.array([[True, True, False, False, True]])
    truth = np.array([[True, False, True, False, True]])
    found = np.array([[True, False, False, False, False]])  # the last column has both, but nowhere in one voxel
    names = ["found", "invented", "missed", None, "missed"]
    np.testing.assert_array_equal(judge(predicted, truth, found)[0], [NUMBER.get(name, 0) for name in names])
    np.testing.assert_array_equal(judge(predicted, None, None)[0], predicted[0] * NUMBER["mask"])


def test_png_is_lossless() -> None:
    pixels = RNG.integers(0, 256, (20, 30, 3)).astype(np.uint8)
    np.testing.assert_array_equal(Image.open(io.BytesIO(png(pixels))), pixels)


def test_the_legend_wraps_within_the_sheet() -> None:
    entries = {"found": "found", "missed": "missed", "invented": "invented", "tree": "tree"}
    wide, narrow = (Paper(width, 50, entries, (20, "10 µm")).pixels() for width in (600, 130))
    assert wide.shape[0] < narrow.shape[0]
    for sheet in (wide, narrow):
        assert (sheet[:, -3:] == 255).all()  # nothing runs off
        for name in entries:
            assert (sheet == rgb(name)).all(axis=2).any()


# --- planes


def test_a_bright_voxel_is_at_the_crosshair_of_all_planes() -> None:
    volume = np.zeros(SHAPE, np.uint8)
    volume[2, 3, 7] = 255
    planes = Planes(volume)
    assert planes.brightest == {"z": 2, "y": 3, "x": 7}
    picture = planes.draw(2, 3, 7, slab=1, level=None)
    for name, across, down in (("xy", 7, 3), ("zy", 2, 3), ("xz", 7, 2)):
        pixels = voxel(planes, picture, name, across, down)
        assert (pixels == 255).all(axis=1).sum() > len(pixels) / 2  # the rest may be the cross
        flat = panel(planes, picture, name)
        cross = np.rint(0.6 * np.array(to_rgb(COLOURS["cursor"])) * 255).astype(np.uint8)
        rows, columns = (np.flatnonzero((flat == cross).all(axis=2).sum(axis=k) > 30) for k in (1, 0))
        place = next(one for one in planes.panels if one.plane == name)
        assert planes.locate(place.left + columns[0], place.top + rows[0]) == {name[0]: across, name[1]: down}
    elsewhere = planes.draw(3, 3, 7)
    assert not (panel(planes, elsewhere, "xy") == 255).all(axis=2).any()
    assert (panel(planes, elsewhere, "zy") == 255).all(axis=2).any()
    in_reach = planes.draw(3, 3, 7, slab=3)
    assert (panel(planes, in_reach, "xy") == 255).all(axis=2).any()


@pytest.mark.parametrize(
    ("slab", "seen"), [(1, {3}), (2, {3, 4}), (3, {2, 3, 4}), (5, {1, 2, 3, 4, 5}), (9, set(range(6)))]
)
def test_a_slab_is_that_many_slices_around_the_cursor(slab: int, seen: set[int]) -> None:
    volume = np.zeros(SHAPE, np.uint8)
    for z in range(6):
        volume[z, 1, z + 2] = 200
    planes = Planes(volume)
    picture = planes.draw(3, 7, 0, slab=slab)
    assert {z for z in range(6) if (voxel(planes, picture, "xy", z + 2, 1) == 255).all()} == seen


def test_mask_and_truth_colour_the_voxels_they_mean() -> None:
    mask, truth = np.zeros((2, *SHAPE), bool)
    mask[2, 1, 2:5] = truth[2, 1, 4:7] = True
    planes = Planes(np.zeros(SHAPE), mask, truth=truth)
    picture = planes.draw(2, 7, 0, level=0, opacity=1)
    names = {2: "invented", 3: "invented", 4: "found", 5: "missed", 6: "missed"}
    for x in range(1, 10):
        assert (voxel(planes, picture, "xy", x, 1) == (rgb(names[x]) if x in names else 0)).all(), x
    np.testing.assert_allclose(planes.dice, [neurokd.dice(mask, truth)])
    plain = Planes(np.zeros(SHAPE), mask)
    picture = plain.draw(2, 7, 0, level=0, opacity=1)
    assert (voxel(plain, picture, "xy", 3, 1) == rgb("mask")).all()
    assert not voxel(plain, picture, "xy", 5, 1).any() and plain.dice is None
    assert not voxel(plain, plain.draw(2, 7, 0, opacity=1), "xy", 3, 1).any()


def test_a_threshold_marks_what_is_above_it() -> None:
    volume = VOLUMES["probability"]
    planes = Planes(volume)
    level = int(np.flatnonzero(planes.levels == np.float32(0.5))[0])
    picture = planes.draw(4, 0, 0, level=level, opacity=1)
    for y, x in np.ndindex(volume.shape[1:]):
        if y and x:  # off the cross
            marked = (voxel(planes, picture, "xy", x, y) == rgb("mask")).all()
            assert marked == (volume[4, y, x] > np.float32(0.5))


def test_one_scale_for_all_axes_so_long_voxels_look_long() -> None:
    planes = Planes(np.zeros((10, 40, 30)), spacing=(4.0, 0.5, 1.0))  # 40 x 20 x 30 µm
    sizes = {one.plane: (one.rows, one.columns) for one in planes.panels}
    assert sizes["xy"][1] / sizes["xy"][0] == pytest.approx(30 / 20, abs=0.02)
    assert sizes["zy"][1] / sizes["zy"][0] == pytest.approx(40 / 20, abs=0.02)
    assert sizes["xz"][1] / sizes["xz"][0] == pytest.approx(30 / 40, abs=0.02)
    picture = planes.draw(0, 0, 0)
    assert picture.shape[1] == pytest.approx(640, abs=2)
    # The scale bar is the long black run below the planes: 5 µm, at most a quarter of 30.
    below = (picture[planes.panels[2].top + planes.panels[2].rows + 2 :] == 0).all(axis=2)
    assert below.sum(axis=1).max() >= 5 * sizes["xy"][1] / 30 - 1


def test_a_flat_volume_is_drawn_whole() -> None:
    planes = Planes(np.ones((1, 2000, 3)))
    assert planes.draw(0, 5, 0).shape[0] < 1000
    assert all(one.rows >= 1 and one.columns >= 1 for one in planes.panels)


def test_a_bright_voxel_is_not_lost_where_pixels_are_larger_than_voxels() -> None:
    volume = np.zeros((1, 1500, 1500), np.uint8)
    volume[0, 777, 1001] = 255
    planes = Planes(volume, width=200)
    picture = planes.draw(0, 10, 10)
    assert (panel(planes, picture, "xy") == 255).all(axis=2).sum() == 1


def test_a_place_in_the_picture_means_a_voxel() -> None:
    planes = Planes(np.zeros(SHAPE), spacing=(2, 1, 1))
    for place in planes.panels:
        for corner, voxel_at in (((0, 0), 0), ((place.columns - 1, place.rows - 1), -1)):
            found = planes.locate(place.left + corner[0] + 0.5, place.top + corner[1] + 0.5)
            assert found == {axis: planes.shape[axis] - 1 if voxel_at else 0 for axis in place.plane}
    assert planes.locate(3, 3) == {} and planes.locate(1e4, -5) == {}


def test_the_tree_lies_on_its_voxels_where_its_tube_cuts_the_slab() -> None:
    branch = tree((2, 1, 3), (8, 1, 3))  # x y z
    planes = Planes(np.zeros(SHAPE), tree=branch)
    for z, there in ((3, True), (2, False), (4, False)):
        picture = planes.draw(z, 6, 0, opacity=1)
        row = [(voxel(planes, picture, "xy", x, 1) == rgb("tree")).all(axis=1).any() for x in range(1, 10)]
        assert row == [there and 2 <= x <= 8 for x in range(1, 10)], z
        assert not any((voxel(planes, picture, "xy", x, 3) == rgb("tree")).all(axis=1).any() for x in range(1, 10))
    # In the middle of its voxels: 6 voxels long from the middle of 2 to that of 8.
    purple = (panel(planes, planes.draw(3, 6, 0, opacity=1), "xy") == rgb("tree")).all(axis=2)
    rows, columns = np.nonzero(purple)
    pixel = purple.shape[1] / 10
    assert (columns.min(), columns.max()) == pytest.approx((2.5 * pixel, 8.5 * pixel), abs=1.5)
    assert rows.mean() == pytest.approx(1.5 * pixel, abs=1)
    thick = Planes(np.zeros(SHAPE), tree=tree((2, 1, 3), (8, 1, 3), radius=2))
    assert (panel(thick, thick.draw(5, 6, 0, opacity=1), "xy") == rgb("tree")).all(axis=2).any()


def test_a_tree_that_leaves_the_volume_is_cut_off() -> None:
    planes = Planes(np.zeros(SHAPE), tree=tree((-20, 1, 3), (30, 1, 3)))
    assert (panel(planes, planes.draw(3, 6, 0, opacity=1), "xy") == rgb("tree")).all(axis=2).any()
    alone = Planes(np.zeros(SHAPE), tree=tree((4, 1, 3)))
    assert (panel(alone, alone.draw(3, 6, 0, opacity=1), "xy") == rgb("tree")).all(axis=2).any()


# --- the widget


def shown(widget) -> np.ndarray:
    return np.array(Image.open(io.BytesIO(widget.picture.value)))


def test_controls_redraw_the_planes() -> None:
    volume, truth = VOLUMES["probability"], RNG.random(SHAPE) < 0.2
    widget = neurokd.view_volume(volume, truth=truth, spacing=(2, 1, 1))
    assert list(widget.controls) == ["z", "y", "x", "slab", "opacity", "threshold"]
    planes = Planes(volume, truth=truth, spacing=(2, 1, 1))
    best = int(planes.dice.argmax())
    np.testing.assert_array_equal(shown(widget), planes.draw(**planes.brightest, level=best, opacity=0.8))
    for name, value in {"z": 1, "y": 2, "x": 3, "slab": 3, "opacity": 0.25, "threshold": 100}.items():
        widget.controls[name].value = value
    np.testing.assert_array_equal(shown(widget), planes.draw(1, 2, 3, slab=3, level=100, opacity=0.25))
    assert f"Dice {neurokd.dice(volume > planes.levels[100], truth):.3f}" in widget.text.value
    for part in ("z 1, y 2, x 3", "2.0, 2.0, 3.0 µm", f"{volume[1, 2, 3]:.4g}"):
        assert part in widget.text.value


def test_a_click_moves_the_cursor_and_draws_once(monkeypatch) -> None:
    widget = neurokd.view_volume(VOLUMES["uint8"])
    planes = Planes(VOLUMES["uint8"])
    drawn = []
    monkeypatch.setattr(widget, "_draw", lambda **values: drawn.append(values) or (np.zeros((2, 2, 3), np.uint8), ""))
    place = planes.panels[1]  # z across, y down
    x = widget.controls["x"].value
    column, row = place.left + 4.5 * place.columns / 6, place.top + 6.5 * place.rows / 8
    widget.drag(1, column, row, column, row)
    assert (widget.controls["z"].value, widget.controls["y"].value, widget.controls["x"].value) == (4, 6, x)
    assert len(drawn) == 1 and (drawn[0]["z"], drawn[0]["y"]) == (4, 6)
    (mouse,) = (child for child in widget.children if hasattr(child, "drag"))
    mouse.drag = [2.0, column, row, place.left + 1.0, place.top + 1.0]  # as the browser does
    assert (widget.controls["z"].value, widget.controls["y"].value) == (0, 0)


def test_the_threshold_begins_where_it_was_asked_to() -> None:
    volume, truth = VOLUMES["uint16"], RNG.random(SHAPE) < 0.2
    first = neurokd.view_volume(volume).controls["threshold"]
    assert first.options[first.value][0] == f"{volume.max():.4g}"  # nothing is marked
    half = neurokd.view_volume(volume, VOLUMES["probability"], truth=truth).controls["threshold"]
    assert half.options[half.value][0] == "0.5"
    near = neurokd.view_volume(volume, VOLUMES["probability"], threshold=0.2).controls["threshold"]
    assert near.options[near.value][0] == "0.2"
    assert "threshold" not in neurokd.view_volume(volume, truth).controls  # there is nothing to cut


def test_without_a_kernel_the_picture_stands_in_its_place() -> None:
    bundle = neurokd.view_volume(VOLUMES["uint8"])._repr_mimebundle_()
    assert set(bundle) >= {"application/vnd.jupyter.widget-view+json", "image/png"}
    assert base64.b64decode(bundle["image/png"]).startswith(b"\x89PNG")


def test_bad_input_is_named() -> None:
    volume = VOLUMES["uint8"]
    with pytest.raises(ValueError, match="volume"):
        neurokd.view_volume(volume[0])
    with pytest.raises(ValueError, match="mask"):
        neurokd.view_volume(volume, volume[1:] > 3)
    with pytest.raises(ValueError, match="mask"):
        neurokd.view_volume(volume, VOLUMES["probability"][1:])
    with pytest.raises(ValueError, match="truth"):
        neurokd.view_volume(volume, truth=VOLUMES["probability"])
    with pytest.raises(ValueError, match="mask"):
        neurokd.view_volume(volume, np.where(np.arange(480).reshape(SHAPE) == 3, np.nan, 0.5))
    with pytest.raises(ValueError, match="threshold"):
        neurokd.view_volume(volume, volume > 9, threshold=0.3)
    for setting, value in (("gamma", 0), ("width", 20), ("slab", 0), ("spacing", (1, 0, 1))):
        with pytest.raises(ValueError, match=setting):
            neurokd.view_volume(volume, **{setting: value})


def test_without_anywidget_the_sliders_do(monkeypatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    widget = neurokd.view_volume(VOLUMES["uint8"])
    assert not any(hasattr(child, "drag") for child in widget.children)
    widget.controls["z"].value = 1
    planes = Planes(VOLUMES["uint8"])
    at = planes.brightest | {"z": 1}
    np.testing.assert_array_equal(shown(widget), planes.draw(**at, level=len(planes.levels) - 1, opacity=0.8))


def test_without_ipywidgets_it_says_what_brings_them() -> None:
    code = "import sys; sys.modules['ipywidgets'] = None; import neurokd; neurokd.view_volume([[[0, 1]]])"
    failed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert "neurokd[notebooks]" in failed.stderr


# --- any figure


def test_a_figure_follows_its_controls_and_is_closed() -> None:
    ipywidgets, plt = pytest.importorskip("ipywidgets"), pytest.importorskip("matplotlib.pyplot")

    def draw(grey: float):
        return plt.figure(figsize=(1, 1), dpi=20, facecolor=str(grey))

    viewer = neurokd.view_figure(draw, grey=ipywidgets.FloatSlider(0, min=0, max=1))
    assert shown(viewer).shape == (20, 20, 3) and (shown(viewer) == 0).all()
    viewer.controls["grey"].value = 1.0
    assert (shown(viewer) == 255).all()
    assert not plt.get_fignums()
    assert viewer.controls["grey"].description == "grey"
    assert viewer.controls["grey"].style.description_width == "max(80px, 4ch)"
