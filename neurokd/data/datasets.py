"""Samples (volume, mask, tree): where they come from and how they are split.

    simulated_neurons, fly_neuron --> [Sample, ...] --split_by_source--> train, validation, test
                                                    train --> Patches --> {"image", "mask", "known"}: 1 z y x

Crops that are split at random leak: two crops of one stack share its background, its noise and often its
neurites. So the unit of a split is the *source* (the stack a sample was cut from), never the sample.
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

# Files of a repository at fixed commits, each with its SHA-256.
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
    """A volume and what is known of it.

    Attributes
    ----------
    name
        Unique among the samples it is used with.
    volume
        Intensities ``z y x``, as read.
    mask
        True neurite voxels ``z y x``, see :func:`neurokd.data.volume.check_mask`; or None.
    tree
        The neuron as a tree in voxels of `volume`, or None.
    spacing
        Voxel size ``(z, y, x)`` in µm, or None where it is not known.
    source
        The stack the sample was cut from (by default its own name); `split_by_source` keeps sources whole.
    known
        Voxels ``z y x`` that somebody looked at, boolean; None: all. Training and scores ignore the others, see
        :func:`neurokd.data.annotation.sparse_annotation`.

    Raises
    ------
    ValueError
        Mask or known and volume differ in shape; known is not boolean, nowhere true, or comes without mask.
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
                f"sample {self.name!r}: mask has shape {np.shape(self.mask)}, volume {np.shape(self.volume)}"
            )
        if self.known is not None:
            if self.mask is None:
                raise ValueError(f"sample {self.name!r} has no mask, so known must be None")
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
    """Grow and image `n` neurons; neuron i of a seed is the same whatever `n` is.

    By default all are fly neurons under one microscope that imitates the Janelia set of BigNeuron. With `draw`, each
    volume is a scene of its own: other neurons, other voxels, another microscope.

    Parameters
    ----------
    n
        How many.
    seed
        Each neuron has its own stream, ``SeedSequence(seed, spawn_key=(i,))``.
    shape
        Voxels ``(z, y, x)`` of every volume.
    growth, microscope
        Settings of `neurokd.data.simulate`; None for its defaults. They are not used with `draw`.
    draw
        Draw everything for each volume, from these ranges or from the default ones (True).

    Returns
    -------
    list of Sample
        With volume, true mask and tree (None where there are several neurons); each is its own source.

    Raises
    ------
    ValueError
        A shape that is not three sizes of at least 16, or a negative seed.
    """
    if draw:
        world = draw if isinstance(draw, World) else None
        return [_imaged(scene, seed, i) for i, scene in enumerate(drawn_scenes(n, seed=seed, shape=shape, world=world))]
    samples = []
    for i in tqdm(range(n), desc="simulating neurons", leave=False):
        rng = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(i,)))
        volume, mask, tree = simulate_neuron(rng, shape=shape, growth=growth, microscope=microscope)
        samples.append(Sample(f"simulated-{seed}-{i:03d}", volume, mask, tree, (VOXEL, VOXEL, VOXEL)))
    return samples


