"""Environment variables of the notebooks: how long they run and where they write.

=================== ============ =================================================================
variable            default      meaning
=================== ============ =================================================================
``NEUROKD_PROFILE`` ``full``     ``full`` is what a reader gets; ``ci`` runs the same cells with fewer
                                 steps, in at most two minutes (set by ``notebooks/conftest.py``)
``NEUROKD_OUT``     ``runs/...`` the folder in which a notebook writes its results
=================== ============ =================================================================

Only this module reads these variables. A notebook asks for its profile and passes plain numbers to the
library.
"""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import Literal, cast

__all__ = ["profile", "run_folder"]

logger = logging.getLogger(__name__)


def profile() -> Literal["ci", "full"]:
    """Return the profile of a notebook, from ``NEUROKD_PROFILE``.

    Returns
    -------
    {"ci", "full"}
        The profile; ``"full"`` if the variable is unset or empty.

    Raises
    ------
    ValueError
        The variable has any other value.
    """
    value = os.environ.get("NEUROKD_PROFILE") or "full"
    if value not in ("ci", "full"):
        raise ValueError(f"NEUROKD_PROFILE must be 'ci' or 'full', got {value!r}")
    return cast(Literal["ci", "full"], value)


def run_folder(name: str) -> Path:
    """Make an empty folder for the results of one run; rename the folder of an earlier run.

    Parameters
    ----------
    name
        Name of the run, used as ``runs/<name>`` below the working directory unless ``NEUROKD_OUT``
        names another folder.

    Returns
    -------
    Path
        The absolute path of the empty folder. If the folder held files, they are now in the first of
        ``<folder>-1``, ``<folder>-2``, ... that was free.

    Raises
    ------
    ValueError
        The folder is the working directory or one of its parents, which cannot be renamed.
    FileExistsError
        A file has that name.
    """
    folder = Path(os.environ.get("NEUROKD_OUT") or Path("runs", name)).resolve()
    if Path.cwd().is_relative_to(folder):
        raise ValueError(
            f"the folder of a run must be a new one, got {folder}, which holds the working directory; "
            "name a folder below it"
        )
    if folder.is_dir() and any(folder.iterdir()):
        number = 1
        while (aside := folder.with_name(f"{folder.name}-{number}")).exists():
            number += 1
        folder.rename(aside)
        logger.warning("%s held an earlier run, which is now %s", folder, aside)
    folder.mkdir(parents=True, exist_ok=True)
    return folder
