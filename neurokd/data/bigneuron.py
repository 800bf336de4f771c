"""BigNeuron's gold166: find the pairs of stack and tree in a folder, check them, convert them once.

    gold166/
      p_checked7_janelia_flylight_part1/                           subset
        GMR_..._A3-left_optic_lobe.v3draw.extract_1/               stack folder, at times err_... or hard_...
          GMR_..._A3-left_optic_lobe.v3draw.extract_1.v3dpbd       volume
          GMR_....v3dpbd.ano_stamp_2015_06_17_12_57.swc            one tree or several: base, stamped, sorted
                                                     --index_gold166--> pairs --split_by_source--> three lists
                                                                          |
                                  TIFF + SWC in array coordinates <--convert_gold166

The data (github.com/BigNeuron/Data, release Gold166_v1) are not redistributed, because their licence is not
stated. The layout of the folder is known from file lists in public analyses of it. So the index is tolerant:
folders may lie at any depth, and a tree belongs to the volume whose name is in its own, or to the only volume
of its folder.

Neurons of one stack share its background: the 42 of Janelia's part 1 are cut from 38 stacks
(``....v3draw.extract_N``), and FlyCircuit numbers the neurons of a brain (``..._segNNN``). That name is the
`source`. Otherwise each file is its own source; override it with ``dataclasses.replace(pair, source=...)``.
"""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from tqdm.auto import tqdm

from neurokd.data.datasets import Sample
from neurokd.data.formats import FORMATS
from neurokd.data.growth import VOXEL
from neurokd.data.io import read_spacing, read_volume, write_volume
from neurokd.data.placement import check_pair
from neurokd.data.rasterise import rasterise
from neurokd.data.swc import read_swc, write_swc
from neurokd.data.volume import Spacing

__all__ = ["GoldPair", "convert_gold166", "index_gold166"]

logger = logging.getLogger(__name__)
# Where a volume is there in several formats, the first of these is taken: Vaa3D's own come before TIFF.
_SUFFIXES = [suffix for kind in reversed(FORMATS) for suffix in kind.suffixes]
_WITHIN_STACK = re.compile(r"\.v3draw\.extract_\d+|_seg\d+")
_STAMP = re.compile(r"_stamp_([0-9_]+)")
# (z, y, x) in µm by name of the subset, where one size holds for all of it. Source: scaling_gold.csv of
# github.com/lmanubens/BigNeuron.
_VOXEL_SIZES: dict[str, Spacing] = {
    "janelia_flylight": (VOXEL, VOXEL, VOXEL),
    "taiwan_fly": (1.0, 0.32, 0.32),
}


@dataclass(frozen=True)
class GoldPair:
    """A volume on disk and the tree that belongs to it.

    Parameters
    ----------
    name
        Name of the volume's file without suffix; unique in an index.
    subset
        Name of the subset's folder, such as ``p_checked7_janelia_flylight_part1``.
    source
        The stack that the volume was cut from; `split_by_source` keeps it whole.
    volume
        File of the stack.
    swc
        File of the tree.
    spacing
        Voxel size ``(z, y, x)`` in µm, or None where it is not known.
    others
        Further SWC files of this volume, not chosen.
    """

    name: str
    subset: str
    source: str
    volume: Path
    swc: Path
    spacing: Spacing | None = None
    others: tuple[Path, ...] = ()

    def load(self, *, min_radius: float = 0.87) -> Sample:
        """Read both files and draw the tree as a mask.

        Parameters
        ----------
        min_radius
            Smallest radius drawn, voxels, as in `rasterise`; 0.87 keeps every neurite in one piece.

        Returns
        -------
        Sample
            With volume, mask and tree.

        Raises
        ------
        ValueError
            The tree fits the volume only when mirrored in y (`convert_gold166` mends that), or a damaged
            file.
        """
        volume, tree = read_volume(self.volume), read_swc(self.swc, repair=True)
        check = check_pair(volume, tree)
        if check.mirrored:
            raise ValueError(f"{self.swc} is mirrored in y against its volume ({check}); convert_gold166 mends that")
        mask = rasterise(tree, volume.shape, min_radius=min_radius)
        return Sample(self.name, volume, mask, tree, self.spacing, self.source)


