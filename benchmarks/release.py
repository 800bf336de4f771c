"""Make the models that come with the package: weights, and a card with their scores on real stacks and phantoms.

    drawn scenes ──► crops, each under its own microscope ──► Dice + CE on known voxels ──► float16 ──► card

    python benchmarks/release.py train neurokd-tiny    # train (or go on), write the model
    python benchmarks/release.py card neurokd-tiny     # the card, from results/real.json and results/phantoms.json

Settings are in ``released.yaml``. No real stack is looked at here: not for training, nor for the threshold, which is
chosen on drawn volumes. A run that was stopped goes on from its last checkpoint (``--runs``).
"""

from __future__ import annotations

import argparse
import json
import logging
import time
from pathlib import Path

import pooch
import torch
import yaml

import neurokd as nkd
from study import HERE, in_bf16, machine

WEIGHTS, CARD = "model.safetensors", "README.md"
MODELS = HERE.parent / "neurokd" / "weights"


def untrained(settings: dict, seed: int) -> nkd.NeuronSegmenter:
    """Return the student of a released model, before training."""
    generator = torch.Generator().manual_seed(seed)
    student = settings["student"] | {"window": tuple(settings["training"]["crop"])}
    if "teacher" not in settings:
        return nkd.NeuronSegmenter.from_scratch(generator=generator, **student)
    return nkd.NeuronSegmenter.from_teacher(nkd.load_teacher(settings["teacher"]), generator=generator, **student)


def train(name: str, settings: dict, options: argparse.Namespace) -> None:
    """Train a model on drawn scenes, write it as float16, and note how it was made."""
    config = nkd.TrainConfig(**settings["training"])
    model = untrained(settings, config.seed)
    scenes = nkd.drawn_scenes(**_shaped(settings["scenes"]))
    validation = nkd.simulated_neurons(draw=True, **_shaped(settings["validation"]))
    start = time.perf_counter()
    done = nkd.train(
        in_bf16(model) if options.bf16 else model,
        scenes,
        validation,
        options.runs / name,
        config=config,
        resume=True,
        progress=False,
    )
    folder = options.out / name
    model.half().save_pretrained(folder, overwrite=True)
    made = {
        "settings": settings,
        "sha256": pooch.file_hash(str(folder / WEIGHTS)),
        "bytes": (folder / WEIGHTS).stat().st_size,
        "parameters": sum(p.numel() for p in model.parameters()),
        "threshold": done.threshold,
        "best_step": done.best_step,
        "validation_dice": done.best_dice,
        "seconds": round(time.perf_counter() - start),  # of the last piece if it was resumed
        "bf16": options.bf16,
        "machine": machine(),
    }
    file = options.results / f"release_{name}.json"
    file.write_text(json.dumps(made, indent=1) + "\n")


def _shaped(data: dict) -> dict:
    """Return settings of scenes with a tuple for a shape."""
    return data | {"shape": tuple(data["shape"])}


def main(argv: list[str] | None = None) -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("action", choices=("train", "card"))
    parser.add_argument("name", help="a model of released.yaml")
    parser.add_argument("--out", type=Path, default=MODELS)
    parser.add_argument("--results", type=Path, default=HERE / "results")
    parser.add_argument("--runs", type=Path, default=Path("runs/release"))
    parser.add_argument("--config", type=Path, default=HERE / "released.yaml")
    parser.add_argument("--bf16", action="store_true", help="compute in bf16 on a CPU that has instructions for it")
    options = parser.parse_args(argv)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    settings = yaml.safe_load(options.config.read_text())
    if options.name not in settings:
        raise SystemExit(f"NAME must be one of {sorted(settings)}, got {options.name!r}")
    train(options.name, settings[options.name], options)


if __name__ == "__main__":
    main()
