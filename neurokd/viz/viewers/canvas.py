"""The pixels of a viewer: colours over grey, text, legend and scale bar::

    codes (grey) + labels (overlay) --paint--> RGB --png--> bytes

Codes and labels are arrays of the same shape.
"""

from __future__ import annotations

import io
from collections.abc import Mapping
from typing import Any

import numpy as np
from einops import repeat
from matplotlib import font_manager
from matplotlib.colors import to_rgb
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from neurokd.viz.colours import COLOURS

__all__ = ["NUMBER", "Paper", "grey_ramp", "judge", "paint", "png"]

# Label of a pixel for each name of a colour. Label 0 shows the image alone.
NUMBER = {name: number for number, name in enumerate(COLOURS, 1)}
_TEXT, _LINE = 12, 16  # size of the text and height of a line in pixels


def grey_ramp(levels: NDArray[Any], projection: NDArray[np.uint8], *, gamma: float) -> NDArray[np.float64]:
    """Return the grey (256,) of each code, from 0 (black) to 1 (white).

    Black is zero or the lowest level, whichever is lower. The brightest 0.5 % of the pixels above zero in the
    projection ``y x`` are white, as in :meth:`neurokd.viz.frame.Frame.draw_volume`, because a soma is much
    brighter than its neurites.
    """
    if not gamma > 0:
        raise ValueError(f"gamma must be above 0, got {gamma}")
    lit = projection[projection > 0]
    brightest = int(np.percentile(lit, 99.5)) if lit.size else 0
    values = levels.astype(float)[np.minimum(np.arange(256), len(levels) - 1)]
    low, high = min(0.0, values[0]), values[brightest]
    return np.clip((values - low) / ((high - low) or 1.0), 0, 1) ** gamma


def paint(
    codes: NDArray[np.uint8], labels: NDArray[np.uint8], ramp: NDArray[np.float64], *, opacity: float
) -> NDArray[np.uint8]:
    """Return pixels ``y x 3``: the grey of each code, covered by the colour of its label."""
    # One table holds the colour of every pair of a label and a code, so painting is a look-up.
    table = repeat(ramp, "code -> label code rgb", label=1 + len(COLOURS), rgb=3).copy()
    for name, number in NUMBER.items():
        share = 0.6 if name == "cursor" else opacity
        # Blend the grey with the colour.
        table[number] = (1 - share) * table[number] + share * np.array(to_rgb(COLOURS[name]))
    table = np.rint(255 * table).astype(np.uint8).reshape(-1, 3)  # (label code) 3
    return table.take(labels.astype(np.intp) * 256 + codes, axis=0)


def judge(
    predicted: NDArray[np.bool_], truth: NDArray[np.bool_] | None, found: NDArray[np.bool_] | None
) -> NDArray[np.uint8]:
    """Label each pixel of a projection as found, missed, invented or background.

    A pixel counts as found if any voxel of its column is found, otherwise as missed if any is missed,
    otherwise as invented. Without a truth, a predicted pixel gets the label of a mask.

    Parameters
    ----------
    predicted, truth, found
        Boolean ``y x``: whether any voxel of the column is predicted, is true, or is both.
    """
    if truth is None or found is None:
        return np.where(predicted, np.uint8(NUMBER["mask"]), np.uint8(0))
    labels = np.where(predicted, np.uint8(NUMBER["invented"]), np.uint8(0))
    labels[truth] = NUMBER["missed"]
    labels[found] = NUMBER["found"]
    return labels


class Paper:
    """Draw the parts of a picture that do not change: labels, legend and scale bar on white.

    Parameters
    ----------
    width, height
        Size in pixels without the legend, which is added below.
    entries
        Texts of the legend by name of the colour.
    bar
        Length of the scale bar in pixels and its text.
    """

    def __init__(self, width: int, height: int, entries: Mapping[str, str], bar: tuple[float, str]) -> None:
        font = ImageFont.truetype(font_manager.findfont("DejaVu Sans"), _TEXT)
        items = [(bar[0], bar[1], None), *((_TEXT, text, name) for name, text in entries.items())]
        # Place the entries from left to right, and start a new line where one does not fit.
        places, left, line = [], 8.0, 0
        for size, text, _ in items:
            needed = size + 6 + font.getlength(text)
            if left + needed > width and left > 8:
                left, line = 8.0, line + 1
            places.append((left, height + 4 + line * _LINE))
            left += needed + 18
        self._image = Image.new("RGB", (width, height + 8 + (line + 1) * _LINE), "white")
        self._draw, self.font = ImageDraw.Draw(self._image), font
        for (left, top), (size, text, name) in zip(places, items, strict=True):
            middle = top + _LINE // 2
            is_line = name in (None, "tree")  # the scale bar and the tree are lines, all others are squares
            half = 2 if is_line else 5
            box = (left, middle - half, left + size, middle + half - 1)
            fill = "black" if name is None else COLOURS[name]
            self._draw.rectangle(box, fill=fill, outline=None if is_line else "#646464")
            self.write(left + size + 6, middle, text, anchor="lm")

    def write(self, x: float, y: float, text: str, *, anchor: str = "mm", most: float = np.inf) -> None:
        """Write black text, shortened to at most `most` pixels.

        `anchor` has the meaning that Pillow gives it: "mm" centres the text on (x, y), "lm" starts it there.
        """
        whole = text
        while len(text) > 1 and self.font.getlength(text) > most:
            whole = whole[:-1]
            text = whole + "…"
        self._draw.text((x, y), text, fill="black", font=self.font, anchor=anchor)

    def paste(self, left: int, top: int, pixels: NDArray[np.uint8]) -> None:
        """Place pixels ``y x 3`` onto the sheet."""
        self._image.paste(Image.fromarray(pixels), (left, top))

    def pixels(self) -> NDArray[np.uint8]:
        """Return a copy of the sheet, ``y x 3``."""
        return np.array(self._image)


def png(pixels: NDArray[np.uint8]) -> bytes:
    """Return pixels ``y x 3`` as a PNG file, with low compression for speed."""
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG", compress_level=1)
    return file.getvalue()
