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

from neurokd.data.intensity import IntensityScale, scale_intensity
from neurokd.data.volume import check_mask

if TYPE_CHECKING:
    from neurokd.data.datasets import Sample

__all__ = ["Patches"]

_FILL = -1  # where nothing was recorded, until a crop is handed out: there it is 0
_BACKGROUND_POSITIONS = 100_000  # kept per sample, 0.8 MB: many more than crops are drawn


class Patches(Dataset):
    """Crops of samples with masks, augmented; item i is a pure function of ``(seed, i)``.

    That is what makes a resumed run exact: no worker, no order of calls and no global state changes an item.
    Every volume is scaled once (`scale_intensity`) and kept as float32: four bytes a voxel.

    Parameters
    ----------
    samples
        Samples with masks (boolean, or two values of which one is 0).
    size
        Voxels ``(z, y, x)`` of a crop. Smaller volumes are padded with zeros at their far ends.
    length
        Number of items.
    seed
        Not negative.
    foreground
        Share of crops around a random foreground voxel; the others lie around a random background voxel that
        is not fill (where there is one), so that a zeroed background does not fill the batches.
    augment
        Flips on all axes, quarter turns in y-x (square crops), background cut off, gain, gamma and noise; fill
        and padding stay zero.

    Raises
    ------
    ValueError
        No samples; no mask, an empty or not a boolean one; a size, length, seed or share out of range.

    Examples
    --------
    >>> patches = Patches(samples, size=(64, 64, 64), length=1000, seed=0)
    >>> patches[0]["image"].shape, patches[0]["mask"].shape
    (torch.Size([1, 64, 64, 64]), torch.Size([1, 64, 64, 64]))
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

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, i: int) -> dict[str, Tensor]:
        if not 0 <= i < self.length:
            raise IndexError(f"item {i} of {self.length}")
        rng = np.random.default_rng([self.seed, i])
        stack = self._stacks[rng.integers(len(self._stacks))]
        window = stack.window(rng, self.size, foreground=rng.random() < self.foreground)
        image, mask = stack.image[window], stack.mask[window]
        if self.augment:
            image, mask = _augment(image, mask, rng)
        return {"image": _tensor(np.maximum(image, 0)), "mask": _tensor(mask)}


class _Stack:
    """One sample, ready to be cut: scaled, padded, with the positions that crops are drawn around."""

    def __init__(self, sample: Sample, size: tuple[int, int, int]) -> None:
        if sample.mask is None:
            raise ValueError(f"sample {sample.name!r} has no mask")
        mask = check_mask(sample.mask, shape=sample.volume.shape, name=f"the mask of sample {sample.name!r}")
        if not mask.any():
            raise ValueError(f"the mask of sample {sample.name!r} is empty")
        try:
            scale = IntensityScale.from_volume(sample.volume)
        except ValueError as error:
            raise ValueError(f"sample {sample.name!r}: {error}") from error
        image = scale_intensity(sample.volume, scale=scale)
        image[scale.is_fill(sample.volume)] = _FILL
        padding = [(0, max(0, n - have)) for n, have in zip(size, image.shape, strict=True)]
        self.image, self.mask = np.pad(image, padding, constant_values=_FILL), np.pad(mask, padding)
        self._foreground = np.flatnonzero(self.mask)
        background = np.flatnonzero((self.image != _FILL) & ~self.mask)
        self._background = background[:: 1 + background.size // _BACKGROUND_POSITIONS].copy()

    def window(self, rng: np.random.Generator, size: tuple[int, int, int], *, foreground: bool) -> tuple[slice, ...]:
        """Where a crop lies: around a voxel of the foreground or of the background."""
        positions = self._foreground if foreground else self._background
        place = rng.choice(positions) if positions.size else rng.integers(self.image.size)
        centre = np.array(np.unravel_index(place, self.image.shape))
        # Up to a quarter of the crop off the middle, so that "in the middle" does not mean "neurite".
        jitter = np.array([rng.integers(-(n // 4), n // 4 + 1) for n in size])
        start = np.clip(centre + jitter - np.array(size) // 2, 0, np.array(self.image.shape) - size)
        return tuple(slice(low, low + n) for low, n in zip(start.tolist(), size, strict=True))


def _augment(
    image: NDArray[np.float32], mask: NDArray[np.bool_], rng: np.random.Generator
) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Another view of the same crop: both turned alike, the image as another microscope and editor might give it."""
    axes = tuple(np.flatnonzero(rng.random(3) < 0.5).tolist())
    turns = rng.integers(4) if image.shape[1] == image.shape[2] else 0
    image, mask = (np.rot90(np.flip(array, axes), turns, axes=(1, 2)) for array in (image, mask))
    if rng.random() < 0.3:  # as published stacks often are: the background cut off, dim neurites broken into beads
        image = np.where(image < rng.uniform(0, 0.3), np.float32(_FILL), image)
    # Down to a fifth: beside a bright soma, the thin branches of the same stack are that dim.
    gain = np.float32(np.exp(rng.uniform(-1.6, 0.25)))
    gamma = np.float32(np.exp(rng.uniform(-0.25, 0.25)))
    noise = rng.standard_normal(image.shape, dtype=np.float32) * np.float32(rng.uniform(0, 0.03)) * gain
    recorded = image != _FILL
    return np.where(recorded, np.clip(gain * np.maximum(image, 0) ** gamma + noise, 0, 1), 0), mask


def _tensor(array: NDArray[Any]) -> Tensor:
    return from_numpy(np.array(rearrange(array, "z y x -> 1 z y x"), dtype=np.float32, order="C"))
