"""Picture of a slice and of what a teacher computes from it.

The four panels are::

    | slice            | three principal components |
    | cosine to cursor | attention, head by head    |
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Any

import matplotlib
import numpy as np
from einops import rearrange
from matplotlib.colors import to_rgb
from numpy.typing import ArrayLike, NDArray

from neurokd.data.intensity import scale_intensity
from neurokd.data.volume import Spacing
from neurokd.viz.colours import COLOURS
from neurokd.viz.frame import Frame, bar_length
from neurokd.viz.viewers.canvas import Paper, grey_ramp, paint
from neurokd.viz.viewers.panel import Panel, locate, slab_range
from neurokd.viz.viewers.slabs import Slabs, grey_levels, resample

if TYPE_CHECKING:
    from torch import Tensor

    from neurokd.models.teacher import Teacher

__all__ = ["Components", "TokenViews"]

_MARGIN = 20  # pixels around a panel, for its title and the labels of its axes
_FITTED = 8  # number of slices to which the principal components are fitted


class TokenViews:
    """Draw slices of a volume and the tokens that a teacher gives for them.

    The parameters are those of :func:`neurokd.viz.viewers.features.view_features`.

    Attributes
    ----------
    shape, brightest : dict
        Shape of the volume and coordinates of its brightest voxel, by axis.
    heads : int
        Number of attention heads; 0 for a teacher without a class token.
    panels : dict
        Panels by name: slice, tokens, likeness, attention.
    """

    def __init__(
        self,
        teacher: Teacher,
        volume: ArrayLike,
        *,
        block: int | None,
        magnification: float,
        slab: int,
        spacing: Spacing | None,
        gamma: float,
        width: int,
    ) -> None:
        from neurokd.models.families import vit_config

        scaled = scale_intensity(volume)
        config = vit_config(teacher.vit)
        block = (config.depth - 1) // 2 if block is None else block
        if not 0 <= block < config.depth:
            raise ValueError(f"block must be from 0 to {config.depth - 1}, got {block}")
        if width < 100 or slab < 1:
            raise ValueError(f"width must be at least 100 and slab at least 1, got {width} and {slab}")
        self._teacher, self._block, self._magnification = teacher, block, magnification
        self._scaled = scaled
        self.heads = config.heads if config.class_token else 0
        self.shape: dict[str, int] = dict(zip("zyx", scaled.shape, strict=True))
        codes, levels = grey_levels(scaled)
        self._volume = Slabs(codes)
        self._ramp = grey_ramp(levels, self._volume.project("z", 0, len(scaled)), gamma=gamma)
        brightest = np.unravel_index(scaled.argmax(), scaled.shape)
        self.brightest = dict(zip("zyx", map(int, brightest), strict=True))

        self.look = lru_cache(32)(self._look)
        self._black = self._tokens(np.zeros_like(scaled[0]))
        # Fit the components to slices that are spread evenly over those that are not black.
        lit = np.flatnonzero(scaled.any(axis=(1, 2)))
        chosen = np.linspace(0, len(lit) - 1, _FITTED).round().astype(int)
        fitted = sorted({int(lit[k]) for k in chosen})
        seen = np.stack([self.look(z, slab)[0] for z in fitted])  # z y x d
        self.components = Components(rearrange(seen - self._black, "z y x d -> (z y x) d"))
        self.panels, self._paper = self._lay_out(Frame(scaled.shape, spacing), width)

    def draw(self, z: int, y: int, x: int, *, slab: int, head: int | None) -> NDArray[np.uint8]:
        """Draw slice z with the cursor at (y, x), as ``y x 3``; the mean of all heads if `head` is None."""
        picture, cursor = self._paper.pixels(), {"z": z, "y": y, "x": x}
        tokens, attention = self.look(z, slab)
        fields = {
            "tokens": self.components.rgb(tokens - self._black),
            "likeness": cividis(self.likeness(z, y, x, slab=slab)),
        }
        if attention is not None:
            shares = attention.mean(axis=0) if head is None else attention[head]
            fields["attention"] = cividis(shares / shares.max())  # all fields: y x 3
        for name, panel in self.panels.items():
            labels = np.zeros(panel.size, np.uint8)
            panel.mark_cursor(labels, cursor)
            if name == "slice":
                plane = self._volume.project("z", *slab_range(z, slab, self.shape["z"]))
                picture[panel.place] = paint(resample(plane, panel.size), labels, self._ramp, opacity=1.0)
            else:
                pixels = resample(np.rint(255 * fields[name]).astype(np.uint8), (*panel.size, 3))
                # The cross covers 60 % of the colour below it, as in `paint`.
                cross = 255 * np.array(to_rgb(COLOURS["cursor"]))
                pixels[labels > 0] = 0.4 * pixels[labels > 0] + 0.6 * cross
                picture[panel.place] = pixels
        return picture

    def likeness(self, z: int, y: int, x: int, *, slab: int) -> NDArray[np.float32]:
        """Return the cosine of each token of a slice with the token at (y, x), as ``y x`` on their grid."""
        tokens, _ = self.look(z, slab)
        unit = tokens / np.linalg.norm(tokens, axis=-1, keepdims=True)
        rows, columns = unit.shape[:2]
        return unit @ unit[y * rows // self.shape["y"], x * columns // self.shape["x"]]

    def locate(self, column: float, row: float) -> dict[str, int]:
        """Return the two voxel coordinates of a place in the picture, by axis; nothing outside the panels."""
        return locate(self.panels.values(), column, row)

    def _look(self, z: int, slab: int) -> tuple[NDArray[np.float32], NDArray[np.float32] | None]:
        """Return the tokens ``y x d`` of a slice and the attention ``heads y x`` of the class token."""
        from neurokd.models.attention_maps import attention_maps

        low, high = slab_range(z, slab, self.shape["z"])
        image = self._scaled[low:high].max(axis=0)
        if not self.heads:
            return self._tokens(image), None
        attention = attention_maps(
            self._teacher, self._input(image), block=self._block, magnification=self._magnification
        )
        return self._tokens(image), attention[0].float().cpu().numpy()

    def _tokens(self, image: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return the tokens ``y x d`` of an image ``y x``."""
        (tokens,) = self._teacher.feature_maps(  # b d y x
            self._input(image), [self._block], magnification=self._magnification
        )
        return rearrange(tokens[0].float().cpu().numpy(), "d y x -> y x d")

    def _input(self, image: NDArray[np.float32]) -> Tensor:
        """Return an image ``y x`` as the input of the teacher, ``b c y x``."""
        import torch

        return torch.from_numpy(image)[None, None].to(next(self._teacher.parameters()))  # b c y x

    def _lay_out(self, frame: Frame, width: int) -> tuple[dict[str, Panel], Paper]:
        """Return the panels by name, and the sheet with titles, labels and colour bars."""
        titles = {
            "slice": "slice",
            "tokens": f"tokens of block {self._block}, components 1 to 3",
            "likeness": "cosine with the token at the cursor",
            "attention": "attention of the class token",
        }
        if not self.heads:
            del titles["attention"]
        _, height, breadth = frame.lengths
        pixel = max(2 * breadth / (width - 3 * _MARGIN), 2 * height / (1.2 * width))  # size of a pixel
        wide, high = (max(1, round(length / pixel)) for length in (breadth, height))  # pixels of a panel
        panels = {}
        for k, name in enumerate(titles):
            top, left = _MARGIN + k // 2 * (high + 2 * _MARGIN), _MARGIN + k % 2 * (wide + _MARGIN)
            panels[name] = Panel("xy", top, left, high, wide, (self.shape["x"], self.shape["y"]))
        bar = bar_length(breadth)
        size = 2 * wide + 3 * _MARGIN, 2 * high + 4 * _MARGIN
        paper = Paper(*size, {}, (bar / pixel, f"{bar:g} {frame.unit}"))
        for name, panel in panels.items():
            bottom = panel.top + high + _MARGIN / 2
            paper.write(panel.left + wide / 2, panel.top - _MARGIN / 2, titles[name], most=wide + _MARGIN)
            paper.write(panel.left - _MARGIN / 2, panel.top + high / 2, "y")
            paper.write(panel.left + 4, bottom, "x")
            if name in ("likeness", "attention"):
                values = np.linspace(0, 1, 60)[None].repeat(8, axis=0)  # y x
                ramp = np.rint(255 * cividis(values)).astype(np.uint8)
                paper.write(panel.left + wide - 88, bottom, "0", anchor="rm")
                paper.paste(panel.left + wide - 84, int(bottom) - 4, ramp)
                paper.write(panel.left + wide - 20, bottom, "1" if name == "likeness" else "max", anchor="lm")
        return panels, paper


