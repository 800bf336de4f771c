"""Make `neurokd-tiny`, the model that comes with the package: weights, scores beside those of its teacher, card.

    simulated neurons ──► crops ─┬─► small, frozen ──► probabilities ─┐
                                 ├─► tiny ──► logits ─────────────────┴─► weight x KL ──┐
                                 └─► true masks ──────────────────────► Dice + CE ──────┴─► float16 ──► scores, card

    python benchmarks/release.py train --from FOLDER    # train, write the model, then as `card`
    python benchmarks/release.py card --from FOLDER     # scores and card alone

FOLDER holds a ``small`` segmenter, written by ``save_pretrained``. The tiny one learns on neurons of its own, which are
in no part of the study; its threshold is chosen on the study's validation neurons, and both models are then scored as
they are stored on the study's test neurons. A run that was stopped goes on from its last checkpoint (``--runs``). What
is there is replaced with ``--overwrite`` only.
"""

from __future__ import annotations

import argparse
import json
import logging
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pooch
import torch
import yaml

import neurokd as nkd
from study import HERE, PARTS, at_hand, in_bf16, machine, merged, neurons, scores
from study_tables import ROWS, heading

PART = 9  # of a seed's ten streams
assert PART not in PARTS.values(), f"stream {PART} is one of the study's"
SIZE = {"dim": 192, "depth": 6, "heads": 3, "width": 16, "decoder": "hybrid", "ridges": (1.0, 2.0), "token": (4, 8, 8)}
SHOWN = ("average_precision", "dice", "cldice", "hd95", "length_f1")
ASKED = ("neurons", "steps", "lr", "weight", "temperature", "seed")  # arguments that the card repeats
LICENCES = {
    "vit_small_patch14_dinov2.saliency": "The licence of those is not stated: the package that carries them is MIT, "
    "and DINOv2, of which they are a fine-tuned copy, is Apache-2.0.",
}
WEIGHTS, CARD = "model.safetensors", "README.md"


def own_neurons(data: dict, n: int) -> list[nkd.Sample]:
    """Return neurons that are in no part of the study."""
    return nkd.simulated_neurons(n, seed=10 * data["seed"] + PART, shape=tuple(data["shape"]))


def described(folder: Path, model: nkd.NeuronSegmenter) -> dict:
    """Return what identifies a stored model."""
    return {
        "sha256": pooch.file_hash(str(folder / WEIGHTS)),
        "bytes": (folder / WEIGHTS).stat().st_size,
        "parameters": sum(p.numel() for p in model.parameters()),
        "threshold": model.config.threshold,
        "inflation": model.config.inflation,
        "teacher": model.config.teacher,
    }


def train(settings: dict, options: argparse.Namespace) -> None:
    """Train the tiny segmenter, write it as float16, and note how it was made."""
    small = nkd.NeuronSegmenter.from_pretrained(options.origin)
    known = described(options.origin, small)
    crop = tuple(settings["training"]["crop"])
    generator = torch.Generator().manual_seed(options.seed)
    tiny = nkd.NeuronSegmenter.from_scratch(window=crop, generator=generator, **SIZE)
    config = nkd.TrainConfig(
        steps=options.steps,
        batch_size=1,
        crop=crop,
        lr=options.lr,
        validate_every=min(options.validate_every, options.steps),
        seed=options.seed,
    )
    if settings["cpu_bf16"]:
        small, tiny = in_bf16(small), in_bf16(tiny)
    targets = nkd.SoftTargets(small, weight=options.weight, temperature=options.temperature)
    start = time.perf_counter()
    done = nkd.train(
        tiny,
        own_neurons(settings["data"], options.neurons),
        neurons(settings["data"], "validation"),
        options.runs,
        config=config,
        distillation=targets,
        resume=True,
    )
    tiny.set_threshold(done.threshold)
    origin = f", itself made from {small.config.teacher}" if small.config.teacher else ""
    tiny.config = replace(tiny.config, teacher=f"probabilities of a segmenter (sha256 {known['sha256'][:12]}){origin}")
    (options.out / CARD).unlink(missing_ok=True)
    tiny.half().save_pretrained(options.out, overwrite=options.overwrite)
    made = {
        "name": options.out.name,
        "tiny": described(options.out, tiny),
        "small": known,
        "made_with": {name: getattr(options, name) for name in ASKED}
        | {"crop": crop, "data": settings["data"], "cpu_bf16": settings["cpu_bf16"]},
        "training": {
            "best_step": done.best_step,
            "validation_dice": done.best_dice,
            "seconds": round(time.perf_counter() - start),  # of the last piece if it was resumed
            "machine": machine(),
        },
    }
    write(options.results, made)


def write(file: Path, results: dict) -> None:
    """Write results as JSON."""
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(results, indent=1) + "\n")


def card(settings: dict, options: argparse.Namespace) -> None:
    """Score both models as they are stored, and write the results and the card."""
    results, models = json.loads(options.results.read_text()), {}
    for name, folder in {"tiny": options.out, "small": options.origin}.items():
        models[name] = nkd.NeuronSegmenter.from_pretrained(folder)
        if (found := described(folder, models[name])["sha256"]) != results[name]["sha256"]:
            raise SystemExit(f"{folder} has weights {found}, but {options.results} is of {results[name]['sha256']}")
    results |= {"scores": evaluated(models, settings["data"]), "machine": machine()}
    write(options.results, results)
    (options.out / CARD).write_text(text_of_card(results))


