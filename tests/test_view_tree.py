"""Turning a tree: from its three sides it is the maximum projection that numpy makes."""

import io

import numpy as np
import pytest
from matplotlib.colors import to_rgb
from PIL import Image

import neurokd
from neurokd.data.tree import Tree
from neurokd.viz.colours import COLOURS
from neurokd.viz.viewers.tree import Turntable, rotation

SHAPE = (7, 10, 13)
VOLUME = np.random.default_rng(0).integers(0, 256, SHAPE).astype(np.uint8)
VOLUME[VOLUME < 128] = 0
FAR_AWAY = Tree([[5e3, 5e3, 5e3]], [1], [-1], [1])  # out of every picture
SIDES = {  # azimuth, elevation, axes (across, down), the projection as rows x columns
    "xy": (0, 0, VOLUME.max(axis=0)),
    "zy": (90, 0, VOLUME.max(axis=2).T),
    "xz": (0, 90, VOLUME.max(axis=1)),
    "xy from behind": (180, 0, VOLUME.max(axis=0)[:, ::-1]),
}


def line(*points) -> Tree:
    return Tree(points, np.ones(len(points)), np.arange(-1, len(points) - 1), np.full(len(points), 3))


def bounds(where: np.ndarray) -> tuple[int, int, int, int]:
    """Top, left, rows and columns of what is true."""
    (top, bottom), (left, right) = (np.flatnonzero(where.any(axis=k))[[0, -1]] for k in (1, 0))
    return top, left, bottom - top + 1, right - left + 1


