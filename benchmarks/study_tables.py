"""Tables and figures of the study, from the results of ``study.py`` alone.

    python benchmarks/study_tables.py                       # all tables that have results

Scores are means over the volumes of a row, then over seeds; ± is the standard deviation over seeds. Differences are
those of `neurokd.paired_difference`: same volume, same seed, same crops. A missed neuron counts: its HD95 is the
volume's diagonal, and "failed" says how many there were. Everything is written to ``results/``.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import yaml

from neurokd.evaluation.bootstrap import paired_difference
from neurokd.evaluation.scores import SCORES
from neurokd.evaluation.study_results import load_study
from neurokd.evaluation.study_results import study_scores as grid

HERE = Path(__file__).parent
ROWS = {
    "test": "held-out simulated neurons",
    "shifted": "the same neurons under another microscope",
    "flies": "neurons traced by people, rendered",
    "real": "real stacks, against an automatic trace (agreement, not accuracy)",
}
SHOWN = ("dice", "average_precision", "hd95", "cldice", "length_f1", "esa", "dsa", "pds")
USUAL = 4  # training volumes, where nothing else is said
MARKS = ("<!-- written by study_tables.py -->", "<!-- until here -->")


def in_order(cells: list[dict], arms: list[str]) -> list[dict]:
    """Return cells by training volumes, then in the order of the arms, then by seed."""
    return sorted(cells, key=lambda c: (c["volumes"], arms.index(c["arm"]), c["seed"]))


def table_cells(cells: list[dict], table: dict) -> list[dict]:
    """Return the cells that belong to a table; those that are not trained have neither a seed nor volumes."""
    return [
        c
        for c in cells
        if c["arm"] in table["arms"]
        and ("validations" not in c or (c["volumes"] in table["volumes"] and c["seed"] in table["seeds"]))
    ]


def sizes(cells: list[dict]) -> list[tuple[str, int]]:
    """Return (arm, volumes) of all cells, in their order."""
    return list(dict.fromkeys((c["arm"], c["volumes"]) for c in cells))


def training_table(cells: list[dict]) -> str:
    """Return what training gave on validation and what it cost."""
    lines = [
        "| arm | volumes | seeds | validation Dice | CPU s a step | million weights | GB |",
        "|---|---|---|---|---|---|---|",
    ]
    for arm, volumes in sizes(cells):
        group = [c for c in cells if (c["arm"], c["volumes"]) == (arm, volumes)]
        dice = np.array([c["validation_dice"] for c in group])
        spread = f" ± {dice.std(ddof=1):.3f}" if len(group) > 1 else ""
        cost = ["", "", ""]
        if "parameters" in group[0]:
            steps = group[0]["made_with"]["training"]["steps"]
            cost = [
                f"{np.mean([c['cpu_seconds'] for c in group]) / steps:.1f}",
                f"{group[0]['parameters'] / 1e6:.1f}",
                f"{max(c['peak_gb'] for c in group):.1f}",
            ]
        lines.append(f"| {arm} | {volumes} | {len(group)} | {dice.mean():.3f}{spread} | {' | '.join(cost)} |")
    notes = [
        "Seconds include the validations. If a cell was resumed, they cover only its last part.",
        "Weights count all parameters, including unused ones.",
    ]
    return "\n".join([*lines, "", *notes])


def heading(score: str) -> str:
    """Return the heading of a score; trees of the study are compared in voxels."""
    return SCORES[score].heading("voxels" if SCORES[score].compares == "trees" else "µm")


def scores_table(cells: list[dict], row: str) -> str:
    """Return the scores of one row of test volumes."""
    lines = [
        f"| arm | volumes | {' | '.join(heading(score) for score in SHOWN)} | failed |",
        "|---" * (len(SHOWN) + 3) + "|",
    ]
    for arm, volumes in sizes(cells):
        figures = []
        for score in SHOWN:
            digits = SCORES[score].digits
            by_seed = grid(cells, arm, score, volumes=volumes, row=row).mean(axis=1)
            spread = f" ± {by_seed.std(ddof=1):.{digits}f}" if len(by_seed) > 1 else ""
            figures.append(f"{by_seed.mean():.{digits}f}{spread}")
        failed = grid(cells, arm, "failed", volumes=volumes, row=row)
        lines.append(f"| {arm} | {volumes} | {' | '.join(figures)} | {int(failed.sum())} of {failed.size} |")
    return "\n".join(lines)


def scored(cells: list[dict], arm: str, volumes: int, *, row: str) -> list[dict]:
    """Return the cells of an arm that have scores of a row; one that is not trained has the same for all numbers."""
    group = [c for c in cells if c["arm"] == arm and c["rows"].get(row)]
    return [c for c in group if c["volumes"] == volumes or "validations" not in c]


def compared(cells: list[dict], wanted: dict, row: str) -> dict:
    """Return a paired difference in points (hundredths) or per cent, its interval, and the verdict on what was asked.

    Parameters
    ----------
    cells
        All that there are.
    wanted
        ``of`` an arm, ``from`` another or the best of a list, each as ``[arm, volumes]``; ``score``; ``asked``, what
        the difference should reach (a negative figure: at most), or with ``about`` what should be in its interval;
        ``relative`` for per cent.
    row
        Which neurons.

    Returns
    -------
    dict
        The difference over the seeds that both have; without ``mean``, ``low`` and ``high`` where the arm, or every
        rival, is not measured.
    """
    score, relative, asked = wanted["score"], wanted.get("relative", False), wanted.get("asked")
    others = wanted["from"] if isinstance(wanted["from"][0], list) else [wanted["from"]]
    one, rivals = tuple(wanted["of"]), [tuple(other) for other in others]
    groups = {pair: scored(cells, *pair, row=row) for pair in (one, *rivals)}
    measured = [rival for rival in rivals if groups[rival]]
    unmeasured = [arm for arm, n in rivals if not groups[arm, n]]
    words = f"{SCORES[score].label}, {'%' if relative else 'points'}"
    if not groups[one] or not measured:
        name = f"{one[0]} - {' or '.join(arm if n == one[1] else f'{arm} ({n} volumes)' for arm, n in rivals)}"
        return {"name": name, "score": words, "asked": asked, "verdict": "not measured"}
    choose = min if SCORES[score].better == "low" else max
    best = choose(measured, key=lambda rival: grid(groups[rival], rival[0], score, volumes=rival[1], row=row).mean())
    seeds = [{c["seed"] for c in groups[pair] if "validations" in c} for pair in (one, best)]
    common = set.intersection(*filter(None, seeds))
    shared = [c for pair in (one, best) for c in groups[pair] if "validations" not in c or c["seed"] in common]
    pairs = (grid(shared, arm, score, volumes=n, row=row) for arm, n in (one, best))
    mean, low, high = [figure * (1 if relative else 100) for figure in paired_difference(*pairs, relative=relative)]
    verdict = ""
    if wanted.get("about"):
        verdict = f"{asked:g} is {'' if low <= asked <= high else 'not '}in the interval"
    elif asked is not None:
        reached = mean <= asked if asked < 0 else mean >= asked
        verdict = ("reached" if reached else "not reached") + (", without " * bool(unmeasured) + ", ".join(unmeasured))
    name = f"{one[0]} - {best[0]}"
    if one[1] != best[1]:
        name += f" ({best[1]} volumes)"
    elif one[1] != USUAL:
        name += f", {one[1]} volumes"
    return {"name": name, "score": words, "asked": asked, "verdict": verdict, "mean": mean, "low": low, "high": high}


def comparison_table(cells: list[dict], comparisons: list[dict], rows: list[str]) -> str:
    """Return paired differences with their intervals."""
    lines = ["| row | comparison | score | difference | 95 % interval | asked | |", "|---|---|---|---|---|---|---|"]
    for row in rows:
        for wanted in comparisons:
            c = compared(cells, wanted, row)
            asked = [f"{c['asked']:+g}", c["verdict"]] if row == "test" and c["asked"] is not None else ["", ""]
            figures = [f"{c['mean']:+.2f}", f"{c['low']:+.2f} to {c['high']:+.2f}"] if "mean" in c else ["", ""]
            lines.append(f"| {row} | {c['name']} | {c['score']} | {' | '.join(figures + asked)} |")
    return "\n".join(lines)


def efficiency(cells: list[dict], row: str, file: Path) -> None:
    """Draw Dice over the number of training volumes."""
    figure, axes = plt.subplots(figsize=(6, 4), layout="constrained")
    ticks = sorted({n for _, n in sizes(cells)})
    for arm in dict.fromkeys(arm for arm, _ in sizes(cells)):
        numbers = [n for name, n in sizes(cells) if name == arm]
        by_seed = [grid(cells, arm, volumes=n, row=row).mean(axis=1) for n in numbers]
        axes.plot(numbers, [values.mean() for values in by_seed], marker="o", label=arm)
        axes.fill_between(numbers, [v.min() for v in by_seed], [v.max() for v in by_seed], alpha=0.2)
    axes.set(xscale="log", xlabel="training volumes", ylabel=f"foreground Dice, {ROWS[row]}", xticks=ticks)
    axes.set_xticklabels(ticks)
    axes.minorticks_off()
    finish(figure, axes, file)


def curves(cells: list[dict], file: Path) -> None:
    """Draw validation Dice over the steps, a line for each arm: the mean over seeds, seeds as dots."""
    figure, axes = plt.subplots(figsize=(6, 4), layout="constrained")
    trained = [c for c in cells if "validations" in c]
    for arm, volumes in sizes(trained):
        runs = [c["validations"] for c in trained if (c["arm"], c["volumes"]) == (arm, volumes)]
        steps = [v["step"] for v in runs[0]]
        dice = np.array([[v["val_dice"] for v in seed] for seed in runs])
        (line,) = axes.plot(steps, dice.mean(axis=0), label=arm)
        axes.plot(steps, dice.T, ".", color=line.get_color(), alpha=0.5)
    axes.set(xlabel="step (one crop each)", ylabel="foreground Dice on validation neurons")
    finish(figure, axes, file)


def finish(figure: plt.Figure, axes: plt.Axes, file: Path) -> None:
    """Give a figure its legend and write it."""
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False)
    figure.savefig(file, dpi=150)
    plt.close(figure)


def drawn(name: str, cells: list[dict], table: dict, out: Path) -> str:
    """Draw a table's figure and return it for the page: none of more lines than colours, or of scores yet to come."""
    arms = {c["arm"] for c in cells if "validations" in c}
    several = len(table["volumes"]) > 1
    if len(arms) > len(plt.rcParams["axes.prop_cycle"]) or (several and not all(c["rows"].get("test") for c in cells)):
        return ""
    if several:
        efficiency(cells, "test", out / f"study_{name}.png")
        return f"![Dice on test neurons over training volumes, a line for each arm.](results/study_{name}.png)"
    curves(cells, out / f"study_{name}_curves.png")
    return f"![Dice on validation neurons over steps, a line for each arm.](results/study_{name}_curves.png)"