class Components:
    """Colour tokens by their first three principal components.

    Parameters
    ----------
    tokens
        Tokens ``n d`` to which the components are fitted.
    """

    def __init__(self, tokens: NDArray[np.float32]) -> None:
        self._mean = tokens.mean(axis=0)
        centred = (tokens - self._mean).astype(np.float64)
        _, vectors = np.linalg.eigh(centred.T @ centred)  # eigenvalues ascend
        axes = vectors[:, ::-1][:, :3]  # d 3
        # The sign of a component is arbitrary. Choose it so that rare tokens, such as neurites, are bright.
        self.axes = axes * np.where(((centred @ axes) ** 3).mean(axis=0) < 0, -1, 1)
        self._low, self._high = np.percentile(centred @ self.axes, (2, 98), axis=0)

    def rgb(self, tokens: NDArray[np.float32]) -> NDArray[np.float64]:
        """Return colours ``... 3`` of tokens ``... d``; the 2nd percentile gives 0, the 98th gives 1."""
        span = np.maximum(self._high - self._low, np.finfo(float).tiny)
        return np.clip(((tokens - self._mean) @ self.axes - self._low) / span, 0, 1)


def cividis(values: NDArray[Any]) -> NDArray[np.float64]:
    """Return the colours ``y x 3`` of values ``y x``, clipped to [0, 1]."""
    return matplotlib.colormaps["cividis"](np.clip(values, 0, 1))[..., :3]