@pytest.mark.parametrize("side", SIDES)
def test_from_the_sides_it_is_the_maximum_projection(side: str) -> None:
    azimuth, elevation, expected = SIDES[side]
    turntable = Turntable(VOLUME, FAR_AWAY, spacing=None, gamma=1.0, width=300)
    picture = turntable.draw(azimuth, elevation, image=1.0)[: turntable.side, : turntable.side]
    white = np.percentile(VOLUME.max(axis=0)[VOLUME.max(axis=0) > 0], 99.5)
    grey = np.rint(np.clip(expected / int(white), 0, 1) * 255)
    zoom = turntable.zoom
    cubes = picture[zoom // 2 :: zoom, zoom // 2 :: zoom, 0]
    rows, columns = expected.shape
    half = len(cubes) // 2
    centre = [n // 2 for n in (rows, columns)]
    if side == "xy from behind":
        centre[1] = columns - 1 - centre[1]
    found = cubes[half - centre[0] : half - centre[0] + rows, half - centre[1] : half - centre[1] + columns]
    np.testing.assert_allclose(found, grey, atol=1)


def test_a_turn_keeps_lengths_and_goes_the_way_it_says() -> None:
    for azimuth, elevation in ((0, 0), (30, -70), (123, 45)):
        turn = rotation(azimuth, elevation)
        np.testing.assert_allclose(turn @ turn.T, np.eye(3), atol=1e-12)
        assert np.linalg.det(turn) == pytest.approx(1)
    x, y, z = np.eye(3)
    np.testing.assert_allclose(rotation(90, 0) @ z, [1, 0, 0], atol=1e-12)  # z to the right
    np.testing.assert_allclose(rotation(0, 90) @ z, [0, 1, 0], atol=1e-12)  # z down
    np.testing.assert_allclose(rotation(90, 0) @ y, y, atol=1e-12)
    np.testing.assert_allclose(rotation(0, 90) @ x, x, atol=1e-12)


@pytest.mark.parametrize(("azimuth", "elevation"), [(0, 0), (90, 0), (0, 90)])
def test_the_tree_lies_on_the_voxels_it_was_traced_in(azimuth: int, elevation: int) -> None:
    volume = np.zeros((12, 30, 40), np.uint8)
    volume[3, 5:20, 8] = 255
    branch = line((8, 5, 3), (8, 19, 3))
    turntable = Turntable(volume, branch, spacing=(2.0, 0.5, 1.0), gamma=1.0, width=400)
    picture = turntable.draw(azimuth, elevation, image=1.0)[: turntable.side, : turntable.side].astype(int)
    lit = (picture == picture[..., :1]).all(axis=2) & (picture[..., 0] == 255)
    lit[-80:, :80] = False  # the names of the axes
    purple = picture[..., 0] > picture[..., 1] + 20
    _, left, rows, columns = bounds(lit | purple)
    assert purple.any()
    if elevation == 0:  # 15 voxels of 0.5 µm down; one of 1 (x) or 2 (z) across; cubes of 0.5 µm
        zoom = turntable.zoom
        assert rows == pytest.approx(15 * zoom, abs=6)
        assert columns == pytest.approx((2 if azimuth == 0 else 4) * zoom, abs=6)
        _, tree_left, _, tree_columns = bounds(purple)
        assert tree_left + tree_columns / 2 == pytest.approx(left + columns / 2, abs=3)


def test_what_is_near_hides_what_is_far_and_is_brighter() -> None:
    near, far = (Turntable(VOLUME * 0, line((3, 5, z), (9, 5, z)), spacing=None, gamma=1, width=300) for z in (0, 6))
    brightest = [one.draw(0, 0, image=1)[: one.side - 90, : one.side, 2].max() for one in (near, far)]
    assert brightest[0] > brightest[1]
    both = Tree([[3, 5, 0], [9, 5, 0], [9, 5, 6], [3, 5, 6]], np.ones(4), [-1, 0, 1, 2], np.full(4, 3))
    pictures = [
        Turntable(VOLUME * 0, tree, spacing=None, gamma=1, width=300).draw(0, 0, image=1)
        for tree in (both, line((3, 5, 0), (9, 5, 0)))
    ]
    np.testing.assert_array_equal(*(picture[130:170, :140] for picture in pictures))


def test_a_drag_turns_it_from_where_it_was() -> None:
    widget = neurokd.view_tree(VOLUME, line((1, 2, 3), (9, 8, 6)), spacing=(2, 1, 1))
    angles = lambda: (widget.controls["azimuth"].value, widget.controls["elevation"].value)  # noqa: E731
    widget.drag(1, 100, 100, 100, 100)
    assert angles() == (0, 0)
    widget.drag(1, 100, 100, 50, 75)
    assert angles() == (20, 10)
    widget.drag(1, 100, 100, 0, 100)  # the same stroke: from where it began
    assert angles() == (40, 0)
    widget.drag(2, 100, 100, 0, 100)  # another, begun in the same place: from where that ended
    assert angles() == (80, 0)
    widget.drag(3, 0, 0, -300, 1000)
    assert angles() == (-160, -90)  # round the back, and not over the top
    turntable = Turntable(VOLUME, line((1, 2, 3), (9, 8, 6)), spacing=(2, 1, 1), gamma=0.5, width=560)
    picture = np.array(Image.open(io.BytesIO(widget.picture.value)))
    np.testing.assert_array_equal(picture, turntable.draw(-160, -90, image=0.7))
    assert "2 nodes, 1 tips" in widget.text.value


def test_it_fits_from_every_side() -> None:
    corners = [(x, y, z) for x in (0, 12) for y in (0, 9) for z in (0, 6)]
    turntable = Turntable(VOLUME, line(*corners), spacing=(4, 1, 1), gamma=1, width=300)
    for azimuth, elevation in ((45, 35), (-30, 60), (135, -35)):
        picture = turntable.draw(azimuth, elevation, image=1.0)[: turntable.side, : turntable.side]
        inside = np.zeros(picture.shape[:2], bool)
        inside[2:-2, 2:-2] = True
        assert not picture[~inside].any()


def test_a_large_stack_shows_its_brightest_voxel() -> None:
    volume = np.full((40, 300, 300), 10, np.uint8)
    volume[20, 150, 150] = 255
    turntable = Turntable(volume, FAR_AWAY, spacing=None, gamma=1.0, width=300)
    for azimuth, elevation in ((0, 0), (33, 12)):
        picture = turntable.draw(azimuth, elevation, image=1.0)[: turntable.side, : turntable.side]
        middle = picture[turntable.side // 2 - 4 : turntable.side // 2 + 4, turntable.side // 2 - 4 :][:, :8]
        assert middle.max() > 200


def test_bad_input_is_named() -> None:
    with pytest.raises(ValueError, match="volume"):
        neurokd.view_tree(VOLUME[0], FAR_AWAY)
    for setting, value in (("gamma", 0), ("width", 20), ("spacing", (1, 1))):
        with pytest.raises(ValueError, match=setting):
            neurokd.view_tree(VOLUME, FAR_AWAY, **{setting: value})


def test_the_colour_of_the_tree_is_that_of_the_legend() -> None:
    turntable = Turntable(VOLUME, FAR_AWAY, spacing=None, gamma=1.0, width=300)
    legend = turntable.draw(0, 0, image=0.0)[turntable.side :]
    for name in ("tree", "root"):
        assert (legend == np.rint(255 * np.array(to_rgb(COLOURS[name])))).all(axis=2).any()
