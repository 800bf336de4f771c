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
import phantom_report
import real
from neurokd.models.storage import RELEASED, WEIGHTS
from study import HERE, in_bf16, machine

CARD = "README.md"
LICENCES = {
    "vit_small_patch14_dinov2.saliency": "The licence of those is not stated: the package that carries them is MIT, "
    "and DINOv2, of which they are a fine-tuned copy, is Apache-2.0.",
}


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
        "teacher": model.config.teacher,
        "best_step": done.best_step,
        "validation_dice": done.best_dice,
        "seconds": round(time.perf_counter() - start),  # of the last piece if it was resumed
        "bf16": options.bf16,
        "machine": machine(),
    }
    file = options.results / f"release_{name}.json"
    file.write_text(json.dumps(made, indent=1) + "\n")


def text_of_card(name: str, options: argparse.Namespace) -> str:
    """Return the card of a model, from what was noted when it was made and from its scores.

    Raises
    ------
    ValueError
        If the scores are those of other weights, or the licence of the teacher is not known.
    """
    made = json.loads((options.results / f"release_{name}.json").read_text())
    methods = real.read(options.results / "real.json")
    phantoms = json.loads((options.results / "phantoms.json").read_text())
    for file, scored in (("real.json", methods[name]["made"]), ("phantoms.json", phantoms["models"][name])):
        if scored["sha256"] != made["sha256"]:
            raise ValueError(f"{file} must hold scores of {made['sha256']}, got those of {scored['sha256']}")
    settings = made["settings"]
    world = nkd.World()
    origin, licence = "It began from random weights.", "The weights are derived from no weights of others."
    if "teacher" in settings:
        origin = f"It began from a 2D teacher that learnt from photographs: {made['teacher']}."
        licence = f"The weights are derived from those of the 2D teacher. {known_licence(made['teacher'])}"
    rivals = {key: entry for key, entry in methods.items() if key == name or key in real.METHODS}
    return (
        (HERE / "release_card.md")
        .read_text()
        .format(
            name=name,
            millions=made["parameters"] / 1e6,
            megabytes=made["bytes"] / 1e6,
            real=real.tables(rivals),
            phantoms=phantom_report.page(_only(phantoms, name)).strip(),
            scenes=settings["scenes"]["n"],
            validation=settings["validation"]["n"],
            crop=" x ".join(map(str, settings["training"]["crop"])),
            steps=settings["training"]["steps"],
            voxel="{:g} to {:g}".format(*world.voxel),
            z_step="{:g} to {:g}".format(*world.z_step),
            tallest=world.z_step[1],
            radius="{:g} to {:g}".format(*world.radius),
            threshold=made["threshold"],
            dice=made["validation_dice"],
            best_step=made["best_step"],
            bf16=" --bf16" if made["bf16"] else "",
            sha256=made["sha256"],
            origin=origin,
            licence=licence,
        )
    )


def known_licence(teacher: str) -> str:
    """Return what is known of the licence of a teacher, named as in a model's settings."""
    name = teacher.split()[0]
    if name not in LICENCES:
        raise ValueError(f"the teacher must be one of LICENCES, got {name!r}: find out its licence and add it")
    return LICENCES[name]


def _only(phantoms: dict, name: str) -> dict:
    """Return the results of the filters and of one model."""
    others = set(phantoms["models"]) - {name}
    kept = [method for method in phantoms["methods"] if method not in others]
    return phantoms | {"methods": kept, "cpu_seconds": {key: phantoms["cpu_seconds"][key] for key in kept}}


def _shaped(data: dict) -> dict:
    """Return settings of scenes with a tuple for a shape."""
    return data | {"shape": tuple(data["shape"])}


def main(argv: list[str] | None = None) -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("action", choices=("train", "card"))
    parser.add_argument("name", help="a model of released.yaml")
    parser.add_argument("--out", type=Path, default=RELEASED)
    parser.add_argument("--results", type=Path, default=HERE / "results")
    parser.add_argument("--runs", type=Path, default=Path("runs/release"))
    parser.add_argument("--config", type=Path, default=HERE / "released.yaml")
    parser.add_argument("--bf16", action="store_true", help="compute in bf16 on a CPU that has instructions for it")
    options = parser.parse_args(argv)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    settings = yaml.safe_load(options.config.read_text())
    if options.name not in settings:
        raise SystemExit(f"NAME must be one of {sorted(settings)}, got {options.name!r}")
    if options.action == "train":
        train(options.name, settings[options.name], options)
    else:
        (options.out / options.name / CARD).write_text(text_of_card(options.name, options))


if __name__ == "__main__":
    main()
