"""Tokens of a 2D teacher for a volume: slices across z, y and x, averaged on a 3D student's grid of tokens.

    volume z y x ─┬─ slices across z ─► magnify ─► teacher ─► patches y x ─► mean of each token ─┐
                  ├─ slices across y ─►   ..                  patches z x ─►         ..          ┼─► mean
                  └─ slices across x ─►   ..                  patches z y ─►         ..          ┘

Each axis of a slice is enlarged so that one student token holds a whole number of the teacher's patches. So
if the content of the volume moves by one token, the targets of the student also move by exactly one token.
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
    """The interface of a 2D teacher; :class:`neurokd.models.teacher.Teacher` has it."""

    patch: tuple[int, int]
    """Patch size (y, x) in pixels."""

    def feature_maps(self, images: Tensor, blocks: Sequence[int]) -> list[Tensor]:
        """Map grey images ``b 1 y x`` in [0, 1] to one ``b d y x`` for each block, on the grid of patches."""


def patches_per_token(token: int, patch: int, magnification: float | None) -> int:
    """Return how many patches (pixels) of the teacher cover a token (voxels) along one axis, at least one."""
    return 1 if magnification is None else max(1, math.floor(token * magnification / patch + 0.5))


def slice_numbers(size: int, thickness: int, slices: int | None) -> list[int]:
    """Return the numbers of the slices that the teacher sees along an axis of ``size`` voxels.

    There are ``slices`` for each token (None means all), evenly spread. With one slice, this is ``thickness
    // 2``, the slice that the *center* inflation reads.
    """
    n = thickness if slices is None else min(slices, thickness)
    # A token is divided into n equal parts, and the middle slice of each part is taken.
    middles = [(2 * i + 1) * thickness // (2 * n) for i in range(n)]
    return [start + middle for start in range(0, size, thickness) for middle in middles]


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
    """Return the teacher's tokens for a volume, on the grid of a student's tokens.

    Parameters
    ----------
    teacher
        Teacher from :func:`neurokd.models.teacher.load_teacher`, or anything with ``patch`` and
        ``feature_maps``.
    volume
        Volume ``b 1 z y x`` in [0, 1], with a whole number of tokens along each axis.
    token
        Size (z, y, x) of a student's token in voxels.
    blocks
        Blocks of the teacher, counted from 0.
    views
        Axes across which slices are cut, some of ``"z"``, ``"y"``, ``"x"``; the tokens of all views are
        averaged.
    magnification
        Factor by which slices are enlarged (bicubic). Along each axis it is rounded so that a token holds a
        whole number of patches, at least one. None means one patch, which is cheapest. If the sides of a
        token differ, one patch stretches the slices across y and x. ``patch / min(token)`` or a multiple of
        it enlarges all axes equally if the longer sides are multiples of the shortest.
    slices
        Number of slices for each token; None means all. The time is proportional to it.

    Returns
    -------
    list of Tensor
        One map ``b d z y x`` for each block, on the grid of tokens, not normalised. The teacher sees one volume
        at a time. This limits the memory, and the tokens of a volume do not depend on the rest of the batch.

    Raises
    ------
    ValueError
        If the volume has another shape or no whole number of tokens, or a setting is out of range.

    Examples
    --------
    >>> maps = multi_view_tokens(teacher, torch.rand(1, 1, 16, 96, 96), token=(4, 8, 8), blocks=[5, 11])
    >>> [tuple(m.shape) for m in maps]  # a ViT-S is 384 wide
    [(1, 384, 4, 12, 12), (1, 384, 4, 12, 12)]
    """
    sizes = tuple(volume.shape[2:])
    if volume.ndim != 5 or volume.shape[1] != 1 or any(n % t for n, t in zip(sizes, token, strict=True)):
        shape = tuple(volume.shape)
        raise ValueError(f"volume must be b 1 z y x in whole tokens of {token} voxels, got shape {shape}")
    if not views or len(set(views)) < len(views) or not set(views) <= set(AXES):
        raise ValueError(f"views must be some of {AXES}, each once, got {tuple(views)}")
    if magnification is not None and not magnification > 0:
        raise ValueError(f"magnification must be positive or None, got {magnification}")
    if slices is not None and slices < 1:
        raise ValueError(f"slices must be at least 1, or None for all, got {slices}")
    one_by_one = []
    for one in volume.split(1):
        seen = [_one_view(teacher, one, axis, token, blocks, magnification, slices) for axis in views]
        one_by_one.append([torch.stack(maps).mean(0) for maps in zip(*seen, strict=True)])
    return [torch.cat(maps) for maps in zip(*one_by_one, strict=True)]


def _one_view(
    teacher: SliceTeacher,
    volume: Tensor,
    axis: str,
    token: tuple[int, int, int],
    blocks: Sequence[int],
    magnification: float | None,
    slices: int | None,
) -> list[Tensor]:
    """Return the tokens ``1 d z y x`` of one volume ``1 1 z y x``, from slices across `axis`."""
    voxels, sizes = dict(zip(AXES, token, strict=True)), dict(zip(AXES, volume.shape[2:], strict=True))
    rows, columns = (other for other in AXES if other != axis)
    numbers = slice_numbers(sizes[axis], voxels[axis], slices)
    images = rearrange(volume, f"1 1 z y x -> {axis} 1 {rows} {columns}")[numbers]
    # Enlarge the slices so that each token is covered by a whole number of patches along rows and columns.
    patches = [
        patches_per_token(voxels[side], patch, magnification)
        for side, patch in zip((rows, columns), teacher.patch, strict=True)
    ]
    size = [
        sizes[side] // voxels[side] * n * patch
        for side, n, patch in zip((rows, columns), patches, teacher.patch, strict=True)
    ]
    images = enlarge(images, size)
    # A token is the mean over its n slices and its i x j patches.
    pattern = f"({axis} n) d ({rows} i) ({columns} j) -> 1 d z y x"
    lengths = {axis: sizes[axis] // voxels[axis], "i": patches[0], "j": patches[1]}
    return [reduce(maps, pattern, "mean", **lengths) for maps in teacher.feature_maps(images, blocks)]


class TokenCache:
    """A folder of teacher tokens, found by the content of the volume.

    It saves time if patches are used again: in a second run with the same seed, or without augmentation. Each
    volume has a file. Tokens are rounded to float16 also when they were just computed, so that a hit and a
    miss give the same bits.

    Parameters
    ----------
    folder
        Folder, made when the first tokens are stored. Runs may share it, and you may delete it at any time.
    settings
        Text that names everything else on which the tokens depend, besides the volume.
    """

    def __init__(self, folder: str | os.PathLike[str], *, settings: str) -> None:
        self.folder, self.settings = Path(folder), settings

    def path(self, volume: Tensor) -> Path:
        """Return the path of the file for the tokens of a volume; the file need not exist."""
        described = f"{self.settings} {tuple(volume.shape)} {volume.dtype}"
        key = hashlib.blake2b(described.encode(), digest_size=20)
        # Mixed precision changes the teacher's arithmetic, so it is part of the key.
        kind = volume.device.type
        key.update(str(torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else "").encode())
        key.update(volume.detach().cpu().contiguous().numpy().tobytes())
        return self.folder / f"{key.hexdigest()}.safetensors"

    def __call__(self, volume: Tensor, compute: Callable[[Tensor], list[Tensor]]) -> list[Tensor]:
        """Return ``compute(volume)`` rounded to float16, as float32; read it from the folder if it is there.

        Parameters
        ----------
        volume
            Batch ``b 1 z y x``; each volume is looked up separately.
        compute
            Function from a volume ``1 1 z y x`` to a list of maps ``1 d z y x``.

        Returns
        -------
        list of Tensor
            One map ``b d z y x`` for each block.
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