def page(name: str, everything: list[dict], table: dict) -> str:
    """Return the page of one table; its comparisons may name cells of others."""
    cells = table_cells(everything, table)
    rows = [row for row in ROWS if all(cell["rows"].get(row) for cell in cells)]
    text = [f"### {table.get('title', name)}", training_table(cells)]
    for row, reason in {k: v for cell in cells for k, v in cell["skipped"].items()}.items():
        text.append(f"Not scored: {row}, {reason}.")
    if not rows:
        text.append("On validation only: not all of these are tested.")
    for row in rows:
        text += [f"**{row}**: {ROWS[row]}.", scores_table(cells, row)]
    if rows and table.get("comparisons"):
        same = [c for c in everything if "validations" not in c or c["seed"] in table["seeds"]]
        text.append(comparison_table(same, table["comparisons"], rows))
    return "\n\n".join(text) + "\n"


def filled(readme: str, shown: list[str], *, marks: tuple[str, str] = MARKS) -> str:
    """Return a page with tables and figures between its two marks."""
    head = readme.partition(marks[0])[0]
    _, mark, tail = readme.partition(marks[1])
    if not mark:
        raise ValueError(f"the page has no {marks[0]} followed by {marks[1]}")
    return "\n\n".join([head + marks[0], *shown, mark + tail])


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--config", type=Path, default=HERE / "study.yaml")
    parser.add_argument("--results", type=Path, help="files of the cells; by default those in the package")
    parser.add_argument("--out", type=Path, default=HERE / "results")
    parser.add_argument("--readme", type=Path, default=HERE / "README.md")
    options = parser.parse_args()
    settings = yaml.safe_load(options.config.read_text())
    everything = in_order(load_study(options.results), list(settings["arms"]))
    pages = {"goals": f"### What was asked\n\n{comparison_table(everything, settings['goals'], ['test'])}\n"}
    shown = [pages["goals"].strip()]
    for name, table in settings["tables"].items():
        whole = {(arm, n) for arm in table["arms"] for n in table["volumes"]}
        if whole <= {*sizes(table_cells(everything, table))}:
            pages[name] = page(name, everything, table)
            shown += [pages[name].strip(), drawn(name, table_cells(everything, table), table, options.out)]
    for name, text in pages.items():
        (options.out / f"study_{name}.md").write_text(text, encoding="utf-8")
    readme = filled(options.readme.read_text(encoding="utf-8"), [text for text in shown if text])
    options.readme.write_text(readme, encoding="utf-8")


if __name__ == "__main__":
    main()
