"""Patches to train on: crops of samples, each a pure function of a seed and a number.

(seed, i) --> a sample, a place in it (mostly on the neuron), a crop, a turn, a little noise
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from einops import rearrange
from numpy.typing import NDArray
from torch import Tensor, from_numpy
from torch.utils.data import Dataset

from neurokd.data.annotation import annotated

if TYPE_CHECKING:
    from neurokd.data.datasets import Sample

__all__ = ["Patches"]

_BACKGROUND_POSITIONS = 100_000  # kept per sample, 0.8 MB: many more than crops are drawn


class Patches(Dataset):
    """Crops of samples with masks, augmented; item i is a pure function of ``(seed, i)``.

    That is what makes a resumed run exact: no worker, no order of calls and no global state changes an item.
    Every volume is scaled once (`scale_intensity`) and kept as float32: four bytes a voxel.

    Parameters
    ----------
    samples
        Samples with masks, see :func:`neurokd.data.volume.check_mask`. One without foreground gives background only.
    size
        Voxels ``(z, y, x)`` of a crop. Smaller volumes are padded with zeros at their far ends.
    length
        Number of items.
    seed
        Not negative.
    foreground
        Share of crops around a random foreground voxel; the others lie around a random background voxel that
        is not exactly zero (where there is one), so that a zeroed background does not fill the batches. Both are
        drawn from the known voxels, so every crop holds some.
    augment
        Flips on all axes, quarter turns in y-x (square crops), background cut off, gain, gamma and noise; zeros
        stay zero.

    Raises
    ------
    ValueError
        No samples; one without mask or with arrays that cannot be used; no foreground in any of them; a size,
        length, seed or share out of range.

    Examples
    --------
    >>> patches = Patches(samples, size=(64, 64, 64), length=1000, seed=0)
    >>> {name: (part.dtype, tuple(part.shape)) for name, part in patches[0].items()}
    {'image': (torch.float32, (1, 64, 64, 64)), 'mask': (torch.float32, (1, 64, 64, 64)),
     'known': (torch.bool, (1, 64, 64, 64))}
    """

    def __init__(
        self,
        samples: Sequence[Sample],
        *,
        size: tuple[int, int, int],
        length: int,
        seed: int,
        foreground: float = 0.75,
        augment: bool = True,
    ) -> None:
        if not len(samples):
            raise ValueError("no samples to cut patches from")
        if np.shape(size) != (3,) or not all(isinstance(n, int | np.integer) and n > 0 for n in size):
            raise ValueError(f"size must be three positive integers (z, y, x), got {size!r}")
        if length < 1 or seed < 0 or not 0 <= foreground <= 1:
            raise ValueError(
                f"need length >= 1, seed >= 0, 0 <= foreground <= 1; got {length=}, {seed=}, {foreground=}"
            )
        self.size, self.length, self.seed = size, length, seed
        self.foreground, self.augment = foreground, augment
        self._stacks = [_Stack(sample, size) for sample in samples]
        if not any(stack.mask.any() for stack in self._stacks):
            raise ValueError(f"samples must have foreground, got empty masks for {[s.name for s in samples]}")

    @property
    def sparse(self) -> bool:
        """Return whether items may hold voxels that are not known."""
        return any(stack.known is not None for stack in self._stacks)

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, i: int) -> dict[str, Tensor]:
        if not 0 <= i < self.length:
            raise IndexError(f"item {i} of {self.length}")
        rng = np.random.default_rng([self.seed, i])
        stack = self._stacks[rng.integers(len(self._stacks))]
        window = stack.window(rng, self.size, foreground=rng.random() < self.foreground)
        image, mask = stack.image[window], stack.mask[window]
        known = np.ones_like(mask) if stack.known is None else stack.known[window]
        if self.augment:
            image, mask, known = _augment(image, mask, known, rng)
        return {"image": _tensor(image), "mask": _tensor(mask), "known": _tensor(known, dtype=bool)}


class _Stack:
    """One sample, ready to be cut: scaled, padded, with the positions that crops are drawn around."""

    def __init__(self, sample: Sample, size: tuple[int, int, int]) -> None:
        image, mask, known = annotated(sample)
        padding = [(0, max(0, n - have)) for n, have in zip(size, image.shape, strict=True)]
        self.image, self.mask = np.pad(image, padding), np.pad(mask, padding)
        self.known = None if known is None else np.pad(known, padding)  # of the padding nothing is known
        background = (self.image > 0) & ~self.mask
        if self.known is not None:
            background &= self.known
            if not background.any():  # nothing brighter than zero: any known voxel will do
                background = self.known
        self._foreground = np.flatnonzero(self.mask)
        places = np.flatnonzero(background)
        self._background = places[:: 1 + places.size // _BACKGROUND_POSITIONS].copy()

    def window(self, rng: np.random.Generator, size: tuple[int, int, int], *, foreground: bool) -> tuple[slice, ...]:
        """Return where a crop lies: around a voxel of the foreground (if there is any) or of the background."""
        positions = self._foreground if foreground and self._foreground.size else self._background
        place = rng.choice(positions) if positions.size else rng.integers(self.image.size)
        centre = np.array(np.unravel_index(place, self.image.shape))
        # Up to a quarter of the crop off the middle, so that "in the middle" does not mean "neurite".
        jitter = np.array([rng.integers(-(n // 4), n // 4 + 1) for n in size])
        start = np.clip(centre + jitter - np.array(size) // 2, 0, np.array(self.image.shape) - size)
        return tuple(slice(low, low + n) for low, n in zip(start.tolist(), size, strict=True))


def _augment(
    image: NDArray[np.float32], mask: NDArray[np.bool_], known: NDArray[np.bool_], rng: np.random.Generator
) -> tuple[NDArray[np.float32], NDArray[np.bool_], NDArray[np.bool_]]:
    """Return another view of the same crop: all turned alike, the image as another microscope might give it."""
    axes = tuple(np.flatnonzero(rng.random(3) < 0.5).tolist())
    turns = rng.integers(4) if image.shape[1] == image.shape[2] else 0
    image, mask, known = (np.rot90(np.flip(array, axes), turns, axes=(1, 2)) for array in (image, mask, known))
    if rng.random() < 0.3:  # as published stacks often are: the background cut off, dim neurites broken into beads
        image = np.where(image < rng.uniform(0, 0.3), 0, image)
    # Down to a fifth: beside a bright soma, the thin branches of the same stack are that dim.
    gain = np.float32(np.exp(rng.uniform(-1.6, 0.25)))
    gamma = np.float32(np.exp(rng.uniform(-0.25, 0.25)))
    noise = rng.standard_normal(image.shape, dtype=np.float32) * np.float32(rng.uniform(0, 0.03)) * gain
    return np.where(image > 0, np.clip(gain * image**gamma + noise, 0, 1), 0), mask, known


def _tensor(array: NDArray[Any], dtype: type = np.float32) -> Tensor:
    return from_numpy(np.array(rearrange(array, "z y x -> 1 z y x"), dtype=dtype, order="C"))
