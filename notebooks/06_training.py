# ---
# jupyter:
#   jupytext:
#     formats: ipynb,py:percent
# ---

# %% [markdown]
# # Training on one GPU, or on none
#
# > **Question.** What happens in a training run, line by line, and what can be trusted when it is interrupted, moved to another machine, or goes wrong?
# >
# > **Know first.** [`00_quickstart`](00_quickstart.ipynb), gradient descent.
# >
# > **Takes.** 5 min on 2 CPU cores, 71 s in the short profile (`NEUROKD_PROFILE=ci`); 1.9 GB of memory. Downloads 90 MB the first time.

# %% jupyter={"source_hidden": true} tags=["colab", "hide-input"]
import sys

if "google.colab" in sys.modules:  # anywhere else this cell does nothing
    from google.colab import files
    from IPython import get_ipython

    print("Choose the wheel of neurokd; in a clone of the repository, `pip wheel --no-deps .` makes it.")
    (wheel,) = files.upload()
    get_ipython().run_line_magic("pip", f"install --quiet ./{wheel}")

# %%
import inspect
import logging
import textwrap
import time

import matplotlib.pyplot as plt
import numpy as np
import torch
from IPython.display import Code

import neurokd as nkd
from neurokd.profile import profile, run_folder
from neurokd.viz.frame import Frame

logging.getLogger("lightning_fabric.utilities.rank_zero").setLevel(logging.WARNING)
short = profile() == "ci"
folder = run_folder("training")
window = (8, 48, 48) if short else (16, 64, 64)
neurons = nkd.simulated_neurons(3 if short else 6, seed=6, shape=(48, 96, 96) if short else (96, 128, 128))
training, validation = neurons[:-1], neurons[-1:]
teacher = nkd.load_teacher()


def student(seed=0):
    """The same student every time, by its seed."""
    generator = torch.Generator().manual_seed(seed)
    return nkd.NeuronSegmenter.from_teacher(teacher, preset="tiny", window=window, generator=generator)


print(teacher.source)

# %% [markdown]
# ## 1 · The loop
#
# This is all of it: the source of `neurokd.train`, without its docstring.

# %%
source = inspect.getsource(nkd.train)
body = source[source.index("    from lightning_fabric") :]
Code(textwrap.dedent(body), language="python")

# %% [markdown]
# Read from the top:
#
# 1. **A folder is a run.** If it holds a checkpoint, nothing happens unless you say `resume=True`. Nothing is overwritten.
# 2. **Fabric** (Lightning) is the only part that knows devices: it moves the model and the batches, and it chooses the precision. The model has no device in it.
# 3. **The optimiser** is AdamW with one group of parameters per learning rate; the schedule rises and then falls along a cosine.
# 4. **Patches** are numbered. Patch `i` is a pure function of the seed and `i`, so "go on from step 70" is "start at patch 70 x batch size", and nothing else has to be remembered.
# 5. **A step**: logits, loss, a check that the loss is finite, gradient, clipped gradient, step.
# 6. **Every so often**: segment the validation volumes whole, choose the threshold there, keep the best weights, write a checkpoint. Files are written beside their place and moved into it, so a crash leaves the old one.
#
# ## 2 · What a batch looks like
#
# Three of four crops are centred near a voxel of the neuron, the others near any voxel that is not empty (set to zero when the stack was cut out), or the student would see too little of what is *not* a neurite. Each is turned, mirrored, made brighter or dimmer, and sometimes its background is cut off, as in many published stacks.

# %%
patches = nkd.Patches(training, size=window, length=1000, seed=0)
spacing = training[0].spacing
_, height, width = np.multiply(window, spacing)
extent = (0, width, height, 0)
figure, axes = plt.subplots(2, 6, figsize=(10, 3.7), layout="constrained")
for i, (above, below) in enumerate(axes.T):
    crop = patches[i]
    above.imshow(crop["image"][0].amax(dim=0), cmap="gray", vmin=0, vmax=1, extent=extent)
    below.imshow(crop["mask"][0].amax(dim=0), cmap="gray", vmin=0, vmax=1, extent=extent)
    above.set_title(f"patch {i}", fontsize="medium")
    for panel in (above, below):
        panel.set(xticks=[], yticks=[])
axes[0, 0].set_ylabel("image")
axes[1, 0].set_ylabel("mask")
Frame(window, spacing).scale_bar(axes[0, 0])
figure.suptitle(f"Maximum projections of crops of {window} voxels (z, y, x)")

