"""The results of this project's own study: does 2D knowledge help 3D neurons?

A *cell* is an arm (a model and how it begins), trained on so many volumes with one seed. ``benchmarks/study.py`` makes
the cells, ``benchmarks/study_tables.py`` gathers them in the file ``study.json`` beside this module, so that a notebook
alone in a folder has them, too.
"""

import json
from importlib import resources
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["load_study", "study_scores"]


def load_study() -> dict[str, Any]:
    """Return the settings and all cells of the study.

    Returns
    -------
    dict
        ``data``, ``training``, ``student``, ``arms``, ``goals`` and ``tables`` as in ``benchmarks/study.yaml``;
        ``cells``, a list of dicts with ``arm``, ``volumes``, ``seed``, ``validation_dice``, ``validations`` (step and
        Dice), what the cell cost, and ``rows``: for each row of scored neurons a list of dicts, one for each neuron.

    Examples
    --------
    >>> sorted(load_study())
    ['arms', 'cells', 'data', 'goals', 'student', 'tables', 'training']
    """
    return json.loads((resources.files(__package__) / "study.json").read_text(encoding="utf-8"))


def study_scores(
    cells: list[dict[str, Any]], arm: str, score: str = "dice", *, volumes: int = 4, row: str = "test"
) -> NDArray[np.float64]:
    """Return one score of an arm.

    Parameters
    ----------
    cells
        From :func:`load_study`.
    arm
        Its name.
    score
        A key of the rows, such as ``"dice"`` or ``"hd95"``.
    volumes
        Training volumes. An arm that is not trained has one cell for all numbers.
    row
        ``"test"``, ``"shifted"``, ``"flies"`` or ``"real"``.

    Returns
    -------
    ndarray
        (seeds, neurons), seeds ascending.

    Raises
    ------
    ValueError
        If no such cell was scored on that row.
    """
    of = [c for c in cells if c["arm"] == arm and (c["volumes"] == volumes or "validations" not in c)]
    of = sorted((c for c in of if c["rows"].get(row)), key=lambda c: c["seed"])
    if not of:
        raise ValueError(f"no cell of arm {arm!r} with {volumes} volumes was scored on {row!r}")
    return np.array([[neuron[score] for neuron in cell["rows"][row]] for cell in of], dtype=np.float64)
