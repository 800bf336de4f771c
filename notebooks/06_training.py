# ---
# jupyter:
#   jupytext:
#     formats: ipynb,py:percent
# ---

# %% [markdown]
# # Training with a GPU or without
#
# > **Question.** What happens in a training run, line by line? What can you rely on if the run is interrupted, moved to another machine, or goes wrong?
# >
# > **Know first.** [`00_quickstart`](00_quickstart.ipynb), and what gradient descent is.
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
# The next cell prints the whole loop: the source of `neurokd.train`, without its docstring.

# %%
source = inspect.getsource(nkd.train)
body = source[source.index("    from lightning_fabric") :]
Code(textwrap.dedent(body), language="python")

# %% [markdown]
# Read from the top:
#
# 1. **A run is a folder.** If the folder contains a checkpoint, `train` raises an error unless you pass `resume=True`. Nothing is overwritten.
# 2. **Fabric** (Lightning) is the only part that knows the devices. It moves the model and the batches, and it chooses the precision. The model itself contains no device.
# 3. **The optimiser** is AdamW with one group of parameters per learning rate. The learning rate first rises and then falls along a cosine.
# 4. **Patches** are numbered. Patch `i` depends only on the seed and on `i`. To continue from step 70, training starts at patch 70 x batch size. It needs to store nothing else about the patches.
# 5. **Each step** computes the logits and the loss, checks that the loss is finite, computes and clips the gradient, and updates the weights.
# 6. **At regular intervals** the loop segments the whole validation volumes, chooses the threshold on them, keeps the best weights, and writes a checkpoint. It writes each file under a temporary name and then renames it, so after a crash the old file is still there.
#
# ## 2 · What a batch looks like
#
# Three of four crops are centred near a voxel of the neuron. The others are centred near any voxel that is not empty (set to zero when the stack was cut out); otherwise the student would see too little of what is *not* a neurite. Each crop is rotated, mirrored, and made brighter or dimmer. Sometimes its background is set to zero, as in many published stacks.

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
nkd.Frame(window, spacing).draw_scale_bar(axes[0, 0])
figure.suptitle(f"Maximum projections of crops of {window} voxels (z, y, x)")

again = nkd.Patches(training, size=window, length=1000, seed=0)
assert torch.equal(again[5]["image"], patches[5]["image"])  # the same patch in any order, on any worker
share = np.mean([patches[i]["mask"].mean().item() for i in range(40)])
print(f"{share:.2%} of the voxels of 40 crops are neurite")
assert share < 0.1

# %% [markdown]
# ## 3 · Two learning rates
#
# The weights from the teacher are already good, and large steps would spoil them. The new weights know nothing yet. The two groups therefore have separate learning rates, here 3e-5 and 2e-3.

# %%
model = student()
for name, parameters in model.parameter_groups().items():
    print(f"{name:>12}: {len(parameters):>3} tensors, {sum(p.numel() for p in parameters):>9,} weights")

# %% [markdown]
# ## 4 · A run, watched live
#
# `callback` receives each record of the history as soon as it is made. Here it redraws the curves. It could also send the records to a logger.