def drawn_scenes(
    n: int, *, seed: int, shape: tuple[int, int, int] = (64, 144, 144), world: World | None = None
) -> list[Scene]:
    """Draw `n` scenes to train on; scene i of a seed is the same whatever `n` is.

    Give them to :func:`neurokd.training.loop.train` in place of samples, or beside them: each crop of a scene is seen
    under a microscope that is drawn for it alone.

    Parameters
    ----------
    n
        How many.
    seed
        Each scene has its own stream, ``SeedSequence(seed, spawn_key=(i,))``.
    shape
        Voxels ``(z, y, x)`` of every scene, at least those of a crop.
    world
        Ranges to draw from; None for the default ones.

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
    """Return one look at a scene as a sample; its stream is not that of the scene."""
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
    """Split into train, validation and test so that no source stands in two parts.

    Parameters
    ----------
    samples
        Samples, or anything else with a `source`, in any order: the split depends on the names of the sources and
        the seed only.
    fractions
        Shares of the *sources*, summing to 1. A part with a share above zero gets at least one source.
    seed
        Of the shuffle.

    Returns
    -------
    tuple of three lists
        Train, validation and test, each in the order of `samples`.

    Raises
    ------
    ValueError
        Not three shares that sum to 1, or fewer sources than parts.
    """
    shares = np.asarray(fractions, dtype=float)
    if shares.shape != (3,) or (shares < 0).any() or not np.isclose(shares.sum(), 1):
        raise ValueError(f"fractions must be three shares that sum to 1, got {fractions!r}")
    sources = sorted({sample.source for sample in samples})
    if len(sources) < np.count_nonzero(shares):
        raise ValueError(f"{len(sources)} sources cannot fill {np.count_nonzero(shares)} parts: {sources}")
    # One source to each part that wants any, then each further one to the part furthest below its share.
    counts = (shares > 0).astype(int)
    while counts.sum() < len(sources):
        counts[np.argmax(shares * len(sources) - counts)] += 1
    shuffled = np.random.default_rng(seed).permutation(sources).tolist()
    part_of = dict(zip(shuffled, np.repeat([0, 1, 2], counts), strict=True))
    train, validation, test = ([s for s in samples if part_of[s.source] == part] for part in range(3))
    return train, validation, test


def split_by_region(sample: Sample, *, share: float = 0.6, margin: int = 4) -> tuple[Sample, Sample]:
    """Cut one annotated stack in two, to train on and to choose on, where there is no second neuron.

    The cut runs across the axis along which the neuron is longest. Both parts show the same neuron and background, so
    a score on the second promises more than another stack will keep: with two neurons, use `split_by_source`.

    Parameters
    ----------
    sample
        With a mask; what is not known in it does not count.
    share
        Of the neuron's extent along that axis that lies in the first part, above 0 and below 1.
    margin
        Slices behind the cut that are in neither part.

    Returns
    -------
    tuple of two Samples
        Without tree; their names say which part they are, their source is that of `sample`.

    Raises
    ------
    ValueError
        No mask, a share or margin out of range, or a part without a known voxel of the mask.
    """
    if sample.mask is None:
        raise ValueError(f"sample {sample.name!r} has no mask")
    if not 0 < share < 1 or margin < 0:
        raise ValueError(f"need 0 < share < 1 and margin >= 0, got {share=}, {margin=}")
    neuron = check_mask(sample.mask, name=f"the mask of sample {sample.name!r}")
    if sample.known is not None:
        neuron = neuron & sample.known
    places = np.nonzero(neuron)
    if not len(places[0]):
        raise ValueError(f"the mask of sample {sample.name!r} is empty")
    axis = int(np.argmax([np.ptp(along) for along in places]))
    low, high = int(places[axis].min()), int(places[axis].max())
    cut = low + int(np.ceil(share * (high - low + 1)))
    parts = []
    for name, part in (("first", slice(0, cut)), ("second", slice(cut + margin, None))):
        at = (slice(None),) * axis + (part,)
        if not neuron[at].any():
            raise ValueError(
                f"the {name} part of sample {sample.name!r}, cut at {'zyx'[axis]} = {cut} with a margin of {margin}, "
                "has no voxel of the mask: choose another share or a smaller margin"
            )
        name = f"{sample.name} ({name} part along {'zyx'[axis]})"
        known = None if sample.known is None else sample.known[at]
        parts.append(replace(sample, name=name, volume=sample.volume[at], mask=sample.mask[at], tree=None, known=known))
    return parts[0], parts[1]


def fly_neuron() -> Sample:
    """Load a real light-microscopy stack of a fly-like neuron, 119 x 415 x 409 uint8, with an automatic trace.

    The data are test files of RivuletStudio/rivuletpy (BSD-style licence). **The SWC is the output of a
    tracing program (Rivulet2, all radii 1), not of a person**: a score against it is "agreement with an
    automatic trace", never accuracy. The voxel size is not stated, so `spacing` is None; there is no mask.

    Looked for in ``$NEUROKD_DATA/real``, then in the user's cache, then on the network (130 kB, checked by
    SHA-256).

    Returns
    -------
    Sample
        Named ``fly-rivulet``, with a tree in voxels.

    Raises
    ------
    FileNotFoundError
        None of the three has it; the message says what to do.
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
    except (OSError, ValueError) as error:  # no network; or a page of a proxy, whose SHA-256 is another
        cause: BaseException = error  # requests wraps "name not known" in three layers of its own
        while inner := cause.__cause__ or cause.__context__:
            cause = inner
        raise FileNotFoundError(
            f"the fly neuron is not in NEUROKD_DATA ({folder or 'not set'}), not in the cache ({cache}), and "
            f"could not be downloaded ({type(cause).__name__}: {cause}). Either go online once; or copy test.tif.zip "
            "and test-expected.swc of RivuletStudio/rivuletpy into the cache; or set NEUROKD_DATA to a folder "
            "that has real/rivulet_fly_full.tif and real/rivulet_fly_full.swc"
        ) from error
    with zipfile.ZipFile(packed) as archive:
        volume = tifffile.imread(io.BytesIO(archive.read("test.tif")))
    # Vaa3D counts y from the bottom row: y -> 414 - y brings the published trace onto the array.
    return Sample("fly-rivulet", volume, tree=read_swc(swc).mirror("y", volume.shape[1]))
