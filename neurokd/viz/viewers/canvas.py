"""The pixels of a viewer: colours over grey, text, legend and scale bar, and the PNG file of it all.

codes (grey) + labels (what is on top) --paint--> RGB --png--> bytes
"""

from __future__ import annotations

import io
from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib import font_manager
from matplotlib.colors import to_rgb
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from neurokd.viz.colours import COLOURS

__all__ = ["NUMBER", "Paper", "grey_ramp", "judge", "paint", "png"]

# The number of what a pixel shows on top of the image; the image itself is 0.
NUMBER = {name: number for number, name in enumerate(COLOURS, 1)}
_TEXT, _LINE = 12, 16  # size of the text and height of a line of it, pixels


def grey_ramp(levels: NDArray[Any], projection: NDArray[np.uint8], *, gamma: float) -> NDArray[np.float64]:
    """Return the grey in [0, 1] of each code (256,), black at zero or the least level, white at the brightest.

    The brightest 0.5 % of what is not black in the projection ``y x`` are cut, as in
    :meth:`Frame.draw_volume`, for a soma is far brighter than its neurites.
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
    """Return pixels ``y x 3``: the grey of each code, under the colour of each label."""
    table = np.repeat(ramp[None, :, None], 1 + len(COLOURS), axis=0) * np.ones(3)
    for name, number in NUMBER.items():
        share = 0.6 if name == "cursor" else opacity
        table[number] = (1 - share) * table[number] + share * np.array(to_rgb(COLOURS[name]))
    table = np.rint(255 * table).astype(np.uint8).reshape(-1, 3)  # (label code) 3
    return table.take(labels.astype(np.intp) * 256 + codes, axis=0)


def judge(
    predicted: NDArray[np.bool_], truth: NDArray[np.bool_] | None, found: NDArray[np.bool_] | None
) -> NDArray[np.uint8]:
    """Return the label of each pixel of a projection: found, missed, invented, or nothing.

    A pixel counts as found if any voxel of its column is, else as missed if any is, else as invented.

    Parameters
    ----------
    predicted, truth, found
        Boolean ``y x``: any voxel of the column is predicted, is true, is both. Without a truth the
        prediction is a mask.
    """
    if truth is None or found is None:
        return np.where(predicted, np.uint8(NUMBER["mask"]), np.uint8(0))
    labels = np.where(predicted, np.uint8(NUMBER["invented"]), np.uint8(0))
    labels[truth] = NUMBER["missed"]
    labels[found] = NUMBER["found"]
    return labels


class Paper:
    """Draw on a white sheet what does not change: names of axes, legend, scale bar.

    Parameters
    ----------
    width, height
        Size in pixels, without the lines of the legend, which are added below.
    entries
        Text of the legend for each name of a colour.
    bar
        Length of the scale bar in pixels, and its text.
    """

    def __init__(self, width: int, height: int, entries: Mapping[str, str], bar: tuple[float, str]) -> None:
        font = ImageFont.truetype(font_manager.findfont("DejaVu Sans"), _TEXT)
        items = [(bar[0], bar[1], None), *((_TEXT, text, name) for name, text in entries.items())]
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
            half = 2 if name in (None, "tree") else 5
            fill, edge = ("black", None) if name is None else (COLOURS[name], None if name == "tree" else "#646464")
            self._draw.rectangle((left, middle - half, left + size, middle + half - 1), fill=fill, outline=edge)
            self.write(left + size + 6, middle, text, anchor="lm")

    def write(self, x: float, y: float, text: str, *, anchor: str = "mm", most: float = np.inf) -> None:
        """Write black text and cut it where it is longer than `most` pixels.

        `anchor` is Pillow's: "mm" centres the text on the place, "lm" begins it there.
        """
        whole = text
        while len(text) > 1 and self.font.getlength(text) > most:
            whole = whole[:-1]
            text = whole + "…"
        self._draw.text((x, y), text, fill="black", font=self.font, anchor=anchor)

    def paste(self, left: int, top: int, pixels: NDArray[np.uint8]) -> None:
        """Put pixels ``y x 3`` onto the sheet."""
        self._image.paste(Image.fromarray(pixels), (left, top))

    def pixels(self) -> NDArray[np.uint8]:
        """Return a copy of the sheet, ``y x 3``."""
        return np.array(self._image)


def png(pixels: NDArray[np.uint8]) -> bytes:
    """Return the PNG file of pixels ``y x 3``, packed lightly for speed."""
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG", compress_level=1)
    return file.getvalue()
