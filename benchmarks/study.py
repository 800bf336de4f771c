"""Does 2D knowledge help 3D neurons, by how much, and when not? Every cell of every table, one JSON file each.

    python benchmarks/study.py list                                  # all cells, and which are done
    python benchmarks/study.py run headline --jobs 2                 # train what is missing of a table
    python benchmarks/study.py run headline --arm center --seed 1    # one cell
    python benchmarks/study.py test headline                         # once all its cells are trained
    python benchmarks/study.py export release                        # trained models as folders for from_pretrained

A cell is an arm (a model and how it begins), trained on so many volumes with one seed; tables share cells. All cells
of a seed see the same crops in the same order. Training looks at the validation neurons only; ``test`` is for the end,
and refuses to begin while a cell of the table is not trained. Settings are in ``study.yaml``, results in the package's
``results/study/``, where `neurokd.load_study` reads them. A result is never overwritten, and one that was made with
other settings is an error. A cell that was stopped goes on from its last checkpoint (``--runs``).
``benchmarks/study_tables.py`` makes the tables and figures.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import replace
from itertools import product
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from scipy import ndimage
from skimage import filters
from torch import Tensor, nn
from torch.nn import functional as F

import neurokd as nkd
from neurokd.data.growth import VOXEL
from neurokd.data.simulate import largest_part, place

HERE = Path(__file__).parent
PARTS = {"train": 0, "validation": 1, "test": 2, "shifted": 2}  # each part has a stream of its own
ROWS = ("test", "shifted", "flies", "real")


class Padded(nn.Module):
    """A network of MONAI's on crops of any size: they halve every axis several times, so crops are padded with zeros.

    Parameters
    ----------
    network
        Name of a class in `monai.networks.nets`.
    multiple
        Number whose multiples the sizes must be.
    crop
        Size (z, y, x) of the crops, for networks made for one size (`img_size: crop` among the settings).
    ridges
        Scales of the curvatures that the network sees beside the volume, as our hybrid decoder can.
    settings
        Settings of the network.
    """

    def __init__(
        self,
        network: str,
        crop: tuple[int, int, int],
        *,
        multiple: int = 16,
        ridges: Sequence[float] = (),
        **settings: Any,
    ) -> None:
        super().__init__()
        from monai.networks import nets

        if settings.get("img_size") == "crop":
            settings["img_size"] = [size + -size % multiple for size in crop]
        self.multiple = multiple
        self.ridges = nkd.HessianRidges(ridges)
        made = getattr(nets, network)
        self.net = made(spatial_dims=3, in_channels=self.ridges.channels, out_channels=1, **settings)
        last = [m for m in self.net.modules() if isinstance(m, nn.Conv3d) and m.out_channels == 1][-1]
        nn.init.constant_(last.bias, -4.6)  # as our own models: the share of foreground

    def forward(self, volume: Tensor) -> Tensor:
        """Map ``b 1 z y x`` to logits of that shape."""
        z, y, x = volume.shape[2:]
        missing = [-size % self.multiple for size in (z, y, x)]
        return self.net(F.pad(self.ridges(volume), [0, missing[2], 0, missing[1], 0, missing[0]]))[..., :z, :y, :x]


def in_bf16(model: nn.Module) -> nn.Module:
    """Make a model compute in bf16 on a CPU, which on those that have instructions for it takes a half to a quarter.

    Convolutions of few voxels stay in float32: their weight gradients come out wrong in bf16 (torch 2.15, AMD EPYC),
    and they cost little. A test compares all gradients with those of float32.
    """

    def careful(forward: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
        def run(x: Tensor) -> Tensor:
            with torch.autocast("cpu", torch.bfloat16, enabled=x[0, 0].numel() > 1024):
                return forward(x if x[0, 0].numel() > 1024 else x.float())

        return run

    for module in model.modules():
        if isinstance(module, nn.Conv3d):
            module.forward = careful(module.forward)
    name = "forward_with_tokens" if hasattr(model, "forward_with_tokens") else "forward"
    setattr(model, name, torch.autocast("cpu", torch.bfloat16)(getattr(model, name)))
    return model


def merged(base: dict, changes: dict) -> dict:
    """Return a dict with another's values over it, dicts inside merged alike."""
    both = {
        k: merged(base[k], v) if isinstance(v, dict) and isinstance(base.get(k), dict) else v
        for k, v in changes.items()
    }
    return base | both


