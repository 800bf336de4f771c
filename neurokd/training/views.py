"""What a 2D teacher sees in a volume: slices along z, y and x, brought onto a 3D student's grid of tokens.

    volume z y x ─┬─ slices across z ─► magnify ─► teacher ─► patches y x ─► mean over the patches and slices ─┐
                  ├─ slices across y ─►   ..                  patches z x                 of each token ───────┼─► mean
                  └─ slices across x ─►   ..                  patches z y ─────────────────────────────────────┘

Each axis of a slice is enlarged so that one student token holds a whole number of the teacher's patches. So a thing
that moves by one token in the volume moves by exactly one token in what the student is asked to match.
"""

from __future__ import annotations

import hashlib
import math
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol

import torch
from einops import rearrange, reduce
from torch import Tensor

from neurokd.data.files import writing_to
from neurokd.models.snake import AXES
from neurokd.models.teacher import enlarge

__all__ = ["TokenCache", "multi_view_tokens"]


class SliceTeacher(Protocol):
    """What is asked of a 2D teacher; :class:`neurokd.models.teacher.Teacher` has it."""

    patch: tuple[int, int]
    """Patch size (y, x) in pixels."""

    def feature_maps(self, images: Tensor, blocks: Sequence[int]) -> list[Tensor]:
        """Map grey images ``b 1 y x`` in [0, 1] to one ``b d y x`` per block on the grid of patches."""


def patches_per_token(token: int, patch: int, magnification: float | None) -> int:
    """Return how many patches of the teacher (in pixels) cover a token (in voxels) along one axis, at least one."""
    return 1 if magnification is None else max(1, math.floor(token * magnification / patch + 0.5))


