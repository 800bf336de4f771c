"""The results of this project's own study: does 2D knowledge help 3D neurons?

A *cell* is an arm (a model and how it begins), trained on so many volumes with one seed.
``benchmarks/study.py`` writes two files for each cell, one when it is trained and one when it is tested. They
lie in the package, in ``neurokd/results/study``, so that a notebook alone in a folder has them, too.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["load_study", "study_scores"]

_STUDY = Path(__file__).parents[1] / "results" / "study"


def load_study(folder: str | os.PathLike[str] | None = None) -> list[dict[str, Any]]:
    """Return all cells of a study.

    Parameters
    ----------
    folder
        Folder with the files of the cells; None reads the study that comes with the package.

    Returns
    -------
    list of dict
        One dict for each cell, in the order of their file names. It holds ``arm``, ``volumes``, ``seed``,
        ``validation_dice``, ``validations`` (step and Dice), the costs of training, ``made_with`` (all
        settings), ``machine``, and ``rows``: for each row of test neurons a list of dicts, one for each
        neuron. ``rows`` is empty in a cell that was not tested, and ``skipped`` says why a row is missing.

    Raises
    ------
    FileNotFoundError
        There is no such folder.

    Examples
    --------
    >>> sorted(load_study()[0]["rows"])
    ['flies', 'real', 'shifted', 'test']
    """
    root = _STUDY if folder is None else Path(folder)
    if not root.is_dir():
        raise FileNotFoundError(f"no such folder: {root}")
    cells = []
    for trained in sorted(root.glob("*.json")):
        if trained.name.endswith(".test.json"):
            continue
        tested = trained.with_suffix(".test.json")
        scored = json.loads(tested.read_text(encoding="utf-8")) if tested.exists() else {}
        cell = json.loads(trained.read_text(encoding="utf-8"))
        cells.append(cell | {"rows": scored.get("rows", {}), "skipped": scored.get("skipped", {})})
    return cells


def study_scores(
    cells: Sequence[dict[str, Any]], arm: str, score: str = "dice", *, volumes: int = 4, row: str = "test"
) -> NDArray[np.float64]:
    """Return one score of an arm.

    Parameters
    ----------
    cells
        Cells from :func:`load_study`.
    arm
        Name of the arm.
    score
        A key of the rows, such as ``"dice"`` or ``"hd95"``.
    volumes
        Number of training volumes. An arm that is not trained has one cell for all numbers.
    row
        ``"test"``, ``"shifted"``, ``"flies"`` or ``"real"``.

    Returns
    -------
    ndarray
        (seeds, neurons), seeds ascending.

    Raises
    ------
    ValueError
        No such cell was scored on that row.
    """
    chosen = [c for c in cells if c["arm"] == arm and (c["volumes"] == volumes or "validations" not in c)]
    chosen = sorted((c for c in chosen if c["rows"].get(row)), key=lambda c: c["seed"])
    if not chosen:
        raise ValueError(f"no cell of arm {arm!r} with {volumes} volumes was scored on {row!r}")
    return np.array([[neuron[score] for neuron in cell["rows"][row]] for cell in chosen], dtype=np.float64)