def neurons(data: dict, part: str, n: int | None = None) -> list[nkd.Sample]:
    """Return the first n neurons of a part; which they are does not depend on n."""
    if part in ("flies", "real"):
        return flies(data) if part == "flies" else real(data)
    microscope = None
    if part == "shifted":
        usual, shift = nkd.Microscope(), data["shifted"]
        microscope = replace(
            usual,
            psf_sigma=tuple(shift["psf"] * s for s in usual.psf_sigma),
            photons=shift["photons"] * usual.photons,
            blobs=shift["blobs"] * usual.blobs,
        )
    n = data["test" if part == "shifted" else part] if n is None else n
    seed = 10 * data["seed"] + PARTS[part]
    return nkd.simulated_neurons(n, seed=seed, shape=tuple(data["shape"]), microscope=microscope)


def files(pattern: str, source: str) -> list[Path]:
    """Return files in the folder NEUROKD_DATA, in order.

    Raises
    ------
    FileNotFoundError
        If there are none; says where they are to be had.
    """
    folder = os.environ.get("NEUROKD_DATA")
    found = sorted(Path(folder).glob(pattern)) if folder else []
    if not found:
        raise FileNotFoundError(f"no {pattern} in the folder that NEUROKD_DATA names; {source}")
    return found


def flies(data: dict) -> list[nkd.Sample]:
    """Render parts of neurons that people traced."""
    source = "they are written by nat, natverse.org: write.neurons(Cell07PNs, dir='swc_fly', format='swc')"
    samples = []
    for number, path in enumerate(files("swc_fly/*.swc", source)[: data["flies"]]):
        rng = np.random.default_rng([data["seed"], number])
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # some of these files need the root mended
            tree = nkd.read_swc(path, repair=True)
        tree = place(rng, tree.scale([1 / VOXEL] * 3), data["shape"])  # µm to voxels of the simulator
        volume, mask = nkd.render(tree, data["shape"], rng)
        samples.append(nkd.Sample(path.stem, volume, mask, tree, (VOXEL, VOXEL, VOXEL)))
    return samples


