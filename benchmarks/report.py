"""Tables and figures of the study, from the results of ``study.py`` alone.

    python benchmarks/report.py                       # every table that has results
    python benchmarks/report.py headline --out ...    # one

Scores are means over the volumes of a row, then over seeds; ± is the standard deviation over seeds. Differences are
paired: same volume, same seed, same crops. Their 95 % intervals are bootstrap percentiles, volumes and seeds drawn anew
together, which errs to the wide side (the pigeonhole bootstrap, Owen 2007, doi:10.1214/07-AOAS122). A missed neuron
counts: its HD95 is the volume's diagonal, and "failed" says how many there were.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import yaml
from numpy.typing import NDArray

HERE = Path(__file__).parent
ROWS = {
    "test": "held-out simulated neurons",
    "shifted": "the same neurons under another microscope",
    "flies": "neurons traced by people, rendered",
}
SCORES = {  # key: heading, decimals
    "dice": ("Dice", 3),
    "average_precision": ("AP", 3),
    "hd95": ("HD95 µm", 2),
    "cldice": ("clDice", 3),
    "length_f1": ("length F1", 3),
    "esa": ("ESA voxels", 2),
    "dsa": ("DSA voxels", 2),
    "pds": ("PDS", 3),
}
DRAWS = 10_000


def results(folder: Path) -> list[dict]:
    """Return the cells of a table, each with its test rows where it has them."""
    cells = []
    for file in sorted(folder.glob("*.json")):
        if not file.name.endswith(".test.json"):
            tested = file.with_suffix(".test.json")
            rows = json.loads(tested.read_text())["rows"] if tested.exists() else {}
            cells.append(json.loads(file.read_text()) | {"rows": rows})
    return cells


def grid(cells: list[dict], arm: str, volumes: int, row: str, score: str) -> NDArray[np.float64]:
    """Return an arm's scores as (seed, volume); one row for an arm without seeds."""
    of = sorted(
        (c["seed"], c) for c in cells if c["arm"] == arm and (c["volumes"] == volumes or not c["made_with"]["arm"])
    )
    return np.array([[r[score] for r in cell["rows"][row]] for _, cell in of], dtype=float)


def difference(a: NDArray, b: NDArray, *, seed: int = 0) -> tuple[float, float, float]:
    """Return the mean paired difference a - b and its bootstrap interval.

    Parameters
    ----------
    a, b
        (seeds, volumes); of an arm without seeds (1, volumes).
    seed
        Of the draws.
    """
    apart = a - b
    seeds, volumes = apart.shape
    rng = np.random.default_rng(seed)
    s = rng.integers(seeds, size=(DRAWS, seeds))
    v = rng.integers(volumes, size=(DRAWS, volumes))
    means = apart[s[:, :, None], v[:, None, :]].mean(axis=(1, 2))
    low, high = np.percentile(means, (2.5, 97.5))
    return float(apart.mean()), float(low), float(high)


def sizes(cells: list[dict]) -> list[tuple[str, int]]:
    """Return (arm, volumes) of all cells, by volumes, then by arm."""
    return sorted({(c["arm"], c["volumes"]) for c in cells}, key=lambda pair: (pair[1], pair[0]))


def training_table(cells: list[dict]) -> str:
    """What training gave on validation and what it cost."""
    lines = [
        "| arm | volumes | seeds | validation Dice | CPU s a step | million weights | GB |",
        "|---|---|---|---|---|---|---|",
    ]
    for arm, volumes in sizes(cells):
        of = [c for c in cells if (c["arm"], c["volumes"]) == (arm, volumes)]
        dice = np.array([c["validation_dice"] for c in of])
        spread = f" ± {dice.std(ddof=1):.3f}" if len(of) > 1 else ""
        cost = ["", "", ""]
        if "parameters" in of[0]:
            steps = of[0]["made_with"]["training"]["steps"]
            cost = [
                f"{np.mean([c['cpu_seconds'] for c in of]) / steps:.1f}",
                f"{of[0]['parameters'] / 1e6:.1f}",
                f"{max(c['peak_gb'] for c in of):.1f}",
            ]
        lines.append(f"| {arm} | {volumes} | {len(of)} | {dice.mean():.3f}{spread} | {' | '.join(cost)} |")
    return "\n".join([*lines, "", "Seconds hold the validations, too."])