again = nkd.Patches(training, size=window, length=1000, seed=0)
assert torch.equal(again[5]["image"], patches[5]["image"])  # the same patch in any order, on any worker
share = np.mean([patches[i]["mask"].mean().item() for i in range(40)])
print(f"{share:.2%} of the voxels of 40 crops are neurite")
assert share < 0.1

# %% [markdown]
# ## 3 · Two learning rates
#
# What came from the teacher is good already and easily spoilt; what is new knows nothing. So they have rates of their own, here 3e-5 and 2e-3.

# %%
model = student()
for name, parameters in model.parameter_groups().items():
    print(f"{name:>12}: {len(parameters):>3} tensors, {sum(p.numel() for p in parameters):>9,} weights")

# %% [markdown]
# ## 4 · A run, watched live
#
# `callback` gets every record of the history as it is made. Here it redraws the curves; it could as well send them to a logger.

# %%
config = nkd.TrainConfig(
    steps=12 if short else 120, batch_size=2, crop=window, warmup=0.25, validate_every=4 if short else 40, seed=0
)
live = nkd.LivePlot(every=4 if short else 20)
result = nkd.train(model, training, validation, folder / "whole", config=config, callback=live)
print(f"best validation Dice {result.best_dice:.3f} at step {result.best_step}")
assert live.records == result.history

# %%
rates = [record["lr"] for record in result.history if "lr" in record]
figure, axes = plt.subplots(figsize=(6, 2.6), layout="constrained")
axes.plot(range(1, len(rates) + 1), rates, color="#0072B2")
axes.set(xlabel="step", ylabel="learning rate of new parts", title="Up in a straight line, down along a cosine")
assert max(rates) == config.lr

# %% [markdown]
# **What to watch.** The loss is noisy, since each step sees two crops: look at its mean. Validation Dice is what counts, and it may jump where the threshold moves. If the loss falls and validation does not, the student learns the training volumes by heart: more volumes help, more steps do not.
#
# ## 5 · Kill it, and go on
#
# The same run again, but it is interrupted half-way, as by Ctrl-C or a cluster's time limit. Then it is resumed from another starting point (seed 1), to show that everything comes from the checkpoint.


# %%
class Interrupted(Exception):
    """Stands for Ctrl-C."""


def stop_at(step):
    """A callback that interrupts the run."""

    def callback(record):
        if record["step"] == step and "loss" in record:
            raise Interrupted

    return callback


