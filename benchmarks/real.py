"""Every real stack at hand, every method, one table.

    NEUROKD_DATA=... python benchmarks/real.py                          # all methods and the released models
    NEUROKD_DATA=... python benchmarks/real.py --model DIR --model DIR  # add models, leave the rest as it is
    NEUROKD_DATA=... python benchmarks/real.py --method otsu sato       # these again
    python benchmarks/real.py --tables --readme benchmarks/README.md    # the tables of what is stored

stacks    two with an automatic trace (agreement, not accuracy), two volumes with slices annotated by people
methods   Otsu on brightness; Sato's ridge filter and Otsu, of the brightness and of its square root; the best
          threshold of the brightness, chosen with the reference; NeuroFly's network; models of this library

All get the raw stack, scaled by `nkd.scale_intensity` where they are ours. ``real.json`` in ``--out`` keeps
one entry for each method, with the commit and the hash of its weights; ``real.md`` holds the tables. A model
in memory is scored from another script like this (about 2 minutes of one core for `neurokd-tiny`)::

    for stack in real.stacks():
        real.score(nkd.predict(model, stack.volume), threshold, stack, intervals=False, soma=False)
"""

from __future__ import annotations

import argparse
import json
import logging
import math
import os
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from itertools import combinations_with_replacement
from pathlib import Path

import numpy as np
import pooch
from numpy.typing import NDArray
from scipy import ndimage
from skimage.filters import sato, threshold_otsu

import neurofly
import neurokd as nkd
from cubes import assemble
from neurokd.inference.trace import _MOST_CANDIDATES
from neurokd.models.storage import WEIGHTS, model_folder, released_models
from study import HERE, machine
from study_tables import filled

TOLERANCE = 3.0  # voxels within which a traced tree and the reference agree
BACKGROUND, AXON, ARTEFACT, RIM = 1, 2, 3, 4  # labels of the annotated slices; 0: nobody looked
REACH = 16  # voxels beyond which the filters see nothing: 4 standard deviations of 2 voxels, and differences
CONFIDENCE = 0.95
NEEDED = (
    "set NEUROKD_DATA to a folder with real/rivulet_fly_full.tif, real/rivulet_small.tif, their .swc and "
    "axons/; see github.com/RivuletStudio/rivuletpy and github.com/AlbertPun/TRAILMAP"
)

MARKS = ("<!-- written by real.py -->", "<!-- until here: real.py -->")
logger = logging.getLogger(__name__)


# --- stacks


@dataclass(frozen=True, eq=False)
class Stack:
    """A real stack with its reference: a trace, or labels of some slices.

    Parameters
    ----------
    name
        Unique.
    volume
        (z, y, x), raw.
    tree
        An automatic trace, voxels.
    labels
        (z, y, x), 0 where nobody looked.
    soma
        Whether a soma is in the stack.
    """

    name: str
    volume: NDArray
    tree: nkd.Tree | None = None
    labels: NDArray[np.uint8] | None = None
    soma: bool = False

    @cached_property
    def truth(self) -> NDArray[np.bool_]:
        """What is neurite: the trace (radius 1) grown by one voxel, or the voxels labelled as axon."""
        if self.tree is not None:
            return ndimage.binary_dilation(nkd.rasterise(self.tree, self.volume.shape))
        return self.labels == AXON

    @cached_property
    def judged(self) -> NDArray[np.bool_]:
        """Which voxels count: all beside a trace; with labels, those labelled except the rims of axons."""
        if self.tree is not None:
            return np.ones(self.volume.shape, dtype=bool)
        if unknown := set(np.unique(self.labels).tolist()) - {0, BACKGROUND, AXON, ARTEFACT, RIM}:
            raise ValueError(f"labels must be 0 to 4, got {sorted(unknown)} in {self.name}")
        return np.isin(self.labels, (BACKGROUND, AXON, ARTEFACT))


def stacks(folder: str | os.PathLike | None = None) -> list[Stack]:
    """Return the four annotated real stacks.

    Parameters
    ----------
    folder
        Where the data are; None: ``NEUROKD_DATA``.

    Raises
    ------
    FileNotFoundError
        If a file is missing.
    """
    root = Path(folder or os.environ.get("NEUROKD_DATA") or "")
    axons, found = root / "axons", []
    try:
        for name, soma in (("rivulet_fly_full", True), ("rivulet_small", False)):
            path = root / "real" / f"{name}.tif"
            tree = nkd.read_swc(path.with_suffix(".swc"))
            found.append(Stack(name, nkd.read_volume(path), tree=tree, soma=soma))
        cubes = [nkd.read_volume(path) for path in sorted(axons.glob("validation_*_volume.tif"))]
        marks = [nkd.read_volume(path) for path in sorted(axons.glob("validation_*_label.tif"))]
        training = nkd.read_volume(axons / "train_original_volume.tif")
        known = nkd.read_volume(axons / "train_original_label.tif")
    except FileNotFoundError as error:
        raise FileNotFoundError(f"{error}; {NEEDED}") from error
    if not cubes or len(cubes) != len(marks):
        found = f"{len(cubes)} validation volumes and {len(marks)} labels"
        raise FileNotFoundError(f"{found} in {axons}; {NEEDED}")
    volume, labels = assemble(cubes, marks)
    found.append(Stack("axons, other brain", volume, labels=labels))
    return [*found, Stack("axons, training volume", training, labels=known)]