def scores_table(cells: list[dict], row: str) -> str:
    """The scores of one row of test volumes."""
    lines = [
        f"| arm | volumes | {' | '.join(heading for heading, _ in SCORES.values())} | failed |",
        "|---" * (len(SCORES) + 3) + "|",
    ]
    for arm, volumes in sizes(cells):
        figures = []
        for score, (_, digits) in SCORES.items():
            by_seed = grid(cells, arm, volumes, row, score).mean(axis=1)
            spread = f" ± {by_seed.std(ddof=1):.{digits}f}" if len(by_seed) > 1 else ""
            figures.append(f"{by_seed.mean():.{digits}f}{spread}")
        failed = grid(cells, arm, volumes, row, "failed")
        lines.append(f"| {arm} | {volumes} | {' | '.join(figures)} | {int(failed.sum())} of {failed.size} |")
    return "\n".join(lines)


def comparison_table(cells: list[dict], comparisons: list[dict], rows: list[str]) -> str:
    """Paired differences with their intervals."""
    lines = ["| row | comparison | score | difference | 95 % interval | asked |", "|---|---|---|---|---|---|"]
    for row in rows:
        for wanted in comparisons:
            (one, n), (other, m), score = wanted["of"], wanted["from"], wanted["score"]
            mean, low, high = difference(grid(cells, one, n, row, score), grid(cells, other, m, row, score))
            figures = f"{mean:+.3f} | {low:+.3f} to {high:+.3f} | {wanted.get('asked', '')}"
            lines.append(f"| {row} | {one} ({n}) - {other} ({m}) | {SCORES[score][0]} | {figures} |")
    return "\n".join(lines)


def efficiency(cells: list[dict], row: str, file: Path) -> None:
    """Draw Dice over the number of training volumes."""
    figure, axes = plt.subplots(figsize=(6, 4), layout="constrained")
    ticks = sorted({n for _, n in sizes(cells)})
    for arm in sorted({arm for arm, _ in sizes(cells)}):
        numbers = sorted({n for name, n in sizes(cells) if name == arm})
        by_seed = [grid(cells, arm, n, row, "dice").mean(axis=1) for n in numbers]
        mean = np.array([values.mean() for values in by_seed])
        axes.plot(numbers, mean, marker="o", label=arm)
        axes.fill_between(numbers, [v.min() for v in by_seed], [v.max() for v in by_seed], alpha=0.2)
    axes.set(xscale="log", xlabel="training volumes", ylabel=f"foreground Dice, {ROWS[row]}", xticks=ticks)
    axes.set_xticklabels(ticks)
    axes.minorticks_off()
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False)
    figure.savefig(file, dpi=150)
    plt.close(figure)


def page(name: str, cells: list[dict], table: dict, out: Path) -> str:
    """Return the page of one table, and draw its figure where it has several numbers of volumes."""
    rows = [row for row in ROWS if all(cell["rows"].get(row) for cell in cells)]
    text = [f"### {table.get('title', name)}", training_table(cells)]
    for row in rows:
        text += [f"**{row}**: {ROWS[row]}.", scores_table(cells, row)]
    if rows and table.get("comparisons"):
        text.append(comparison_table(cells, table["comparisons"], rows))
    if "test" in rows and len(table["volumes"]) > 1:
        efficiency(cells, "test", out / f"study_{name}.png")
    return "\n\n".join(text) + "\n"


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("tables", nargs="*")
    parser.add_argument("--config", type=Path, default=HERE / "study.yaml")
    parser.add_argument("--results", type=Path, default=HERE / "results" / "study")
    parser.add_argument("--out", type=Path, default=HERE / "results")
    options = parser.parse_args()
    tables = yaml.safe_load(options.config.read_text())["tables"]
    for name in options.tables or tables:
        cells = results(options.results / name)
        if cells:
            text = page(name, cells, tables[name], options.out)
            (options.out / f"study_{name}.md").write_text(text, encoding="utf-8")
            print(text)


if __name__ == "__main__":
    main()
