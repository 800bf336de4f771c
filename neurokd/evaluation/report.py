"""A report over a set of volumes or trees that hides nothing.

    masks -- evaluate_masks --> row of scores --+
    masks -- evaluate_masks --> row of scores --+--> Report --> dict, JSON, Markdown table
    trees -- compare_trees ---> row of scores --+               mean, standard deviation, interval, failures

What failed stays in every mean, and is counted; a score that is not finite is refused.
"""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

__all__ = ["Report"]

# Score: its heading, with {} where the unit of length goes; decimals; its definition under the table.
_SCORES = {
    "dice": ("Dice", 3, "foreground Dice"),
    "precision": ("precision", 3, ""),
    "recall": ("recall", 3, ""),
    "cldice": ("clDice", 3, "overlap of the skeletons"),
    "hd95": (
        "HD95 ({})",
        2,
        "max of the two directed 95th percentiles of the surface distances; if exactly one mask is empty, the "
        "diagonal of the volume",
    ),
    "betti0_error": ("Betti-0 error", 0, "difference in the number of 26-connected components"),
    "betti1_error": ("Betti-1 error", 0, "difference in the number of tunnels"),
    "esa": ("ESA ({})", 2, "mean distance between the trees, over both directions"),
    "dsa": ("DSA ({})", 2, "mean distance where the trees are apart (at the tolerance or further)"),
    "pds": ("PDS", 3, "share of the trees that is apart"),
    "length_precision": ("length precision", 3, "share of the traced length closer to the truth than the tolerance"),
    "length_recall": ("length recall", 3, "share of the true length closer to the trace than the tolerance"),
    "length_f1": ("length F1", 3, ""),
    "length": ("length ({})", 1, ""),
    "reference_length": ("true length ({})", 1, ""),
    "strahler": ("Strahler order", 0, ""),
    "reference_strahler": ("true Strahler order", 0, ""),
}
_LEFT_OUT = ("name", "unit", "convention", "tolerance", "failed")  # what describes a row and is no score