def _box(volume: NDArray, margin: int) -> tuple[slice, ...]:
    """Return the box of the voxels that are not the darkest, and a margin around it."""
    (box,) = ndimage.find_objects((volume != volume.min()).astype(np.uint8))
    sides = zip(box, volume.shape, strict=True)
    return tuple(slice(max(side.start - margin, 0), min(side.stop + margin, n)) for side, n in sides)


# --- scores


def score(
    response: NDArray,
    threshold: float,
    stack: Stack,
    *,
    binary: bool = False,
    soma: bool = True,
    intervals: bool = True,
) -> dict:
    """Return the scores of a method on a stack.

    Parameters
    ----------
    response
        (z, y, x) of the stack: probabilities, or what a filter gives; higher is likelier.
    threshold
        Foreground is what lies above it.
    stack
        One of :func:`stacks`.
    binary
        Trace the mask alone; for responses that are not probabilities.
    soma
        Trace once more, from the largest ball in the mask, where the stack has a soma.
    intervals
        Add bootstrap intervals over slices.

    Returns
    -------
    dict
        With a trace: ``average_precision``, ``length_f1``, ``length_precision``, ``length_recall`` of
        `nkd.trace` at 3 voxels, ``root_distance`` between the roots in voxels, ``soma``: the same with it.
        With labels: ``average_precision``, ``dice``, ``precision``, ``recall``, ``best_dice`` at the
        threshold that is best for this stack, ``intervals``, and ``slices``: the same of each slice.
    """
    if response.shape != stack.volume.shape:
        raise ValueError(f"response must be (z, y, x) {stack.volume.shape}, got {response.shape}")
    if stack.tree is None:
        return _of_slices(response, threshold, stack, intervals)
    mask = response > threshold
    grey = mask if binary else response
    scores = {"average_precision": nkd.average_precision(response, stack.truth), "voxels": int(mask.sum())}
    scores |= _of_tree(grey, mask, threshold, stack.tree)
    if soma and stack.soma:
        scores["soma"] = _of_tree(grey, mask, threshold, stack.tree, soma=True)
    return scores


def _of_tree(
    grey: NDArray,
    mask: NDArray,
    threshold: float,
    reference: nkd.Tree,
    *,
    soma: bool = False,
) -> dict:
    """Trace and compare. Nothing, or more than can be traced, scores 0."""
    if not 0 < np.count_nonzero(mask) <= _MOST_CANDIDATES:
        return {"length_f1": 0.0, "length_precision": 0.0, "length_recall": 0.0, "root_distance": None}
    level = {"threshold": threshold} if grey is not mask else {}
    tree = nkd.trace(grey, soma=nkd.find_soma(mask) if soma else None, **level)
    lengths = nkd.length_scores(tree, reference, tolerance=TOLERANCE)
    roots = [t.zyx[t.parent < 0][0] for t in (tree, reference)]
    return {f"length_{name}": value for name, value in lengths.items()} | {
        "root_distance": float(np.linalg.norm(roots[0] - roots[1]))
    }


def _of_slices(response: NDArray, threshold: float, stack: Stack, intervals: bool) -> dict:
    numbers = np.flatnonzero(stack.judged.any(axis=(1, 2)))
    parts = [tuple(array[z][stack.judged[z]] for array in (response, stack.truth)) for z in numbers]
    scores = measures(parts, threshold)
    if intervals:
        scores["intervals"] = bootstrap(parts, partial(measures, threshold=threshold))
    alone = [measures([part], threshold) for part in parts]
    scores["slices"] = [{"z": int(z)} | one for z, one in zip(numbers, alone, strict=True)]
    return scores


