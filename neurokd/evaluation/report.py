"""A report over a set of volumes or trees that hides nothing.

    masks -- evaluate_masks --> row of scores --+
    masks -- evaluate_masks --> row of scores --+--> Report --> dict, JSON, Markdown table
    trees -- compare_trees ---> row of scores --+               mean, standard deviation, interval, failures

A failed row stays in every mean, and is counted. A score that is not finite is refused.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np

from neurokd.evaluation.bootstrap import check_draws, draw_weights, percentile_interval
from neurokd.evaluation.scores import SCORES

__all__ = ["Report"]

_DESCRIPTIONS = ("name", "unit", "convention", "tolerance", "failed")  # keys of a row that are no scores


@dataclass(frozen=True, eq=False)
class Report:
    """Scores of a set of volumes or trees.

    Parameters
    ----------
    rows
        One dict for each volume, with a unique `name`, the scores and, optionally, `failed`. All rows have
        the same keys. The results of :func:`evaluate_masks` and :func:`compare_trees` are such rows, with a
        name added.
    title
        Title of the table.
    confidence
        Confidence of the interval of the mean, in (0, 1).
    n_bootstrap
        Number of draws of the rows, with replacement, for that interval, at least 1. With fewer than about
        ten rows the interval is too narrow.
    seed
        Seed of these draws.

    Raises
    ------
    ValueError
        There are no rows; rows differ in their keys, units, tolerances or conventions; a name is missing or
        not unique; a score is not finite; or a setting is out of range.
    """

    rows: Sequence[Mapping[str, Any]]
    title: str = ""
    confidence: float = 0.95
    n_bootstrap: int = 10_000
    seed: int = 0

    def __post_init__(self) -> None:
        object.__setattr__(self, "rows", tuple(dict(row) for row in self.rows))
        if not self.rows:
            raise ValueError("rows must hold at least one row, got none")
        names = [row.get("name") for row in self.rows]
        if None in names or len(set(names)) < len(names):
            raise ValueError(f"every row must have a unique name, got {names}")
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
        check_draws(self.confidence, self.n_bootstrap)

    @property
    def scores(self) -> list[str]:
        """The keys of the rows that are scores."""
        return [key for key in self.rows[0] if key not in _DESCRIPTIONS]

    @property
    def failures(self) -> list[str]:
        """Names of the rows that failed."""
        return [row["name"] for row in self.rows if row.get("failed")]

    @cached_property
    def summary(self) -> dict[str, dict[str, float | None]]:
        """For each score: `mean`, `std` (of a sample, n - 1), and an interval of the mean, `low` to `high`.

        The interval is that of the percentiles of a bootstrap. Of a single row, only the mean is not None.
        """
        values = np.array([[row[key] for key in self.scores] for row in self.rows], dtype=np.float64)
        mean, n = values.mean(axis=0), len(values)  # values: (rows, scores)
        if n == 1:
            return {
                key: {"mean": value, "std": None, "low": None, "high": None}
                for key, value in zip(self.scores, mean.tolist(), strict=True)
            }
        weights = draw_weights(np.random.default_rng(self.seed), n, self.n_bootstrap)  # (draws, rows)
        low, high = percentile_interval(weights @ values, self.confidence)
        columns = np.stack([mean, values.std(axis=0, ddof=1), low, high], axis=1).tolist()
        names = ("mean", "std", "low", "high")
        figures = [dict(zip(names, column, strict=True)) for column in columns]
        return dict(zip(self.scores, figures, strict=True))

    def worst(self, score: str, n: int = 3, *, better: Literal["high", "low"] | None = None) -> list[str]:
        """Return the names of the rows with the worst values of a score, the worst first.

        Parameters
        ----------
        score
            One of :attr:`scores`.
        n
            Number of names, at most.
        better
            Which end is better. None takes it from `SCORES`, so that it is needed for other scores only.

        Returns
        -------
        list of str
            The names.

        Raises
        ------
        ValueError
            There is no such score, or nobody says which end of it is better.
        """
        self._check_scores([score])
        if better is None and score in SCORES:
            better = SCORES[score].better
        if better not in ("high", "low"):
            raise ValueError(f"better must be 'high' or 'low' for the score {score!r}, got {better!r}")
        sign = -1 if better == "low" else 1
        return [row["name"] for row in sorted(self.rows, key=lambda row: sign * row[score])][:n]

    def to_dict(self) -> dict[str, Any]:
        """Return everything, in types that JSON knows.

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
            "definitions": {key: SCORES[key].definition for key in self.scores if key in SCORES},
            "confidence": self.confidence,
            "n_bootstrap": self.n_bootstrap,
            "seed": self.seed,
        }

    def to_json(self, path: str | Path | None = None) -> str:
        """Return everything as JSON.

        Parameters
        ----------
        path
            File to write it to; None writes none.

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
        """Return a table for people: a line for each row, then mean and interval, failures and definitions.

        Parameters
        ----------
        scores
            The columns, some of :attr:`scores`; None takes all of them.

        Returns
        -------
        str
            Markdown.

        Raises
        ------
        ValueError
            There is no such score.
        """
        keys = self.scores if scores is None else list(scores)
        self._check_scores(keys)
        first = self.rows[0]
        known = {key: SCORES[key] for key in keys if key in SCORES}
        headings = {key: key.replace("_", " ") for key in keys}
        headings |= {key: score.heading(first.get("unit", "µm")) for key, score in known.items()}
        decimals = {key: known[key].digits if key in known else 3 for key in keys}

        def line(name: str, cells: Iterable[str], last: str = "") -> str:
            return f"| {' | '.join([name, *cells, last])} |"

        def cells(*names: str, separator: str) -> Iterator[str]:
            """Yield figures of the summary, leaving out those that are None."""
            for key in keys:
                values = [self.summary[key][name] for name in names]
                digits = max(1, decimals[key])
                yield separator.join(f"{value:.{digits}f}" for value in values if value is not None) or "–"

        lines = [line(self.title or "name", headings.values(), "failed"), line("---", ["---:"] * len(keys), "---")]
        for row in self.rows:
            figures = [f"{row[key]:.{decimals[key]}f}" for key in keys]
            lines.append(line(row["name"], figures, "yes" if row.get("failed") else ""))
        count = f"{len(self.failures)} of {len(self.rows)}"
        lines.append(line("**mean ± standard deviation**", cells("mean", "std", separator=" ± "), count))
        lines.append(line(f"{self.confidence:.0%} interval of the mean", cells("low", "high", separator=" to ")))
        lines += ["", *(f"- {headings[key]}: {score.definition}." for key, score in known.items())]
        if "tolerance" in first:
            tolerance = f"{first['tolerance']:g} {first['unit']}"
            lines.append(f"- Tolerance: {tolerance}; convention: {first['convention']}.")
        lines.append("- Failed: nothing was found, or something where nothing is; counted in every mean.")
        lines.append(f"- Interval: bootstrap over the {len(self.rows)} rows.")
        return "\n".join(lines)

    def _check_scores(self, keys: Sequence[str]) -> None:
        if not keys or set(keys) - set(self.scores):
            raise ValueError(f"scores must be among {self.scores}, got {list(keys)}")


def _plain(value: Any) -> Any:
    """Return a numpy scalar as the Python number it is."""
    return value.item() if isinstance(value, np.generic) else value
