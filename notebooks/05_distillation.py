# ---
# jupyter:
#   jupytext:
#     formats: ipynb,py:percent
# ---

# %% [markdown]
# # Learning from a teacher without copying it
#
# > **Question.** Can a 3D student of any width and depth learn to see what a frozen 2D teacher sees, if no weight can be copied and nothing is annotated?
# >
# > **Know first.** [`00_quickstart`](00_quickstart.ipynb), and what a token of a vision transformer is.
# >
# > **Takes.** 3 min on 2 CPU cores, 42 s in the short profile (`NEUROKD_PROFILE=ci`); 1.9 GB of memory. Downloads 90 MB the first time.
#
# *Inflation* copies the teacher's weights, so the student must have the teacher's width. *Distillation* copies no weights: it compares the outputs of the two networks.
#
# ```
# volume ─┬─► student (3D, learns) ──► tokens ──► projection ─┐
#         │                                                   ├─► how different?
#         └─► slices z, y, x ──► teacher (2D, frozen) ────────┘
# ```
#
# **Whose idea is this?** The second paper behind this package (arXiv:2410.22078) speaks of distillation "in the latent embedding space" and of "multi-view learning". We do not know whether it compares features, and with which loss. The method of this notebook is **our extension**. It combines known parts: hidden tokens that are matched through a projection (arXiv:1412.6550), and similarities between tokens (arXiv:1907.09682, arXiv:2508.10104).

# %% jupyter={"source_hidden": true} tags=["colab", "hide-input"]
import sys

if "google.colab" in sys.modules:  # anywhere else this cell does nothing
    from google.colab import files
    from IPython import get_ipython

    print("Choose the wheel of neurokd; in a clone of the repository, `pip wheel --no-deps .` makes it.")
    (wheel,) = files.upload()
    get_ipython().run_line_magic("pip", f"install --quiet ./{wheel}")

# %%
import logging
import time

import matplotlib.pyplot as plt
import numpy as np
import torch
from einops import rearrange, reduce, repeat
from torch.nn.functional import normalize as unit
from tqdm.auto import tqdm

import neurokd as nkd
from neurokd.profile import profile, run_folder

logging.getLogger("lightning_fabric.utilities.rank_zero").setLevel(logging.WARNING)
short = profile() == "ci"
folder = run_folder("distillation")
crop, token = (8, 48, 48) if short else (16, 64, 64), (4, 8, 8)
neurons = nkd.simulated_neurons(3 if short else 4, seed=5, shape=(32, 64, 64) if short else (64, 128, 128))
training, unseen = neurons[:-1], neurons[-1:]
um = unseen[0].spacing
teacher = nkd.load_teacher()
print(teacher.source)

# %% [markdown]
# ## 1 · Three views
#
# The teacher accepts only pictures, so we show it slices of a crop across z, across y and across x. Each slice is enlarged until one token of the student covers whole patches of the teacher. The teacher's tokens are then averaged onto the student's grid. In this section the student's tokens are cubes of 4 voxels, so that every view is enlarged by the same factor.


# %%
def rows(tokens):
    """Tokens d z y x as rows, without what they all share."""
    flat = rearrange(tokens, "d z y x -> (z y x) d")
    return flat - flat.mean(0)


def main_direction(tokens):
    """The direction in which tokens d z y x differ most; its sign is arbitrary."""
    return torch.linalg.svd(rows(tokens), full_matrices=False)[2][0]


side, cube = 4, (32, 32, 32) if short else (48, 48, 48)
box = nkd.Patches(unseen, size=cube, length=1, seed=2, foreground=1.0, augment=False)[0]
views = {
    axis: nkd.multi_view_tokens(teacher, box["image"][None], token=(side,) * 3, blocks=[5], views=axis, slices=1)[0][0]
    for axis in "zyx"
}
print("tokens of each view (width, z, y, x):", tuple(views["z"].shape))

image, mask = box["image"][0], box["mask"][0]
middle = torch.stack(list(views.values())).mean(0)
direction = main_direction(middle)
brightness = reduce(image, "(z i) (y j) (x k) -> (z y x)", "mean", i=side, j=side, k=side)
direction = direction * torch.sign(rows(middle) @ direction @ (brightness - brightness.mean()))
seen = {axis: (rows(view) @ direction).reshape(view.shape[1:]) for axis, view in views.items()}
limits = dict(zip(("vmin", "vmax"), torch.stack(list(seen.values())).quantile(torch.tensor([0.01, 0.99])), strict=True))

