"""Look at what each method finds in two stacks of C. elegans neurons that nobody annotated.

    NEUROKD_DATA=... python benchmarks/worm.py                # all methods and the released models
    NEUROKD_DATA=... python benchmarks/worm.py --model DIR    # add a model, draw again
    NEUROKD_DATA=... python benchmarks/worm.py --draw         # draw what is kept, run nothing

Every panel is a maximum projection along z: of the scaled volume, then of each method's foreground at its own
threshold. The projections are kept in ``--runs``, so that a model can be added without running the others.
"""

from __future__ import annotations

import argparse
import logging
import os
from functools import partial
from pathlib import Path
from textwrap import fill

import matplotlib.pyplot as plt
import numpy as np
from numpy.typing import NDArray

import neurokd as nkd
import real
from neurokd.models.storage import model_folder, released_models

NAMES = ("AIY1", "ASJ1")
METHODS = [name for name in real.METHODS if name != "brightness"]  # its threshold needs a reference
SOURCE = "they are LS_Worm/*.mat of github.com/neurogeometry/Normalized_Level_Set as TIFF, axes z y x"


def volumes() -> list[NDArray]:
    """Return both stacks, raw (z, y, x)."""
    folder = Path(os.environ.get("NEUROKD_DATA") or "") / "worm"
    try:
        return [nkd.read_volume(folder / f"{name}.tif") for name in NAMES]
    except FileNotFoundError as error:
        raise FileNotFoundError(f"{error}; set NEUROKD_DATA to a folder with worm/: {SOURCE}") from error


def projections(method: real.Method, raw: list[NDArray]) -> dict[str, NDArray]:
    """Return the label of a method and the projection of its foreground in each stack."""
    found: dict[str, NDArray] = {"label": np.array(method.label)}
    for name, volume in zip(NAMES, raw, strict=True):
        response = method.respond(volume)
        level = method.level(response, real.Stack(name, volume))
        found[name] = (response > level).max(axis=0)  # z y x -> y x
    return found


def figure(raw: list[NDArray], found: list[dict[str, NDArray]]) -> plt.Figure:
    """Draw the volumes and what each method found in them."""
    drawing, axes = plt.subplots(2, 1 + len(found), figsize=(2.4 * (1 + len(found)), 5.2), squeeze=False)
    for row, name, volume in zip(axes, NAMES, raw, strict=True):
        row[0].imshow(np.sqrt(nkd.scale_intensity(volume).max(axis=0)), cmap="gray")
        row[0].set_ylabel(name)
        for panel, entry in zip(row[1:], found, strict=True):
            panel.imshow(entry[name], cmap="gray")
    titles = ["image (square root)", *(str(entry["label"]) for entry in found)]
    for panel, title in zip(axes[0], titles, strict=True):
        panel.set_title(fill(title.strip("`"), 26), fontsize=8)
    for panel in axes.flat:
        panel.set(xticks=[], yticks=[])
    drawing.tight_layout()
    return drawing


def main(argv: list[str] | None = None) -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--method", nargs="*", choices=METHODS, default=[], help="these only")
    parser.add_argument("--model", action="append", default=[], metavar="NAME|FOLDER", help="repeatable")
    parser.add_argument("--draw", action="store_true", help="draw what is kept, run nothing")
    parser.add_argument("--runs", type=Path, default=Path("runs/worm"), help="keeps the projections")
    parser.add_argument("--out", type=Path, default=real.HERE / "results")
    options = parser.parse_args(argv)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    if not (options.draw or options.method or options.model):
        options.method, options.model = METHODS, released_models()
    wanted = {name: real.METHODS[name] for name in options.method}
    wanted |= {model_folder(model).name: partial(real.segmenter_method, model) for model in options.model}
    raw = volumes()
    options.runs.mkdir(parents=True, exist_ok=True)
    for name, make in wanted.items():
        np.savez_compressed(options.runs / f"{name}.npz", **projections(make(), raw))
    kept = {path.stem: dict(np.load(path)) for path in options.runs.glob("*.npz")}
    figure(raw, list(real.ordered(kept).values())).savefig(options.out / "real_worm.png", dpi=110)


if __name__ == "__main__":
    main()