def real(data: dict) -> list[nkd.Sample]:
    """Return the fullest part of each real stack; its "mask" is an automatic trace, one voxel thick."""
    source = "they are tests/data/*.tif with their traces, of github.com/RivuletStudio/rivuletpy"
    samples = []
    for path in files("real/*.tif", source):
        volume, tree = nkd.read_volume(path), nkd.read_swc(path.with_suffix(".swc"))
        size = np.minimum(data["shape"], volume.shape)
        bright = ndimage.uniform_filter((volume > 0).astype(np.float32), size, mode="constant")
        corner = np.clip(np.unravel_index(bright.argmax(), volume.shape) - size // 2, 0, volume.shape - size)
        end = corner + size
        part = largest_part(tree, ((tree.zyx >= corner) & (tree.zyx <= end - 1)).all(axis=1))
        part = part.translate(-corner[::-1])
        mask = nkd.rasterise(part, size)
        samples.append(nkd.Sample(path.stem, volume[tuple(map(slice, corner, end))], mask, part, (1.0, 1.0, 1.0)))
    return samples


def at_hand(data: dict) -> tuple[dict[str, list[nkd.Sample]], dict[str, str]]:
    """Return the samples of each row, and the reason for each row whose files, not ours to hand on, are missing."""
    samples, skipped = {}, {}
    for row in ROWS:
        try:
            samples[row] = neurons(data, row)
        except FileNotFoundError as error:
            skipped[row] = str(error)
    return samples, skipped


def build(arm: dict, settings: dict, crop: tuple[int, int, int], seed: int) -> tuple[nn.Module, dict]:
    """Make the untrained model of an arm, and what `nkd.train` gets beside it."""
    torch.manual_seed(seed)
    if "network" in arm:
        return Padded(arm["network"], crop, **arm.get("options", {})), {}
    teacher = nkd.load_teacher(arm.get("teacher", settings["teacher"]))
    wanted = merged(settings["student"], arm["student"]) | {"window": crop}
    if wanted.get("tube"):
        wanted["tube"] = nkd.TubeConfig(**wanted["tube"])
    generator = torch.Generator().manual_seed(seed)
    origin = nkd.shuffle_teacher(teacher, generator=generator) if arm.get("shuffled") else teacher
    model = nkd.NeuronSegmenter.from_teacher(origin, generator=generator, **wanted)
    if arm.get("random"):  # where scratch begins, but at the rate of transferred weights
        blank = nkd.NeuronSegmenter.from_teacher(origin, generator=generator, **wanted | {"inflation": "scratch"})
        model.vit.load_state_dict(blank.vit.state_dict())
    if arm.get("no_tokens"):  # what the convolutional path does alone
        for gate in model.decoder.gate:
            nn.init.zeros_(gate)
        for parameter in (*model.vit.parameters(), *model.decoder.gate):
            parameter.requires_grad_(False)
    if "distillation" not in arm:
        return model, {}
    config = nkd.DistillConfig(**arm["distillation"])
    return model, {"distillation": nkd.Distillation(teacher, model, config=config, generator=generator)}


def learns(arm: dict) -> bool:
    """Return whether an arm is a model to be trained; others have neither seeds nor training volumes."""
    return "network" in arm or "student" in arm


def response(arm: dict, volume: np.ndarray) -> np.ndarray:
    """Return what an arm that does not learn puts its threshold on: the intensity, or a ridge filter's answer to it."""
    grey = nkd.scale_intensity(volume)
    return filters.sato(grey, sigmas=arm["sato"], black_ridges=False) if "sato" in arm else grey


def made_with(cell: dict, settings: dict) -> dict:
    """Return every setting that a cell's result depends on."""
    arm = settings["arms"][cell["arm"]]
    data = {k: v for k, v in settings["data"].items() if k in ("seed", "shape", "validation")}
    if not learns(arm):
        return {"data": data, "arm": arm}
    training = settings["training"] | arm.get("training", {}) | {"seed": cell["seed"]}
    chosen = {"data": data, "training": training, "arm": arm, "cpu_bf16": settings["cpu_bf16"]}
    return chosen | ({"student": settings["student"], "teacher": settings["teacher"]} if "student" in arm else {})


def model_of(cell: dict, settings: dict) -> tuple[nn.Module, dict, nkd.TrainConfig]:
    """Return an arm's untrained model, what `nkd.train` gets beside it, and the settings of its training."""
    config = nkd.TrainConfig(**made_with(cell, settings)["training"])
    model, options = build(settings["arms"][cell["arm"]], settings, config.crop, cell["seed"])
    return in_bf16(model) if settings["cpu_bf16"] else model, options, config


def train_cell(cell: dict, settings: dict, folder: Path) -> dict:
    """Train one cell; of the neurons only those to train and to validate on are looked at."""
    validation = neurons(settings["data"], "validation")
    arm = settings["arms"][cell["arm"]]
    if not learns(arm):
        volumes, masks = [response(arm, s.volume) for s in validation], [s.mask for s in validation]
        threshold = nkd.best_threshold(volumes, masks)
        score = float(np.mean([nkd.dice(v > threshold, m) for v, m in zip(volumes, masks, strict=True)]))
        return {"validation_dice": score, "threshold": threshold}
    model, options, config = model_of(cell, settings)
    start, cpu = time.perf_counter(), time.process_time()
    done = nkd.train(
        model,
        neurons(settings["data"], "train", cell["volumes"]),
        validation,
        folder,
        config=config,
        resume=True,
        progress=False,
        **options,
    )
    return {
        "validation_dice": done.best_dice,
        "threshold": done.threshold,
        "best_step": done.best_step,
        "validations": [record for record in done.history if "val_dice" in record],
        "seconds": round(time.perf_counter() - start, 1),  # validations included; of the last piece if it was resumed
        "cpu_seconds": round(time.process_time() - cpu, 1),
        "parameters": sum(p.numel() for p in model.parameters()),
        "peak_gb": round(peak_memory(), 2),
    }


def test_cell(cell: dict, settings: dict, folder: Path, threshold: float) -> dict:
    """Segment and trace the test neurons with one trained cell."""
    arm = settings["arms"][cell["arm"]]
    if learns(arm):
        from safetensors.torch import load_file

        model, _, config = model_of(cell, settings)
        weights = folder / "best.safetensors"
        if not weights.is_file():
            raise FileNotFoundError(f"{weights} is missing; this cell was trained elsewhere: train it again with --out")
        model.load_state_dict(load_file(weights))
    samples_of, skipped = at_hand(settings["data"])
    rows = {}
    for row, samples in samples_of.items():
        rows[row] = []
        for sample in samples:
            start = time.process_time()
            if learns(arm):
                probability = nkd.predict(model, sample.volume, window=config.crop)
            else:
                probability = response(arm, sample.volume)
            cpu = time.process_time() - start
            rows[row].append(
                {"name": sample.name, "cpu_seconds": round(cpu, 2)} | scores(probability, threshold, sample)
            )
    return {"rows": rows, "skipped": skipped}


def export_cell(cell: dict, settings: dict, run: Path, threshold: float) -> Path:
    """Write the model of a trained cell beside its run, in the form that `NeuronSegmenter.from_pretrained` reads."""
    from safetensors.torch import load_file

    model, _, _ = model_of(cell, settings)
    model.load_state_dict(load_file(run / "best.safetensors"))
    model.set_threshold(threshold)
    return model.save_pretrained(run / "model")


def scores(probability: np.ndarray, threshold: float, sample: nkd.Sample) -> dict:
    """Return the scores of one volume and of the tree that the tracer makes of it."""
    mask = probability > threshold
    tree = nkd.trace(probability, threshold=threshold) if mask.any() else None
    tree_scores = nkd.compare_trees(tree, sample.tree)
    return {
        "average_precision": nkd.average_precision(probability, sample.mask),
        **nkd.evaluate_masks(mask, sample.mask, spacing=sample.spacing),
        **{name: tree_scores[name] for name in ("length_precision", "length_recall", "length_f1", "esa", "dsa", "pds")},
    }


def peak_memory() -> float:
    """Return the most memory that this process ever held, 1e9 bytes."""
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024) / 1e9