def index_gold166(folder: str | os.PathLike[str]) -> list[GoldPair]:
    """Find the pairs in a gold166 folder, in one of its subsets, or in what `convert_gold166` wrote.

    Of several SWC files of a volume a sorted one (``..._sorted.swc``) comes before a stamped one
    (``..._stamp_...``) before any other, and a later stamp before an earlier one.

    Parameters
    ----------
    folder
        Folder to look in; all folders below are searched, hidden files are not.

    Returns
    -------
    list of GoldPair
        In the order of their paths. The log warns of volumes without SWC.

    Raises
    ------
    FileNotFoundError
        There is no such folder.
    ValueError
        No pair in it; two volumes of one name (a split could put a copy into training and into test); a
        damaged TIFF.
    """
    root = Path(folder).resolve()
    if not root.is_dir():
        raise FileNotFoundError(f"no such folder: {root}")
    files: dict[Path, list[Path]] = {}
    for path in sorted(root.rglob("*")):
        if not path.name.startswith(".") and path.is_file():
            files.setdefault(path.parent, []).append(path)
    pairs: dict[str, GoldPair] = {}
    for siblings in files.values():
        for volume, trees in _match(siblings):
            if not trees:
                logger.warning("%s: no SWC beside it, left out", volume)
                continue
            name = volume.stem
            if name in pairs:
                raise ValueError(f"two volumes are called {name}: {pairs[name].volume} and {volume}")
            swc, *others = sorted(trees, key=_preference, reverse=True)
            subset = _subset(root, volume)
            source = _WITHIN_STACK.split(name)[0] or name
            pairs[name] = GoldPair(name, subset, source, volume, swc, _spacing(volume, subset), tuple(others))
    if not pairs:
        raise ValueError(f"{root}: no volume ({', '.join(_SUFFIXES)}) with an SWC file beside it")
    return list(pairs.values())


def convert_gold166(pairs: Sequence[GoldPair], folder: str | os.PathLike[str]) -> list[GoldPair]:
    """Write every pair as TIFF and SWC in array coordinates, once; `index_gold166` reads the new folder too.

    Existing files are left as they are, so a second call, or one after an interruption, goes on where the
    first ended. The check of each pair is logged and stands in the comments of its SWC. A tree mirrored in y
    is turned round.

    Parameters
    ----------
    pairs
        Pairs from `index_gold166`.
    folder
        Folder for ``<subset>/<name>/<name>.tif`` and ``.swc``; made if need be.

    Returns
    -------
    list of GoldPair
        The same pairs with their new files, in the same order.

    Raises
    ------
    ValueError
        A file that cannot be read, or a volume that TIFF cannot hold.
    """
    converted = []
    for pair in tqdm(pairs, desc="converting", leave=False):
        new = Path(folder).resolve() / pair.subset / pair.name / f"{pair.name}.tif"
        swc = new.with_name(f"{pair.name}.swc")
        if not (new.is_file() and swc.is_file()):  # the SWC is written last
            volume, tree = read_volume(pair.volume), read_swc(pair.swc, repair=True)
            check = check_pair(volume, tree)
            report = f"{pair.swc.name}: {check}{', turned round' if check.mirrored else ''}"
            logger.log(logging.INFO if check.fits else logging.WARNING, "%s", report)
            if check.mirrored:
                tree = tree.mirror("y", volume.shape[1])
            write_volume(new, volume, spacing=pair.spacing, overwrite=True)
            write_swc(swc, tree, comments=[report], overwrite=True)
        converted.append(replace(pair, volume=new, swc=swc, others=()))
    return converted


def _match(files: list[Path]) -> list[tuple[Path, list[Path]]]:
    """Return the volumes of one folder, each with its trees."""
    volumes: dict[str, Path] = {}
    for suffix in _SUFFIXES:
        for path in files:
            if path.suffix.lower() == suffix:
                volumes.setdefault(path.stem, path)
    trees: dict[str, list[Path]] = {stem: [] for stem in volumes}
    for path in files:
        if path.suffix.lower() == ".swc":
            owners = [stem for stem in volumes if stem in path.name or len(volumes) == 1]
            if owners:
                trees[max(owners, key=len)].append(path)
    return [(volumes[stem], trees[stem]) for stem in sorted(volumes)]


def _preference(swc: Path) -> tuple[bool, str, str]:
    """Return a key that sorts the SWC files of a volume, the best one last."""
    stamp = _STAMP.search(swc.name)
    return swc.name.lower().endswith("_sorted.swc"), stamp[1] if stamp else "", swc.name


def _subset(root: Path, volume: Path) -> str:
    """Return the folder with "checked" and a number in its name; else the folder around the volume's own."""
    folders = [root.name, *volume.relative_to(root).parts[:-1]]
    named = [folder for folder in folders if re.search(r"checked\d", folder)]
    return named[-1] if named else folders[max(0, len(folders) - 2)]


def _spacing(volume: Path, subset: str) -> Spacing | None:
    """Return the voxel size that the file states, else that of its subset, else None."""
    return read_spacing(volume) or next((size for name, size in _VOXEL_SIZES.items() if name in subset), None)
