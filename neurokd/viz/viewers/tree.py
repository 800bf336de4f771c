"""A tree and the stack that it was traced in, turned by the mouse.

The angles are in degrees; the table says which axes lie across and down::

    azimuth  elevation   across  down
    0        0           x       y
    90       0           z       y
    0        90          x       z
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from einops import rearrange
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

_SIDE = 160  # most cubes along the longest side of the stack
_CUBES = 150_000  # most cubes drawn, the brightest, so that a turn takes milliseconds
_DEGREES = 0.4  # degrees of a turn for each pixel that the mouse moves


def view_tree(
    volume: ArrayLike, tree: Tree, *, spacing: Spacing | None = None, gamma: float = 0.5, width: int = 560
) -> Viewer:
    """Show a tree over the maximum projection of its stack from any side; drag to turn it.

    The projection is parallel, so that its scale bar holds everywhere. Parts of the tree that are far away
    are darker. Only the brightest parts of the stack are shown.
    :func:`neurokd.viz.figures.projections.plot_projections` is the static picture.

    Parameters
    ----------
    volume
        Intensities ``z y x``.
    tree
        Tree in voxels of `volume`.
    spacing
        Voxel size ``(z, y, x)`` in µm; None counts voxels.
    gamma
        Exponent of the display, > 0; below one lifts what is dim.
    width
        Width of the picture in pixels, at least 100.

    Returns
    -------
    Viewer
        A widget; as the last expression of a cell it is shown. ``controls`` holds its controls by name:
        azimuth and elevation in degrees, and image, the brightness of the stack from 0 to 1.

    Raises
    ------
    ValueError
        The volume is no volume, or a setting is out of range.
    ImportError
        ipywidgets are not installed; they come with ``neurokd[notebooks]``.

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
    begun = {"stroke": 0.0, "azimuth": 0.0, "elevation": 0.0}

    def moved(stroke: float, x0: float, y0: float, x: float, y: float) -> dict[str, int]:
        if stroke != begun["stroke"]:
            begun.update(stroke=stroke, azimuth=controls["azimuth"].value, elevation=controls["elevation"].value)
        azimuth = begun["azimuth"] - _DEGREES * (x - x0)  # what is in front goes with the mouse
        elevation = begun["elevation"] - _DEGREES * (y - y0)
        return {"azimuth": round((azimuth + 180) % 360 - 180), "elevation": round(np.clip(elevation, -90, 90))}

    def draw(azimuth: float, elevation: float, image: float) -> tuple[NDArray[np.uint8], str]:
        return turntable.draw(azimuth, elevation, image=image), f"{len(tree)} nodes, {len(tree.tips)} tips"

    return Viewer(draw, controls, moved)


