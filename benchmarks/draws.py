"""Draw the picture of the book's page on the simulator: 24 scenes, each under its own microscope, beside real stacks.

NEUROKD_DATA=... python benchmarks/draws.py    # writes book/figures/draws.png
"""

from __future__ import annotations

import argparse
from pathlib import Path

import matplotlib
import numpy as np

import neurokd as nkd
from study import HERE, files

matplotlib.use("Agg")
SIDE, DEEP = 112, 32
SHOWN, FAILED = 2027, 2025  # seeds of the simulated volumes that are shown


def drawn(n: int) -> list[tuple[np.ndarray, np.ndarray, str]]:
    """Return a volume, its mask and a caption of n scenes."""
    seen = []
    for i, scene in enumerate(nkd.drawn_scenes(n, seed=2024, shape=(48, 128, 128))):
        rng = np.random.default_rng([2024, i])
        look = scene.expose(rng, (slice(8, 8 + DEEP), slice(8, 8 + SIDE), slice(8, 8 + SIDE)))
        z_step = scene.spacing[0] / scene.spacing[2]
        seen.append((look.volume, look.mask, f"{scene.spacing[2]:.2f} µm, z {z_step:.1f}x"))
    return seen


def real() -> list[tuple[np.ndarray, str]]:
    """Return the fullest part of each real stack, and its name."""
    parts = []
    for path in [*files("real/*.tif", "see the book"), *files("axons/*_0_volume.tif", ""), *files("worm/*.tif", "")]:
        volume = nkd.read_volume(path)
        bright = np.argwhere(volume > np.quantile(volume, 0.999))
        corner = np.median(bright, axis=0).astype(int) - np.array([DEEP, SIDE, SIDE]) // 2
        corner = np.clip(corner, 0, np.maximum(0, np.array(volume.shape) - [DEEP, SIDE, SIDE]))
        window = tuple(slice(a, a + n) for a, n in zip(corner, (DEEP, SIDE, SIDE), strict=True))
        parts.append((volume[window], path.stem.replace("_volume", "").replace("_", " ")))
    return parts


def figure(n: int) -> matplotlib.figure.Figure:
    """Return the picture: pairs of image and mask, and a last row of real stacks."""
    from matplotlib import pyplot as plt

    columns, scenes, stacks = 6, drawn(n), real()
    rows = -(-n // columns)
    fig = plt.figure(figsize=(12, 1.22 * rows + 2.2), layout="constrained")
    grid = fig.add_gridspec(rows + 1, 2 * columns, height_ratios=[1] * rows + [1.9])
    for k, (volume, mask, caption) in enumerate(scenes):
        for side, picture in enumerate((np.sqrt(nkd.scale_intensity(volume).max(0)), mask.max(0))):
            axes = fig.add_subplot(grid[k // columns, 2 * (k % columns) + side])
            axes.imshow(picture, cmap="gray", vmin=0, vmax=1)
            axes.set_axis_off()
            if not side:
                axes.set_title(caption, fontsize=7, loc="left")
    for k, (volume, name) in enumerate(stacks[:columns]):
        axes = fig.add_subplot(grid[rows, 2 * k : 2 * k + 2])
        axes.imshow(np.sqrt(nkd.scale_intensity(volume).max(0)), cmap="gray", vmin=0, vmax=1)
        axes.set_title(f"real: {name}", fontsize=8, loc="left")
        axes.set_axis_off()
    return fig


def found(sample: nkd.Sample, reference: str) -> matplotlib.figure.Figure:
    """Return a stack, its truth, what `neurokd-tiny` finds in it, and the tree."""
    model = nkd.NeuronSegmenter.from_pretrained("neurokd-tiny")
    probability = nkd.predict(model, sample.volume)
    tree = nkd.trace(probability, threshold=model.config.threshold)
    mask = nkd.rasterise(sample.tree, sample.volume.shape) if sample.mask is None else sample.mask
    marked = probability > model.config.threshold
    return nkd.plot_comparison(sample.volume, mask, marked, tree, spacing=sample.spacing, truth_name=reference)


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=HERE.parent / "book" / "figures")
    parser.add_argument("-n", type=int, default=24, help="scenes")
    options = parser.parse_args()
    figure(options.n).savefig(options.out / "draws.png", dpi=110)
    found(nkd.fly_neuron(), "automatic trace").savefig(options.out / "fly.png", dpi=150)
    for name, seed in {"simulated.png": SHOWN, "vessels.png": FAILED}.items():
        sample = nkd.simulated_neurons(1, seed=seed, shape=(64, 144, 144), draw=True)[0]
        found(sample, "truth").savefig(options.out / name, dpi=150)


if __name__ == "__main__":
    main()