def measures(parts: Sequence[tuple[NDArray, NDArray]], threshold: float) -> dict[str, float]:
    """Return the scores of some slices together; a part is the responses and the truth of a slice."""
    values, truth = (np.concatenate(arrays)[None, None] for arrays in zip(*parts, strict=True))  # n -> 1 1 n
    mask = values > threshold
    best = nkd.best_threshold([values], [truth])
    return {
        "average_precision": nkd.average_precision(values, truth),
        "dice": nkd.dice(mask, truth),
        "precision": nkd.precision(mask, truth),
        "recall": nkd.recall(mask, truth),
        "best_dice": nkd.dice(values > best, truth),
        "axon_voxels": int(truth.sum()),
        "voxels": truth.size,
    }


def bootstrap(
    parts: Sequence,
    statistic: Callable[[Sequence], dict[str, float]],
) -> dict[str, tuple[float, float]]:
    """Return the bootstrap interval of each statistic over a few parts: exactly, over all draws there can be.

    n parts drawn n times, order aside, are few: 10 draws of 3 parts, 126 of 5, each with its probability. The
    interval is of percentiles and, with so few parts, too narrow rather than too wide.
    """
    n = len(parts)
    draws = list(combinations_with_replacement(range(n), n))
    repeats = [math.prod(map(math.factorial, Counter(draw).values())) for draw in draws]
    chances = math.factorial(n) / np.array(repeats) / n**n
    found = [statistic([parts[i] for i in draw]) for draw in draws]
    tail, bounds = (1 - CONFIDENCE) / 2, {}
    for name in found[0]:
        if not name.endswith("voxels"):
            values = np.array([scores[name] for scores in found])
            order = np.argsort(values)
            low, high = np.searchsorted(np.cumsum(chances[order]), (tail, 1 - tail)).clip(max=len(order) - 1)
            bounds[name] = (float(values[order[low]]), float(values[order[high]]))
    return bounds


# --- methods


@dataclass(frozen=True)
class Method:
    """A way from a raw stack to a response, and its threshold.

    Parameters
    ----------
    label
        In the tables.
    respond
        Maps a raw volume (z, y, x) to a response of its shape.
    level
        Maps a response and its stack to the threshold.
    binary
        Whether the tracer gets a mask.
    made
        What identifies the weights.
    """

    label: str
    respond: Callable[[NDArray], NDArray]
    level: Callable[[NDArray, Stack], float]
    binary: bool = True
    made: dict | None = None


def ridges(grey: NDArray) -> NDArray[np.float32]:
    """Return Sato's filter at 1 and 2 voxels; what is dark and further away than it sees is left out."""
    out, box = np.zeros(grey.shape, dtype=np.float32), _box(grey, REACH)
    out[box] = sato(grey[box], sigmas=(1, 2), black_ridges=False)
    return out


def otsu(response: NDArray, stack: Stack) -> float:
    """Return Otsu's threshold of all voxels."""
    return float(threshold_otsu(response))


def chosen(response: NDArray, stack: Stack) -> float:
    """Return the threshold that is best for this stack, chosen with its reference.

    An upper bound, which no user reaches without a reference.

    By Dice on annotated slices. Beside a trace by length F1, among 0 and nine quantiles of the non-zero
    voxels.
    """
    if stack.tree is None:
        values, truth = (array[stack.judged][None, None] for array in (response, stack.truth))  # n -> 1 1 n
        return nkd.best_threshold([values], [truth])
    levels = np.append(0, np.quantile(response[response > 0], np.geomspace(0.0025, 0.5, 9)))
    found = []
    for level in levels:
        mask = response > level
        found.append(_of_tree(mask, mask, level, stack.tree)["length_f1"])
        logger.info("%s: threshold %.3f, length F1 %.3f", stack.name, level, found[-1])
    return float(levels[np.argmax(found)])


def neurofly_method() -> Method:
    """Return the untouched network of neurofly."""
    respond = partial(neurofly.predict, neurofly.network())
    made = {"package": neurofly.REQUIREMENT, "sha256_wheel": neurofly.SHA256, "weights": neurofly.WEIGHTS}
    return Method("neurofly 0.1.4, untouched", respond, lambda response, stack: 0.5, binary=False, made=made)


def segmenter_method(name_or_folder: str) -> Method:
    """Return a model of this library, at its own threshold."""
    folder = model_folder(name_or_folder)
    model = nkd.NeuronSegmenter.from_pretrained(name_or_folder)
    made = {
        "sha256": pooch.file_hash(str(folder / WEIGHTS)),
        "parameters": sum(p.numel() for p in model.parameters()),
        "teacher": model.config.teacher,
    }
    threshold = model.config.threshold
    respond = partial(nkd.predict, model)
    return Method(f"`{folder.name}`", respond, lambda *_: threshold, binary=False, made=made)


