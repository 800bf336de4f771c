"""Table and figure of the phantoms, from the results of ``phantoms.py`` alone."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.gridspec import SubplotSpec
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from neurokd.viz.colours import BLUE, GREEN, ORANGE, PURPLE, SKY
from phantom_sweeps import ASKED, NOTHING, SWEEPS, Sweep
from study_tables import filled

MARKS = ("<!-- written by phantoms.py -->", "<!-- until here: phantoms.py -->")
HEADINGS = {"found": "centreline found", "thickness": "thickness found / true", "invented": "length invented"}
LOOKS = [  # colour, marker, line: the filters first; a third model on begins again
    (ORANGE, "s", ":"),
    (SKY, "^", "--"),
    (GREEN, "v", "--"),
    (BLUE, "o", "-"),
    (PURPLE, "D", "-"),
    ("black", "x", "-"),
]
DOTS = (0, (1, 1))
COLUMNS = 4


def as_json(results: dict) -> str:
    """Return results as JSON with a line for each case."""

    def rounded(value: object) -> object:
        if isinstance(value, dict):
            return {key: rounded(v) for key, v in value.items()}
        return round(value, 4) if isinstance(value, float) else value

    head = {key: value for key, value in results.items() if key != "cases"}
    lines = ",\n  ".join(json.dumps(rounded(case)) for case in results["cases"])
    return f'{json.dumps(head, indent=1)[:-2]},\n "cases": [\n  {lines}\n ]\n}}\n'


def curve(results: dict, sweep: str, method: str, score: str) -> dict[float | str, float | None]:
    """Return the mean of a score over the repeats at each value; None where no repeat has it."""
    values: dict = {}
    for case in results["cases"]:
        if case["sweep"] == sweep:
            values.setdefault(case["value"], []).append(case["scores"][method].get(score))
    known = {value: [s for s in scores if s is not None] for value, scores in values.items()}
    return {value: float(np.mean(scores)) if scores else None for value, scores in known.items()}


def reaches(score: str, value: float | None) -> bool:
    """Return whether a score is what is asked; one that could not be measured is not."""
    low, high = ASKED[score]
    return value is not None and (low is None or value >= low) and (high is None or value <= high)


def worst(points: dict[float, float | None], score: str) -> tuple[float, float | None]:
    """Return the value of a sweep where a score is furthest from what is asked, and the score there."""
    low, high = ASKED[score]

    def distance(value: float) -> float:
        point = points[value]
        if point is None:
            return np.inf
        if low is not None and high is not None:  # a ratio; above 1 where it is outside
            return max(low / max(point, 1e-9), point / high)
        return -point if high is None else point

    value = max(points, key=distance)
    return value, points[value]


def asked_words(score: str) -> str:
    """Return what is asked of a score in words."""
    low, high = ASKED[score]
    if low is not None and high is not None:
        return f"{low:g} to {high:g}"
    return f"at least {low:g}" if high is None else f"at most {high:g}"


def asked_rows(results: dict, sweep: Sweep) -> list[str]:
    """Return the lines of a sweep in the table: the worst score in the range that is asked, by method."""
    lines = []
    for score in ASKED:
        if score == "found" and not sweep.asks_found:
            continue
        cells, at = [], []
        for method in results["methods"]:
            points = {v: s for v, s in curve(results, sweep.name, method, score).items() if sweep.is_asked(v)}
            at = list(points)
            if not at:
                return []
            value, point = worst(points, score)
            said = "nothing" if point is None else f"{point:.3f}"
            cells.append(f"**{said}**" if reaches(score, point) else f"{said} at {value:g}")
        span = f"{min(at):g} to {max(at):g}" if len(at) > 1 else f"{at[0]:g}"
        lines.append(f"| {sweep.axis}, {span} | {HEADINGS[score]} | {asked_words(score)} | {' | '.join(cells)} |")
    return lines


def page(results: dict) -> str:
    """Return the table as Markdown, and below it how to read it."""
    lines = [
        f"| sweep | score | asked | {' | '.join(results['methods'])} |",
        f"|{'---|' * (3 + len(results['methods']))}",
    ]
    for sweep in SWEEPS:
        lines += asked_rows(results, sweep)
    for kind in NOTHING:
        voxels = [curve(results, "nothing", method, "invented_voxels").get(kind) for method in results["methods"]]
        if None not in voxels:
            cells = ["**0**" if v == 0 else f"{v:.0f}" if v >= 1 else f"{v:.1f}" for v in voxels]
            lines.append(f"| nothing: {kind} | voxels found | 0 | {' | '.join(cells)} |")
    refused = sorted({name for case in results["cases"] for name in case.get("refused", ())})
    form = "Short form (`--quick`), one phantom for each value. " if results["quick"] else ""
    taken = ", ".join(f"{name} {seconds:.0f}" for name, seconds in results["cpu_seconds"].items())
    notes = [
        "Worst mean over the repeats within the range. Bold: it is what is asked. Otherwise the place is named.",
        f"{form}{len(results['cases'])} stacks, seed {results['seed']}, commit {results['machine']['commit']}. "
        f"Processor seconds for all: {taken}.",
    ]
    if refused:
        notes.append(f"Refused constant stacks with an error, counted as nothing found: {', '.join(refused)}.")
    return "\n".join(lines) + "\n\n" + "\n".join(notes) + "\n"


def into_page(readme: Path, text: str, picture: str) -> None:
    """Write table and picture into a page between its marks."""
    shown = f"![What is found of phantoms: a panel for each sweep, a line for each method.]({picture})"
    readme.write_text(filled(readme.read_text(encoding="utf-8"), [text.strip(), shown], marks=MARKS), encoding="utf-8")


def draw(results: dict, file: Path) -> None:
    """Draw found, thickness and invented over the values of each sweep, and what is found in nothing."""
    sweeps = [sweep for sweep in SWEEPS if any(case["sweep"] == sweep.name for case in results["cases"])]
    nothing = any(case["sweep"] == "nothing" for case in results["cases"])
    places = len(sweeps) + nothing
    rows = -(-places // COLUMNS)
    figure = plt.figure(figsize=(3.6 * COLUMNS, 4.4 * rows + 0.6), layout="constrained")
    grid = figure.add_gridspec(rows, COLUMNS)
    spots = [grid[divmod(place, COLUMNS)] for place in range(places)]
    for sweep, spot in zip(sweeps, spots, strict=False):
        draw_sweep(results, sweep, figure, spot)
    if nothing:
        draw_nothing(results, figure.add_subplot(spots[len(sweeps)]))
    handles = [
        Line2D([], [], color=colour, marker=marker, ls=line, mfc="none", label=name)
        for name, (colour, marker, line) in zip(results["methods"], looks(results), strict=True)
    ]
    handles.append(Patch(fc="0.9", ec="0.3", ls="--", lw=0.8, label="asked"))
    if any(sweep.name == "soma" for sweep in sweeps):
        handles.append(Line2D([], [], color="0.4", ls=DOTS, lw=1, label="share of the soma filled"))
    figure.legend(handles=handles, loc="outside lower center", ncols=len(handles), frameon=False)
    figure.savefig(file, dpi=110)
    plt.close(figure)


def looks(results: dict) -> Sequence[tuple[str, str, str]]:
    """Return colour, marker and line of each method."""
    return [LOOKS[i] if i < len(LOOKS) else LOOKS[3 + (i - 3) % 3] for i in range(len(results["methods"]))]


def draw_sweep(results: dict, sweep: Sweep, figure: plt.Figure, spot: SubplotSpec) -> None:
    """Draw the three scores of a sweep above each other."""
    panels = spot.subgridspec(3, 1, height_ratios=(2, 1.2, 1.2), hspace=0.05).subplots(sharex=True)
    for axes, score in zip(panels, HEADINGS, strict=True):
        drawn = []
        for method, (colour, marker, line) in zip(results["methods"], looks(results), strict=True):
            points = curve(results, sweep.name, method, score)
            scores = [np.nan if s is None else s for s in points.values()]
            axes.plot(list(points), scores, color=colour, marker=marker, ls=line, ms=5, mfc="none", lw=1.3)
            drawn = list(points)
            if score == "found" and sweep.name == "soma":
                filled_share = list(curve(results, sweep.name, method, "soma").values())
                axes.plot(drawn, filled_share, color=colour, ls=DOTS, lw=1)
        axes.spines[["top", "right"]].set_visible(False)
        axes.set_ylabel(HEADINGS[score].replace(" found", "\nfound", 1), fontsize=8)
        axes.tick_params(labelsize=8)
        if sweep.log:
            axes.set_xscale("log")
        axes.set_xticks(drawn, [f"{value:g}" for value in drawn])
        axes.minorticks_off()
        if score != "found" or sweep.asks_found:
            show_asked(axes, score, [value for value in drawn if sweep.is_asked(value)], drawn)
    found, thickness, invented = panels
    found.set(ylim=(-0.03, 1.03), yticks=(0, 0.5, 1), title=sweep.name)
    thickness.set(yscale="log", ylim=(0.1, 10), yticks=(0.1, 1, 10))
    thickness.set_yticklabels(["0.1", "1", "10"])
    invented.set_yscale("symlog", linthresh=0.01)
    invented.set(ylim=(-0.002, 3000), yticks=(0, 0.01, 1, 100))
    invented.set_yticklabels(["0", "0.01", "1", "100"])
    invented.set_xlabel(sweep.axis, fontsize=8)


def show_asked(axes: Axes, score: str, asked: list[float], drawn: list[float]) -> None:
    """Shade what is asked at the values where it is asked, with a line on its border."""
    if not asked:
        return
    low, high = ASKED[score]
    ends = axes.get_xlim() if asked == drawn else (asked[0], asked[-1])
    axes.fill_between(ends, low or 0, {"found": 1}.get(score, high), color="0.9", lw=0, zorder=0)
    for border in filter(None, (low, high)):
        axes.plot(ends, (border, border), color="0.3", ls="--", lw=0.8, zorder=1)
    axes.set_xlim(ends if asked == drawn else None)


def draw_nothing(results: dict, axes: Axes) -> None:
    """Draw how many voxels are found where there is nothing."""
    kinds = [kind for kind in NOTHING if any(case["value"] == kind for case in results["cases"])]
    width = 0.8 / len(results["methods"])
    for i, (method, (colour, _, _)) in enumerate(zip(results["methods"], looks(results), strict=True)):
        voxels = curve(results, "nothing", method, "invented_voxels")
        places = np.arange(len(kinds)) + (i - (len(results["methods"]) - 1) / 2) * width
        axes.bar(places, [voxels[kind] for kind in kinds], width, color=colour)
        axes.plot(places, [0] * len(kinds), "_", color=colour, ms=6)  # so that none is seen to be there
    axes.set_yscale("symlog", linthresh=1)
    axes.set(title="nothing", ylabel="voxels found (asked: 0)", ylim=(-0.2, None))
    axes.set_xticks(range(len(kinds)), kinds)
    axes.tick_params(labelsize=8)
    axes.spines[["top", "right"]].set_visible(False)