# %%
config = nkd.TrainConfig(
    steps=12 if short else 120, batch_size=2, warmup=0.25, validate_every=4 if short else 40, seed=0
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
# **What to watch.** The loss is noisy, because each step sees two crops. Look at its mean. Validation Dice matters most. It may jump when the threshold changes. If the loss falls but validation Dice does not rise, the student memorises the training volumes. Then more volumes help, but more steps do not.
#
# ## 5 · Interrupt a run and resume it
#
# We start the same run again and interrupt it half-way, as Ctrl-C or a cluster's time limit would. Then we resume it with a student that has other initial weights (seed 1). This shows that everything comes from the checkpoint.


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
# The two runs are exactly equal. (On a GPU, some operations add numbers in an order that changes from run to run. There the two runs agree up to rounding.)
#
# ## 6 · Mixed precision
#
# bf16 has the range of float32, but only 8 bits of mantissa. Matrix products and convolutions run in bf16. Sums and norms run in float32, and the weights stay in float32. GPUs since 2020 have instructions for bf16, and `precision="auto"` uses bf16 there. Some CPUs have such instructions, too. But on CPUs we found gradients of small 3D convolutions that came from uninitialised memory, so `auto` uses float32 there.

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
# The most common mistake is a learning rate that is too high. Sometimes you notice it: if the loss is not finite, the run stops and says at which step. Sometimes you do not: if the transferred weights were overwritten, only a comparison shows it. The next cell makes such a comparison.

# %%
steps = 6 if short else 40
for lr_transferred in (3e-5, 1e-2):
    careless = nkd.TrainConfig(steps=steps, batch_size=2, lr_transferred=lr_transferred, validate_every=steps)
    other = student()
    outcome = nkd.train(other, training, validation, folder / f"rate-{lr_transferred}", config=careless, progress=False)
    moved = (other.vit.blocks[0].attn.qkv.weight - teacher.vit.blocks[0].attn.qkv.weight.to(device)).norm()
    moved = (moved / teacher.vit.blocks[0].attn.qkv.weight.norm()).item()
    print(
        f"lr_transferred {lr_transferred:g}: validation Dice {outcome.best_dice:.3f}, first block moved by {moved:.1%}"
    )

# %% [markdown]
# | what you see | cause | what helps |
# |---|---|---|
# | `the loss is nan at step ...` | the learning rate is too high (volumes with NaN are refused when they are read) | a tenth of the rate; a longer warm-up |
# | validation Dice near 0, but the loss falls | crops contain neurites, but the volume is mostly background | `foreground=0.5`; more steps |
# | Dice jumps, and the threshold is at 0.01 or 0.99 | the probabilities are not calibrated yet | more steps; look at the curve, not at one point |
# | `other settings` on resume | the run was started with another `TrainConfig`, loss or distillation | use the original settings; the error names those that differ |
# | out of memory | the crop or the batch is too large | a smaller `crop` first, because memory grows with its volume |
#
# ## 8 · Several GPUs
#
# Use the same call with `TrainConfig(devices=4)`, in a script that you start as usual. Fabric starts one process per GPU. Each process takes its share of every batch, and the gradients are averaged. Because patches are numbered, four GPUs together see in each step the same crops as one GPU would. The run is still not identical to a run on one GPU, because each GPU computes the loss on its own share. Cross-entropy is a mean over crops, so its average over the GPUs is that of the batch. Dice over a share is not Dice over the batch. `batch_size` counts all devices together, and must be divisible by their number:

# %%
try:
    nkd.TrainConfig(batch_size=2, devices=4)
except ValueError as error:
    print(error)

# %% [markdown]
# ## What was learnt
#
# - A run is defined by its settings, its seed and its numbered patches. If it is interrupted and resumed, it ends with the same weights.
# - Transferred weights and new weights need learning rates that differ by about two orders of magnitude.
# - The threshold belongs to the model, and is chosen on validation.
#
# ## Exercises
#
# 1. How much less neurite do the crops contain with `foreground=0`? Is any crop completely empty?
# 2. Train with your own loss: cross-entropy alone. What does the validation show?

# %% [markdown]
# <details><summary>Solution of exercise 1</summary>
#
# They contain less neurite, but few are empty. The reason is that the voxels that are not exactly zero lie in boxes around the neuron.
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
# Any function of logits and masks can be the loss. With 99 % background, cross-entropy alone falls fast without finding a neurite.
#
# </details>

# %% jupyter={"source_hidden": true} tags=["hide-input"]
plain = nkd.TrainConfig(steps=steps, batch_size=2, validate_every=steps)
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
# **Next.** [07 · Evaluation](07_evaluation.ipynb) shows what these scores hide.
