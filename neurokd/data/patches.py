"""Patches to train on: crops of samples and of scenes, each a pure function of a seed and a number.

(seed, i) --> a sample or a scene, a place in it (mostly on a neurite), a crop, a turn, another look
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from einops import rearrange
from numpy.typing import NDArray
from torch import Tensor, from_numpy
from torch.utils.data import Dataset

from neurokd.data.annotation import annotated
from neurokd.data.intensity import IntensityScale, scale_intensity
from neurokd.data.scene import Scene

if TYPE_CHECKING:
    from neurokd.data.datasets import Sample

__all__ = ["Patches"]

_FILL = -1  # where nothing was recorded, until a crop is handed out: there it is 0
_BACKGROUND_POSITIONS = 100_000  # kept per sample, 0.8 MB: many more than crops are drawn


class _Crop(NamedTuple):
    """Scaled image with fill marked, mask, and which voxels are known, all (z, y, x)."""

    image: NDArray[np.float32]
    mask: NDArray[np.bool_]
    known: NDArray[np.bool_]


class Patches(Dataset):
    """Crops of samples with masks, augmented; item i is a pure function of ``(seed, i)``.

    That is what makes a resumed run exact: no worker, no order of calls and no global state changes an item.
    Every sample's volume is scaled once (`scale_intensity`) and kept as float32: four bytes a voxel. A scene is
    imaged anew for each crop, by a microscope and a camera that no other crop has.

    Parameters
    ----------
    samples
        Samples with masks, see :func:`neurokd.data.volume.check_mask`, and scenes of
        :func:`neurokd.data.scene.draw_scene`, in any mixture. A sample without foreground gives background only.
    size
        Voxels ``(z, y, x)`` of a crop. Smaller volumes are padded with zeros at their far ends.
    length
        Number of items.
    seed
        Not negative.
    foreground
        Share of crops around a random foreground voxel; the others lie around a random background voxel that
        is not fill (where there is one), so that a zeroed background does not fill the batches. Both are
        drawn from the known voxels, so every crop holds some.
    augment
        Flips on all axes and quarter turns in y-x (square crops). Samples also get their background cut off, another
        gain, gamma and noise; scenes another black and white. Fill and padding stay zero.

    Raises
    ------
    ValueError
        No samples; one without mask or with arrays that cannot be used; no foreground in any of them; a scene that
        is smaller than a crop; a size, length, seed or share out of range.

    Examples
    --------
    >>> patches = Patches(samples, size=(64, 64, 64), length=1000, seed=0)
    >>> {name: (part.dtype, tuple(part.shape)) for name, part in patches[0].items()}
    {'image': (torch.float32, (1, 64, 64, 64)), 'mask': (torch.float32, (1, 64, 64, 64)),
     'known': (torch.bool, (1, 64, 64, 64))}
    """

    def __init__(
        self,
        samples: Sequence[Sample | Scene],
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
        self._sources = [_Drawn(s, size) if isinstance(s, Scene) else _Annotated(s, size) for s in samples]
        if not any(source.foreground.size for source in self._sources):
            raise ValueError(f"samples must have foreground, got empty masks for {[s.name for s in samples]}")

    @property
    def sparse(self) -> bool:
        """Return whether items may hold voxels that are not known."""
        return any(source.sparse for source in self._sources)

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, i: int) -> dict[str, Tensor]:
        if not 0 <= i < self.length:
            raise IndexError(f"item {i} of {self.length}")
        rng = np.random.default_rng([self.seed, i])
        source = self._sources[rng.integers(len(self._sources))]
        window = source.window(rng, self.size, foreground=rng.random() < self.foreground)
        crop = source.crop(rng, window, augment=self.augment)
        if self.augment:
            crop = _turned(crop, rng)
        image = np.maximum(crop.image, 0)
        return {"image": _tensor(image), "mask": _tensor(crop.mask), "known": _tensor(crop.known, dtype=bool)}


class _Source(ABC):
    """Where crops come from: its shape, and flat indices of the voxels that crops are drawn around."""

    shape: tuple[int, ...]
    foreground: NDArray[np.int64]
    background: NDArray[np.int64]  # empty: anywhere
    sparse: bool

    def window(self, rng: np.random.Generator, size: tuple[int, int, int], *, foreground: bool) -> tuple[slice, ...]:
        """Return where a crop lies: around a voxel of the foreground (if there is any) or of the background."""
        positions = self.foreground if foreground and self.foreground.size else self.background
        place = rng.choice(positions) if positions.size else rng.integers(np.prod(self.shape))
        centre = np.array(np.unravel_index(place, self.shape))
        # Up to a quarter of the crop off the middle, so that "in the middle" does not mean "neurite".
        jitter = np.array([rng.integers(-(n // 4), n // 4 + 1) for n in size])
        start = np.clip(centre + jitter - np.array(size) // 2, 0, np.array(self.shape) - size)
        return tuple(slice(low, low + n) for low, n in zip(start.tolist(), size, strict=True))

    @abstractmethod
    def crop(self, rng: np.random.Generator, window: tuple[slice, ...], *, augment: bool) -> _Crop:
        """Return the crop at a window."""


class _Annotated(_Source):
    """A sample, ready to be cut: scaled and padded."""

    def __init__(self, sample: Sample, size: tuple[int, int, int]) -> None:
        image, fill, mask, known = annotated(sample)
        image[fill] = _FILL
        padding = [(0, max(0, n - have)) for n, have in zip(size, image.shape, strict=True)]
        self.image, self.mask = np.pad(image, padding, constant_values=_FILL), np.pad(mask, padding)
        self.known = None if known is None else np.pad(known, padding)  # of the padding nothing is known
        self.shape, self.sparse = self.image.shape, known is not None
        background = (self.image != _FILL) & ~self.mask
        if self.known is not None:
            background &= self.known
            if not background.any():  # nothing was recorded there: any known voxel will do
                background = self.known
        self.foreground = np.flatnonzero(self.mask)
        places = np.flatnonzero(background)
        self.background = places[:: 1 + places.size // _BACKGROUND_POSITIONS].copy()

    def crop(self, rng: np.random.Generator, window: tuple[slice, ...], *, augment: bool) -> _Crop:
        """Return the crop at a window, its brightness as another microscope and editor might give it."""
        image, mask = self.image[window], self.mask[window]
        known = np.ones_like(mask) if self.known is None else self.known[window]
        return _Crop(_retouched(image, rng) if augment else image, mask, known)


class _Drawn(_Source):
    """A scene, imaged anew for each crop."""

    sparse = True  # neurites fainter than the noise are not known

    def __init__(self, scene: Scene, size: tuple[int, int, int]) -> None:
        if any(have < n for have, n in zip(scene.shape, size, strict=True)):
            raise ValueError(f"scene {scene.name!r} must hold a crop of {tuple(size)}, got shape {scene.shape}")
        self.scene, self.shape = scene, scene.shape
        self.foreground, self.background = scene.voxels, np.empty(0, dtype=np.int64)

    def crop(self, rng: np.random.Generator, window: tuple[slice, ...], *, augment: bool) -> _Crop:
        """Return the crop at a window under a new microscope, scaled by itself and, if wanted, not quite as usual."""
        seen = self.scene.expose(rng, window)
        if seen.volume.min() == seen.volume.max():
            return _Crop(np.full(seen.volume.shape, _FILL, dtype=np.float32), seen.mask, ~seen.mask)
        scale = IntensityScale.from_volume(seen.volume)
        fill = scale.is_fill(seen.volume)
        image = scale_intensity(seen.volume, scale=_shifted(scale, rng, self.scene.world.window) if augment else scale)
        return _Crop(np.where(fill, np.float32(_FILL), image), seen.mask, seen.known)


def _shifted(scale: IntensityScale, rng: np.random.Generator, spread: float) -> IntensityScale:
    """Return a scale with another black and white: the rest of a stack may have asked for them."""
    width = scale.white - scale.black
    black = scale.black + rng.uniform(-0.05, 0.05) * width
    white = scale.black + width * rng.lognormal(0.0, spread)
    fill = None if scale.fill is None else min(scale.fill, black)
    return IntensityScale(black, max(white, black + 0.05 * width), fill, scale.low, scale.high)


def _turned(crop: _Crop, rng: np.random.Generator) -> _Crop:
    """Return a crop flipped and turned by quarters."""
    axes = tuple(np.flatnonzero(rng.random(3) < 0.5).tolist())
    turns = int(rng.integers(4)) if crop.mask.shape[1] == crop.mask.shape[2] else 0

    def turned(array: NDArray[Any]) -> NDArray[Any]:
        return np.rot90(np.flip(array, axes), turns, axes=(1, 2))

    return _Crop(turned(crop.image), turned(crop.mask), turned(crop.known))


def _retouched(image: NDArray[np.float32], rng: np.random.Generator) -> NDArray[np.float32]:
    """Return an image with its background cut off, another gain, gamma and noise; fill stays fill."""
    if rng.random() < 0.3:  # as published stacks often are: the background cut off, dim neurites broken into beads
        image = np.where(image < rng.uniform(0, 0.3), np.float32(_FILL), image)
    # Down to a fifth: beside a bright soma, the thin branches of the same stack are that dim.
    gain = np.float32(np.exp(rng.uniform(-1.6, 0.25)))
    gamma = np.float32(np.exp(rng.uniform(-0.25, 0.25)))
    noise = rng.standard_normal(image.shape, dtype=np.float32) * np.float32(rng.uniform(0, 0.03)) * gain
    recorded = image != _FILL
    return np.where(recorded, np.clip(gain * np.maximum(image, 0) ** gamma + noise, 0, 1), 0)


def _tensor(array: NDArray[Any], dtype: type = np.float32) -> Tensor:
    return from_numpy(np.array(rearrange(array, "z y x -> 1 z y x"), dtype=dtype, order="C"))