def machine() -> dict:
    """Return where a result was made: commit, libraries, threads."""
    ask = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, cwd=HERE)
    return {
        "commit": ask.stdout.strip() or None,
        "neurokd": nkd.__version__,
        "torch": torch.__version__,
        "python": platform.python_version(),
        "threads": torch.get_num_threads(),
    }


def cells(settings: dict, name: str) -> Iterator[dict]:
    """Yield the cells of a table."""
    table = settings["tables"][name]
    for volumes, seed, arm in product(table["volumes"], table["seeds"], table["arms"]):
        if learns(settings["arms"][arm]) or (volumes, seed) == (table["volumes"][0], table["seeds"][0]):
            yield {"arm": arm, "volumes": volumes, "seed": seed}


def key_of(cell: dict) -> str:
    """Return a cell's name."""
    return f"{cell['arm']}-v{cell['volumes']}-s{cell['seed']}"


def work(cell: dict, settings: dict, out: Path, runs: Path, threads: int, *, testing: bool) -> str:
    """Do one cell and write its file; runs in a process of its own."""
    torch.set_num_threads(threads)
    key, folder = key_of(cell), runs / key_of(cell)
    file = out / f"{key}.json"
    if testing:
        trained = json.loads(file.read_text())
        result, file = test_cell(cell, settings, folder, trained["threshold"]), file.with_suffix(".test.json")
        said = ", ".join(
            f"{row} {np.mean([r['dice'] for r in rows]):.4f}" for row, rows in result["rows"].items() if rows
        )
    else:
        result = train_cell(cell, settings, folder)
        said = f"validation {result['validation_dice']:.4f}"
    file.parent.mkdir(parents=True, exist_ok=True)
    record = cell | result | {"made_with": made_with(cell, settings), "machine": machine()}
    with file.open("x") as stream:
        stream.write(json.dumps(record, indent=1) + "\n")
    return f"{key}: Dice {said}"


