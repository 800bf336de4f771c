"""Habits with files: one place for downloads, plain words for a missing file, no half-written ones."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

import platformdirs

__all__ = ["cache_folder", "existing_file", "writing_to"]


def cache_folder() -> Path:
    """Return the folder for downloads: ``NEUROKD_CACHE``, or the user's cache folder."""
    return Path(os.environ.get("NEUROKD_CACHE") or platformdirs.user_cache_path("neurokd"))


def existing_file(path: str | os.PathLike[str]) -> Path:
    """Return `path` as a ``Path`` if it is a file; else ``FileNotFoundError``."""
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path} is not a file" if path.exists() else f"no such file: {path}")
    return path


@contextlib.contextmanager
def writing_to(path: str | os.PathLike[str], *, overwrite: bool = False) -> Iterator[Path]:
    """Yield a temporary path beside `path`; what is written there takes its place if the block succeeds.

    Parameters
    ----------
    path
        The file to make; its folder is made if need be.
    overwrite
        Replace an existing file.

    Raises
    ------
    FileExistsError
        `path` is there and `overwrite` is False.
    """
    path = Path(path)
    if path.exists() and not overwrite:
        raise FileExistsError(f"{path} exists; pass overwrite=True to replace it")
    path.parent.mkdir(parents=True, exist_ok=True)
    # Not tempfile: its files are readable by their owner only, and would stay so. The suffix is kept because
    # writers go by it.
    part = path.with_name(f".{path.stem}.{os.getpid()}{path.suffix}")
    try:
        yield part
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)
