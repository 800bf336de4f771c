# ---
# jupyter:
#   jupytext:
#     formats: ipynb,py:percent
# ---

# %% [markdown]
# # Your own stacks: from a folder to trees
#
# > **Question.** I have a folder of stacks and have traced one to five of the neurons in it. How do I get the trees of all the others, how good are they, and what do I do when one looks wrong?
# >
# > **Know first.** [The quickstart](00_quickstart.ipynb). [01 · Data loading](01_data_loading.ipynb) explains what the file of a tree does not say. [08 · Reconstruction](08_reconstruction.ipynb) explains the tracer's settings.
# >
# > **Takes.** 4 min on 2 CPU cores, 57 s in the short profile (`NEUROKD_PROFILE=ci`); 1.9 GB of memory. Downloads less than 1 MB.
#
# ```
# your folder ──check──► used, or not used and why
#     ├─ annotated ──► masks ──► train ──► student ──► held out: how good?
#     └─ the others ─────────────────────────┴────► probability ──► tree ──► Fiji, napari, Vaa3D
# ```
#
# Edit only the first cell of settings, then run all cells. Without an edit, the notebook makes an example folder and uses it for all steps. Your files are only read. All results go to a new folder, and its name is printed.

# %% jupyter={"source_hidden": true} tags=["colab", "hide-input"]
import sys

if "google.colab" in sys.modules:  # anywhere else this cell does nothing
    from google.colab import files
    from IPython import get_ipython

    print("Choose the wheel of neurokd; in a clone of the repository, `pip wheel --no-deps .` makes it.")
    (wheel,) = files.upload()
    get_ipython().run_line_magic("pip", f"install --quiet ./{wheel}")

# %%
# The one cell to edit.
STACKS = None  # your folder, such as "/data/june"; None makes an example folder
SPACING = None  # voxel size (z, y, x) in µm; or {"cell2": (0.5, 0.2, 0.2)} for some stacks; None: as the files say

# A stack and its annotation have the same name without their suffix; ("_raw.tif",) and ("_trace.swc",) would do, too.
STACK_SUFFIXES = None  # all that can be read: see nkd.FORMATS
SWC_SUFFIXES = (".swc",)
CHANNEL = None  # which one, from 0, where a file holds several

HOLD_OUT = 1  # annotated stacks to test on, never trained on
USE_ANYWAY = ()  # names of stacks whose annotation does not seem to fit, but you have looked, and it does
SOMA_RADIUS = 1.5  # µm; the thickest bright place of a stack is taken for the soma if it is thicker than that
START_FROM = "neurokd-tiny"  # a trained student to go on from, released or a folder of yours; None: the 2D teacher

# %%
import logging
import struct
from dataclasses import replace
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import tifffile
import torch
from scipy import ndimage
from skimage.graph import MCP_Geometric
from tqdm.auto import tqdm

import neurokd as nkd
from neurokd.profile import profile, run_folder

logging.getLogger("lightning_fabric.utilities.rank_zero").setLevel(logging.WARNING)
short = profile() == "ci"  # the same story with fewer and smaller things, for automatic tests
folder = run_folder("your-own-data")
example = STACKS is None
print("results go to", folder)

# %% [markdown]
# ## 1 · What is in the folder
#
# The example folder resembles that of a lab. It has simulated neurons in four kinds of files. One was traced in Vaa3D on a TIFF. One was traced in µm, with the same radius everywhere. One was not traced. One file was not copied completely. Only TIFF can state a voxel size, and not every TIFF does. If it is missing, an error asks for it:


# %% jupyter={"source_hidden": true} tags=["hide-input"]
def make_example(place):
    """Simulated neurons as files of several kinds; returns them by name."""
    shape = (40, 84, 84) if short else (64, 112, 112)
    growth = nkd.Growth(tips=14, tract=55, reach=9, arbors=1)  # small ones, so that their somata are in the stack
    neurons = nkd.simulated_neurons(5, seed=61, shape=shape, growth=growth)
    one, two, five, four, three = neurons
    file = nkd.write_volume(place / "cell1.tif", one.volume.astype(np.uint16) * 200, spacing=one.spacing)
    nkd.write_volume(place / "cell2.v3draw", two.volume)
    header = b"v3d_volume_pkbitdf_encod" + b"L" + struct.pack("<h4i", 1, *shape[::-1], 1)
    runs = np.insert(three.volume.reshape(-1, 32), 0, 31, axis=1)  # 31: what follows are 32 voxels as they are
    (place / "cell3.v3dpbd").write_bytes(header + runs.tobytes())
    nkd.write_volume(place / "cell4.tif", four.volume)
    nkd.write_volume(place / "cell5.tif", five.volume, spacing=five.spacing)
    (place / "cell6.tif").write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    nkd.write_swc(place / "cell1.swc", one.tree)
    nkd.write_swc(place / "cell2.v3draw.swc", two.tree)
    nkd.write_swc(place / "cell3.swc", three.tree.mirror("y", shape[1]))
    thick = replace(four.tree, radius=np.full(len(four.tree), 3.0))
    nkd.write_swc(place / "cell4.swc", thick.to_microns(four.spacing))
    return {f"cell{i}": neuron for i, neuron in enumerate((one, two, three, four, five), start=1)}


