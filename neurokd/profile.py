"""Where and how long the notebooks run: the one place that reads the environment for them.

=================== ============ =================================================================
variable            default      meaning
=================== ============ =================================================================
``NEUROKD_PROFILE`` ``full``     ``full`` is what a reader gets; ``ci`` is the same story with fewer
                                 steps, one to two minutes at most (set by ``notebooks/conftest.py``)
``NEUROKD_OUT``     ``runs/...`` the folder that a notebook writes its results into
=================== ============ =================================================================

The library itself never looks at them: a notebook reads its profile here and passes plain numbers on.
"""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import Literal, cast

__all__ = ["profile", "run_folder"]

logger = logging.getLogger(__name__)


def profile() -> Literal["ci", "full"]:
    """Return the profile a notebook shall run in, from ``NEUROKD_PROFILE``.

    Returns
    -------
    {"ci", "full"}
        ``"full"`` where the variable is unset or empty.

    Raises
    ------
    ValueError
        The variable holds anything else.
    """
    value = os.environ.get("NEUROKD_PROFILE") or "full"
    if value not in ("ci", "full"):
        raise ValueError(f"NEUROKD_PROFILE must be 'ci' or 'full', got {value!r}")
    return cast(Literal["ci", "full"], value)


def run_folder(name: str) -> Path:
    """Make an empty folder for the results of one run; an earlier run is moved aside, never overwritten.

    Parameters
    ----------
    name
        Name of the run, used as ``runs/<name>`` below the working directory unless ``NEUROKD_OUT``
        names another folder.

    Returns
    -------
    Path
        The folder, absolute and empty. Where it held files already, those are now in the first
        free one of ``<folder>-1``, ``<folder>-2``, ... beside it.

    Raises
    ------
    ValueError
        The folder is the working directory or one of its parents, which cannot be moved aside.
    FileExistsError
        There is a file of that name.
    """
    folder = Path(os.environ.get("NEUROKD_OUT") or Path("runs", name)).resolve()
    if Path.cwd().is_relative_to(folder):
        raise ValueError(f"results cannot go to {folder}: it holds the working directory; name a folder below it")
    if folder.is_dir() and any(folder.iterdir()):
        number = 1
        while (aside := folder.with_name(f"{folder.name}-{number}")).exists():
            number += 1
        folder.rename(aside)
        logger.warning("%s held an earlier run, which is now %s", folder, aside)
    folder.mkdir(parents=True, exist_ok=True)
    return folder