lengths = dict(zip("zyx", np.multiply(cube, um), strict=True))
figure, axes = plt.subplots(2, 3, figsize=(9, 6.2), layout="constrained")
for (above, below), across in zip(axes.T, "zyx", strict=True):
    at, (down, right) = "zyx".index(across), (axis for axis in "zyx" if axis != across)
    cut = "z y x".replace(across, f"({across} i)")
    layer = reduce(mask, f"{cut} -> {across}", "sum", i=side).argmax().item()  # the one with most neurite
    extent = (0, lengths[right], lengths[down], 0)
    above.imshow(image.narrow(at, side * layer, side).amax(at), cmap="gray", extent=extent)
    drawn = below.imshow(seen[across].select(at, layer), cmap="cividis", extent=extent, **limits)
    above.set_title(f"across {across}, layer {layer}")
    below.set_title("what the teacher sees")
    for panel in (above, below):
        panel.set(xlabel=f"{right} (µm)", ylabel=f"{down} (µm)")
nkd.Frame(cube, um).draw_scale_bar(axes[0, 0])
_ = figure.colorbar(drawn, ax=axes[1], label="main direction of the tokens", shrink=0.8)

# %% [markdown]
# *Above: the brightest voxels of one layer of tokens, cut across z, y and x. Below: the teacher's tokens (block 5) of that layer in that view. The colour shows their component along the direction in which all tokens of the box differ most.*
#
# Each view shows the teacher other pictures of the same place. If its tokens describe the *place*, then tokens of the same place in two views are more similar than tokens of two places.

# %%
generator = torch.Generator().manual_seed(0)
mixed = torch.randperm(middle[0].numel(), generator=generator)
for one, other in ("zy", "zx", "yx"):
    a, b = rows(views[one]), rows(views[other])
    same, different = 1 - nkd.cosine_loss(a, b).item(), 1 - nkd.cosine_loss(a, b[mixed]).item()
    print(f"views {one} and {other}: mean cosine {same:.2f} at one place, {different:.2f} at two")
    assert same > different + 0.1

# %% [markdown]
# ## 2 · Alignment
#
# If the teacher's grid were shifted against the student's by half a token, the student would learn to see neurites beside their true position, and no loss would show it. We test the alignment. We put a bright dot into one token of a dim, noisy volume, and find where the target changes. If we move the dot by one token, the change must move by one token, along each axis. From here on, tokens are 4 x 8 x 8 voxels, as in the other notebooks.

# %%
size = (12, 40, 40)
dim_noise = 0.2 * torch.rand(1, 1, *size, generator=generator)