def slice_numbers(size: int, thickness: int, slices: int | None) -> list[int]:
    """Return which slices are looked at along an axis of ``size`` voxels: ``slices`` per token, evenly spread.

    One is the slice that the *center* inflation reads, ``thickness // 2``.
    """
    n = thickness if slices is None else min(slices, thickness)
    return [start + (2 * i + 1) * thickness // (2 * n) for start in range(0, size, thickness) for i in range(n)]


@torch.no_grad()
def multi_view_tokens(
    teacher: SliceTeacher,
    volume: Tensor,
    *,
    token: tuple[int, int, int],
    blocks: Sequence[int],
    views: Sequence[str] = AXES,
    magnification: float | None = None,
    slices: int | None = 2,
) -> list[Tensor]:
    """Return the teacher's tokens of a volume on the grid of a student's tokens.

    Parameters
    ----------
    teacher
        From :func:`neurokd.models.teacher.load_teacher`, or anything with its ``patch`` and ``feature_maps``.
    volume
        ``b 1 z y x`` in [0, 1], whole tokens along each axis.
    token
        Voxels (z, y, x) of a student's token.
    blocks
        Blocks of the teacher, from 0.
    views
        Axes across which slices are taken, some of ``"z"``, ``"y"``, ``"x"``; their tokens are averaged.
    magnification
        How much slices are enlarged (bicubic), along each axis rounded so that a token holds a whole number of
        patches, at least one. By default one, the cheapest; with tokens of unequal sides that stretches the slices
        across y and x. ``patch / min(token)`` or a multiple of it enlarges all axes alike where sides are multiples.
    slices
        Slices looked at per token; None for all. The time is proportional to it.

    Returns
    -------
    list of Tensor
        One ``b d z y x`` per block on the grid of tokens, unnormalised. A volume's tokens do not depend on the others
        in its batch: volumes are shown to the teacher one by one, which also bounds the memory.

    Raises
    ------
    ValueError
        If the volume has another shape or does not divide into tokens, or a choice is out of range.

    Examples
    --------
    >>> maps = multi_view_tokens(teacher, torch.rand(1, 1, 16, 96, 96), token=(4, 8, 8), blocks=[5, 11])
    >>> [tuple(m.shape) for m in maps]  # a ViT-S is 384 wide
    [(1, 384, 4, 12, 12), (1, 384, 4, 12, 12)]
    """
    sizes = tuple(volume.shape[2:])
    if volume.ndim != 5 or volume.shape[1] != 1 or any(n % t for n, t in zip(sizes, token, strict=True)):
        raise ValueError(
            f"volume has shape {tuple(volume.shape)}; expected b 1 z y x in whole tokens of {token} voxels"
        )
    if not views or len(set(views)) < len(views) or not set(views) <= set(AXES):
        raise ValueError(f"views are {tuple(views)}; they must be some of {AXES}, each once")
    if magnification is not None and not magnification > 0:
        raise ValueError(f"magnification is {magnification}; it must be positive, or None")
    if slices is not None and slices < 1:
        raise ValueError(f"slices is {slices}; it must be at least 1, or None for all")
    one_by_one = []
    for one in volume.split(1):
        seen = [_one_view(teacher, one, axis, token, blocks, magnification, slices) for axis in views]
        one_by_one.append([torch.stack(maps).mean(0) for maps in zip(*seen, strict=True)])
    return [torch.cat(maps) for maps in zip(*one_by_one, strict=True)]


def _one_view(
    teacher: SliceTeacher,
    volume: Tensor,
    across: str,
    token: tuple[int, int, int],
    blocks: Sequence[int],
    magnification: float | None,
    slices: int | None,
) -> list[Tensor]:
    """Return the tokens ``1 d z y x`` of one volume ``1 1 z y x`` from slices across one axis."""
    voxels, sizes = dict(zip(AXES, token, strict=True)), dict(zip(AXES, volume.shape[2:], strict=True))
    rows, columns = (axis for axis in AXES if axis != across)
    numbers = slice_numbers(sizes[across], voxels[across], slices)
    images = rearrange(volume, f"1 1 z y x -> {across} 1 {rows} {columns}")[numbers]
    patches = [
        patches_per_token(voxels[axis], patch, magnification)
        for axis, patch in zip((rows, columns), teacher.patch, strict=True)
    ]
    size = [
        sizes[axis] // voxels[axis] * n * patch
        for axis, n, patch in zip((rows, columns), patches, teacher.patch, strict=True)
    ]
    images = enlarge(images, size)
    grid = {across: sizes[across] // voxels[across]}
    return [
        reduce(m, f"({across} n) d ({rows} i) ({columns} j) -> 1 d z y x", "mean", **grid, i=patches[0], j=patches[1])
        for m in teacher.feature_maps(images, blocks)
    ]


class TokenCache:
    """Teacher tokens kept in a folder, found again by the content of the volume.

    For patches that come again: a second run over the same seed, or patches without augmentation. A file per
    volume; float16, whether it was just computed or read, so that a hit and a miss give the same bits.

    Parameters
    ----------
    folder
        Is made when the first tokens are kept; may be shared by runs and deleted at any time.
    settings
        All that the tokens depend on besides the volume, in words.
    """

    def __init__(self, folder: str | os.PathLike[str], *, settings: str) -> None:
        self.folder, self.settings = Path(folder), settings

    def path(self, volume: Tensor) -> Path:
        """Return where the tokens of a volume are or would be."""
        key = hashlib.blake2b(f"{self.settings} {tuple(volume.shape)} {volume.dtype}".encode(), digest_size=20)
        # Mixed precision changes the teacher's arithmetic, so it is part of what the tokens depend on.
        kind = volume.device.type
        key.update(str(torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else "").encode())
        key.update(volume.detach().cpu().contiguous().numpy().tobytes())
        return self.folder / f"{key.hexdigest()}.safetensors"

    def __call__(self, volume: Tensor, compute: Callable[[Tensor], list[Tensor]]) -> list[Tensor]:
        """Return ``compute(volume)``, float16's precision in float32, from the folder where it is there.

        Parameters
        ----------
        volume
            ``b 1 z y x``; each of the batch is looked up by itself.
        compute
            Maps ``1 1 z y x`` to a list of maps ``1 d z y x``.

        Returns
        -------
        list of Tensor
            One ``b d z y x`` per block.
        """
        from safetensors.torch import load_file, save_file

        found = []
        for one in volume.split(1):
            path = self.path(one)
            if path.is_file():
                stored = load_file(path)
                maps = [stored[str(i)].to(one.device) for i in range(len(stored))]
            else:
                maps = [tokens.half() for tokens in compute(one)]
                with writing_to(path, overwrite=True) as part:
                    save_file({str(i): tokens.cpu().contiguous() for i, tokens in enumerate(maps)}, part)
            found.append([tokens.float() for tokens in maps])
        return [torch.cat(maps) for maps in zip(*found, strict=True)]
