"""How fast and how lean the snake convolution and the tubular embedding are.

    python benchmarks/tubular.py                                        # everything, tens of minutes on two cores
    python benchmarks/tubular.py --sizes 64 --channels 8 --kernels 3    # one line of it

The snake convolution is compared with one that gathers its samples voxel by voxel from 8 corners and convolves the
stretched volume, the form of DSCNet (Qi et al. 2023, arXiv:2307.08388), written here from the paper's formula. Both are
first checked to be equal, outputs and gradients. Every case runs in a process of its own, whose peak memory is that
of the case; a case that asks for more than the limit "does not fit". The tubular embedding is timed in training
steps of the ``small`` model, with and without it in turns. Times are medians; with one thread they are processor
time, so that what else runs on the machine hardly counts, with several they are wall time.

Writes ``tubular.json`` and ``tubular.md`` into ``--out``.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import time
from itertools import product
from pathlib import Path
from typing import get_args

import torch
from einops import rearrange
from torch import Tensor
from torch.nn import functional as F

from neurokd.models.choices import Reading
from neurokd.models.segmenter import NeuronSegmenter
from neurokd.models.snake import snake_coordinates
from neurokd.models.snake_conv import snake_conv3d
from neurokd.models.teacher import Teacher, TeacherSource
from neurokd.models.tube_kernel import TubeConfig
from neurokd.training.losses import dice_cross_entropy

GIB = 2**30


def gather_conv3d(volume: Tensor, offsets: Tensor, weight: Tensor, *, axis: str) -> Tensor:
    """The peer: rows of channels gathered at 8 corners, weighted, summed; K samples in a row, a convolution over them.

    Arguments as :func:`neurokd.models.snake_conv.snake_conv3d`. Indices are integers (DSCNet's are floats).
    """
    (b, _, *size), taps, number = volume.shape, weight.shape[2], "zyx".index(axis)
    places = snake_coordinates(offsets, axis)  # b k z y x 3
    rows = rearrange(volume, "b c z y x -> (b z y x) c")
    low, above = [], []
    for place, n in zip(places.unbind(-1), size, strict=True):
        place = place.clamp(0, n - 1)
        low.append(place.detach().floor().long())
        above.append(place - low[-1])
    sample = rearrange(torch.arange(b, device=volume.device), "b -> b 1 1 1 1")
    total = 0
    for corner in product((0, 1), repeat=3):
        z, y, x = ((i + up).clamp(max=n - 1) for i, up, n in zip(low, corner, size, strict=True))
        share = 1
        for fraction, up in zip(above, corner, strict=True):
            share = share * (fraction if up else 1 - fraction)
        index = ((sample * size[0] + z) * size[1] + y) * size[2] + x
        total = total + share.reshape(-1, 1) * rows.index_select(0, index.flatten())
    names = ["z", "y", "x"]
    names[number] = f"({names[number]} k)"
    sizes = dict(zip("zyx", size, strict=True))
    stretched = rearrange(total, f"(b k z y x) c -> b c {' '.join(names)}", b=b, k=taps, **sizes)
    shape = [1, 1, 1]
    shape[number] = taps
    return F.conv3d(stretched, weight.reshape(*weight.shape[:2], *shape), stride=shape)


METHODS = {"ours": snake_conv3d, "gather": gather_conv3d}


def check_equal() -> None:
    """Compare outputs and gradients of the two in float64, on every axis; AssertionError where they differ."""
    torch.manual_seed(0)
    for axis, taps in product("zyx", (3, 9)):
        shapes = (2, 3, 9, 10, 11), (2, 2, taps - 1, 9, 10, 11), (4, 3, taps)
        inputs = [torch.randn(shape, dtype=torch.float64, requires_grad=True) for shape in shapes]
        outputs = [method(*inputs, axis=axis) for method in METHODS.values()]
        grad = torch.randn_like(outputs[0])
        results = [(out, *torch.autograd.grad(out, inputs, grad)) for out in outputs]
        for one, other in zip(*results, strict=True):
            torch.testing.assert_close(one, other, rtol=0, atol=1e-9)


def seconds() -> float:
    """Read the clock: processor time where one thread computes, else wall time."""
    return time.process_time() if torch.get_num_threads() == 1 else time.perf_counter()


def resident_bytes(*, restart: bool = False) -> int:
    """Return the largest resident size of this process since the last restart (Linux; elsewhere since it began)."""
    status = Path("/proc/self/status")
    if not status.exists():
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak if sys.platform == "darwin" else peak * 1024
    if restart:
        Path("/proc/self/clear_refs").write_text("5")  # proc(5): the peak is set to what is resident now
    line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) * 1024


def run_case(method: str, size: int, channels: int, taps: int, axis: str, *, repeats: int, limit: float) -> dict:
    """Time forward and backward of one setting, and measure what it adds to the memory of this process."""

    def make(n: int) -> list[Tensor]:
        shapes = (1, channels, n, n, n), (1, 2, taps - 1, n, n, n), (channels, channels, taps)
        volume, offsets, weight = (torch.randn(shape) for shape in shapes)
        return [volume.requires_grad_(), offsets.tanh_().requires_grad_(), weight.requires_grad_()]

    def step(inputs: list[Tensor]) -> tuple[float, float]:
        start = seconds()
        out = METHODS[method](*inputs, axis=axis)
        middle = seconds()
        out.backward(torch.ones_like(out))
        return middle - start, seconds() - middle

    torch.manual_seed(0)
    step(make(8))  # libraries and thread pools are loaded before anything is measured
    if sys.platform == "linux":
        virtual = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (virtual + int(limit * GIB),) * 2)
    before, inputs, times = resident_bytes(restart=True), make(size), []
    for _ in range(repeats):
        for x in inputs:
            x.grad = None
        times.append(step(inputs))
    forward, backward = (statistics.median(column) for column in zip(*times, strict=True))
    total = statistics.median(map(sum, times))
    peak = (resident_bytes() - before) / GIB
    return {"forward_s": forward, "backward_s": backward, "total_s": total, "peak_gib": peak}


def run_step(reading: str, *, repeats: int) -> dict:
    """Time training steps of the ``small`` model without and with tubes in turns, one crop of 16 x 96 x 96 voxels."""
    import timm

    torch.manual_seed(0)
    vit = timm.create_model("vit_small_patch14_dinov2", pretrained=False, num_classes=0, dynamic_img_size=True)
    source = TeacherSource(name="random", kind="file", detail="random weights, for timing only", sha256="0" * 64)
    teacher = Teacher(vit, mean=(0.5,) * 3, std=(0.5,) * 3, source=source)
    image, mask = torch.rand(1, 1, 16, 96, 96), torch.rand(1, 1, 16, 96, 96) > 0.99
    loss, models, times = dice_cross_entropy(), {}, {"plain": [], "tube": []}
    for name, tube in (("plain", None), ("tube", TubeConfig(reading=reading))):
        model = NeuronSegmenter.from_teacher(teacher, preset="small", tube=tube)
        models[name] = model, torch.optim.AdamW(model.parameters(), lr=1e-5)
    for turn in range(repeats + 1):
        for name, (model, optimizer) in models.items():
            start = seconds()
            loss(model(image), mask).backward()
            optimizer.step()
            optimizer.zero_grad()
            if turn:  # the first is a warm-up
                times[name].append(seconds() - start)
    plain, tube = (statistics.median(values) for values in times.values())
    ratio = statistics.median(b / a for a, b in zip(*times.values(), strict=True))
    return {"plain_s": plain, "tube_s": tube, "ratio": ratio}


def in_process_of_its_own(case: dict, *, threads: int, patience: float) -> dict:
    """Run this script for one case; return its result, or why there is none."""
    environment = os.environ | {"OMP_NUM_THREADS": str(threads), "CUDA_VISIBLE_DEVICES": ""}
    command = [sys.executable, __file__, "--case", json.dumps(case)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=patience)
    except subprocess.TimeoutExpired:
        return {"failed": f"more than {patience:.0f} s"}
    if done.returncode == 0:
        return json.loads(done.stdout.splitlines()[-1])
    out_of_memory = done.returncode < 0 or any(
        w in done.stderr for w in ("allocate memory", "MemoryError", "bad_alloc")
    )
    if not out_of_memory:
        raise RuntimeError(f"{case} failed:\n{done.stderr}")
    return {"failed": "does not fit"}


def table(results: list[dict]) -> str:
    """Return the comparison as Markdown, a line per setting."""
    lines = [
        "| voxels | channels | K | gather: s | GiB | ours: s (forward + backward) | GiB | faster | memory |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for row in results:
        ours, gather = row["ours"], row["gather"]
        own = f"{ours['total_s']:.2f} ({ours['forward_s']:.2f} + {ours['backward_s']:.2f}) | {ours['peak_gib']:.2f}"
        theirs, ratios = f"{gather.get('failed')} | ", " | "
        if "failed" not in gather:
            theirs = f"{gather['total_s']:.2f} | {gather['peak_gib']:.2f}"
            faster, memory = gather["total_s"] / ours["total_s"], ours["peak_gib"] / gather["peak_gib"]
            ratios = f"{faster:.1f} x | 1/{1 / memory:.1f}"
        lines.append(f"| {row['size']}³ | {row['channels']} | {row['taps']} | {theirs} | {own} | {ratios} |")
    return "\n".join(lines)


def step_table(results: dict[str, dict]) -> str:
    """Return the training steps as Markdown, a line per reading."""
    lines = ["| reading | step without, s | step with, s | added |", "|---|---|---|---|"]
    for reading, r in results.items():
        lines.append(f"| {reading} | {r['plain_s']:.2f} | {r['tube_s']:.2f} | {100 * (r['ratio'] - 1):+.1f} % |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sizes", type=int, nargs="*", default=[64, 128], help="edges of the cubes, in voxels")
    parser.add_argument("--channels", type=int, nargs="*", default=[8, 16, 32])
    parser.add_argument("--kernels", type=int, nargs="*", default=[3, 5, 9])
    parser.add_argument("--axis", default="x", help="of the tubes; x is the one whose planes lie worst in memory")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--steps", type=int, default=7, help="pairs of training steps per reading; 0 for none")
    parser.add_argument("--limit", type=float, default=16.0, help="GiB beyond which a case does not fit")
    parser.add_argument("--patience", type=float, default=1800.0, help="seconds after which a case is given up")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path, default=Path("runs/benchmarks"))
    parser.add_argument("--case", type=json.loads, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.case:
        run = {"conv": run_case, "step": run_step}[options.case.pop("kind")]
        print(json.dumps(run(**options.case)))
        return

    check_equal()
    print("outputs and gradients of both are equal", flush=True)
    common, rows, steps = {"threads": options.threads, "patience": options.patience}, [], {}
    for size, channels, taps in product(options.sizes, options.channels, options.kernels):
        row = {"size": size, "channels": channels, "taps": taps}
        case = {"kind": "conv", "axis": options.axis, "repeats": options.repeats, "limit": options.limit, **row}
        row |= {method: in_process_of_its_own(case | {"method": method}, **common) for method in METHODS}
        rows.append(row)
        print(table(rows).splitlines()[-1], flush=True)
    for reading in get_args(Reading) if options.steps else ():
        case = {"kind": "step", "reading": reading, "repeats": options.steps}
        steps[reading] = in_process_of_its_own(case, **common)
        print(step_table(steps).splitlines()[-1], flush=True)

    machine = {"machine": platform.machine(), "torch": torch.__version__, "threads": options.threads}
    options.out.mkdir(parents=True, exist_ok=True)
    everything = {"setting": machine, "axis": options.axis, "convolution": rows, "training_step": steps}
    (options.out / "tubular.json").write_text(json.dumps(everything, indent=1) + "\n")
    (options.out / "tubular.md").write_text(f"{table(rows)}\n\n{step_table(steps)}\n")
    print(f"written to {options.out}")


if __name__ == "__main__":
    main()