@dataclass(frozen=True, eq=False)
class Report:
    """Scores of a set of volumes or trees.

    Parameters
    ----------
    rows
        For each volume a dict: `name`, a string of its own; scores; `failed` if it may. All rows have the same keys.
        What :func:`evaluate_masks` and :func:`compare_trees` return will do, with a name added.
    title
        Over the table.
    confidence
        Of the interval of the mean, in (0, 1).
    n_bootstrap
        How often the rows are drawn anew, with replacement, for that interval. With fewer than about ten rows the
        interval is too narrow.
    seed
        Of these draws.

    Raises
    ------
    ValueError
        No rows; rows with different keys, units, tolerances or conventions, without a name or with one name twice; a
        score that is not finite; a setting out of range.
    """

    rows: Sequence[Mapping[str, Any]]
    title: str = ""
    confidence: float = 0.95
    n_bootstrap: int = 10_000
    seed: int = 0

    def __post_init__(self) -> None:
        object.__setattr__(self, "rows", tuple(dict(row) for row in self.rows))
        if not self.rows:
            raise ValueError("a report needs at least one row")
        names = [row.get("name") for row in self.rows]
        if None in names or len(set(names)) < len(names):
            raise ValueError(f"every row needs a name of its own, got {names}")
        described = {tuple(row.get(key) for key in ("unit", "tolerance", "convention")) for row in self.rows}
        if len(described) > 1:
            raise ValueError(f"rows must agree in unit, tolerance and convention, got {sorted(described, key=str)}")
        for row in self.rows:
            if row.keys() != self.rows[0].keys():
                odd = sorted(row.keys() ^ self.rows[0].keys())
                raise ValueError(f"rows {names[0]!r} and {row['name']!r} differ in {odd}")
            bad = {key: row[key] for key in self.scores if not np.isfinite(row[key])}
            if bad:
                raise ValueError(f"scores of {row['name']!r} must be finite, got {bad}")
        if not 0 < self.confidence < 1 or self.n_bootstrap < 1:
            raise ValueError(
                f"confidence must be in (0, 1) and n_bootstrap >= 1, got {self.confidence} and {self.n_bootstrap}"
            )

    @property
    def scores(self) -> list[str]:
        """The keys of the rows that are scores."""
        return [key for key in self.rows[0] if key not in _LEFT_OUT]

    @property
    def failures(self) -> list[str]:
        """Names of the rows that failed."""
        return [row["name"] for row in self.rows if row.get("failed")]

    @cached_property
    def summary(self) -> dict[str, dict[str, float | None]]:
        """For each score its `mean`, `std` (of a sample, n - 1) and the bounds `low` and `high` of the mean's
        bootstrap interval (percentiles); of a single row, only the mean is not None.
        """
        values = np.array([[row[key] for key in self.scores] for row in self.rows], dtype=np.float64)
        mean, n = values.mean(axis=0), len(values)
        if n == 1:
            return {
                key: {"mean": value, "std": None, "low": None, "high": None}
                for key, value in zip(self.scores, mean.tolist(), strict=True)
            }
        times = np.random.default_rng(self.seed).multinomial(n, np.full(n, 1 / n), size=self.n_bootstrap)
        tail = 50 * (1 - self.confidence)
        low, high = np.percentile(times @ values / n, (tail, 100 - tail), axis=0)
        columns = np.stack([mean, values.std(axis=0, ddof=1), low, high], axis=1).tolist()
        names = ("mean", "std", "low", "high")
        return {key: dict(zip(names, column, strict=True)) for key, column in zip(self.scores, columns, strict=True)}

    def worst(self, score: str, n: int = 3) -> list[str]:
        """Names of the rows with the worst values of a score, the worst first.

        Parameters
        ----------
        score
            One of :attr:`scores`.
        n
            How many, at most.

        Returns
        -------
        list of str
            High is worst for distances and errors, low for all other scores.

        Raises
        ------
        ValueError
            No such score.
        """
        self._check_scores([score])
        sign = 1 if score.startswith(("hd95", "esa", "dsa", "pds")) or score.endswith("_error") else -1
        return [row["name"] for row in sorted(self.rows, key=lambda row: -sign * row[score])][:n]

    def to_dict(self) -> dict[str, Any]:
        """Everything, in types that JSON knows.

        Returns
        -------
        dict
            `title`, `n`, `failures`, `rows`, `summary`, `definitions`, and the settings of the interval.
        """
        return {
            "title": self.title,
            "n": len(self.rows),
            "failures": self.failures,
            "rows": [{key: _plain(value) for key, value in row.items()} for row in self.rows],
            "summary": self.summary,
            "definitions": {key: _SCORES[key][2] for key in self.scores if key in _SCORES and _SCORES[key][2]},
            "confidence": self.confidence,
            "n_bootstrap": self.n_bootstrap,
            "seed": self.seed,
        }

    def to_json(self, path: str | Path | None = None) -> str:
        """Everything as JSON.

        Parameters
        ----------
        path
            File to write it to, or None.

        Returns
        -------
        str
            The text.
        """
        text = json.dumps(self.to_dict(), indent=1, ensure_ascii=False, allow_nan=False)
        if path is not None:
            Path(path).write_text(text + "\n", encoding="utf-8")
        return text

    def to_markdown(self, scores: Sequence[str] | None = None) -> str:
        """A table for people: a line for each row, then mean and interval, failures and definitions.

        Parameters
        ----------
        scores
            The columns, of :attr:`scores`; None for all of them.

        Returns
        -------
        str
            Markdown.

        Raises
        ------
        ValueError
            No such score.
        """
        keys = self.scores if scores is None else list(scores)
        self._check_scores(keys)
        first = self.rows[0]
        headings, decimals, definitions = zip(
            *(_SCORES.get(key, (key.replace("_", " "), 3, "")) for key in keys), strict=True
        )
        headings = [heading.format(first.get("unit", "µm")) for heading in headings]

        def line(name: str, cells: Iterable[str], last: str = "") -> str:
            return f"| {' | '.join([name, *cells, last])} |"

        def cells(*names: str, between: str) -> Iterator[str]:
            """Figures of the summary, those that are None left out."""
            for key, digits in zip(keys, decimals, strict=True):
                values = [self.summary[key][name] for name in names]
                yield between.join(f"{value:.{max(1, digits)}f}" for value in values if value is not None) or "–"

        lines = [line(self.title or "name", headings, "failed"), line("---", ["---:"] * len(keys), "---")]
        for row in self.rows:
            figures = (f"{row[key]:.{digits}f}" for key, digits in zip(keys, decimals, strict=True))
            lines.append(line(row["name"], figures, "yes" if row.get("failed") else ""))
        count = f"{len(self.failures)} of {len(self.rows)}"
        lines.append(line("**mean ± standard deviation**", cells("mean", "std", between=" ± "), count))
        lines.append(line(f"{self.confidence:.0%} interval of the mean", cells("low", "high", between=" to ")))
        lines += ["", *(f"- {name}: {text}." for name, text in zip(headings, definitions, strict=True) if text)]
        if "tolerance" in first:
            lines.append(f"- Tolerance: {first['tolerance']:g} {first['unit']}; convention: {first['convention']}.")
        lines.append("- Failed: nothing was found, or something where nothing is; counted in every mean.")
        lines.append(f"- Interval: bootstrap over the {len(self.rows)} rows.")
        return "\n".join(lines)

    def _check_scores(self, keys: Sequence[str]) -> None:
        if not keys or set(keys) - set(self.scores):
            raise ValueError(f"scores must be among {self.scores}, got {list(keys)}")


def _plain(value: Any) -> Any:
    """A numpy scalar as the Python number it is."""
    return value.item() if isinstance(value, np.generic) else value
