"""What a segmenter finds of tubes whose right answer is known, beside Otsu's threshold and Sato's filter.

    python benchmarks/phantoms.py                           # the released models: about 12 minutes on one core
    python benchmarks/phantoms.py --model FOLDER --quick    # a trained segmenter, 14 stacks, about 80 s
    python benchmarks/phantoms.py --only radius brightness  # some of the sweeps

The sweeps and what is asked are in ``phantom_sweeps.py``, the scores in ``nkd.phantom_scores``. A model's mask is its
probability above its own threshold. A filter's mask is its response above Otsu's threshold:

otsu        the scaled intensity
sato        the filter of Sato et al. (1998, doi:10.1016/S1361-8415(98)80009-1) at 1 and 2 voxels (scikit-image)
sato-sqrt   the same on the square root of the scaled intensity, which lifts dim neurites

A method that refuses a stack because every voxel is the same has found nothing in it; the results say so. All
seeds are fixed, so the same command gives the same numbers. Writes ``phantoms.json``, ``phantoms.md`` and
``phantoms.png`` into ``--out``, and table and figure into the page ``--readme`` between its marks.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pooch
import torch
from skimage.filters import sato, threshold_otsu
from tqdm.auto import tqdm

import neurokd as nkd
import phantom_report
from neurokd.models.storage import WEIGHTS, model_folder, released_models
from phantom_sweeps import NOTHING, SEED, SWEEPS, generator
from study import machine

Method = Callable[[np.ndarray], np.ndarray]


def above_otsu(response: np.ndarray) -> np.ndarray:
    """Return the voxels above Otsu's threshold."""
    return response > threshold_otsu(response)


def sato_mask(grey: np.ndarray) -> np.ndarray:
    """Return the voxels whose response to Sato's filter at 1 and 2 voxels is above Otsu's threshold."""
    return above_otsu(sato(grey, sigmas=(1.0, 2.0), black_ridges=False))


FILTERS: dict[str, Method] = {
    "otsu": lambda volume: above_otsu(nkd.scale_intensity(volume)),
    "sato": lambda volume: sato_mask(nkd.scale_intensity(volume)),
    "sato-sqrt": lambda volume: sato_mask(np.sqrt(nkd.scale_intensity(volume))),
}


def loaded(name: str) -> tuple[Method, dict]:
    """Return a model as a method, and what identifies it."""
    folder = model_folder(name)
    model = nkd.NeuronSegmenter.from_pretrained(folder)
    known = {
        "sha256": pooch.file_hash(str(folder / WEIGHTS)),
        "threshold": model.config.threshold,
        "window": list(model.config.window),
    }
    return lambda volume: nkd.predict(model, volume) > model.config.threshold, known


def masks(volume: np.ndarray, methods: dict[str, Method], seconds: dict[str, float]) -> tuple[dict, dict]:
    """Return the mask of every method, and why a method refused a constant volume; add up processor time."""
    found, refused = {}, {}
    for name, method in methods.items():
        start = time.process_time()
        try:
            found[name] = method(volume)
        except ValueError as error:
            if volume.min() != volume.max():
                raise
            found[name], refused[name] = np.zeros(volume.shape, dtype=bool), str(error)
        seconds[name] = seconds.get(name, 0.0) + time.process_time() - start
    return found, refused


def cases(*, quick: bool, only: list[str]) -> list[dict]:
    """Return what is to be measured: sweep, value and repeat of every phantom, and every empty stack."""
    chosen = [sweep for sweep in SWEEPS if sweep.name in only]
    rows = [
        {"sweep": sweep.name, "value": value, "repeat": repeat}
        for sweep in chosen
        for value in (sweep.quick if quick else sweep.values)
        for repeat in range(1 if quick else sweep.repeats)
    ]
    if "nothing" in only:
        rows += [
            {"sweep": "nothing", "value": kind, "repeat": repeat}
            for kind, (_, repeats) in NOTHING.items()
            for repeat in range(1 if quick else repeats)
        ]
    return rows


def measured(case: dict, methods: dict[str, Method], seconds: dict[str, float]) -> dict:
    """Return a case with the scores of every method."""
    rng = generator(case["sweep"], case["value"], case["repeat"])
    if case["sweep"] == "nothing":
        volume = NOTHING[case["value"]][0](rng)
        found, refused = masks(volume, methods, seconds)
        scores = {name: {"invented_voxels": int(mask.sum())} for name, mask in found.items()}
        return case | {"scores": scores} | ({"refused": refused} if refused else {})
    sweep = next(s for s in SWEEPS if s.name == case["sweep"])
    phantom = sweep.make(case["value"], rng)
    found, _ = masks(phantom.volume, methods, seconds)
    scores = {name: nkd.phantom_scores(mask, phantom, tubes=sweep.scored) for name, mask in found.items()}
    return case | {"length": phantom.length, "true_voxels": int(phantom.mask.sum()), "scores": scores}


def main(argv: list[str] | None = None) -> None:
    """Run the command line."""
    names = [*(sweep.name for sweep in SWEEPS), "nothing"]
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--model", action="append", help="a released model or a folder, repeatable; all released models by default"
    )
    parser.add_argument("--quick", action="store_true", help="few phantoms")
    parser.add_argument("--only", nargs="*", choices=names, default=names, metavar="SWEEP", help=", ".join(names))
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path, default=Path("runs/benchmarks"))
    parser.add_argument("--readme", type=Path, help="page that gets the tables between its marks")
    options = parser.parse_args(argv)
    torch.set_num_threads(options.threads)
    methods, models = dict(FILTERS), {}
    for model in options.model or released_models():
        name = Path(model).name
        if name in methods:
            raise SystemExit(f"two methods are called {name!r}; copy one of the folders to another name")
        methods[name], models[name] = loaded(model)

    seconds: dict[str, float] = {}
    stacks = cases(quick=options.quick, only=options.only)
    rows = [measured(case, methods, seconds) for case in tqdm(stacks, unit="stack")]
    results = {
        "machine": machine(),
        "seed": SEED,
        "quick": options.quick,
        "methods": list(methods),
        "models": models,
        "cpu_seconds": {name: round(taken, 1) for name, taken in seconds.items()},
        "cases": rows,
    }
    options.out.mkdir(parents=True, exist_ok=True)
    text = phantom_report.as_json(results)
    (options.out / "phantoms.json").write_text(text, encoding="utf-8")
    results = json.loads(text)  # table and figure are of the numbers that are stored
    text = phantom_report.page(results)
    (options.out / "phantoms.md").write_text(text, encoding="utf-8")
    phantom_report.draw(results, options.out / "phantoms.png")
    if options.readme:
        picture = os.path.relpath(options.out / "phantoms.png", options.readme.parent)
        phantom_report.into_page(options.readme, text, picture)
    print(text)


if __name__ == "__main__":
    main()