def with_dot(at):
    """The noise, and a dot of 2 x 4 x 4 voxels in the middle of a token."""
    volume = dim_noise.clone()
    z, y, x = (n * t + t // 2 for n, t in zip(at, token, strict=True))
    volume[..., z - 1 : z + 1, y - 2 : y + 2, x - 2 : x + 2] = 1
    return volume


def target(volume):
    """What a student would be asked to match, from the teacher's block 2."""
    return nkd.multi_view_tokens(teacher, volume, token=token, blocks=[2])[0][0]


empty = target(dim_noise)
places = {"start": (1, 2, 2), "one along z": (2, 2, 2), "one along y": (1, 3, 2), "one along x": (1, 2, 3)}
changes = {name: (target(with_dot(at)) - empty).norm(dim=0) for name, at in places.items()}
most = max(change.max() for change in changes.values())
figure, axes = plt.subplots(1, 4, figsize=(11, 3.2), layout="constrained")
for panel, (name, at) in zip(axes, places.items(), strict=True):
    change = changes[name]
    found = tuple(int(i) for i in np.unravel_index(change.argmax().item(), change.shape))
    print(f"dot in token {at} (z, y, x), largest change of the target in {found}")
    assert found == at
    extent = (0, size[2] * um[2], size[1] * um[1], 0)
    drawn = panel.imshow(change[found[0]], cmap="viridis", vmin=0, vmax=most, extent=extent)
    middle_of = [(n + 0.5) * t * u for n, t, u in zip(at, token, um, strict=True)]
    panel.plot(middle_of[2], middle_of[1], "o", mfc="none", mec="white", mew=2, markersize=16)
    panel.set(xlabel="x (µm)", ylabel="y (µm)", title=f"{name}\n(layer z = {found[0]})")
_ = figure.colorbar(drawn, ax=axes, label="change of token (norm)")

# %% [markdown]
# *The layer of tokens in which the target changes most, for four positions of the dot. The white circle marks the dot.* Attention spreads a little of the change everywhere, but the largest change is at the dot. (The library's tests use a simple teacher that takes patch means. They confirm the alignment to 1e-6, on every axis and for six magnifications.)
#
# ## 3 · Three losses
#
# How different are two sets of tokens? The library has three losses. Each of them ignores something different:
#
# - **Cosine**: each token should point in the direction of the teacher's token. Its length does not matter.
# - **MSE**: each token, normalised over its channels, should have the same numbers as the teacher's token. (This is nearly the same as cosine; see exercise 2.)
# - **Gram**: any two tokens of the student should be as similar to each other as the same two tokens of the teacher. Only similarities *within* a network are compared, so the two networks may have different widths and different axes.
#
# The next cell compares the teacher's tokens of the box above with themselves and with five changed versions:

# %%
theirs = rows(views["z"])
rotation, _ = torch.linalg.qr(torch.randn(theirs.shape[1], theirs.shape[1], generator=generator))
thin = torch.randn(theirs.shape[1], 96, generator=generator)
changed = {
    "nothing changed": theirs,
    "three times as long": 3 * theirs,
    "turned to the opposite": -theirs,
    "all turned alike": theirs @ rotation,
    "projected to 96 channels": theirs @ thin,
    "places mixed up": theirs[mixed],
}
values = {}
for name, ours in changed.items():
    values[name] = {"gram": nkd.gram_loss(ours[None], theirs[None]).item()}
    if ours.shape == theirs.shape:
        values[name] |= {loss.__name__[:-5]: loss(ours, theirs).item() for loss in (nkd.cosine_loss, nkd.mse_loss)}
print(f"{'':>25} cosine    mse   gram")
for name, row in values.items():
    cells = (f"{row[loss]:6.2f}" if loss in row else "     -" for loss in ("cosine", "mse"))
    print(f"{name:>25} {' '.join(cells)} {row['gram']:6.3f}")
assert max(values["nothing changed"].values()) == 0
assert max(values["three times as long"].values()) < 1e-3
assert values["turned to the opposite"]["gram"] < 1e-9 < 1.9 < values["turned to the opposite"]["cosine"]
assert values["all turned alike"]["gram"] < 1e-9 < 0.5 < values["all turned alike"]["cosine"]
assert values["projected to 96 channels"]["gram"] < 0.3 * values["places mixed up"]["gram"]

# %% [markdown]
# Gram does not change if all tokens are rotated together. It compares only the *geometry* of the tokens, so the student may rotate its tokens freely. Cosine and MSE do change under a rotation. They therefore need a *projection*, a linear map that learns to rotate the student's tokens and to bring them to the teacher's width.
#
# All three losses first subtract the mean token on each side. Exercise 1 shows why.
#
# ## 4 · A small student from a large teacher
#
# The student differs from the teacher: it is 96 channels wide and 4 blocks deep. Its tokens are matched by cosine and Gram together (the default of `DistillConfig`), through a projection that is discarded afterwards. The teacher's tokens for a fixed set of crops are computed once. **This section uses no mask.**

# %%
student = nkd.NeuronSegmenter.from_scratch(
    dim=96, depth=4, heads=3, token=token, window=crop, generator=torch.Generator().manual_seed(0)
)
distillation = nkd.Distillation(teacher, student, generator=torch.Generator().manual_seed(0))
blocks = [block for block, _ in distillation.blocks]
for name, network in {"teacher": teacher, "student": student.vit, "projections": distillation.projections}.items():
    print(f"{name:>12}: {sum(p.numel() for p in network.parameters()) / 1e6:6.2f} million weights")
print(f"tokens of {teacher.vit.embed_dim} numbers against {student.config.vit.dim}")
print("blocks that are compared (student, teacher), from 0:", distillation.blocks)


def crops(samples, count, seed, augment):
    """A fixed batch of crops b 1 z y x."""
    patches = nkd.Patches(samples, size=crop, length=count, seed=seed, foreground=0.75, augment=augment)
    return torch.stack([patches[i]["image"] for i in range(count)])


known, held_out = crops(training, 8 if short else 48, 0, True), crops(unseen, 3 if short else 8, 1, False)
start = time.perf_counter()
known_targets, held_out_targets = distillation.targets(known), distillation.targets(held_out)
per_crop = (time.perf_counter() - start) / (len(known) + len(held_out))
print(f"the teacher takes {per_crop:.2f} s for a crop of {crop} voxels in three views")

# %%
frozen = {name: value.clone() for name, value in teacher.state_dict().items()}
steps = 40 if short else 300
optimizer = torch.optim.AdamW([*student.vit.parameters(), *distillation.learned()], lr=2e-3)
schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
curves = []


@torch.no_grad()
def distance(volumes, targets):
    """Cosine and Gram loss of the student as it is now."""
    _, parts = distillation.compare(student.vit.feature_maps(volumes, blocks), targets)
    return {name: value.item() for name, value in parts.items()}


before = distance(held_out, held_out_targets)
for step in tqdm(range(1, steps + 1), desc="distilling"):
    chosen = torch.randperm(len(known), generator=generator)[:4]
    maps = student.vit.feature_maps(known[chosen], blocks)
    loss, parts = distillation.compare(maps, [m[chosen] for m in known_targets], step=step)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    schedule.step()
    record = {"step": step, "trained on": {name: value.item() for name, value in parts.items()}}
    if step % (steps // 10) == 0:
        record["never seen"] = distance(held_out, held_out_targets)
    curves.append(record)
after, by_heart = distance(held_out, held_out_targets), distance(known, known_targets)

figure, axes = plt.subplots(1, 2, figsize=(9, 3.2), layout="constrained")
for panel, name in zip(axes, ("cosine", "gram"), strict=True):
    panel.plot([c["step"] for c in curves], [c["trained on"][name] for c in curves], color="C0", lw=1)
    points = [(0, before[name])] + [(c["step"], c["never seen"][name]) for c in curves if "never seen" in c]
    panel.plot(*zip(*points, strict=True), "o-", color="C1", markersize=4)
    panel.set(xlabel="step", ylabel=f"{name} loss", ylim=(0, None))
    panel.spines[["top", "right"]].set_visible(False)
_ = axes[0].legend(["4 crops trained on", "crops of a neuron never seen"], frameon=False)

# %%
for name in before:
    print(f"{name:>7} on the unseen neuron: {before[name]:.3f} before, {after[name]:.3f} after", end="")
    print(f" ({by_heart[name]:.3f} on the crops trained on)")
assert after["cosine"] < (0.85 if short else 0.6) * before["cosine"]
assert short or after["gram"] < before["gram"]
assert all(by_heart[name] < after[name] for name in before)
assert all(torch.equal(teacher.state_dict()[name], value) for name, value in frozen.items())  # not one bit moved

# %% [markdown]
# The student approaches the teacher on a neuron that it never saw. It is closer to the teacher on the training crops, so it has memorised part of what it learnt. More crops help, and `nkd.train` uses new ones in each step. Which of the teacher's blocks does the student match best? The next cell shows the three pairs of blocks on a crop of the unseen neuron. All tokens are scaled to length one, because the losses ignore a token's length.

# %%
agreement, maps = {}, {}
with torch.no_grad():
    tokens = student.vit.feature_maps(held_out, blocks)
    for (_, block), ours, theirs, onto in zip(
        distillation.blocks, tokens, held_out_targets, distillation.projections, strict=True
    ):
        ours, theirs = (rearrange(m, "b d z y x -> b z y x d") for m in (ours, theirs))
        ours, theirs = (unit(m - m.mean((0, 1, 2, 3)), dim=-1) for m in (onto(ours), theirs))
        agreement[block] = (ours * theirs).sum(-1).mean().item()
        direction = main_direction(rearrange(theirs, "b z y x d -> d (b z) y x"))
        maps[block] = {"teacher": theirs[0] @ direction, "student": ours[0] @ direction}
        print(f"teacher's block {block:>2}: mean cosine with the student {agreement[block]:.2f}")
assert abs(1 - np.mean(list(agreement.values())) - after["cosine"]) < 1e-4  # the same numbers, by hand
shallow, *_, deep = agreement.values()
assert shallow > 0.4 and shallow > deep

layer = crop[0] // token[0] // 2
first = layer * token[0]
extent = (0, crop[2] * um[2], crop[1] * um[1], 0)
figure, panels = plt.subplot_mosaic(
    [["crop", *(f"{who} {block}" for block in maps)] for who in ("teacher", "student")],
    figsize=(11, 5.4),
    layout="constrained",
)
panels["crop"].imshow(held_out[0, 0, first : first + token[0]].amax(0), cmap="gray", extent=extent)
panels["crop"].set_title(f"slices {first} to {first + token[0] - 1}")
nkd.Frame(crop, um).draw_scale_bar(panels["crop"])
for block, pair in maps.items():
    for who, seen in pair.items():
        panel = panels[f"{who} {block}"]
        drawn = panel.imshow(seen[layer], cmap="cividis", extent=extent, vmin=-1, vmax=1)
        panel.set_title(f"teacher, block {block}" if who == "teacher" else "student's answer")
for panel in panels.values():
    panel.set(xlabel="x (µm)", ylabel="y (µm)")
_ = figure.colorbar(drawn, ax=list(panels.values()), label="cosine with the block's main direction")

# %% [markdown]
# *Left: the brightest voxels of one layer of tokens. Above: the teacher's tokens of this layer for three of its blocks, along the direction in which that block's tokens differ most. Below: the student's tokens after the projection.* The last block is the hardest to match. This small student, trained on these few crops, does not come close to it.
#
# ## 5 · Beside segmentation: a schedule and a cache
#
# In a training run the comparison with the teacher is an additional term of the loss. Its weight falls to zero, so the student first learns from the teacher and then from the masks. Once the weight is zero, the teacher is not run any more. `DistillConfig(schedule=...)` offers two falling schedules and a constant weight:

# %%
run_steps = 6 if short else 20
half = run_steps // 2
schedules = {
    name: nkd.DistillConfig(schedule=name, steps=None if name == "constant" else half, views=("z",), slices=1)
    for name in ("constant", "cosine", "linear")
}
result = nkd.train(
    student,
    training,
    unseen,
    folder / "beside",
    config=nkd.TrainConfig(steps=run_steps, batch_size=1, validate_every=run_steps, seed=0),
    distillation=nkd.Distillation(teacher, student, config=schedules["linear"]),
    progress=False,
)
history = [record for record in result.history if "loss" in record]
weights = [record["distill_weight"] for record in history]
assert np.allclose(weights, [schedules["linear"].weight_at(step) for step in range(run_steps)])
assert all(("distill_cosine" in record) == (weight > 0) for record, weight in zip(history, weights, strict=True))

figure, axes = plt.subplots(figsize=(6, 2.8), layout="constrained")
fine = np.linspace(0, run_steps - 1, 200)
for (name, settings), colour in zip(schedules.items(), ("C0", "0.4", "C1"), strict=True):
    axes.plot(fine, [settings.weight_at(step) for step in fine], color=colour, label=name)
axes.plot(range(run_steps), weights, "o", color="C1", label="in this run")
axes.set(xlabel="steps done", ylabel="weight", xticks=range(0, run_steps, max(1, run_steps // 10)))
axes.spines[["top", "right"]].set_visible(False)
_ = axes.legend(frameon=False, loc="center right", bbox_to_anchor=(1.0, 0.6))

# %% [markdown]
# Does the student segment better after this? **This notebook does not answer that**, because it uses one seed and a few steps. [09 · Does it help?](09_does_it_help.ipynb) compares students with and without distillation on the same crops.
#
# Running the teacher takes time. If a crop occurs again, the result can be reused. `cache` names a folder that stores the teacher's tokens in float16 and finds them by the content of the crop. (Crops occur again, for example, in a second run with the same seed and another weight.)

# %%
teacher.cpu()  # where there is a GPU, the run above took it there
cached = nkd.Distillation(teacher, student.cpu(), cache=folder / "tokens")
answers, seconds = [], []
for _ in range(2):
    start = time.perf_counter()
    answers.append(cached.targets(held_out[:2]))
    seconds.append(time.perf_counter() - start)
files = list((folder / "tokens").iterdir())
print(f"asked the first time {seconds[0]:.2f} s, the second time {seconds[1]:.3f} s")
print(f"{len(files)} files of {files[0].stat().st_size / 1e6:.2f} MB")
assert len(files) == 2 and seconds[1] < seconds[0]
assert all(torch.equal(a, b) for a, b in zip(*answers, strict=True))
off = max(nkd.cosine_loss(rows(a[0]), rows(b[0])).item() for a, b in zip(answers[1], held_out_targets, strict=True))
print(f"what float16 costs: a cosine loss of {off:.1e}")
assert off < 1e-4

# %% [markdown]
# ## 6 · An anchor
#
# Distillation has a second use. A student that was *inflated* from the teacher sees nearly what the teacher sees at step 0, but it may forget this during training. The Gram loss with a constant weight acts as a regulariser that keeps the student near the teacher. To make forgetting visible in a few steps, the transferred weights get ten times their usual learning rate.
#
# We measure forgetting on crops of the unseen neuron: how far are the student's tokens from the teacher's? The anchor itself uses only the training crops.

# %%
tune_steps, anchor_weight = 10 if short else 40, 30.0
probe = crops(unseen, 2 if short else 4, 3, False)
forgot, task = {}, {}
for name, weight in {"no anchor": 0.0, "Gram anchor": anchor_weight}.items():
    teacher.cpu()
    inflated = nkd.NeuronSegmenter.from_teacher(
        teacher, preset="tiny", token=token, window=crop, generator=torch.Generator().manual_seed(0)
    )
    look = {"views": ("z",), "slices": 1}  # what an inflated student sees: one slice of each token
    ruler = nkd.Distillation(teacher, inflated, config=nkd.DistillConfig(**look))
    sees, log = ruler.targets(probe), forgot.setdefault(name, [])

    @torch.no_grad()
    def measure(record, model=inflated, ruler=ruler, sees=sees, log=log):
        """A callback: how far are the tokens from what the teacher sees?"""
        if record["step"] % (tune_steps // 5) == 0 and "val_dice" not in record:
            maps = model.vit.feature_maps(probe.to(model.norms[0].weight.device), model.config.blocks)
            _, parts = ruler.compare([m.float().cpu() for m in maps], sees)
            log.append({"step": record["step"]} | {key: value.item() for key, value in parts.items()})

    measure({"step": 0})
    anchor = nkd.DistillConfig(cosine=0.0, gram=1.0, weight=weight, **look)
    rates = {"lr_transferred": 10 * nkd.TrainConfig.lr_transferred}
    outcome = nkd.train(
        inflated,
        training,
        unseen,
        folder / name.replace(" ", "-"),
        config=nkd.TrainConfig(steps=tune_steps, batch_size=1, validate_every=tune_steps, seed=0, **rates),
        distillation=nkd.Distillation(teacher, inflated, config=anchor),
        callback=measure,
        progress=False,
    )
    losses = [r["loss"] - weight * r.get("distill_gram", 0.0) for r in outcome.history if "loss" in r]
    task[name] = np.mean(losses[-5:])
    last = log[-1]
    print(f"{name:>12}: away from the teacher by cosine {last['cosine']:.3f}, Gram {last['gram']:.4f}", end="; ")
    print(f"segmentation loss of the last 5 steps {task[name]:.3f}")

# %%
figure, axes = plt.subplots(1, 2, figsize=(9, 3.2), layout="constrained")
for (name, log), colour in zip(forgot.items(), ("C1", "C0"), strict=True):
    for panel, key in zip(axes, ("cosine", "gram"), strict=True):
        panel.plot([r["step"] for r in log], [r[key] for r in log], "o-", color=colour, markersize=4, label=name)
for panel, label in zip(axes, ("direction (cosine loss)", "similarities (Gram loss)"), strict=True):
    panel.set(xlabel="step", ylabel=f"away from the teacher:\n{label}", ylim=(0, None))
    panel.spines[["top", "right"]].set_visible(False)
_ = axes[0].legend(frameon=False)
free, held = forgot.values()
assert free[0] == held[0] and free[0]["cosine"] < 0.1  # inflation brought nearly all of it
assert free[-1]["gram"] > 5 * free[0]["gram"]  # without an anchor it is forgotten
assert held[-1]["gram"] < 0.6 * free[-1]["gram"] and held[-1]["cosine"] < free[-1]["cosine"]

# %% [markdown]
# *Distance of the tokens from the teacher's tokens, on crops of a neuron that was not used in training.* The anchor preserves the similarities, and to a lesser degree also the directions. It needs some steps to take effect, because Adam's first steps are as long with the anchor as without. This does not show that less forgetting is *better*: a student must move away from the teacher to learn, and the segmentation losses above come from one seed. The anchor is meant for small data sets and long runs. Choose its weight on validation.
#
# ## What was learnt
#
# - A frozen 2D teacher can look at a volume in three views. Its tokens of one place agree between views. They align with the student's grid, token by token.
# - A smaller student with another architecture learns to give tokens that are more similar to the teacher's, on a neuron that it never saw and without any mask. It matches earlier blocks better than the last one. It also memorises part of the training crops.
# - Cosine and MSE ask for the teacher's numbers, up to a learnt projection. Gram asks only for the teacher's geometry.
# - With a falling weight, distillation gives the student a start. With a constant weight, it is an anchor, and an inflated student forgets less.
# - This notebook does not show that either use improves segmentation, nor which weights and blocks are best. It uses one seed, one teacher and simulated neurons.
# - A trained segmenter can also teach its probabilities. Use `nkd.SoftTargets(large)` in place of `nkd.Distillation` to train a smaller student on them.
#
# ## Exercises
#
# 1. Do not subtract the mean token. How similar are two tokens of the teacher's last block, at two random places? Suppose a student always gives the same token. What is its cosine loss?
# 2. In the table of section 3, MSE was about twice the cosine loss. Is this a coincidence? Subtract from each token the mean of its channels, and compare again.
# 3. How much time do one and two of the three views take? How far are their tokens from those of three views?

# %% [markdown]
# <details><summary>Solution of exercise 1</summary>
#
# Most of a late token is the same everywhere. A student that gives only this common token, and has learnt nothing about the volume, would already have nearly no loss. If the mean is subtracted, its token becomes zero, and the loss is large.
#
# </details>

# %% jupyter={"source_hidden": true} tags=["hide-input"]
flat = rearrange(held_out_targets[-1], "b d z y x -> (b z y x) d")
constant = repeat(flat.mean(0), "d -> n d", n=len(flat))
shuffled = flat[torch.randperm(len(flat), generator=torch.Generator().manual_seed(0))]
print(f"mean cosine of tokens of two places: {1 - nkd.cosine_loss(flat, shuffled).item():.2f}")
lazy = nkd.cosine_loss(constant, flat).item()
lazy_centred = nkd.cosine_loss(torch.zeros_like(flat), flat - flat.mean(0)).item()
print(f"loss of a student that always says the same: {lazy:.3f} as it is, {lazy_centred:.3f} when centred")
assert lazy < 0.2 < lazy_centred

# %% [markdown]
# <details><summary>Solution of exercise 2</summary>
#
# It is not a coincidence. Normalising subtracts a token's channel mean and scales the token to length √d. The mean squared difference of two such tokens is 2 (1 - cosine). So MSE is twice the cosine loss of tokens that are also centred over their *channels*. It differs from twice the cosine loss only if the channel mean is large.
#
# </details>

# %% jupyter={"source_hidden": true} tags=["hide-input"]
a, b = rows(views["z"]), rows(views["y"])
without = (tokens - tokens.mean(1, keepdim=True) for tokens in (a, b))
mse, plain, twice = nkd.mse_loss(a, b).item(), nkd.cosine_loss(a, b).item(), 2 * nkd.cosine_loss(*without).item()
print(f"MSE {mse:.4f}; twice the cosine loss {2 * plain:.4f}, and of tokens without their channel mean {twice:.4f}")
assert abs(mse - twice) < 1e-3 * twice

# %% [markdown]
# <details><summary>Solution of exercise 3</summary>
#
# Tokens are flat, so there are many narrow slices across y and x. One view takes less time, but it is another target. Choose the number of views on validation.
#
# </details>

# %% jupyter={"source_hidden": true} tags=["hide-input"]
teacher.cpu()
three = rows(held_out_targets[-1][0])
for chosen in ("z", "zy"):
    start = time.perf_counter()
    (fewer,) = nkd.multi_view_tokens(teacher, held_out[:1], token=token, blocks=[11], views=chosen)
    seconds, alike = time.perf_counter() - start, 1 - nkd.cosine_loss(rows(fewer[0]), three).item()
    print(f"views {chosen:>2}: {seconds:.2f} s ({per_crop:.2f} s for three), mean cosine to three views {alike:.2f}")
    assert alike < 0.99

# %% [markdown]
# **Next.** [06 · Training](06_training.ipynb) explains the training loop of sections 5 and 6, line by line.
