"""Samples (volume, mask, tree): where they come from and how they are split.

    simulated_neurons, fly_neuron --> [Sample, ...] --split_by_source--> train, validation, test
                                                    train --> Patches --> {"image", "mask", "known"}: 1 z y x

A random split of crops leaks: two crops of one stack share its background, its noise and often its neurites.
So whole *sources* are split (a source is the stack that a sample was cut from), never single samples.
"""

from __future__ import annotations

import io
import os
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol, TypeVar

import numpy as np
import pooch
import tifffile
from numpy.typing import NDArray
from tqdm.auto import tqdm

from neurokd.data.annotation import check_known
from neurokd.data.files import cache_folder
from neurokd.data.growth import VOXEL
from neurokd.data.io import read_volume
from neurokd.data.scene import Scene, draw_scene
from neurokd.data.simulate import Growth, Microscope, simulate_neuron
from neurokd.data.swc import read_swc
from neurokd.data.tree import Tree
from neurokd.data.volume import Spacing, check_mask
from neurokd.data.world import World

__all__ = ["Sample", "drawn_scenes", "fly_neuron", "simulated_neurons", "split_by_region", "split_by_source"]

# Files of a repository at fixed commits, with their SHA-256.
_RIVULET = "https://raw.githubusercontent.com/RivuletStudio/rivuletpy"
_RIVULET_FILES = (
    (
        "7207eabafd50315b8c497f7e76dbe1fc93835b43/tests/data/test.tif.zip",
        "ad5911ab8ca055e8ed6ff50b458f94d748e087ff00582acc6b75059729bd8853",
    ),
    (
        "a918df7e3e43e4412c0dffebe2616de7d2d74b02/tests/data/test-expected.swc",
        "dac5e7954bdbddeb7f18e431485e984c063da588329a5c494806d3258d2483f5",
    ),
)


@dataclass(frozen=True, eq=False)
class Sample:
    """A volume and what is known about it.

    Parameters
    ----------
    name
        Name that no other sample of the same set has.
    volume
        Intensities ``z y x``, as read.
    mask
        True neurite voxels ``z y x`` (see :func:`neurokd.data.volume.check_mask`), or None.
    tree
        The neuron as a tree in voxels of `volume`, or None.
    spacing
        Voxel size ``(z, y, x)`` in µm, or None if it is not known.
    source
        Stack that the sample was cut from, by default its own name. `split_by_source` keeps sources whole.
    known
        Voxels ``z y x`` that somebody looked at, boolean; None means all. Training and scores ignore the
        others. See :func:`neurokd.data.annotation.sparse_annotation`.

    Raises
    ------
    ValueError
        If `mask` or `known` has another shape than `volume`, or `known` is not boolean, holds no True, or
        comes without a mask.
    """

    name: str
    volume: NDArray[Any]
    mask: NDArray[Any] | None = None
    tree: Tree | None = None
    spacing: Spacing | None = None
    source: str = ""
    known: NDArray[np.bool_] | None = None

    def __post_init__(self) -> None:
        if self.mask is not None and np.shape(self.mask) != np.shape(self.volume):
            raise ValueError(
                f"the mask of sample {self.name!r} must have the shape of its volume, "
                f"{np.shape(self.volume)}, got {np.shape(self.mask)}"
            )
        if self.known is not None:
            if self.mask is None:
                raise ValueError(f"known of sample {self.name!r} must be None without a mask, got an array")
            check_known(self.known, shape=np.shape(self.volume), name=f"known of sample {self.name!r}")
        if not self.source:
            object.__setattr__(self, "source", self.name)


def simulated_neurons(
    n: int,
    *,
    seed: int,
    shape: tuple[int, int, int] = (150, 150, 150),
    growth: Growth | None = None,
    microscope: Microscope | None = None,
    draw: bool | World = False,
) -> list[Sample]:
    """Grow and image `n` neurons; neuron i of a seed does not depend on `n`.

    By default these are fly neurons, and one microscope imitates the Janelia set of BigNeuron. With `draw`,
    each volume is a new scene: other neurons, other voxels, another microscope.

    Parameters
    ----------
    n
        Number of neurons.
    seed
        Seed of all neurons; each has its own stream, ``SeedSequence(seed, spawn_key=(i,))``.
    shape
        Size ``(z, y, x)`` of every volume in voxels.
    growth, microscope
        Settings of `neurokd.data.simulate`; None means its defaults. They are not used with `draw`.
    draw
        Draw everything anew for each volume, from these ranges, or with True from the default ranges.

    Returns
    -------
    list of Sample
        Samples with volume, true mask and tree; the tree is None if there are several neurons. Each sample is
        its own source.

    Raises
    ------
    ValueError
        A shape that is not three sizes of at least 16, or a negative seed.
    """
    if draw:
        scenes = drawn_scenes(n, seed=seed, shape=shape, world=draw if isinstance(draw, World) else None)
        return [_imaged(scene, seed, i) for i, scene in enumerate(scenes)]
    samples = []
    for i in tqdm(range(n), desc="simulating neurons", leave=False):
        rng = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(i,)))
        volume, mask, tree = simulate_neuron(rng, shape=shape, growth=growth, microscope=microscope)
        samples.append(Sample(f"simulated-{seed}-{i:03d}", volume, mask, tree, (VOXEL, VOXEL, VOXEL)))
    return samples