# %%
suffixes = {"stack_suffixes": STACK_SUFFIXES, "swc_suffixes": SWC_SUFFIXES}
if example:
    STACKS = folder / "stacks"
    true = make_example(STACKS)
    try:
        nkd.index_stacks(STACKS, **suffixes)
    except ValueError as error:
        print(error)
    SPACING = (0.38, 0.38, 0.38)  # the answer: all were imaged alike
stacks = nkd.index_stacks(Path(STACKS).expanduser(), spacing=SPACING, **suffixes)
wide = max(len(stack.name) for stack in stacks) + 2
for stack in stacks:
    size = "?" if stack.spacing is None else " x ".join(f"{length:.3g}" for length in stack.spacing)
    print(
        f"{stack.name:<{wide}}{stack.volume.name:<{wide + 8}}{stack.swc.name if stack.swc else '–':<{wide + 12}}{size} µm"
    )

# %% [markdown]
# The next cell reads every file once. It looks for faults that would spoil the training without an error. *At top* is the share of voxels that have the brightest value of the stack. If it is more than a few in a thousand, the stack is saturated. An annotation belongs to its stack if most of its nodes lie on bright voxels ([01 · Data loading](01_data_loading.ipynb)). `place_tree` tries the conventions of several programs, and says which one it found.


# %%
def check(stack):
    """A row of the table: what is in the files, whether they are used, and why."""
    row = {"stack": stack, "tree": None, "shape": None}
    try:
        volume = nkd.read_volume(stack.volume, channel=CHANNEL)
        nkd.scale_intensity(volume)  # an error, where there is nothing to see
    except ValueError as error:
        return row | {"use": "not used", "why": str(error).replace(str(stack.volume), stack.volume.name)}
    row |= {"shape": volume.shape, "type": volume.dtype, "seen": volume.max(axis=0, keepdims=True)}
    row |= {"percentiles": np.percentile(volume, (1, 50, 99.9)), "top": (volume == volume.max()).mean()}
    row |= {"zeros": (volume == 0).mean()}
    if stack.swc is None:
        return row | {"use": "to segment", "why": "not annotated"}
    try:
        tree, how, fit = nkd.place_tree(volume, nkd.read_swc(stack.swc, repair=True), spacing=stack.spacing)
    except ValueError as error:
        return row | {"use": "to segment", "why": f"annotation not used: {error}"}
    row["tree"], said = tree, f"{fit.bright:.0%} of {fit.nodes} nodes on bright voxels"
    if not (fit.fits or stack.name in USE_ANYWAY):
        return row | {"use": "to segment", "why": f"annotation not used, for it fits in no way: {said}"}
    return row | {"use": "annotated", "why": f"annotation read {how}: {said}"}


rows = [check(stack) for stack in tqdm(stacks, desc="reading")]
print(f"{'':<{wide}}{'z y x':<16}{'type':<9}{'1 %':>8}{'median':>8}{'99.9 %':>8}{'zeros':>8}{'at top':>8}")
for row in rows:
    if row["shape"]:
        numbers = "".join(f"{value:>8.4g}" for value in row["percentiles"]) + f"{row['zeros']:>8.1%}{row['top']:>8.2%}"
        print(f"{row['stack'].name:<{wide}}{' '.join(map(str, row['shape'])):<16}{row['type']!s:<9}{numbers}")
print()
for row in rows:
    print(f"{row['stack'].name:<{wide}}{row['use']:<12}{row['why']}")

readable = [row for row in rows if row["shape"]]
sizes = np.array([row["stack"].spacing for row in readable])
if (sizes.max(axis=0) > 1.3 * sizes.min(axis=0)).any():
    print("\nThe voxel sizes differ: a student knows one magnification (exercise 2).")
if example:
    assert [row["use"] for row in rows] == ["annotated"] * 4 + ["to segment", "not used"]
    for row in rows[:4]:  # in voxels and the right way up, however they were written
        assert np.abs(row["tree"].xyz - true[row["stack"].name].tree.xyz).max() < 0.001