class Turntable:
    """Turn the brightest cubes of a stack, and a tree; takes what :func:`view_tree` does.

    Attributes
    ----------
    zoom : int
        Edge of a cube in pixels.
    side : int
        Side of the square picture without its legend, in pixels; its centre is the middle of the middle cube.
    """

    def __init__(self, volume: ArrayLike, tree: Tree, *, spacing: Spacing | None, gamma: float, width: int) -> None:
        volume = check_volume(volume)
        if width < 100:
            raise ValueError(f"width must be at least 100 pixels, got {width}")
        frame = Frame(volume.shape, spacing)
        codes, levels = grey_levels(volume)
        edge = max(max(frame.lengths) / _SIDE, min(frame.spacing))  # µm
        counts = tuple(max(1, round(length / edge)) for length in frame.lengths)
        cubes = resample(codes, counts)
        order = np.argsort(cubes, axis=None, kind="stable")[-_CUBES:]  # the brightest last, on top
        middle = np.array(counts) // 2
        self._cubes = (np.stack(np.unravel_index(order, counts), axis=1) - middle)[:, ::-1].astype(np.float32)
        self._greys = grey_ramp(levels, cubes.max(axis=0), gamma=gamma)[cubes.ravel()[order]].astype(np.float32)

        half = int(np.ceil(np.linalg.norm(counts) / 2)) + 1
        self._half, self.zoom = half, max(1, width // (2 * half))
        self.side = 2 * half * self.zoom
        fine = tree.resample(0.7 * edge / self.zoom / max(frame.spacing)) if len(tree) > 1 else tree
        sizes, centre = (np.array(triple[::-1]) for triple in (frame.spacing, (middle + 0.5) * edge))
        self._nodes = ((fine.xyz + 0.5) * sizes - centre) / edge  # x y z in cubes from the centre
        bar = bar_length(max(frame.lengths))
        legend = {"tree": "tree", "root": "root"}
        self._paper = Paper(self.side, self.side, legend, (bar / edge * self.zoom, f"{bar:g} {frame.unit}"))

    def draw(self, azimuth: float, elevation: float, *, image: float) -> NDArray[np.uint8]:
        """Draw stack and tree from one side.

        Parameters
        ----------
        azimuth, elevation
            Angles in degrees: first a turn about y by `azimuth`, then about the picture's horizontal by
            `elevation`.
        image
            Brightness of the stack, from 0 to 1.

        Returns
        -------
        NDArray[uint8]
            The picture ``y x 3``.
        """
        turn = rotation(azimuth, elevation)
        right, down, _ = np.rint(self._cubes @ turn.T.astype(np.float32)).astype(int).T + self._half
        grey = np.zeros((2 * self._half, 2 * self._half), np.float32)
        grey[down, right] = image * self._greys
        grey = np.rint(255 * np.repeat(np.repeat(grey, self.zoom, axis=0), self.zoom, axis=1)).astype(np.uint8)
        picture = self._paper.pixels()
        panel = picture[: self.side, : self.side]
        panel[:] = rearrange(grey, "y x -> y x 1")

        nodes = self._nodes @ turn.T
        root = (nodes[0, :2] + self._half + 0.5) * self.zoom
        nodes = nodes[np.argsort(-nodes[:, 2])]  # the nearest come last, and so on top
        shade = 0.75 - 0.25 * np.clip(nodes[:, 2:] / self._half, -1, 1)
        colours = np.rint(255 * shade * np.array(to_rgb(COLOURS["tree"]))).astype(np.uint8)
        right, down = np.floor((nodes[:, :2] + self._half + 0.5) * self.zoom - 0.5).astype(int).T
        for i, j in ((0, 0), (0, 1), (1, 0), (1, 1)):
            there = (right + i >= 0) & (right + i < self.side) & (down + j >= 0) & (down + j < self.side)
            panel[down[there] + j, right[there] + i] = colours[there]

        whole = Image.fromarray(picture)
        pen = ImageDraw.Draw(whole)
        pen.ellipse((*(root - 4), *(root + 4)), fill=COLOURS["root"], outline="black")
        corner = np.array([40.0, self.side - 40.0])
        for name, axis in sorted(zip("xyz", turn.T, strict=True), key=lambda pair: -pair[1][2]):
            tip = corner + 20 * axis[:2]
            pen.line((*corner, *tip), fill="white", width=2)
            pen.text(tuple(corner + 28 * axis[:2]), name, fill="white", anchor="mm", font=self._paper.font)
        return np.array(whole)


def rotation(azimuth: float, elevation: float) -> NDArray[np.float64]:
    """Return the matrix (3, 3) that turns (x, y, z) into right, down and away from the viewer."""
    a, e = np.deg2rad([azimuth, elevation])
    about_y = np.array([[np.cos(a), 0, np.sin(a)], [0, 1, 0], [-np.sin(a), 0, np.cos(a)]])
    about_x = np.array([[1, 0, 0], [0, np.cos(e), np.sin(e)], [0, -np.sin(e), np.cos(e)]])
    return about_x @ about_y