def drawn_scenes(
    n: int, *, seed: int, shape: tuple[int, int, int] = (64, 144, 144), world: World | None = None
) -> list[Scene]:
    """Draw `n` scenes to train on; scene i of a seed does not depend on `n`.

    :func:`neurokd.training.loop.train` takes scenes in place of samples, or together with samples. Each crop
    of a scene is imaged under a newly drawn microscope.

    Parameters
    ----------
    n
        Number of scenes.
    seed
        Seed of all scenes; each has its own stream, ``SeedSequence(seed, spawn_key=(i,))``.
    shape
        Size ``(z, y, x)`` of every scene in voxels, at least that of a crop.
    world
        Ranges to draw from; None means the default ranges.

    Returns
    -------
    list of Scene

    Raises
    ------
    ValueError
        A shape that is not three sizes of at least 16, or a negative seed.
    """
    streams = (np.random.SeedSequence(seed, spawn_key=(i,)) for i in range(n))
    return [
        draw_scene(np.random.default_rng(stream), shape=shape, world=world, name=f"drawn-{seed}-{i:03d}")
        for i, stream in enumerate(tqdm(streams, total=n, desc="drawing scenes", leave=False))
    ]


def _imaged(scene: Scene, seed: int, i: int) -> Sample:
    """Return one image of a scene as a sample; the camera has another random stream than the scene."""
    seen = scene.expose(np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(i, 1))))
    tree = scene.trees[0] if len(scene.trees) == 1 else None
    return Sample(scene.name, seen.volume, seen.mask, tree, scene.spacing, known=seen.known)


class _HasSource(Protocol):
    @property
    def source(self) -> str: ...


_Item = TypeVar("_Item", bound=_HasSource)


def split_by_source(
    samples: Sequence[_Item], *, fractions: Sequence[float] = (0.8, 0.1, 0.1), seed: int
) -> tuple[list[_Item], list[_Item], list[_Item]]:
    """Split into train, validation and test so that no source is in two parts.

    Parameters
    ----------
    samples
        Samples, or anything else with a `source`, in any order. The split depends only on the names of the
        sources and on the seed.
    fractions
        Shares of the *sources*, summing to 1. A part with a share above zero gets at least one source.
    seed
        Seed of the shuffle.

    Returns
    -------
    tuple of three lists
        Train, validation and test, each in the order of `samples`.

    Raises
    ------
    ValueError
        If `fractions` are not three shares that sum to 1, or there are fewer sources than parts.
    """
    shares = np.asarray(fractions, dtype=float)
    if shares.shape != (3,) or (shares < 0).any() or not np.isclose(shares.sum(), 1):
        raise ValueError(f"fractions must be three shares that sum to 1, got {fractions!r}")
    sources = sorted({sample.source for sample in samples})
    if len(sources) < np.count_nonzero(shares):
        least = np.count_nonzero(shares)
        raise ValueError(f"samples must come from at least {least} sources, got {len(sources)}: {sources}")
    # Each part with a share gets one source. Each further source goes to the part that is furthest below its
    # share.
    counts = (shares > 0).astype(int)
    while counts.sum() < len(sources):
        counts[np.argmax(shares * len(sources) - counts)] += 1
    shuffled = np.random.default_rng(seed).permutation(sources).tolist()
    part_of = dict(zip(shuffled, np.repeat([0, 1, 2], counts), strict=True))
    train, validation, test = ([s for s in samples if part_of[s.source] == part] for part in range(3))
    return train, validation, test