# %% mystnb={"image": {"alt": "Every stack of the folder from above, with its annotation in purple where it has one."}} jupyter={"source_hidden": true} tags=["hide-input"]
columns = min(3, len(readable))
lines = -(-min(12, len(readable)) // columns)
figure, panels = plt.subplots(lines, columns, figsize=(4 * columns, 4.2 * lines), squeeze=False, layout="constrained")
for axes in panels.flat[len(readable) :]:
    axes.set_axis_off()
for axes, row in zip(panels.flat, readable, strict=False):
    frame = nkd.Frame(row["seen"].shape, row["stack"].spacing)
    frame.draw_volume(axes, row["seen"], dimmed=row["tree"] is not None)
    if row["tree"] is not None:
        frame.draw_tree(axes, row["tree"])
    frame.draw_scale_bar(axes)
    axes.set(title=f"{row['stack'].name}: {row['use']}", xticks=[], yticks=[])
if len(readable) > 12:
    print(f"the first 12 of {len(readable)}")

# %% [markdown]
# *Maximum projections along z; the annotation in purple, its root in orange; what could not be read is left out.* Look at every stack from the side as well: a tree that lies some slices too deep looks right from above. Click or drag in the planes (without a kernel this is a still picture):

# %%
annotated = [row for row in rows if row["use"] == "annotated"]
if not annotated:
    raise ValueError(f"none of the {len(rows)} stacks in {STACKS} has an annotation that can be used: see above")
first = annotated[0]
volume = nkd.read_volume(first["stack"].volume, channel=CHANNEL)
viewer = nkd.view_volume(volume, tree=first["tree"], spacing=first["stack"].spacing, slab=9)
middle = first["tree"].zyx[len(first["tree"]) // 2].round().astype(int).clip(0, np.array(volume.shape) - 1)
for axis, place in zip("zyx", middle.tolist(), strict=True):
    viewer.controls[axis].value = place  # what a click does
viewer

# %% [markdown]
# ## 2 · From trees to masks, and what to do about radii
#
# The student learns from masks, which are drawn from the trees with their radii. Many programs write the same radius everywhere, or none. In that case the radius is measured in the image: it is the distance from the centreline at which the intensity has fallen half-way to the background. Blur makes this radius somewhat too large. But the neurites in the image are blurred as well.
#
# Voxels without an annotation count as background. If a stack shows several neurons, annotate all of them, or cut one neuron out.


# %%
def across(volume, tree, spacing, reach=8.0):
    """Intensity by distance (voxels along x) from the centreline; where it has fallen half-way, and to what."""
    line = np.zeros(volume.shape, dtype=bool)
    line[tuple(np.rint(tree.resample(0.5).zyx).astype(int).clip(0, np.array(volume.shape) - 1).T)] = True
    away = ndimage.distance_transform_edt(~line, sampling=np.divide(spacing, spacing[2]))
    near = away <= reach
    grey, shell = nkd.scale_intensity(volume)[near], np.rint(2 * away[near]).astype(int)
    count = np.bincount(shell)
    distance = np.bincount(shell, away[near])[count > 0] / count[count > 0]
    level = np.bincount(shell, grey)[count > 0] / count[count > 0]
    half = (level[0] + level.min()) / 2
    k = int(np.argmax(level < half))
    return distance, level, np.interp(half, [level[k], level[k - 1]], [distance[k], distance[k - 1]]), half


def one_radius(volume, tree, spacing, radius, half):
    """The tree with this radius; its root with that of the soma, if the thickest bright place is there."""
    radii, soma = np.full(len(tree), radius), nkd.find_soma(nkd.scale_intensity(volume) > half, spacing=spacing)
    if np.linalg.norm((tree.zyx[0] - soma[:3]) * spacing) < soma.radius * np.prod(spacing) ** (1 / 3):
        radii[0] = soma.radius
    return replace(tree, radius=radii)


samples, curves, drawn = [], {}, None
print(f"{'':<{wide}}{'median radius in the SWC':>26}{'measured':>10}{'used':>12}   (voxels)")
for row in annotated:
    stack, tree = row["stack"], row["tree"]
    volume = nkd.read_volume(stack.volume, channel=CHANNEL)
    curves[stack.name] = across(volume, tree, stack.spacing)
    (*_, measured, half), median = curves[stack.name], np.median(tree.radius)
    alike = np.unique(tree.radius.round(2), return_counts=True)[1].max() > 0.9 * len(tree)
    used = one_radius(volume, tree, stack.spacing, measured, half) if alike else tree
    print(f"{stack.name:<{wide}}{median:>26.2f}{measured:>10.2f}{'measured' if alike else 'of the SWC':>12}")
    mask = nkd.rasterise(used, volume.shape, min_radius=0.87)
    samples.append(nkd.Sample(stack.name, volume, mask, used, stack.spacing))
    if alike or drawn is None:
        drawn = samples[-1], nkd.rasterise(tree, volume.shape, min_radius=0.87)

if example:
    by_hand, as_written = drawn
    overlap = [nkd.dice(mask, true[by_hand.name].mask) for mask in (as_written, by_hand.mask)]
    print(f"\n{by_hand.name}, Dice with the true mask: {overlap[0]:.2f} as in the SWC, {overlap[1]:.2f} as measured")
    assert overlap[1] > overlap[0] + 0.1
    assert np.mean([nkd.dice(sample.mask, true[sample.name].mask) for sample in samples[:3]]) > 0.95

# %% mystnb={"image": {"alt": "Left: intensity falls with distance from the centreline, to the background. Right: one neuron drawn with the radii of its SWC and with the radii that are used."}} jupyter={"source_hidden": true} tags=["hide-input"]
sample, as_written = drawn
figure, panels = plt.subplots(1, 3, figsize=(13, 4.2), layout="constrained")
for k, (name, (distance, intensity, width, half)) in enumerate(curves.items()):
    colour = plt.cm.viridis(0.9 * k / max(1, len(curves) - 1))
    panels[0].plot(distance, intensity, color=colour, label=name)
    panels[0].plot(width, half, "o", color=colour)
panels[0].set(
    xlabel="distance from the centreline (voxels)",
    ylabel="mean scaled intensity",
    title="Dots: half-way, the measured radius",
)
panels[0].legend(frameon=False)
panels[0].spines[["top", "right"]].set_visible(False)
frame = nkd.Frame(sample.volume.shape, sample.spacing)
for axes, mask, title in ((panels[1], as_written, "radii of the SWC"), (panels[2], sample.mask, "radii used")):
    frame.draw_volume(axes, sample.volume, dimmed=True)
    frame.draw_mask(axes, mask, opacity=0.6)
    axes.set(title=f"{sample.name}: {title}", xlabel="x (µm)", ylabel="y (µm)")

# %% [markdown]
# If a soma is drawn as thin as a neurite, the student learns that somata are background. Therefore, if all radii are equal, the root gets the radius of the bright ball around it, if there is such a ball.
#
# ## 3 · Train
#
# Whole neurons are split into groups, never crops. One neuron is for validation, `HOLD_OUT` is for the test, and the rest are for training. If only one neuron is left, its stack is cut in two. Both parts then show the same neuron, so the score is too good; a message says so. If two of your files come from one brain or one dish, hold out both or neither.
#
# The student does not have to start from nothing. `neurokd-tiny` comes with the package. It has learnt to find neurites in drawn scenes only, under many simulated microscopes. Its *model card* (a page of the book, and `weights/neurokd-tiny/README.md` in the package) says how it was trained and what it has not seen. Here it is trained further on your neurons. It takes fewer and smaller steps than a new student, so that it does not forget. If your stacks look quite different, also try `START_FROM = None`. The student then begins as an inflated 2D network that learnt from photographs.

# %%
shuffled = [samples[i] for i in np.random.default_rng(0).permutation(len(samples))]
test = shuffled[: min(HOLD_OUT, len(samples) - 1)]
rest = shuffled[len(test) :]
if len(rest) > 1:
    training, validation = rest[1:], rest[:1]
else:
    training, validation = ([part] for part in nkd.split_by_region(rest[0]))
for name, part in {"train": training, "validation": validation, "test": test}.items():
    print(f"{name:<12}{', '.join(one.name for one in part) or 'none'}")
if len(rest) == 1:
    print("Training and validation share a neuron: the validation score is too good.")
if not test:
    print("No neuron is held out: no score below says how good the student is on a new stack.")


def beginning():
    """The student before it has seen your neurons."""
    if START_FROM is not None:
        return nkd.NeuronSegmenter.from_pretrained(START_FROM)
    return nkd.NeuronSegmenter.from_teacher(
        nkd.load_teacher(),
        preset="tiny",  # its first 4 blocks; on a GPU take "small" and ten times the steps
        ridges=(1.0, 2.0),  # how the brightness curves, at scales of one and two voxels
        window=(16, 48, 48) if short else (16, 64, 64),
        generator=torch.Generator().manual_seed(0),
    )


student = beginning()
window, trained = student.config.window, START_FROM is not None
print("begins from", START_FROM if trained else student.config.teacher)

# %% mystnb={"image": {"alt": "The loss falls and the Dice of the validation neuron rises with the training step."}}
steps = (24 if short else 120) // (2 if trained else 1)
config = nkd.TrainConfig(
    steps=steps,
    batch_size=1 if short or trained else 2,
    crop=(16, 64, 64) if short else window,
    lr=5e-4 if trained else 2e-3,
    validate_every=steps if short else steps // 3,
    seed=0,
)
result = nkd.train(student, training, validation, folder / "training", config=config)
student.save_pretrained(folder / "student")
print(f"validation Dice {result.best_dice:.3f} at step {result.best_step}, threshold {result.threshold:.2f}")
_ = nkd.plot_history(result.history)

# %% [markdown]
# ## 4 · How good is it?
#
# The student segments the held-out neuron in overlapping windows. The result is traced and compared with the annotation. The table also shows the baseline "bright means neurite", with the threshold chosen on the validation neuron. If training began from a trained student, the table shows that student as well, without your training. Dice and HD95 compare masks. Length F1 and ESA (the mean distance) compare trees ([07 · Evaluation](07_evaluation.ipynb)). The soma is found in the image.


# %%
bright = nkd.best_threshold([nkd.scale_intensity(one.volume) for one in validation], [one.mask for one in validation])
level = result.threshold


def voxel(spacing):
    """Side of a cubic voxel of the same volume, µm."""
    return float(np.prod(spacing) ** (1 / 3))


def soma_of(volume, spacing):
    """The thickest bright place if it is as thick as a soma; else None."""
    place = nkd.find_soma(nkd.scale_intensity(volume) > bright, spacing=spacing)
    return place if place.radius * voxel(spacing) >= SOMA_RADIUS else None


def traced(chance, threshold, volume, spacing):
    """The tree, rooted at the soma if there is one; None where there is nothing to trace, which is said."""
    try:
        return nkd.trace(chance, threshold=threshold, spacing=spacing, soma=soma_of(volume, spacing))
    except ValueError as error:
        print("no tree:", error)


judged, chances, results = test or validation, {}, {}
room = max(len(one.name) for one in judged) + 2
columns = ("dice", "precision", "recall", "hd95", "length_f1", "esa")
print("hd95 and esa in µm\n")
print(f"{'':<{room}}{'':<11}" + "".join(f"{key:>11}" for key in columns))
for one in judged:
    chances[one.name] = nkd.predict(student, one.volume, progress=True)
    methods = {"threshold": (nkd.scale_intensity(one.volume), bright)}
    if trained:
        untuned = beginning()
        methods["untuned"] = nkd.predict(untuned, one.volume), untuned.config.threshold
    methods["student"] = chances[one.name], level
    for method, (chance, threshold) in methods.items():
        tree = traced(chance, threshold, one.volume, one.spacing)
        scores = nkd.evaluate_masks(chance > threshold, one.mask, spacing=one.spacing)
        if one.tree is not None:
            tolerance = 2 * voxel(one.spacing)
            scores |= nkd.compare_trees(tree, one.tree, spacing=one.spacing, tolerance=tolerance)
        results[one.name, method] = scores | {"tree": tree}
        print(f"{one.name:<{room}}{method:<11}" + "".join(f"{scores.get(key, np.nan):>11.3f}" for key in columns))
for key in ("dice", "length_f1"):
    for other in ("untuned", "threshold") if trained else ("threshold",):
        wins = [results[one.name, "student"].get(key, 0) > results[one.name, other].get(key, 0) for one in judged]
        print(f"{key}: the student is better than {other} in {sum(wins)} of {len(wins)}")
if example:
    assert wins == [True]  # the tree, which is what it is for

# %% mystnb={"image": {"alt": "The held-out stack, its annotation, the student's mask coloured by found, missed and invented, and the traced tree."}}
one = judged[0]
_ = nkd.plot_comparison(
    one.volume,
    one.mask,
    chances[one.name] > level,
    results[one.name, "student"]["tree"],
    spacing=one.spacing,
    truth_name="annotation",
    title=one.name,
)

# %% [markdown]
# The scores of masks and trees may disagree. Most voxels of a small neuron are in its soma, which a threshold also finds. Most of its length is in thin neurites. One neuron says little about the next. If you have few annotations, hold out each neuron in turn and look at the spread. If the student is not better than the threshold, try more steps, then another annotated neuron, and look at section 6.
#
# ## 5 · The other stacks, and files for other programs
#
# The network segments a stack window by window, so it works for any size of stack. But memory must hold four arrays of this size as float32: the image, the sum of the windows, the sum of their weights, and the probability. If a stack is too large for your memory, cut it.


# %%
def deliver(name, volume, chance, tree, spacing):
    """Write what other programs open, into a folder of the stack's name; returns the files."""
    place = folder / "results" / name
    grey, mask = np.rint(255 * nkd.scale_intensity(volume)).astype(np.uint8), chance > level
    written = {
        "probability": nkd.write_volume(place / f"{name}-probability.tif", chance, spacing=spacing),
        "mask": nkd.write_volume(place / f"{name}-mask.tif", mask, spacing=spacing),
        "vaa3d": nkd.write_volume(place / f"{name}.v3draw", grey),
        "composite": place / f"{name}-composite.tif",
    }
    z, y, x = spacing
    notes = {"axes": "ZCYX", "mode": "composite", "spacing": z, "unit": "um"}
    pair = np.stack([grey, 255 * mask.astype(np.uint8)], axis=1)
    tifffile.imwrite(written["composite"], pair, imagej=True, resolution=(1 / x, 1 / y), metadata=notes)
    if tree is not None:
        written["voxels"] = nkd.write_swc(place / f"{name}.swc", tree)
        microns = replace(tree.to_microns(spacing), comments=(tree.comments[0], "x y z and radius in µm"))
        written["microns"] = nkd.write_swc(place / f"{name}-um.swc", microns)
    return written


delivered = {}
for row in readable:
    stack = row["stack"]
    if row["use"] == "annotated" and stack.name not in {one.name for one in test}:
        continue
    volume = nkd.read_volume(stack.volume, channel=CHANNEL)
    print(
        f"{stack.name}: {volume.size / 1e6:.1f} million voxels, {16 * volume.size / 1e6:.0f} MB while it is segmented"
    )
    chance = chances[stack.name] if stack.name in chances else nkd.predict(student, volume, progress=True)
    tree = traced(chance, level, volume, stack.spacing)
    delivered[stack.name] = deliver(stack.name, volume, chance, tree, stack.spacing)
    length = 0 if tree is None else tree.length * voxel(stack.spacing)
    print(f"{stack.name}: {(chance > level).mean():.2%} neurite, {length:.0f} µm of tree")
    figure = nkd.plot_comparison(volume, None, chance > level, tree, spacing=stack.spacing, title=stack.name)
    figure.savefig(folder / "results" / stack.name / f"{stack.name}.png", dpi=150)
    if len(delivered) > 3:  # the others are in their folders
        plt.close(figure)
if not delivered:
    print("every stack that can be read is annotated and trained on: there is nothing to segment")

# %% [markdown]
# | program | open | you get |
# |---|---|---|
# | Fiji | `*-composite.tif` | image and mask as two channels of one calibrated stack; *Image, Properties* shows the voxel size |
# | Fiji's SNT | `*-composite.tif`, then `*-um.swc` | the tree on the image, both in µm |
# | Vaa3D | `*.v3draw`, then drop `*.swc` into the 3D view | the same, both in voxels |
# | napari | the lines below | image, mask and tree as layers, in µm |
#
# ```python
# import napari, neurokd as nkd  # pip install "napari[all]"; neurokd does not need it
#
# spacing = nkd.read_spacing("cell5-mask.tif")
# tree = nkd.read_swc("cell5.swc")
# viewer = napari.Viewer(ndisplay=3)
# viewer.add_image(nkd.read_volume("cell5.v3draw"), scale=spacing, name="image")
# viewer.add_labels(nkd.read_volume("cell5-mask.tif"), scale=spacing, name="mask")
# viewer.add_shapes([tree.zyx[run] for run in tree.segments()], shape_type="path", scale=spacing, name="tree")
# napari.run()
# ```
#
# To check a file, read it again. The next cell checks the voxel size, the shape, both channels, and whether the tree still lies on the mask:

# %%
for name, written in delivered.items():
    spacing = next(stack.spacing for stack in stacks if stack.name == name)
    mask, grey = nkd.read_volume(written["mask"]) > 0, nkd.read_volume(written["vaa3d"])
    chance = nkd.read_volume(written["probability"])
    assert mask.shape == grey.shape == chance.shape and (mask == (chance > level)).all()
    for kind in ("probability", "mask", "composite"):
        assert np.allclose(nkd.read_spacing(written[kind]), spacing, rtol=1e-4)
    for channel, layer in enumerate((grey, 255 * mask)):
        assert (nkd.read_volume(written["composite"], channel=channel) == layer).all()
    if "voxels" not in written:
        print(f"{name}: volumes read again; no tree")
        continue
    tree, microns = nkd.read_swc(written["voxels"]), nkd.read_swc(written["microns"])
    assert np.allclose(microns.xyz, tree.xyz * spacing[::-1], atol=1e-3)
    assert nkd.place_tree(grey, microns, spacing=spacing)[1] == "in µm" or voxel(spacing) > 0.9
    places = np.rint(tree.zyx).astype(int)
    on_mask = mask[tuple(places.T)].mean()
    print(f"{name}: all read again; {on_mask:.0%} of the tree's {len(tree)} nodes on the mask, the others bridge gaps")
    assert on_mask > 0.5

# %% [markdown]
# ## 6 · When it looks wrong
#
# Eight things often go wrong. The next cells make each of them on purpose, from a correct stack. For each, a number shows the fault, even if nobody knows the true tree.

# %% jupyter={"source_hidden": true} tags=["hide-input"]
subject = one if one.tree is not None else samples[0]
volume, spacing, mask = subject.volume, subject.spacing, subject.mask
truth = next(row["tree"] for row in annotated if row["stack"].name == subject.name)
chance = chances[subject.name] if subject.name in chances else nkd.predict(student, volume)
soma, right = soma_of(volume, spacing), traced(chance, level, volume, spacing)
if right is None:
    raise ValueError(
        f"nothing was found in {subject.name}, so there is nothing to spoil: train longer, or annotate another"
    )
unit = np.divide(spacing, voxel(spacing))
cases, mended = [], []


def length_score(tree, name, reference=truth):
    """Length precision or recall against the annotation."""
    tolerance = 2 * voxel(spacing)
    return nkd.compare_trees(tree, reference, spacing=spacing, tolerance=tolerance)[f"length_{name}"]


for title, wrong in {
    "upside down": truth.mirror("y", volume.shape[1]),
    "x and z exchanged": replace(truth, xyz=truth.zyx),
}.items():
    fit, (_, how, again) = nkd.check_pair(volume, wrong), nkd.place_tree(volume, wrong, spacing=spacing)
    number = (
        f"{fit.bright:.0%} of its nodes on bright voxels,\nmirrored {fit.bright_mirrored:.0%}, {fit.inside:.0%} inside"
    )
    cases.append((title, volume, wrong, "xy", spacing, number))
    mended.append(f"{title}: read as {how}, {again.bright:.0%} on bright voxels")

flat = np.minimum(4.0 * volume, volume.max())  # four times the gain of the camera
shares = [(stack == stack.max()).mean() / (stack > 0).mean() for stack in (volume, flat)]
overlaps = [nkd.dice(c > level, mask) for c in (chance, nkd.predict(student, flat))]
number = f"{shares[1]:.1%} of what is not 0\nis at top, before {shares[0]:.1%}"
cases.append(("saturated", flat, None, "xy", spacing, number))
mended.append(f"saturated: Dice {overlaps[1]:.2f}, before {overlaps[0]:.2f}; cannot be mended afterwards")

usual = np.mean([sample.mask.mean() for sample in samples])
low, high = np.quantile(chance, 1 - 8 * usual), min(np.quantile(chance[chance > level], 0.75), 1 - 1e-6)
for title, cut, kind in (("threshold too low", low, "precision"), ("threshold too high", high, "recall")):
    tree = traced(chance, float(cut), volume, spacing)
    found, pieces = (chance > cut).mean(), ndimage.label(chance > cut, np.ones((3, 3, 3)))[1]
    number = f"{found / usual:.1f} x the neurite of your masks,\nin {pieces} pieces"
    cases.append((title, chance, tree, "xy", spacing, number))
    mended.append(
        f"{title}: length {kind} {length_score(tree, kind):.2f}, at {level:.2f} {length_score(right, kind):.2f}"
    )

if soma is None:  # which the other three need
    print(f"no place of {subject.name} is thicker than {SOMA_RADIUS} µm: three of the eight are left out")
else:
    grey = nkd.scale_intensity(volume)
    centre = tuple(int(c) for c in soma[:3])
    thick = ndimage.distance_transform_edt(grey > bright, sampling=unit) > 0.5 * soma.radius
    labels, _ = ndimage.label(thick)
    z, y, x = np.ptp(np.argwhere(labels == labels[centre]), axis=0) + 1
    ratios = [z * step / ((x * spacing[2] + y * spacing[1]) / 2) for step in (spacing[0], 3 * spacing[0])]
    tall = (3 * spacing[0], *spacing[1:])
    number = f"its soma is {ratios[1]:.1f} x as high as wide,\nwith the right spacing {ratios[0]:.1f} x"
    cases.append(("slice distance wrong (x-z)", volume, right, "xz", tall, number))
    lengths = [right.to_microns(size).length for size in (tall, spacing)]
    mended.append(f"slice distance wrong: {lengths[0]:.0f} µm of tree, with the right spacing {lengths[1]:.0f} µm")

    grid = np.ogrid[tuple(slice(n) for n in volume.shape)]
    away = np.sqrt(sum(((g - c) * u) ** 2 for g, c, u in zip(grid, soma, unit, strict=False)))
    hollow = np.where(away < 2 * soma.radius, 0, chance)  # as a student of thin neurites gives it
    lost, rooted = (nkd.trace(hollow, threshold=level, spacing=spacing, soma=place) for place in (None, soma))
    off = [np.linalg.norm((tree.zyx[0] - soma[:3]) * spacing) for tree in (lost, rooted)]
    number = f"its root has a radius of {lost.radius[0] * voxel(spacing):.1f} µm,\nthe soma in the image {soma.radius * voxel(spacing):.1f} µm"
    cases.append(("soma missed", hollow, lost, "xy", spacing, number))
    mended.append(f"soma missed: root {off[0]:.0f} µm from the soma, with soma=find_soma(...) {off[1]:.0f} µm")

    # A second neuron: the mirror image of the first, so near that their outermost neurites touch.
    turned = soma.x > truth.xyz[:, 0].mean()
    neuron = truth.mirror("x", volume.shape[2]) if turned else truth
    edge = int(neuron.xyz[:, 0].max()) + 1
    halves = [(v[:, :, ::-1] if turned else v)[:, :, :edge] for v in (grey, chance)]
    two, likely = (np.concatenate([half, half[:, :, ::-1]], axis=2) for half in halves)
    home = soma._replace(x=volume.shape[2] - 1 - soma.x) if turned else soma
    merged = nkd.trace(likely, threshold=level, spacing=spacing, soma=home)
    somata, count = ndimage.label(ndimage.distance_transform_edt(two > bright, sampling=unit) > 0.6 * soma.radius)
    places = np.rint(ndimage.center_of_mass(somata > 0, somata, range(1, count + 1))).astype(int)
    ways = [MCP_Geometric(1 / (likely + 0.02), sampling=tuple(unit)).find_costs([place])[0] for place in places]
    own = np.argmin(ways, axis=0) == np.linalg.norm(places - home[:3], axis=1).argmin()
    apart = nkd.trace(np.where(own, likely, 0), threshold=level, spacing=spacing, soma=home)
    number = f"{count} places as thick as a soma;\n{merged.length / right.length:.1f} x as long as one neuron"
    cases.append(("two neurons in one tree", likely, merged, "xy", spacing, number))
    scores = [length_score(tree, "precision", neuron) for tree in (merged, apart)]
    mended.append(f"two neurons in one tree: length precision {scores[0]:.2f}, cut between the somata {scores[1]:.2f}")

if example:
    fits = [nkd.place_tree(volume, case[2], spacing=spacing)[1] for case in cases[:2]]
    assert fits == ["mirrored in y", "x and z exchanged"]
    assert shares[1] > 2 * shares[0] and overlaps[1] < overlaps[0]
    assert length_score(cases[3][2], "precision") < length_score(right, "precision")
    assert length_score(cases[4][2], "recall") < length_score(right, "recall")
    assert soma is not None and ratios[1] > 2 > ratios[0] and off[0] > 5 > off[1]
    assert count == 2 and scores[1] > scores[0] + 0.1

# %% mystnb={"image": {"alt": "Eight panels, one for each thing that goes wrong, with the number that gives it away."}} jupyter={"source_hidden": true} tags=["hide-input"]
lines = -(-len(cases) // 4)
figure, panels = plt.subplots(lines, 4, figsize=(10, 3.3 * lines), layout="constrained")
for axes in panels.flat[len(cases) :]:
    axes.set_axis_off()
for axes, (title, shown, tree, plane, size, number) in zip(panels.flat, cases, strict=False):
    frame = nkd.Frame(shown.shape, size)
    frame.draw_volume(axes, shown, plane, dimmed=tree is not None)
    if tree is not None:
        frame.draw_tree(axes, tree, plane)
    axes.set(xticks=[], yticks=[], xlim=(0, frame.lengths[2]))
    axes.set_title(title, fontsize=10)
    axes.set_xlabel(number, fontsize=8)
    axes.set_ylim(frame.lengths["zyx".index(plane[1])], 0)
frame.draw_scale_bar(panels[0, 0])
print(*mended, sep="\n")

# %% [markdown]
# *Projections along z, the third from the end along y; trees in purple, roots in orange.*
#
# | what you see | the number | what to do |
# |---|---|---|
# | the tree beside the neuron, upside down | more nodes on bright voxels when mirrored (`check_pair`) | `place_tree` finds the convention |
# | the tree off on all sides | hardly any nodes inside | `place_tree`; if the *volume* has its axes in another order, `np.moveaxis` |
# | flat white neurites | many voxels at the maximum | less gain at the microscope; from 16 to 8 bits by `scale_intensity`, not by a fixed factor |
# | a tree in the haze | several times more neurite than in your masks | a higher `threshold`; train on more steps or with that stack annotated |
# | only short stumps | much less neurite than in your masks | a lower `threshold`, then a larger `max_gap` |
# | everything too tall or too flat | the soma's height over its width | set `SPACING` to what the microscope says, not to what the file says |
# | the tree begins at a tip or a bead | the root is thinner than the soma | `trace(..., soma=...)` with `find_soma` of the bright voxels |
# | a tree with two centres | two places as thick as a soma | give each voxel to the soma that it reaches more easily (as above), then trace one part |
#
# ## What was learnt
#
# - Make three checks before training. Does the tree lie on its stack? Are the radii real? Is the voxel size right? Later, none of these mistakes raises an error.
# - A few traced neurons are enough to train or to tune a student. A held-out neuron shows whether the student is better than a threshold.
# - Read the files for other programs again to check them.
# - A number shows each of eight common failures. One call corrects most of them.
#
# ## Exercises
#
# 1. With one annotated neuron, training and validation are two parts of its stack. Train in this way. Compare the validation Dice with the Dice of the held-out stack. How far can you trust the validation Dice?
# 2. Another objective gives voxels a third as large. How well does the student segment a stack that is magnified three times, and what helps?
# 3. Load the saved student. Is it the same? And how do you go on training it when a further neuron has been traced?

# %% [markdown]
# <details><summary>Solution of exercise 1</summary>
#
# Not far; it may be too high or too low. The second part has the same background and brightness as the first, so its Dice is too high. It is also only the rest of one neuron, so its Dice depends on the place of the cut. Trust the held-out stack.
#
# </details>

# %% jupyter={"source_hidden": true} tags=["hide-input"]
first_part, second_part = nkd.split_by_region(rest[-1])
lonely = beginning()
few = replace(config, steps=3 if short else 20, validate_every=3 if short else 20)
outcome = nkd.train(lonely, [first_part], [second_part], folder / "lonely", config=few, progress=False)
print(f"second part of {rest[-1].name}: Dice {outcome.best_dice:.2f} after {few.steps} steps")
for one in test:
    score = nkd.dice(nkd.predict(lonely, one.volume) > outcome.threshold, one.mask)
    print(
        f"{one.name}, held out: Dice {score:.2f}; the student above, trained on {len(training)}: {results[one.name, 'student']['dice']:.2f}"
    )

# %% [markdown]
# <details><summary>Solution of exercise 2</summary>
#
# Neurites are then six to ten voxels wide, which it has never seen. Resample the stack to the voxel size of the training stacks before you segment it. If you need the probability at the original size, resample it back.
#
# </details>

# %% jupyter={"source_hidden": true} tags=["hide-input"]
middle = tuple(slice(n // 3, n // 3 + n // 3) for n in volume.shape)
large = ndimage.zoom(volume[middle].astype(np.float32), 3, order=1)
large_mask = ndimage.zoom(mask[middle].astype(np.uint8), 3, order=0) > 0
magnified = nkd.predict(student, large)
brought_back = ndimage.zoom(nkd.predict(student, ndimage.zoom(large, 1 / 3, order=1)), 3, order=1)
overlap = [nkd.dice(c > level, large_mask) for c in (magnified, brought_back)]
quality = [nkd.average_precision(c, large_mask) for c in (magnified, brought_back)]
for how, o, q in zip(
    ("magnified three times", "brought to the voxel size of the training"), overlap, quality, strict=True
):
    print(f"{how:<43}Dice {o:.2f}, average precision {q:.2f}")
if example:
    assert quality[1] > quality[0]

# %% [markdown]
# <details><summary>Solution of exercise 3</summary>
#
# It is the same in every bit, including its threshold. To train it further, set `START_FROM` to its folder. The learning rate is then small, as here, so that it does not forget.
#
# </details>

# %% jupyter={"source_hidden": true} tags=["hide-input"]
again = nkd.NeuronSegmenter.from_pretrained(folder / "student")
crop = torch.from_numpy(nkd.scale_intensity(volume))[None, None, : window[0], : window[1], : window[2]]
with torch.no_grad():
    assert torch.equal(again(crop), student.cpu().eval()(crop)) and again.config.threshold == level
more = replace(config, steps=few.steps, validate_every=few.steps, lr=5e-4)
outcome = nkd.train(again, training, validation, folder / "gone-on", config=more, progress=False)
print(f"validation Dice {result.best_dice:.3f}, after {more.steps} steps more {outcome.best_dice:.3f}")

# %% [markdown]
# **Next.** Long runs on a GPU: [06 · Training](06_training.ipynb). A message that is not explained here: the page *Troubleshooting* of the book.
