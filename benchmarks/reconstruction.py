"""How well masks and probabilities become trees: the tracer against known trees, and beside a plain baseline.

    python benchmarks/reconstruction.py                   # everything; the first time trains a student
    python benchmarks/reconstruction.py --only truth time # some of the parts

truth      masks of simulated neurons that are true: what tracing alone loses
flies      trees traced by people, rendered, their true mask traced, compared: data, simulator, tracer, scores in a loop
predicted  probabilities of a student that trained some minutes (kept in ``--runs``) on other simulated neurons
real       a light-microscopy neuron, its mask a threshold: agreement with an automatic trace
time       a volume of 120 x 400 x 400 voxels of which 5 % are candidates, on one core

The baseline is skeletonise and span: the same specks dropped, the skeleton of the mask (scikit-image), gaps up to the
same length closed by a minimum spanning tree, rooted at its thickest voxel, smoothed and resampled as our trees are.
What needs a file that is not there says so. Writes ``reconstruction.json``, ``reconstruction.md`` and a picture into
``--out``.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import platform
import time
import warnings
from pathlib import Path

import numpy as np
from scipy import ndimage
from scipy.sparse import csr_array
from scipy.sparse.csgraph import breadth_first_order, connected_components, minimum_spanning_tree
from scipy.spatial import cKDTree

import neurokd as nkd
from neurokd.data.growth import VOXEL
from neurokd.evaluation.topology import skeleton_of
from neurokd.inference.paths import smooth

PARTS = ("truth", "flies", "predicted", "real", "time")
COLUMNS = {"length_f1": "length F1", "length_precision": "precision", "length_recall": "recall", "esa": "ESA (voxels)"}


def skeleton_tree(mask: np.ndarray, *, max_gap: float = 20.0, min_fragment: int = 5, step: float = 2.0) -> nkd.Tree:
    """The baseline: specks dropped, skeleton, minimum spanning tree, the component of the largest part."""
    fragment = ndimage.label(mask, np.ones((3, 3, 3)))[0]
    mask = mask & (np.bincount(fragment.ravel()) >= min_fragment)[fragment]
    radius = ndimage.distance_transform_edt(np.pad(mask, 1))[1:-1, 1:-1, 1:-1]
    voxels = np.argwhere(skeleton_of(mask))
    radius = radius[tuple(voxels.T)]
    pairs = cKDTree(voxels).query_pairs(max_gap, output_type="ndarray")
    length = np.linalg.norm(voxels[pairs[:, 0]] - voxels[pairs[:, 1]], axis=1)
    # Voxels that touch are joined by their distance, gaps cost the square: narrow gaps first.
    cost = np.where(length < 1.8, length, length**2)
    graph = minimum_spanning_tree(csr_array((cost, pairs.T), shape=(len(voxels),) * 2))
    part = connected_components(graph, directed=False)[1]
    inside = part == np.bincount(part).argmax()
    root = int(np.where(inside, radius, -1).argmax())
    order, before = breadth_first_order(graph, root, directed=False)
    row = np.full(len(voxels), -1)
    row[order] = np.arange(len(order))
    parent = np.where(order == root, -1, row[np.maximum(before[order], 0)])
    tree = nkd.Tree(voxels[order][:, ::-1], np.maximum(radius[order], 0.5), parent, np.where(order == root, 1, 0))
    return smooth(tree).resample(step)


def scores(name: str, tree: nkd.Tree, reference: nkd.Tree, tolerance: float) -> dict:
    """Scores of one tree; a row for a report."""
    return {"name": name, **nkd.compare_trees(tree, reference, tolerance=tolerance)}


def truth(number: int) -> dict:
    """Trace true masks of simulated neurons."""
    rows, trees = [], []
    for sample in nkd.simulated_neurons(number, seed=11):
        tree = nkd.trace(sample.mask)
        rows.append(scores(sample.name, tree, sample.tree, 2.0))
        trees.append(int((tree.parent < 0).sum()))
    return {"tolerance": 2.0, "ours": rows, "trees_per_neuron": trees}


def flies(folder: Path | None) -> dict:
    """Render what people traced, trace the true mask, compare."""
    files = sorted(folder.glob("swc_fly/*.swc")) if folder else []
    if not files:
        return {"skipped": "no swc_fly in NEUROKD_DATA (Cell07PNs of natverse/nat, GPL-3, not redistributed here)"}
    rows = []
    for number, path in enumerate(files):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # some of these files need the root mended
            tree = nkd.read_swc(path, repair=True)
        tree = tree.scale([1 / VOXEL] * 3)  # µm to voxels of the simulator
        tree = tree.translate(8 - tree.xyz.min(axis=0))
        shape = np.ceil(tree.zyx.max(axis=0) + 9).astype(int)
        _, mask = nkd.render(tree, shape, np.random.default_rng(number))
        rows.append(scores(path.stem, nkd.trace(mask), tree, 2.0))
    return {"tolerance": 2.0, "ours": rows}


def predictions(runs: Path) -> tuple[list[nkd.Sample], list[np.ndarray], float]:
    """Train a small student once, and return test neurons with its probabilities and its threshold."""
    neurons = nkd.simulated_neurons(20, seed=0)
    training, validation, test = neurons[:6], neurons[6:8], neurons[14:]  # 8 to 13 were looked at before
    if not (runs / "student").is_dir():
        import torch

        student = nkd.NeuronSegmenter.from_teacher(
            nkd.load_teacher(), preset="tiny", generator=torch.Generator().manual_seed(0)
        )
        config = nkd.TrainConfig(steps=200, validate_every=50)
        nkd.train(student, training, validation, runs / "training", config=config, resume=True)
        student.save_pretrained(runs / "student")
    student, found = nkd.NeuronSegmenter.from_pretrained(runs / "student"), []
    for sample in test:
        file = runs / f"{sample.name}.npy"
        if not file.exists():
            np.save(file, nkd.predict(student, sample.volume))
        found.append(np.load(file))
    return test, found, student.config.threshold


def predicted(runs: Path) -> dict:
    """Trace a student's probabilities, and the baseline its mask."""
    test, found, threshold = predictions(runs)
    rows = {"ours": [], "baseline": []}
    for sample, probability in zip(test, found, strict=True):
        trees = {
            "ours": nkd.trace(probability, threshold=threshold),
            "baseline": skeleton_tree(probability > threshold),
        }
        for method, tree in trees.items():
            rows[method].append(scores(sample.name, tree, sample.tree, 2.0))
    dice = [nkd.dice(p > threshold, s.mask) for s, p in zip(test, found, strict=True)]
    return {"tolerance": 2.0, **rows, "threshold": threshold, "dice": dice}