def state_of(cell: dict, settings: dict, out: Path) -> str:
    """Return "missing", "trained" or "tested"; a result of other settings is an error."""
    file = out / f"{key_of(cell)}.json"
    if not file.exists():
        return "missing"
    if json.loads(file.read_text())["made_with"] != made_with(cell, settings):
        raise SystemExit(f"{file} was made with other settings; move it away, or put the settings back")
    return "tested" if file.with_suffix(".test.json").exists() else "trained"


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("action", choices=("list", "run", "test", "export"))
    parser.add_argument("table", nargs="?", help="one of the tables in the settings; all where none is named")
    parser.add_argument("--arm")
    parser.add_argument("--seed", type=int)
    parser.add_argument("--volumes", type=int)
    parser.add_argument("--jobs", type=int, default=1, help="cells at a time; each gets its share of the cores")
    parser.add_argument("--preset", action="append", default=[], help="settings over the others, such as 'gpu'")
    parser.add_argument("--config", type=Path, default=HERE / "study.yaml")
    parser.add_argument("--out", type=Path, default=HERE.parent / "neurokd" / "results" / "study")
    parser.add_argument("--runs", type=Path, default=Path("runs/study"))
    options = parser.parse_args()
    settings = yaml.safe_load(options.config.read_text())
    presets = settings.pop("presets")
    for name in options.preset:
        settings = merged(settings, presets[name])

    asked = {k: getattr(options, k) for k in ("arm", "seed", "volumes") if getattr(options, k) is not None}
    todo = {}
    for name in [options.table] if options.table else settings["tables"]:
        states = {key_of(c): (c, state_of(c, settings, options.out)) for c in cells(settings, name)}
        missing = [key for key, (_, state) in states.items() if state == "missing"]
        if options.action == "test" and missing:
            raise SystemExit(f"{name}: not all cells are trained, and the test neurons are for the end: {missing}")
        for key, (cell, state) in states.items():
            if all(cell[k] == v for k, v in asked.items()):
                print(f"{name} {key}: {state}", flush=True)
                if options.action == "export" and state != "missing" and "student" in settings["arms"][cell["arm"]]:
                    threshold = json.loads((options.out / f"{key}.json").read_text())["threshold"]
                    print(export_cell(cell, settings, options.runs / key, threshold))
                if state == {"run": "missing", "test": "trained"}.get(options.action):
                    todo[key] = cell  # once, though several tables may hold it
    if not todo:
        return
    threads = max(1, (os.cpu_count() or 1) // options.jobs)
    pool = ProcessPoolExecutor(options.jobs, mp_context=get_context("spawn"), max_tasks_per_child=1)
    with pool:
        jobs = [
            pool.submit(work, c, settings, options.out, options.runs, threads, testing=options.action == "test")
            for c in todo.values()
        ]
        for job in as_completed(jobs):
            print(job.result(), flush=True)


if __name__ == "__main__":
    main()
