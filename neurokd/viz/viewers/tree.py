"""Viewer of a tree over its stack, rotated with the mouse.

Angles are in degrees. The table shows which axis points right and which points down::

    azimuth  elevation   right  down
    0        0           x      y
    90       0           z      y
    0        90          x      z
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from einops import rearrange, repeat
from matplotlib.colors import to_rgb
from numpy.typing import ArrayLike, NDArray
from PIL import Image, ImageDraw

from neurokd.data.tree import Tree
from neurokd.data.volume import Spacing, check_volume
from neurokd.viz.colours import COLOURS
from neurokd.viz.frame import Frame, bar_length
from neurokd.viz.viewers.canvas import Paper, grey_ramp
from neurokd.viz.viewers.slabs import grey_levels, resample

if TYPE_CHECKING:
    from neurokd.viz.viewers.widget import Viewer

__all__ = ["view_tree"]

_SIDE = 160  # largest number of cubes along the longest side of the stack
_CUBES = 150_000  # largest number of cubes drawn, so that a rotation takes milliseconds
_DEGREES = 0.4  # degrees of rotation per pixel of mouse movement


def view_tree(
    volume: ArrayLike, tree: Tree, *, spacing: Spacing | None = None, gamma: float = 0.5, width: int = 560
) -> Viewer:
    """Show a tree over the maximum projection of its stack from any side; drag to rotate it.

    The projection is parallel, so one scale bar is valid everywhere. Distant parts of the tree are darker.
    Only the brightest parts of the stack are shown.
    :func:`neurokd.viz.figures.projections.plot_projections` draws a static figure.

    Parameters
    ----------
    volume
        Intensities ``z y x``.
    tree
        Tree in voxels of `volume`.
    spacing
        Voxel size ``(z, y, x)`` in µm; None gives lengths in voxels.
    gamma
        Exponent of the display, > 0; a value below one brightens dim voxels.
    width
        Width of the picture in pixels, at least 100.

    Returns
    -------
    Viewer
        A widget, shown if it is the last expression of a cell. ``controls`` holds its controls by name:
        azimuth and elevation, which are angles in degrees, and image, which is the brightness of the stack
        from 0 to 1.

    Raises
    ------
    ValueError
        `volume` is not a valid volume, or a setting is out of range.
    ImportError
        ipywidgets is not installed; ``neurokd[notebooks]`` installs it.

    Examples
    --------
    >>> view_tree(volume, trace(probability), spacing=(0.4, 0.1, 0.1))
    """
    from neurokd.viz.viewers.widget import Viewer, slider

    turntable = Turntable(volume, tree, spacing=spacing, gamma=gamma, width=width)
    controls = {
        "azimuth": slider("azimuth", 0, -180, 180),
        "elevation": slider("elevation", 0, -90, 90),
        "image": slider("image", 0.7, 0, 1, step=0.05),
    }
    start = {"stroke": 0.0, "azimuth": 0.0, "elevation": 0.0}

    def moved(stroke: float, x0: float, y0: float, x: float, y: float) -> dict[str, int]:
        if stroke != start["stroke"]:  # a new drag starts at the present angles
            angles = {name: controls[name].value for name in ("azimuth", "elevation")}
            start.update(stroke=stroke, **angles)
        azimuth = start["azimuth"] - _DEGREES * (x - x0)  # the front follows the mouse
        elevation = np.clip(start["elevation"] - _DEGREES * (y - y0), -90, 90)
        return {"azimuth": round((azimuth + 180) % 360 - 180), "elevation": round(elevation)}

    def draw(azimuth: float, elevation: float, image: float) -> tuple[NDArray[np.uint8], str]:
        return turntable.draw(azimuth, elevation, image=image), f"{len(tree)} nodes, {len(tree.tips)} tips"

    return Viewer(draw, controls, moved)


class Turntable:
    """Draw a tree and the brightest cubes of its stack from any side.

    A cube is a cubic bin of voxels with the brightest code among them. The parameters are those of
    :func:`view_tree`.

    Attributes
    ----------
    zoom : int
        Edge of a cube in pixels.
    side : int
        Side of the square picture without its legend, in pixels. The centre of the square is the centre of
        the middle cube.
    """

    def __init__(
        self,
        volume: ArrayLike,
        tree: Tree,
        *,
        spacing: Spacing | None,
        gamma: float,
        width: int,
    ) -> None:
        volume = check_volume(volume)
        if width < 100:
            raise ValueError(f"width must be at least 100 pixels, got {width}")
        frame = Frame(volume.shape, spacing)
        codes, levels = grey_levels(volume)
        edge = max(max(frame.lengths) / _SIDE, min(frame.spacing))  # of a cube, in `frame.unit`
        counts = tuple(max(1, round(length / edge)) for length in frame.lengths)
        cubes = resample(codes, counts)
        order = np.argsort(cubes, axis=None, kind="stable")[-_CUBES:]  # the brightest last, so it is on top
        middle = np.array(counts) // 2
        offsets = np.stack(np.unravel_index(order, counts), axis=1) - middle  # cube 3, as z y x
        self._cubes = offsets[:, ::-1].astype(np.float32)  # cube 3, as x y z
        ramp = grey_ramp(levels, cubes.max(axis=0), gamma=gamma)
        self._greys = ramp[cubes.ravel()[order]].astype(np.float32)

        # Half of the diagonal in cubes, so that no rotation leaves the picture.
        half = int(np.ceil(np.linalg.norm(counts) / 2)) + 1
        self._half, self.zoom = half, max(1, width // (2 * half))
        self.side = 2 * half * self.zoom
        fine = tree.resample(0.7 * edge / self.zoom / max(frame.spacing)) if len(tree) > 1 else tree
        sizes, centre = (np.array(triple[::-1]) for triple in (frame.spacing, (middle + 0.5) * edge))
        self._nodes = ((fine.xyz + 0.5) * sizes - centre) / edge  # node 3, as x y z in cubes from the centre
        bar = bar_length(max(frame.lengths))
        legend = {"tree": "tree", "root": "root"}
        self._paper = Paper(self.side, self.side, legend, (bar / edge * self.zoom, f"{bar:g} {frame.unit}"))

    def draw(self, azimuth: float, elevation: float, *, image: float) -> NDArray[np.uint8]:
        """Draw stack and tree from one side.

        Parameters
        ----------
        azimuth, elevation
            Angles in degrees. The first rotation is about y by `azimuth`, the second about the horizontal
            axis of the picture by `elevation`.
        image
            Brightness of the stack, from 0 to 1.

        Returns
        -------
        NDArray[uint8]
            The picture ``y x 3``.
        """
        turn = rotation(azimuth, elevation)
        turned = np.rint(self._cubes @ turn.T.astype(np.float32)).astype(int)  # cube 3: right, down, away
        right, down, _ = turned.T + self._half
        grey = np.zeros((2 * self._half, 2 * self._half), np.float32)
        grey[down, right] = image * self._greys  # a brighter cube overwrites darker ones
        grey = repeat(grey, "y x -> (y i) (x j)", i=self.zoom, j=self.zoom)
        grey = np.rint(255 * grey).astype(np.uint8)
        picture = self._paper.pixels()
        panel = picture[: self.side, : self.side]
        panel[:] = rearrange(grey, "y x -> y x 1")

        nodes = self._nodes @ turn.T
        root = (nodes[0, :2] + self._half + 0.5) * self.zoom
        nodes = nodes[np.argsort(-nodes[:, 2])]  # the nearest last, so they are on top
        # Brightness falls from 1 at the front to 0.5 at the back.
        shade = 0.75 - 0.25 * np.clip(nodes[:, 2:] / self._half, -1, 1)
        colours = np.rint(255 * shade * np.array(to_rgb(COLOURS["tree"]))).astype(np.uint8)  # node rgb
        right, down = np.floor((nodes[:, :2] + self._half + 0.5) * self.zoom - 0.5).astype(int).T
        for i, j in ((0, 0), (0, 1), (1, 0), (1, 1)):
            column, row = right + i, down + j
            inside = (column >= 0) & (column < self.side) & (row >= 0) & (row < self.side)
            panel[row[inside], column[inside]] = colours[inside]

        whole = Image.fromarray(picture)
        pen = ImageDraw.Draw(whole)
        pen.ellipse((*(root - 4), *(root + 4)), fill=COLOURS["root"], outline="black")
        # The arrows of the axes; the farthest is drawn first.
        corner = np.array([40.0, self.side - 40.0])
        for name, axis in sorted(zip("xyz", turn.T, strict=True), key=lambda pair: -pair[1][2]):
            tip = corner + 20 * axis[:2]
            pen.line((*corner, *tip), fill="white", width=2)
            pen.text(tuple(corner + 28 * axis[:2]), name, fill="white", anchor="mm", font=self._paper.font)
        return np.array(whole)


def rotation(azimuth: float, elevation: float) -> NDArray[np.float64]:
    """Return the matrix (3, 3) that maps (x, y, z) to right, down and away from the viewer."""
    a, e = np.deg2rad([azimuth, elevation])
    about_y = np.array([[np.cos(a), 0, np.sin(a)], [0, 1, 0], [-np.sin(a), 0, np.cos(a)]])
    about_x = np.array([[1, 0, 0], [0, np.cos(e), np.sin(e)], [0, -np.sin(e), np.cos(e)]])
    return about_x @ about_y
