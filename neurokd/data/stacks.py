"""A folder of one's own: which stack belongs to which annotation, by name, and how large its voxels are.

    my-stacks/
      cell1_raw.tif   cell1_trace.swc     both are called cell1: what a suffix leaves of a file's name
      cell2_raw.tif                       not annotated
          --index_stacks(folder, stack_suffixes="_raw.tif", swc_suffixes="_trace.swc")--> cell1, cell2

Nothing is loaded, and nothing written. `neurokd.data.bigneuron` does this for BigNeuron's folders, which have rules of
their own.
"""

import logging
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from neurokd.data.io import read_spacing
from neurokd.data.volume import Spacing, check_spacing

__all__ = ["Stack", "index_stacks"]

_log = logging.getLogger(__name__)
_STACKS = (".ome.tif", ".ome.tiff", ".tif", ".tiff", ".v3draw", ".raw", ".v3dpbd")


@dataclass(frozen=True)
class Stack:
    """A stack on disk, and its annotation if it has one.

    Attributes
    ----------
    name
        What its suffix leaves of the file's name; unique in an index.
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
    folder: str | os.PathLike,
    *,
    spacing: Sequence[float] | Mapping[str, Sequence[float]] | None = None,
    stack_suffixes: str | Iterable[str] = _STACKS,
    swc_suffixes: str | Iterable[str] = ".swc",
) -> list[Stack]:
    """Find the stacks in a folder and the SWC file of each.

    The two belong together if cutting off their suffixes leaves the same name: ``cell1.tif`` and ``cell1.swc``, also
    ``cell1.tif.swc``, as Vaa3D calls it. Folders below are not searched, and files of other names are left alone.

    Parameters
    ----------
    folder
        Where the files are.
    spacing
        Voxel size ``(z, y, x)`` in µm of all stacks, or a dict of some by name. It comes before what a file states;
        where the two differ by more than 1 %, a warning of the log says so. None: as the files state.
    stack_suffixes, swc_suffixes
        One or several, capitals or not. Of several that fit, the longest is cut off.

    Returns
    -------
    list of Stack
        By name. SWC files that belong to no stack are named in a warning of the log.

    Raises
    ------
    FileNotFoundError
        There is no such folder.
    ValueError
        No stack in it; two stacks, or two SWC files, of one name; stacks whose voxel size is neither given nor stated;
        a size that is not three positive numbers, or one for a stack that is not there.

    Examples
    --------
    >>> index_stacks("/data/my-stacks", spacing=(0.5, 0.2, 0.2))
    [Stack(name='cell1', volume=PosixPath('/data/my-stacks/cell1.tif'), swc=None, spacing=(0.5, 0.2, 0.2))]
    """
    root = Path(folder).resolve()
    if not root.is_dir():
        raise FileNotFoundError(f"no such folder: {root}")
    of_stacks, of_trees = _longest_first(stack_suffixes), _longest_first(swc_suffixes)
    volumes: dict[str, Path] = {}
    trees: dict[str, Path] = {}
    for path in sorted(root.iterdir()):
        if path.name.startswith(".") or not path.is_file():
            continue
        if (name := _without(path.name, of_stacks)) is not None:
            _put(volumes, name, path)
        elif (name := _without(path.name, of_trees)) is not None:
            _put(trees, _without(name, of_stacks) or name, path)
    if not volumes:
        raise ValueError(f"{root}: no file ends in {', '.join(of_stacks)} (folders below are not searched)")
    if lonely := sorted(trees[name].name for name in set(trees) - set(volumes)):
        _log.warning("%s: SWC files without a stack of their name: %s", root, ", ".join(lonely))
    sizes = _sizes(volumes, spacing)
    return [Stack(name, volumes[name], trees.get(name), sizes[name]) for name in sorted(volumes)]


def _longest_first(suffixes: str | Iterable[str]) -> list[str]:
    return sorted([suffixes] if isinstance(suffixes, str) else suffixes, key=len, reverse=True)


def _without(name: str, suffixes: list[str]) -> str | None:
    """What is left of a name without its suffix; None where none fits or nothing is left."""
    return next((name[: -len(s)] for s in suffixes if name.lower().endswith(s.lower()) and len(name) > len(s)), None)


def _put(files: dict[str, Path], name: str, path: Path) -> None:
    if name in files:
        raise ValueError(f"two files are called {name}: {files[name]} and {path}; name suffixes that tell them apart")
    files[name] = path


def _sizes(
    volumes: Mapping[str, Path], spacing: Sequence[float] | Mapping[str, Sequence[float]] | None
) -> dict[str, Spacing | None]:
    """The voxel size of every stack, as given or stated."""
    given = spacing if isinstance(spacing, Mapping) else dict.fromkeys(volumes, spacing) if spacing is not None else {}
    if unknown := sorted(set(given) - set(volumes)):
        raise ValueError(f"spacing is given for {', '.join(unknown)}, but the stacks are {', '.join(sorted(volumes))}")
    sizes: dict[str, Spacing | None] = {name: check_spacing(size) for name, size in given.items()}
    asked = []
    for name, path in volumes.items():
        try:
            stated = read_spacing(path)
        except ValueError:  # damaged: whoever reads it learns how
            sizes.setdefault(name, None)
            continue
        size = sizes.setdefault(name, stated)
        if size is None:
            asked.append(name)
        elif stated is not None and not np.allclose(size, stated, rtol=0.01):
            _log.warning("%s: spacing %s is used as given, the file states %s", path, size, stated)
    if asked:
        raise ValueError(
            f"no voxel size is stated in the files of {', '.join(sorted(asked))}: give spacing=(z, y, x) in µm, or a "
            f'dict such as {{"{min(asked)}": (0.5, 0.2, 0.2)}}'
        )
    return sizes
