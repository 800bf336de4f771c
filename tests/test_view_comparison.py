"""Predictions side by side: the colour of each voxel, by hand."""

import io

import numpy as np
import pytest
from matplotlib.colors import to_rgb
from PIL import Image

import neurokd
from neurokd.viz.colours import COLOURS
from neurokd.viz.viewers.comparison import Comparison

SHAPE = (4, 6, 8)
TRUTH = np.zeros(SHAPE, bool)
TRUTH[1, 2, 2:6] = True
SHIFTED = np.roll(TRUTH, 2, axis=2)
DEEPER = np.roll(TRUTH, 1, axis=0)
SETTINGS = {"spacing": None, "columns": 2, "gamma": 1.0, "width": 400}


def colour_of(comparison: Comparison, picture: np.ndarray, plane: str, k: int, across: int, down: int) -> str | None:
    """The name of the colour in the middle of a voxel, None for black."""
    panel = comparison.panels[plane][k]
    column, row = (int(at) for at in panel.pixels(np.float64(across), np.float64(down)))
    pixel = picture[panel.place][row, column]
    judged = {name: np.rint(255 * np.array(to_rgb(COLOURS[name]))) for name in ("found", "missed", "invented")}
    names = {tuple(rgb.astype(int).tolist()): name for name, rgb in judged.items()}
    return names[tuple(pixel.tolist())] if pixel.any() else None


def test_each_prediction_is_judged_voxel_by_voxel() -> None:
    predictions = {"shifted": SHIFTED, "deeper": DEEPER, "right": TRUTH}
    comparison = Comparison(np.zeros(SHAPE), TRUTH, predictions, **SETTINGS)
    one = comparison.draw("xy", 1, 5, 0, slab=1, opacity=1)
    row = [[colour_of(comparison, one, "xy", k, x, 2) for x in range(1, 8)] for k in range(3)]
    assert row[0] == [None, "missed", "missed", "found", "found", "invented", "invented"]
    assert row[1] == [None, "missed", "missed", "missed", "missed", None, None]
    assert row[2] == [None, "found", "found", "found", "found", None, None]
    # Seen through the whole stack, what lies one slice deeper hides behind what was missed, and is not found.
    deep = comparison.draw("xy", 1, 5, 0, slab=4, opacity=1)
    assert [colour_of(comparison, deep, "xy", 1, x, 2) for x in range(1, 8)] == row[1]
    # From the side it is seen below it.
    side = comparison.draw("xz", 0, 2, 0, slab=1, opacity=1)
    assert [colour_of(comparison, side, "xz", 1, 3, z) for z in range(1, 4)] == ["missed", "invented", None]
    side = comparison.draw("zy", 0, 5, 3, slab=1, opacity=1)
    assert [colour_of(comparison, side, "zy", 1, z, 2) for z in range(1, 4)] == ["missed", "invented", None]


def test_panels_do_not_overlap_and_keep_the_proportions() -> None:
    predictions = {str(k): TRUTH for k in range(5)}
    comparison = Comparison(np.zeros(SHAPE), TRUTH, predictions, **{**SETTINGS, "spacing": (3.0, 1.0, 0.5)})
    for plane, ratio in (("xy", 4 / 6), ("zy", 12 / 6), ("xz", 4 / 12)):
        picture = comparison.draw(plane, 0, 0, 0, slab=1, opacity=1)
        taken = np.zeros(picture.shape[:2], int)
        for panel in comparison.panels[plane]:
            taken[panel.place] += 1
            assert panel.columns / panel.rows == pytest.approx(ratio, abs=0.03)
        assert taken.max() == 1 and picture.shape[1] <= 402


def test_a_click_moves_the_cursor_of_all_panels() -> None:
    predictions = {"shifted": SHIFTED, "deeper": DEEPER}
    widget = neurokd.view_comparison(np.zeros(SHAPE), TRUTH, predictions, spacing=(2, 1, 1))
    settings = {"spacing": (2, 1, 1), "columns": 3, "gamma": 0.5, "width": 900}
    comparison = Comparison(np.zeros(SHAPE), TRUTH, predictions, **settings)
    panel = comparison.panels["xy"][1]
    across, down = panel.pixels(np.float64(6), np.float64(4))
    column, row = panel.left + across, panel.top + down
    widget.drag(1, column, row, column, row)
    values = {name: control.value for name, control in widget.controls.items()}
    assert values == {"plane": "xy", "z": 2, "y": 4, "x": 6, "slab": 8, "opacity": 0.8}
    widget.controls["plane"].value = "zy"
    widget.controls["slab"].value = 1
    picture = np.array(Image.open(io.BytesIO(widget.picture.value)))
    np.testing.assert_array_equal(picture, comparison.draw("zy", 2, 4, 6, slab=1, opacity=0.8))
    assert "z 2, y 4, x 6" in widget.text.value and "4.0, 4.0, 6.0 µm" in widget.text.value


def test_bad_input_is_named() -> None:
    volume = np.zeros(SHAPE)
    with pytest.raises(ValueError, match="predictions"):
        neurokd.view_comparison(volume, TRUTH, {})
    with pytest.raises(ValueError, match="mine"):
        neurokd.view_comparison(volume, TRUTH, {"mine": np.linspace(0, 1, 192).reshape(SHAPE)})
    with pytest.raises(ValueError, match="mine"):
        neurokd.view_comparison(volume, TRUTH, {"mine": TRUTH[1:]})
    for setting in ("slab", "columns", "gamma", "width"):
        with pytest.raises(ValueError, match=setting):
            neurokd.view_comparison(volume, TRUTH, {"mine": TRUTH}, **{setting: 0})