def split_by_region(sample: Sample, *, share: float = 0.6, margin: int = 4) -> tuple[Sample, Sample]:
    """Cut one annotated stack in two, for training and validation, if there is no second neuron.

    The cut is perpendicular to the axis along which the neuron is longest. Both parts show the same neuron
    and background, so a score on the second part is too optimistic. If you have two neurons,
    use `split_by_source`.

    Parameters
    ----------
    sample
        Sample with a mask; unknown voxels do not count.
    share
        Share of the neuron's extent along that axis that lies in the first part, above 0 and below 1.
    margin
        Number of slices after the cut that are in neither part.

    Returns
    -------
    tuple of two Samples
        Both parts, without trees. Their names say which part they are, and they have the source of `sample`.

    Raises
    ------
    ValueError
        If there is no mask, `share` or `margin` is out of range, or a part has no known voxel of the mask.
    """
    if sample.mask is None:
        raise ValueError(f"sample {sample.name!r} must have a mask, got None")
    if not 0 < share < 1:
        raise ValueError(f"share must be above 0 and below 1, got {share}")
    if margin < 0:
        raise ValueError(f"margin must not be negative, got {margin}")
    neuron = check_mask(sample.mask, name=f"the mask of sample {sample.name!r}")
    if sample.known is not None:
        neuron = neuron & sample.known
    places = np.nonzero(neuron)
    if not len(places[0]):
        raise ValueError(f"the mask of sample {sample.name!r} must have foreground, got an empty mask")
    axis = int(np.argmax([np.ptp(indices) for indices in places]))
    low, high = int(places[axis].min()), int(places[axis].max())
    cut = low + int(np.ceil(share * (high - low + 1)))
    parts = []
    for name, part in (("first", slice(0, cut)), ("second", slice(cut + margin, None))):
        region = (slice(None),) * axis + (part,)
        if not neuron[region].any():
            raise ValueError(
                f"the {name} part of sample {sample.name!r} must have foreground, got none with the cut at "
                f"{'zyx'[axis]} = {cut} and a margin of {margin}; choose another share or a smaller margin"
            )
        arrays: dict[str, Any] = {"volume": sample.volume[region], "mask": sample.mask[region]}
        if sample.known is not None:
            arrays["known"] = sample.known[region]
        name = f"{sample.name} ({name} part along {'zyx'[axis]})"
        parts.append(replace(sample, name=name, tree=None, **arrays))
    return parts[0], parts[1]


def fly_neuron() -> Sample:
    """Load a real light-microscopy stack of a fly-like neuron (119 x 415 x 409 uint8) and an automatic trace.

    The data are test files of RivuletStudio/rivuletpy (BSD-style licence). **A tracing program made the SWC
    (Rivulet2, all radii 1), not a person.** So a score against it is "agreement with an automatic trace", not
    accuracy. The voxel size is not stated, so `spacing` is None. There is no mask.

    The files are looked for in ``$NEUROKD_DATA/real``, then in the user's cache. Otherwise they are
    downloaded (130 kB, checked by SHA-256).

    Returns
    -------
    Sample
        The sample ``fly-rivulet``, with a tree in voxels.

    Raises
    ------
    FileNotFoundError
        If none of the three places has the files; the message says what to do.
    """
    folder = os.environ.get("NEUROKD_DATA")
    stored = Path(folder, "real", "rivulet_fly_full.tif") if folder else None
    if stored and stored.is_file():
        return Sample("fly-rivulet", read_volume(stored), tree=read_swc(stored.with_suffix(".swc")))
    cache = cache_folder() / "rivuletpy"
    try:
        packed, swc = (
            pooch.retrieve(
                f"{_RIVULET}/{place}",
                known_hash=sha256,
                path=cache,
                fname=Path(place).name,
                downloader=pooch.HTTPDownloader(timeout=10),  # seconds without an answer
            )
            for place, sha256 in _RIVULET_FILES
        )
    except (OSError, ValueError) as error:  # no network, or the page of a proxy, which has another SHA-256
        cause: BaseException = error  # requests wraps "name not known" in three layers of its own
        while inner := cause.__cause__ or cause.__context__:
            cause = inner
        raise FileNotFoundError(
            f"the fly neuron is not in NEUROKD_DATA ({folder or 'not set'}), not in the cache ({cache}), and "
            f"could not be downloaded ({type(cause).__name__}: {cause}). Either go online once; or copy "
            "test.tif.zip and test-expected.swc of RivuletStudio/rivuletpy into the cache; or set "
            "NEUROKD_DATA to a folder that has real/rivulet_fly_full.tif and real/rivulet_fly_full.swc"
        ) from error
    with zipfile.ZipFile(packed) as archive:
        volume = tifffile.imread(io.BytesIO(archive.read("test.tif")))
    # Vaa3D counts y from the bottom row: y -> 414 - y brings the published trace onto the array.
    return Sample("fly-rivulet", volume, tree=read_swc(swc).mirror("y", volume.shape[1]))
