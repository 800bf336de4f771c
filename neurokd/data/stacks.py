"""A folder of your own: which stack belongs to which annotation, by name, and how large its voxels are.

    my-stacks/
      cell1_raw.tif   cell1_trace.swc     both are called cell1: what a suffix leaves of a file's name
      cell2_raw.tif                       not annotated
          --index_stacks(folder, stack_suffixes="_raw.tif", swc_suffixes="_trace.swc")--> cell1, cell2

Nothing is loaded, and nothing is written. `neurokd.data.bigneuron` does this for BigNeuron's folders, which
have their own rules.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from neurokd.data.formats import FORMATS
from neurokd.data.io import read_spacing
from neurokd.data.volume import Spacing, check_spacing

__all__ = ["Stack", "index_stacks"]

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Stack:
    """A stack on disk, and its annotation if it has one.

    Parameters
    ----------
    name
        Name of the file without its suffix; unique in an index.
    volume
        The file with the stack.
    swc
        The file with its tree, or None.
    spacing
        Voxel size ``(z, y, x)`` in µm; None only where `volume` is too damaged to say.
    """

    name: str
    volume: Path
    swc: Path | None = None
    spacing: Spacing | None = None


def index_stacks(
    folder: str | os.PathLike[str],
    *,
    spacing: Sequence[float] | Mapping[str, Sequence[float]] | None = None,
    stack_suffixes: str | Iterable[str] | None = None,
    swc_suffixes: str | Iterable[str] = ".swc",
) -> list[Stack]:
    """Find the stacks in a folder and the SWC file of each.

    The two belong together if cutting off their suffixes leaves the same name: ``cell1.tif`` and
    ``cell1.swc``, also ``cell1.tif.swc``, as Vaa3D calls it. Folders below are not searched, and files of
    other names are left alone.

    Parameters
    ----------
    folder
        Folder with the files.
    spacing
        Voxel size ``(z, y, x)`` in µm of all stacks, or a dict with the sizes of some stacks by name. A given
        size replaces the one that a file states; where the two differ by more than 1 %, the log warns. None
        takes the sizes that the files state.
    stack_suffixes
        One or several endings of the names of stacks, capitals or not; the longest that fits is cut off. None
        takes the suffixes of all `FORMATS`.
    swc_suffixes
        The same for the SWC files.

    Returns
    -------
    list of Stack
        Sorted by name. The log warns of SWC files that belong to no stack.

    Raises
    ------
    FileNotFoundError
        There is no such folder.
    ValueError
        There is no stack in it; two stacks, or two SWC files, have one name; the voxel size of a stack is
        neither given nor stated; a size is not three positive numbers, or is given for a stack that is not
        there.

    Examples
    --------
    >>> index_stacks("/data/my-stacks", spacing=(0.5, 0.2, 0.2))
    [Stack(name='cell1', volume=PosixPath('/data/my-stacks/cell1.tif'), swc=None, spacing=(0.5, 0.2, 0.2))]
    """
    root = Path(folder).resolve()
    if not root.is_dir():
        raise FileNotFoundError(f"no such folder: {root}")
    if stack_suffixes is None:
        stack_suffixes = [suffix for kind in FORMATS for suffix in kind.suffixes]
    stack_ends, swc_ends = _longest_first(stack_suffixes), _longest_first(swc_suffixes)
    volumes: dict[str, Path] = {}
    trees: dict[str, Path] = {}
    for path in sorted(root.iterdir()):
        if path.name.startswith("."):
            continue
        if (name := _without(path.name, stack_ends)) is not None:
            _put(volumes, name, path)
        elif (name := _without(path.name, swc_ends)) is not None:
            _put(trees, _without(name, stack_ends) or name, path)
    if not volumes:
        raise ValueError(f"{root}: no file ends in {', '.join(stack_ends)} (folders below are not searched)")
    if lonely := sorted(trees[name].name for name in set(trees) - set(volumes)):
        logger.warning("%s: SWC files without a stack of their name: %s", root, ", ".join(lonely))
    sizes = _sizes(volumes, spacing)
    return [Stack(name, volumes[name], trees.get(name), sizes[name]) for name in sorted(volumes)]


def _longest_first(suffixes: str | Iterable[str]) -> list[str]:
    return sorted([suffixes] if isinstance(suffixes, str) else suffixes, key=len, reverse=True)


def _without(name: str, suffixes: list[str]) -> str | None:
    """Return a name without its suffix; None where no suffix fits or nothing would be left."""
    for suffix in suffixes:
        if name.lower().endswith(suffix.lower()) and len(name) > len(suffix):
            return name[: -len(suffix)]
    return None


def _put(files: dict[str, Path], name: str, path: Path) -> None:
    """Add a file under a name that is still free."""
    if name in files:
        raise ValueError(f"two files are called {name}: {files[name]} and {path}; name suffixes that tell them apart")
    files[name] = path


def _sizes(
    volumes: Mapping[str, Path], spacing: Sequence[float] | Mapping[str, Sequence[float]] | None
) -> dict[str, Spacing | None]:
    """Return the voxel size of every stack, as given or stated; None for a damaged file."""
    if spacing is None:
        spacing = {}
    elif not isinstance(spacing, Mapping):
        spacing = dict.fromkeys(volumes, spacing)
    if unknown := sorted(set(spacing) - set(volumes)):
        known = ", ".join(sorted(volumes))
        raise ValueError(f"spacing must be of stacks among {known}, got {', '.join(unknown)}")
    sizes: dict[str, Spacing | None] = {name: check_spacing(size) for name, size in spacing.items()}
    missing = []
    for name, path in volumes.items():
        try:
            stated = read_spacing(path)
        except ValueError:  # damaged: whoever reads it learns how
            sizes.setdefault(name, None)
            continue
        size = sizes.setdefault(name, stated)
        if size is None:
            missing.append(name)
        elif stated is not None and not np.allclose(size, stated, rtol=0.01):
            logger.warning("%s: spacing %s is used as given, the file states %s", path, size, stated)
    if missing:
        raise ValueError(
            f"no voxel size is stated in the files of {', '.join(sorted(missing))}: give spacing=(z, y, x) "
            f'in µm, or a dict such as {{"{min(missing)}": (0.5, 0.2, 0.2)}}'
        )
    return sizes
