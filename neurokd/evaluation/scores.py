"""The scores, each with its name, its unit, its definition and the function that computes it.

    SCORES --+--> evaluate_masks, compare_trees    which scores there are, and how each is computed
             +--> Report, benchmarks               headings, decimals, which end is better
             +--> the book's page of notation      the table

A new score is a function in a module of its own and one entry in `SCORES`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from neurokd.data.volume import Spacing
from neurokd.evaluation.branching import strahler_order
from neurokd.evaluation.ranking import average_precision
from neurokd.evaluation.surface import hd95
from neurokd.evaluation.topology import betti_errors, cldice
from neurokd.evaluation.voxels import dice, precision, recall

__all__ = ["SCORES", "Score"]


@dataclass(frozen=True, eq=False)
class MaskPair:
    """A predicted mask, the true one, and what several scores share.

    Parameters
    ----------
    prediction, truth
        (z, y, x) boolean masks.
    spacing
        Voxel size ``(z, y, x)``, µm.
    known
        (z, y, x) boolean, the voxels that somebody annotated; None takes all.
    """

    prediction: NDArray[np.bool_]
    truth: NDArray[np.bool_]
    spacing: Spacing
    known: ArrayLike | None = None

    @cached_property
    def betti_errors(self) -> tuple[int, int]:
        """Errors in the number of components and of tunnels."""
        return betti_errors(self.prediction, self.truth)


@dataclass(frozen=True)
class Score:
    """What a score is called, how it is read, and what computes it.

    Parameters
    ----------
    label
        Name of the score in tables.
    compares
        What it compares with the truth: "masks", "trees" or "probabilities".
    function
        Function that computes it. Its argument is a `MaskPair` or a `TreePair`; for probabilities there are
        two, the probabilities and the true mask.
    definition
        One line below a table.
    better
        "high" or "low", whichever end is better; None for a mere description, such as the length of a tree.
    unit
        "length" if it is a length, in µm or in voxels; "" if it has no unit.
    digits
        Decimals in tables.
    counts_voxels
        True if the score only counts voxels, so that it is also defined where only some of them are
        annotated.
    """

    label: str
    compares: Literal["masks", "trees", "probabilities"]
    function: Callable[..., float]
    definition: str
    better: Literal["high", "low"] | None = "high"
    unit: Literal["length", ""] = ""
    digits: int = 3
    counts_voxels: bool = False

    def heading(self, unit: str = "µm") -> str:
        """Return the heading of a column, with the unit of length where the score has one."""
        return f"{self.label} ({unit})" if self.unit else self.label


SCORES = {
    "average_precision": Score(
        "AP",
        "probabilities",
        average_precision,
        "area under the steps of precision over recall",
        counts_voxels=True,
    ),
    "dice": Score(
        "Dice",
        "masks",
        lambda pair: dice(pair.prediction, pair.truth, known=pair.known),
        "foreground Dice",
        counts_voxels=True,
    ),
    "precision": Score(
        "precision",
        "masks",
        lambda pair: precision(pair.prediction, pair.truth, known=pair.known),
        "share of the predicted voxels that are true",
        counts_voxels=True,
    ),
    "recall": Score(
        "recall",
        "masks",
        lambda pair: recall(pair.prediction, pair.truth, known=pair.known),
        "share of the true voxels that are predicted",
        counts_voxels=True,
    ),
    "cldice": Score(
        "clDice",
        "masks",
        lambda pair: cldice(pair.prediction, pair.truth),
        "overlap of the skeletons",
    ),
    "hd95": Score(
        "HD95",
        "masks",
        lambda pair: hd95(pair.prediction, pair.truth, spacing=pair.spacing),
        "max of the two directed 95th percentiles of the surface distances; "
        "if exactly one mask is empty, the diagonal of the volume",
        better="low",
        unit="length",
        digits=2,
    ),
    "betti0_error": Score(
        "Betti-0 error",
        "masks",
        lambda pair: pair.betti_errors[0],
        "difference in the number of 26-connected components",
        better="low",
        digits=0,
    ),
    "betti1_error": Score(
        "Betti-1 error",
        "masks",
        lambda pair: pair.betti_errors[1],
        "difference in the number of tunnels",
        better="low",
        digits=0,
    ),
    "esa": Score(
        "ESA",
        "trees",
        lambda pair: pair.esa,
        "mean distance between the trees, over both directions",
        better="low",
        unit="length",
        digits=2,
    ),
    "dsa": Score(
        "DSA",
        "trees",
        lambda pair: pair.dsa,
        "mean distance where the trees are apart (at the tolerance or further)",
        better="low",
        unit="length",
        digits=2,
    ),
    "pds": Score("PDS", "trees", lambda pair: pair.pds, "share of the trees that is apart", better="low"),
    "length_precision": Score(
        "length precision",
        "trees",
        lambda pair: pair.length_scores["precision"],
        "share of the traced length closer to the truth than the tolerance",
    ),
    "length_recall": Score(
        "length recall",
        "trees",
        lambda pair: pair.length_scores["recall"],
        "share of the true length closer to the trace than the tolerance",
    ),
    "length_f1": Score(
        "length F1",
        "trees",
        lambda pair: pair.length_scores["f1"],
        "harmonic mean of length precision and recall",
    ),
    "bifurcation_precision": Score(
        "bifurcation precision",
        "trees",
        lambda pair: pair.bifurcation_scores["precision"],
        "share of the traced bifurcations that match a true one within the tolerance",
    ),
    "bifurcation_recall": Score(
        "bifurcation recall",
        "trees",
        lambda pair: pair.bifurcation_scores["recall"],
        "share of the true bifurcations that match a traced one within the tolerance",
    ),
    "bifurcation_f1": Score(
        "bifurcation F1",
        "trees",
        lambda pair: pair.bifurcation_scores["f1"],
        "harmonic mean of bifurcation precision and recall",
    ),
    "tip_precision": Score(
        "tip precision",
        "trees",
        lambda pair: pair.tip_scores["precision"],
        "share of the traced tips that match a true one within the tolerance",
    ),
    "tip_recall": Score(
        "tip recall",
        "trees",
        lambda pair: pair.tip_scores["recall"],
        "share of the true tips that match a traced one within the tolerance",
    ),
    "tip_f1": Score("tip F1", "trees", lambda pair: pair.tip_scores["f1"], "harmonic mean of tip precision and recall"),
    "length": Score(
        "length",
        "trees",
        lambda pair: pair.tree.length if pair.tree is not None else 0.0,
        "length of the traced tree",
        better=None,
        unit="length",
        digits=1,
    ),
    "strahler": Score(
        "Strahler order",
        "trees",
        lambda pair: strahler_order(pair.tree) if pair.tree is not None else 0,
        "Strahler order of the traced tree",
        better=None,
        digits=0,
    ),
    "reference_length": Score(
        "true length",
        "trees",
        lambda pair: pair.reference.length,
        "length of the true tree",
        better=None,
        unit="length",
        digits=1,
    ),
    "reference_strahler": Score(
        "true Strahler order",
        "trees",
        lambda pair: strahler_order(pair.reference),
        "Strahler order of the true tree",
        better=None,
        digits=0,
    ),
}
"""All scores of masks, trees and probabilities, by the key that rows of scores have."""