try:
    nkd.train(
        student(),
        training,
        validation,
        folder / "broken",
        config=config,
        callback=stop_at(config.steps // 2 + 1),
        progress=False,
    )
except Interrupted:
    print(
        f"interrupted in step {config.steps // 2 + 1}; on disk:", sorted(p.name for p in (folder / "broken").iterdir())
    )

resumed = student(seed=1)
second = nkd.train(resumed, training, validation, folder / "broken", config=config, resume=True)
difference = max((a - b).abs().max().item() for a, b in zip(model.parameters(), resumed.parameters(), strict=True))
print(f"largest difference between a weight of the two students: {difference}")
assert second.history == result.history
assert difference == 0

# %% [markdown]
# Not "nearly": equal. (On a GPU, some kernels add in an order that changes from run to run; there the two agree to rounding.)
#
# ## 6 · Mixed precision
#
# bf16 has the range of float32 with 8 bits of mantissa: matrix products and convolutions run in it, sums and norms in float32, and the weights stay in float32. GPUs since 2020 have instructions for it, and `precision="auto"` uses it there. Some CPUs have them too; but there we found gradients of small 3D convolutions that came from uninitialised memory, so on CPUs `auto` means float32. A faster number is worth nothing before it is the right number.

# %%
from neurokd.inference.sliding import has_bf16

device = next(model.parameters()).device
volume = torch.from_numpy(nkd.scale_intensity(validation[0].volume))[
    None, None, : window[0], : window[1], : window[2]
].to(device)
outcome = {}
for name, enabled in {"float32": False, "bf16": True}.items():
    with torch.no_grad(), torch.autocast(device.type, torch.bfloat16, enabled=enabled):
        model(volume)  # the first call sets things up
        start = time.perf_counter()
        outcome[name] = model(volume).float().sigmoid()
        print(f"{name:>8}: {time.perf_counter() - start:.3f} s for one crop")
difference = (outcome["float32"] - outcome["bf16"]).abs().max().item()
print(f'"auto" takes bf16 here: {has_bf16(device)}; largest difference in probability: {difference:.4f}')
assert difference < 0.2

# %% [markdown]
# ## 7 · What goes wrong
#
# The commonest mistake is a rate that is too high, and it fails loudly or silently: a loss that is not finite stops the run and says at which step; a transferred part that was overwritten shows only in comparison.

# %%
steps = 6 if short else 40
for lr_transferred in (3e-5, 1e-2):
    careless = nkd.TrainConfig(
        steps=steps, batch_size=2, crop=window, lr_transferred=lr_transferred, validate_every=steps
    )
    other = student()
    outcome = nkd.train(other, training, validation, folder / f"rate-{lr_transferred}", config=careless, progress=False)
    moved = (other.vit.blocks[0].attn.qkv.weight - teacher.vit.blocks[0].attn.qkv.weight.to(device)).norm()
    moved = (moved / teacher.vit.blocks[0].attn.qkv.weight.norm()).item()
    print(
        f"lr_transferred {lr_transferred:g}: validation Dice {outcome.best_dice:.3f}, first block moved by {moved:.1%}"
    )

# %% [markdown]
# | what you see | what it is | what helps |
# |---|---|---|
# | `the loss is nan at step ...` | a rate too high, or a volume with NaN (those are refused on reading) | a tenth of the rate; more warm-up |
# | validation Dice near 0, loss falls | crops hold neurites, the volume is mostly background | `foreground=0.5`, more steps |
# | Dice jumps, the threshold is at 0.01 or 0.99 | the probabilities are not calibrated yet | more steps; look at the curve, not at one point |
# | `other settings` on resume | the run was begun with another `TrainConfig`, loss or distillation | the error names them |
# | out of memory | crop or batch too large | smaller `crop` first: memory grows with its volume |
#
# ## 8 · Several GPUs
#
# The same call, with `TrainConfig(devices=4)`, from a script that is started as usual: Fabric starts one process per GPU, each takes its share of every batch, and gradients are averaged. Because patches are numbered, four GPUs see in each step the same crops that one would. The loss is each GPU's own: cross-entropy is a mean over crops, so four shares make the same whole, but Dice over a share is not Dice over the batch, and the run is another one. `batch_size` counts all devices together, and must divide by them:

# %%
try:
    nkd.TrainConfig(batch_size=2, devices=4)
except ValueError as error:
    print(error)

# %% [markdown]
# ## What was learnt
#
# - A run is a folder, a seed and a list of numbers; interrupted and resumed, it ends with the same weights.
# - Transferred and new parts need rates two orders of magnitude apart.
# - The threshold belongs to the model, and is chosen on validation.
#
# ## Exercises
#
# 1. How much less neurite is in the crops with `foreground=0`? Is any crop quite empty?
# 2. Train with a loss of your own: cross-entropy alone. What does the first validation say?

# %% [markdown]
# <details><summary>Solution of exercise 1</summary>
#
# Less, but seldom none: what is not exactly zero lies in boxes around the neuron.
#
# </details>

# %% jupyter={"source_hidden": true} tags=["hide-input"]
elsewhere = nkd.Patches(training, size=window, length=100, seed=0, foreground=0.0)
masks = [elsewhere[i]["mask"] for i in range(40)]
less = np.mean([mask.mean().item() for mask in masks])
empty = np.mean([not mask.any() for mask in masks])
print(f"{less:.2%} of the voxels with foreground=0, {share:.2%} with 0.75; {empty:.0%} of the crops are empty")
assert less < share

# %% [markdown]
# <details><summary>Solution of exercise 2</summary>
#
# Any function of logits and masks will do. With 99 % background, cross-entropy alone falls fast without finding a neurite.
#
# </details>

# %% jupyter={"source_hidden": true} tags=["hide-input"]
plain = nkd.TrainConfig(steps=steps, batch_size=2, crop=window, validate_every=steps)
outcome = nkd.train(
    student(),
    training,
    validation,
    folder / "entropy",
    config=plain,
    loss=torch.nn.functional.binary_cross_entropy_with_logits,
    progress=False,
)
print(f"validation Dice {outcome.best_dice:.3f} after {steps} steps of cross-entropy alone")

# %% [markdown]
# **Next.** [07 · Evaluation](07_evaluation.ipynb): what the numbers above hide.