def real(out: Path) -> dict:
    """Trace the real fly neuron from a threshold mask, and draw it."""
    try:
        fly = nkd.fly_neuron()
    except FileNotFoundError as error:
        return {"skipped": str(error)}
    mask = fly.volume > 10
    trees = {"ours": nkd.trace(mask), "baseline": skeleton_tree(mask)}
    figure = nkd.plot_projections(fly.volume, tree=trees["ours"], orthogonal=True, title="threshold mask, traced")
    figure.savefig(out / "reconstruction_fly.png", dpi=110)
    rows = {method: [scores(fly.name, tree, fly.tree, 3.0)] for method, tree in trees.items()}
    return {"tolerance": 3.0, **rows, "threshold": 10}


def timed(repeats: int) -> dict:
    """Take the processor time of the tracer and of the baseline."""
    shape, trees = (120, 400, 400), []
    mask, seed = np.zeros(shape, dtype=bool), 0
    while mask.mean() < 0.045:  # neurites, thickened, until nearly 5 % of the voxels are candidates
        grown = nkd.grow_neuron(np.random.default_rng(seed))
        at = np.random.default_rng(seed).uniform(0.1, 0.9, 3) * shape[::-1]
        trees.append(grown.translate(at - grown.xyz.mean(axis=0)))
        mask |= nkd.rasterise(trees[-1], shape, min_radius=3.0)
        seed += 1
    seconds = {}
    for method, function in {"ours": nkd.trace, "baseline": skeleton_tree}.items():
        taken = []
        for _ in range(repeats):
            start = time.process_time()  # of all threads: at least what one core takes
            tree = function(mask)
            taken.append(time.process_time() - start)
        seconds[method] = {"seconds": float(np.median(taken)), "nodes": len(tree), "tips": len(tree.tips)}
    return {"candidates": float(mask.mean()), "voxels": list(shape), **seconds}