def evaluated(models: dict[str, nkd.NeuronSegmenter], data: dict) -> dict[str, dict[str, list[dict]]]:
    """Return the scores of every volume by method and row, beside the best intensity threshold on validation."""
    validation = neurons(data, "validation")
    bright = nkd.best_threshold([nkd.scale_intensity(s.volume) for s in validation], [s.mask for s in validation])
    found: dict[str, dict[str, list[dict]]] = {name: {} for name in ("threshold", *models)}
    for row, samples in at_hand(data)[0].items():
        for sample in samples if row != "real" else []:  # the card is about simulated microscopes
            for name in found:
                start, cpu = time.perf_counter(), time.process_time()
                model = models.get(name)
                chance = nkd.scale_intensity(sample.volume) if model is None else nkd.predict(model, sample.volume)
                taken = {"seconds": time.perf_counter() - start, "cpu_seconds": time.process_time() - cpu}
                level = bright if model is None else model.config.threshold
                record = {"name": sample.name} | {key: round(value, 2) for key, value in taken.items()}
                found[name].setdefault(row, []).append(record | scores(chance, level, sample))
            logging.info("%s %s scored", row, sample.name)
    return found


def table(results: dict) -> str:
    """Return the scores as a Markdown table: means over the volumes of a row."""
    heads = ["volumes", "n", "method", *(heading(key) for key in SHOWN), "CPU s a volume"]
    lines = [" | ".join(heads), " | ".join("---" for _ in heads)]
    for row, words in ROWS.items():
        for method, rows in results["scores"].items():
            if row not in rows:
                continue
            means = [f"{np.mean([volume[key] for volume in rows[row]]):.{nkd.SCORES[key].digits}f}" for key in SHOWN]
            cpu = np.mean([volume["cpu_seconds"] for volume in rows[row]])
            lines.append(" | ".join([words, str(len(rows[row])), method, *means, f"{cpu:.1f}"]))
    return "\n".join(f"| {line} |" for line in lines)


def text_of_card(results: dict) -> str:
    """Return the model card."""
    tiny, small, made = (results[part] for part in ("tiny", "small", "made_with"))
    if small["teacher"]:
        origin = (
            f"`small` began from a 2D teacher that learnt from photographs ({small['inflation']} inflation): "
            f"{small['teacher']}"
        )
        licence = (
            "The weights are derived, by distillation through `small`, from those of that 2D teacher. "
            f"{known_licence(small['teacher'])}"
        )
    else:
        origin = "`small` began from random weights, not from a 2D teacher"
        licence = "The weights are derived from no weights of others."
    dice = {name: np.mean([v["dice"] for v in results["scores"][name]["test"]]) for name in ("tiny", "small")}
    remark = (
        "`tiny` is better than the model that it learnt from: it saw more neurons, and more crops of them. What the "
        "soft targets add to that was not measured.\n\n"
    )
    return (
        (HERE / "release_card.md")
        .read_text()
        .format(
            name=results["name"],
            millions=tiny["parameters"] / 1e6,
            megabytes=tiny["bytes"] / 1e6,
            small_millions=small["parameters"] / 1e6,
            ratio=cpu_of(results, "small") / cpu_of(results, "tiny"),
            table=table(results),
            shape=" x ".join(map(str, made["data"]["shape"])),
            crop=" x ".join(map(str, made["crop"])),
            dice=results["training"]["validation_dice"],
            best_step=results["training"]["best_step"],
            threads=results["machine"]["threads"],
            torch=results["machine"]["torch"],
            commit=results["machine"]["commit"],
            sha256=tiny["sha256"],
            small_sha256=small["sha256"],
            origin=origin,
            licence=licence,
            remark=remark if dice["tiny"] > dice["small"] else "",
            arguments=" ".join(f"--{key} {made[key]}" for key in ASKED),
            **{key: made[key] for key in ASKED},
        )
    )


def known_licence(teacher: str) -> str:
    """Return what is known of the licence of a teacher, named as in a model's settings."""
    name = teacher.split()[0]
    if name not in LICENCES:
        raise SystemExit(f"a card says what is known of its teacher's licence; write that of {name!r} into LICENCES")
    return LICENCES[name]


def cpu_of(results: dict, method: str) -> float:
    """Return the mean processor time of a prediction."""
    return float(np.mean([volume["cpu_seconds"] for rows in results["scores"][method].values() for volume in rows]))


def main(argv: list[str] | None = None) -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("action", choices=("train", "card"))
    parser.add_argument("--from", dest="origin", type=Path, required=True, help="folder of the small segmenter")
    parser.add_argument("--out", type=Path, default=HERE.parent / "neurokd" / "weights" / "neurokd-tiny")
    parser.add_argument("--results", type=Path, default=HERE / "results" / "release.json")
    parser.add_argument("--runs", type=Path, default=Path("runs/release"))
    parser.add_argument("--neurons", type=int, default=64)
    parser.add_argument("--steps", type=int, default=2000)
    parser.add_argument("--lr", type=float, default=2e-3)
    parser.add_argument("--weight", type=float, default=1.0, help="of the soft targets")
    parser.add_argument("--temperature", type=float, default=1.0, help="of the soft targets")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--validate-every", type=int, default=200)
    parser.add_argument("--config", type=Path, default=HERE / "study.yaml")
    parser.add_argument("--preset", help="settings of the study over the others, such as 'tiny'")
    parser.add_argument("--overwrite", action="store_true", help="replace an earlier model, its scores and its card")
    options = parser.parse_args(argv)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    settings = yaml.safe_load(options.config.read_text())
    presets = settings.pop("presets")
    if options.preset:
        settings = merged(settings, presets[options.preset])
    replaced = [options.out, options.results] if options.action == "train" else [options.out / CARD]
    if there := [str(path) for path in replaced if path.exists() and not options.overwrite]:
        raise SystemExit(f"there already: {', '.join(there)}; --overwrite replaces it")
    if options.action == "train":
        train(settings, options)
    card(settings, options)


if __name__ == "__main__":
    main()