METHODS: dict[str, Callable[[], Method]] = {
    "otsu": lambda: Method("Otsu", nkd.scale_intensity, otsu),
    "sato": lambda: Method("Sato (1, 2) + Otsu", lambda v: ridges(nkd.scale_intensity(v)), otsu),
    "sato-sqrt": lambda: Method(
        "Sato (1, 2) of the square root + Otsu", lambda v: ridges(np.sqrt(nkd.scale_intensity(v))), otsu
    ),
    "brightness": lambda: Method(
        "brightness, threshold chosen with the reference",
        nkd.scale_intensity,
        chosen,
    ),
    "neurofly": neurofly_method,
}


def run(method: Method, all_stacks: Iterable[Stack], where: dict) -> dict:
    """Return the entry of a method: its scores on every stack, and where they were made."""
    found = {}
    for stack in all_stacks:
        start = time.process_time()
        response = method.respond(stack.volume)
        taken = time.process_time() - start
        level = method.level(response, stack)
        scores = score(response, level, stack, binary=method.binary)
        found[stack.name] = {"threshold": level, "cpu_seconds": round(taken, 1)} | scores
        told = {name: value for name, value in scores.items() if name != "slices"}
        logger.info("%s, %s: %s", method.label, stack.name, told)
    return {"label": method.label, "made": method.made, "machine": where, "stacks": found}


# --- tables


def read(file: Path) -> dict[str, dict]:
    """Return the entries of a file of results by method; none where there is no file."""
    return json.loads(file.read_text())["methods"] if file.exists() else {}


def tables(methods: dict[str, dict]) -> str:
    """Return the results as Markdown tables: the stacks with a trace together, then each annotated volume."""
    entries = methods.values()
    lines = [
        "| method | fly: length F1 | from its soma | root off, voxels | AP | small: length F1 | AP |",
        "|---|---|---|---|---|---|---|",
    ]
    for entry in entries:
        fly, small = (entry["stacks"][name] for name in ("rivulet_fly_full", "rivulet_small"))
        root = fly["soma"]["root_distance"]
        numbers = [fly["length_f1"], fly["soma"]["length_f1"], root, fly["average_precision"]]
        numbers += [small["length_f1"], small["average_precision"]]
        cells = ["" if n is None else f"{n:.0f}" if n is root else f"{n:.3f}" for n in numbers]
        lines.append(f"| {entry['label']} | {' | '.join(cells)} |")
    for name in ("axons, other brain", "axons, training volume"):
        n = len(next(iter(entries))["stacks"][name]["slices"])
        lines += [
            "",
            f"| {name} ({n} slices) | AP | Dice | best Dice | precision | recall |",
            "|---|---|---|---|---|---|",
        ]
        for entry in entries:
            scores = entry["stacks"][name]
            cells = []
            for key in ("average_precision", "dice", "best_dice", "precision", "recall"):
                low, high = scores["intervals"][key]
                cells.append(f"{scores[key]:.3f} ({low:.2f} to {high:.2f})")
            lines.append(f"| {entry['label']} | {' | '.join(cells)} |")
    return "\n".join(lines)


def ordered(entries: dict[str, dict]) -> dict[str, dict]:
    """Return entries in the order of METHODS, models after them by name."""
    return dict(sorted(entries.items(), key=lambda item: ([*METHODS, item[0]].index(item[0]), item[0])))


def main(argv: list[str] | None = None) -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--method", nargs="*", choices=METHODS, default=[], help="these only")
    parser.add_argument("--model", action="append", default=[], metavar="NAME|FOLDER", help="repeatable")
    parser.add_argument("--tables", action="store_true", help="write the tables again, run nothing")
    parser.add_argument("--out", type=Path, default=HERE / "results")
    parser.add_argument("--readme", type=Path, help="page that gets the tables between its marks")
    options = parser.parse_args(argv)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    file = options.out / "real.json"
    if not (options.tables or options.method or options.model):
        options.method, options.model = list(METHODS), released_models()
    wanted = {name: METHODS[name] for name in options.method}
    wanted |= {model_folder(model).name: partial(segmenter_method, model) for model in options.model}
    options.out.mkdir(parents=True, exist_ok=True)
    every, where = stacks() if wanted else [], machine()
    for name, make in wanted.items():
        entry = run(make(), every, where)
        known = read(file) | {name: entry}  # read now: another run may have written its methods meanwhile
        file.write_text(json.dumps({"methods": ordered(known)}, indent=1) + "\n")
    text = tables(read(file))
    (options.out / "real.md").write_text(text + "\n")
    if options.readme:
        options.readme.write_text(filled(options.readme.read_text(), [text], marks=MARKS))
    print(text)


if __name__ == "__main__":
    main()