def table(results: dict) -> str:
    """Return all parts as one Markdown table, medians over the volumes, and the time below it."""
    names = {
        "truth": "true masks, simulated neurons",
        "flies": "true masks, flies traced by people",
        "predicted": "a student's probabilities, simulated neurons",
        "real": "threshold mask, real fly neuron (reference: an automatic trace)",
    }
    lines = [
        f"| input | n | tolerance (voxels) | method | {' | '.join(COLUMNS.values())} | worst F1 |",
        f"|---|---|---|---|{'---|' * (len(COLUMNS) + 1)}",
    ]
    for part in filter(results.get, names):
        result, name = results[part], names[part]
        if "skipped" in result:
            lines.append(f"| {name} | skipped: {result['skipped']} |")
        for method, label in (("ours", "`nkd.trace`"), ("baseline", "skeletonise and span")):
            rows = result.get(method)
            if rows:
                cells = (f"{np.median([row[key] for row in rows]):.3f}" for key in COLUMNS)
                worst = min(row["length_f1"] for row in rows)
                head = f"{name} | {len(rows)} | {result['tolerance']:g}"
                lines.append(f"| {head} | {label} | {' | '.join(cells)} | {worst:.3f} |")
    if "time" in results:
        speed = results["time"]
        lines += ["", "| voxels (z, y, x) | candidates | method | seconds, one core | tips |", "|---|---|---|---|---|"]
        for method, label in (("ours", "`nkd.trace`"), ("baseline", "skeletonise and span")):
            voxels = " x ".join(map(str, speed["voxels"]))
            took = f"{speed[method]['seconds']:.1f} | {speed[method]['tips']}"
            lines.append(f"| {voxels} | {speed['candidates']:.1%} | {label} | {took} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", nargs="*", choices=PARTS, default=PARTS)
    parser.add_argument("--neurons", type=int, default=20, help="simulated neurons with true masks")
    parser.add_argument("--repeats", type=int, default=3, help="of the timing")
    parser.add_argument("--runs", type=Path, default=Path("runs/reconstruction"), help="keeps the student")
    parser.add_argument("--out", type=Path, default=Path("runs/benchmarks"))
    options = parser.parse_args()
    logging.basicConfig(level=logging.INFO)
    options.out.mkdir(parents=True, exist_ok=True)
    data = os.environ.get("NEUROKD_DATA")
    parts = {
        "truth": lambda: truth(options.neurons),
        "flies": lambda: flies(Path(data) if data else None),
        "predicted": lambda: predicted(options.runs),
        "real": lambda: real(options.out),
        "time": lambda: timed(options.repeats),
    }
    file = options.out / "reconstruction.json"
    results = json.loads(file.read_text())["results"] if file.exists() else {}  # of the parts that are not asked for
    for part in options.only:
        results[part] = parts[part]()
        file.write_text(json.dumps({"machine": platform.machine(), "results": results}, indent=1) + "\n")
        print(f"--- {part}\n{table({part: results[part]})}", flush=True)
    (options.out / "reconstruction.md").write_text(table(results) + "\n")


if __name__ == "__main__":
    main()
