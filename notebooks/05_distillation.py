# ---
# jupyter:
#   jupytext:
#     formats: ipynb,py:percent
# ---

# %% [markdown]
# # Learning from a teacher without copying it
#
# > **Question.** Can a 3D student of any width and depth learn to see what a frozen 2D teacher sees, when no weight can be copied and nobody has annotated anything?
# >
# > **Know first.** `00_quickstart`; what a token of a vision transformer is.
# >
# > **Takes.** Some minutes on 2 CPU cores. No download beyond the teacher (90 MB, the first time).
#
# *Inflation* copies the teacher's weights, so the student must have the teacher's width. *Distillation* copies none: it compares what the two networks answer.
#
# ```
# volume ─┬─► student (3D, learns) ──► tokens ──► projection ─┐
#         │                                                   ├─► how different?
#         └─► slices z, y, x ──► teacher (2D, frozen) ────────┘
# ```
#
# **Whose idea is this?** The second paper behind this package (arXiv:2410.22078) speaks of distillation "in the latent embedding space" and of "multi-view learning"; whether it compares features, and with which loss, is not known to us. What you see here is **our extension**, made of known parts: hidden tokens matched through a projection (arXiv:1412.6550) and similarities between tokens (arXiv:1907.09682, arXiv:2508.10104).

# %%
import logging
import time

import matplotlib.pyplot as plt
import numpy as np
import torch
from einops import rearrange, repeat
from tqdm.auto import tqdm

import neurokd as nkd
from neurokd.profile import profile, run_folder

logging.getLogger("lightning_fabric.utilities.rank_zero").setLevel(logging.WARNING)
short = profile() == "ci"
folder = run_folder("distillation")
crop, token = (8, 48, 48) if short else (16, 64, 64), (4, 8, 8)
neurons = nkd.simulated_neurons(3 if short else 4, seed=5, shape=(40, 96, 96) if short else (64, 128, 128))
training, unseen = neurons[:-1], neurons[-1:]
um = unseen[0].spacing
teacher = nkd.load_teacher()
print(teacher.source)

# %% [markdown]
# ## 1 · Three views
#
# The teacher knows only pictures. A crop is shown to it as slices across z, across y and across x, each enlarged until one student token (4 x 8 x 8 voxels) covers whole patches of the teacher. Its tokens are then averaged onto the student's grid. The crop below has equal sides, so that each view shows the same amount.


# %%
def first_component(tokens):
    """Project tokens d z y x on the direction in which they differ most; its sign is arbitrary."""
    flat = rearrange(tokens, "d z y x -> (z y x) d")
    flat = flat - flat.mean(0)
    _, _, directions = torch.linalg.svd(flat, full_matrices=False)
    return rearrange(flat @ directions[0], "(z y x) -> z y x", z=tokens.shape[1], y=tokens.shape[2])


cube = (32, 32, 32) if short else (48, 48, 48)
image = nkd.Patches(unseen, size=cube, length=1, seed=2, foreground=1.0, augment=False)[0]["image"]
views = {
    axis: nkd.multi_view_tokens(teacher, image[None], token=token, taps=[5], views=axis, magnification=1.75)[0][0]
    for axis in "zyx"
}
print("tokens of each view (width, z, y, x):", tuple(views["z"].shape))

figure, axes = plt.subplots(2, 3, figsize=(9, 5.6), layout="constrained")
lengths = dict(zip("zyx", np.multiply(cube, um), strict=True))
component = first_component(torch.stack(list(views.values())).mean(0))
for panel, below, across in zip(*axes, "zyx", strict=True):
    down, right = (axis for axis in "zyx" if axis != across)
    extent = (0, lengths[right], lengths[down], 0)
    panel.imshow(image[0].amax("zyx".index(across)), cmap="gray", extent=extent)
    seen = first_component(views[across])
    seen = seen * torch.sign((seen * component).sum())  # one sign for all three
    at = "zyx".index(across)
    strongest = (seen - seen.median()).abs().amax(dim=[i for i in range(3) if i != at]).argmax().item()
    drawn = below.imshow(seen.select(at, strongest), cmap="cividis", extent=extent)
    panel.set_title(f"across {across}: the crop, brightest voxels")
    below.set_title(f"what the teacher makes of layer {strongest}")
    for one in (panel, below):
        one.set(xlabel=f"{right} (µm)", ylabel=f"{down} (µm)")
figure.colorbar(drawn, ax=axes[1], label="first component", shrink=0.8)
_ = figure.suptitle("Tokens of block 5 in three views, by the direction in which they differ most")

# %% [markdown]
# Each view is a network's answer to other pictures of the same place. If they say something about the *place*, then the answers to one place must be more alike than the answers to two places. (First the mean token is taken away; exercise 1 shows why.)


# %%
def centred(tokens):
    """Tokens ... z y x as rows, without what they all share."""
    flat = rearrange(tokens, "d z y x -> (z y x) d")
    return flat - flat.mean(0)


mixed = torch.randperm(centred(views["z"]).shape[0], generator=torch.Generator().manual_seed(0))
for one, other in ("zy", "zx", "yx"):
    a, b = centred(views[one]), centred(views[other])
    same, different = 1 - nkd.cosine_loss(a, b).item(), 1 - nkd.cosine_loss(a, b[mixed]).item()
    print(f"views {one} and {other}: mean cosine {same:.2f} at one place, {different:.2f} at two")
    assert same > different + 0.1

# %% [markdown]
# ## 2 · Alignment
#
# If the teacher's grid were shifted against the student's by half a token, the student would learn to see neurites beside where they are, and no loss would complain. So: put a bright dot into one token of a dim, noisy volume, and ask where the target changes. Move the dot by one token; the change must move by one token, along each axis.

# %%
size = (12, 40, 40)
dim_noise = 0.2 * torch.rand(1, 1, *size, generator=torch.Generator().manual_seed(0))


def with_dot(at):
    """The noise, and a dot of 2 x 4 x 4 voxels in the middle of a token."""
    volume = dim_noise.clone()
    z, y, x = (n * t + t // 2 for n, t in zip(at, token, strict=True))
    volume[..., z - 1 : z + 1, y - 2 : y + 2, x - 2 : x + 2] = 1
    return volume


def target(volume):
    """What a student would be asked to match, from the teacher's block 2."""
    return nkd.multi_view_tokens(teacher, volume, token=token, taps=[2])[0][0]


empty = target(dim_noise)
places = {"start": (1, 2, 2), "moved along z": (2, 2, 2), "along y": (1, 3, 2), "along x": (1, 2, 3)}
figure, axes = plt.subplots(1, 4, figsize=(11, 3), layout="constrained")
for panel, (name, at) in zip(axes, places.items(), strict=True):
    change = (target(with_dot(at)) - empty).norm(dim=0)
    found = tuple(int(i) for i in np.unravel_index(change.argmax().item(), change.shape))
    drawn = panel.imshow(change[found[0]], cmap="viridis", vmin=0)
    panel.plot(at[2], at[1], "o", mfc="none", mec="white", markersize=14)
    panel.set(xlabel="x (tokens)", ylabel="y (tokens)", title=f"{name}\nlargest in layer z = {found[0]}")
    print(f"dot in token {at}, largest change of the target in {found}")
    assert found == at
figure.colorbar(drawn, ax=axes, label="change of token (norm)")
_ = figure.suptitle("The white circle is the token that holds the dot")

# %% [markdown]
# Attention spreads a little of the change everywhere, but its peak is where the dot is. (With a stand-in teacher that takes patch means, the library's tests show it to 1e-6, on every axis and for six magnifications.)
#
# ## 3 · Two losses
#
# - **Cosine**: each student token, after a learned linear projection onto the teacher's width, should point where the teacher's token points. 0 is perfect, 1 is "knows nothing".
# - **Gram**: any two tokens of the student should be as similar to each other as those two of the teacher. No projection is needed, since only similarities *within* a network are compared.
#
# ## 4 · A small student from a large teacher
#
# The student is built otherwise: 96 wide and 4 blocks deep, against 384 and 12. Its tokens, 96 numbers each, are matched through a projection that is thrown away afterwards. The teacher's answers to a fixed set of crops are computed once; here they are simply kept in memory (`Distillation(..., cache=folder)` keeps them on disk). **No mask is used in this section.**

# %%
student = nkd.NeuronSegmenter.from_scratch(
    dim=96, depth=4, heads=3, token=token, window=crop, generator=torch.Generator().manual_seed(0)
)
distillation = nkd.Distillation(teacher, student, generator=torch.Generator().manual_seed(0))
taps = [tap for tap, _ in distillation.taps]
for name, network in {"teacher": teacher, "student": student.vit, "projections": distillation.projections}.items():
    print(f"{name:>12}: {sum(p.numel() for p in network.parameters()) / 1e6:6.2f} million weights")
print("blocks that are compared (student, teacher), from 0:", distillation.taps)


def images(samples, count, seed, augment):
    """A fixed batch of crops b 1 z y x."""
    patches = nkd.Patches(samples, size=crop, length=count, seed=seed, foreground=0.75, augment=augment)
    return torch.stack([patches[i]["image"] for i in range(count)])


seen, held_out = images(training, 12 if short else 48, 0, True), images(unseen, 4 if short else 8, 1, False)
start = time.perf_counter()
seen_targets, held_out_targets = distillation.targets(seen), distillation.targets(held_out)
per_crop = (time.perf_counter() - start) / (len(seen) + len(held_out))
print(f"the teacher takes {per_crop:.2f} s for a crop of {crop} voxels in three views")

# %%
frozen = {name: value.clone() for name, value in teacher.state_dict().items()}
steps = 40 if short else 300
optimizer = torch.optim.AdamW([*student.vit.parameters(), *distillation.learned()], lr=2e-3)
schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
generator = torch.Generator().manual_seed(0)
curves = []


def distance(volumes, targets):
    """Cosine and Gram loss of the student as it is now."""
    with torch.no_grad():
        _, parts = distillation.compare(student.vit.feature_maps(volumes, taps), targets)
    return {name: value.item() for name, value in parts.items()}


before = distance(held_out, held_out_targets)
for step in tqdm(range(1, steps + 1), desc="distilling"):
    chosen = torch.randperm(len(seen), generator=generator)[:4]
    loss, parts = distillation.compare(
        student.vit.feature_maps(seen[chosen], taps), [m[chosen] for m in seen_targets], step=step
    )
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    schedule.step()
    record = {f"{name}, trained on": value.item() for name, value in parts.items()}
    if step % (steps // 10) == 0:
        record |= {f"{name}, never seen": value for name, value in distance(held_out, held_out_targets).items()}
    curves.append({"step": step} | record)
after = distance(held_out, held_out_targets)

figure, axes = plt.subplots(1, 2, figsize=(9, 3.2), layout="constrained")
for panel, name in zip(axes, ("cosine", "gram"), strict=True):
    panel.plot(*zip(*[(c["step"], c[f"{name}, trained on"]) for c in curves], strict=True), color="#56B4E9", lw=1)
    late = [(0, before[name])] + [(c["step"], c[f"{name}, never seen"]) for c in curves if f"{name}, never seen" in c]
    panel.plot(*zip(*late, strict=True), "o-", color="#D55E00", markersize=4)
    panel.set(xlabel="step", ylabel=f"{name} loss", ylim=(0, None))
    panel.spines[["top", "right"]].set_visible(False)
axes[0].legend(["4 crops trained on", "crops of a neuron never seen"], frameon=False)
_ = figure.suptitle("The student approaches the teacher")

# %%
for name in before:
    print(f"{name:>7} on the unseen neuron: {before[name]:.3f} before, {after[name]:.3f} after")
assert after["cosine"] < (0.85 if short else 0.6) * before["cosine"]
assert short or after["gram"] < before["gram"]
assert all(torch.equal(teacher.state_dict()[name], value) for name, value in frozen.items())  # not one bit moved

# %% [markdown]
# The two curves separate: part of what the student learnt is these crops by heart. More crops help, and in `nkd.train` each step has new ones. Side by side, on a crop of the unseen neuron, in the teacher's own coordinates:

# %%
theirs = held_out_targets[-1][0]
with torch.no_grad():
    tokens = rearrange(student.vit.feature_maps(held_out[:1], taps)[-1], "1 d z y x -> z y x d")
    ours = rearrange(distillation.projections[-1](tokens), "z y x d -> d z y x")
flat = centred(theirs)
direction = torch.linalg.svd(flat, full_matrices=False)[2][0]
grid = {"z": theirs.shape[1], "y": theirs.shape[2]}
maps = {
    name: rearrange(centred(m) @ direction, "(z y x) -> z y x", **grid)
    for name, m in {"teacher": theirs, "student": ours}.items()
}
layer = (maps["teacher"] - maps["teacher"].median()).abs().amax((1, 2)).argmax().item()
height, width = np.multiply(crop, um)[1:]
figure, axes = plt.subplots(1, 3, figsize=(10, 3.2), layout="constrained")
slab = held_out[0, 0, layer * token[0] : (layer + 1) * token[0]]
axes[0].imshow(slab.amax(0), cmap="gray", extent=(0, width, height, 0))
axes[0].set_title(f"crop, brightest of slices {layer * token[0]} to {(layer + 1) * token[0] - 1}")
limits = {"vmin": maps["teacher"][layer].min(), "vmax": maps["teacher"][layer].max()}
for panel, (name, m) in zip(axes[1:], maps.items(), strict=True):
    drawn = panel.imshow(m[layer], cmap="cividis", extent=(0, width, height, 0), **limits)
    panel.set_title(f"{name}, last block")
for panel in axes:
    panel.set(xlabel="x (µm)", ylabel="y (µm)")
_ = figure.colorbar(drawn, ax=axes[1:], label="teacher's first component")
agreement = torch.corrcoef(torch.stack([m.flatten() for m in maps.values()]))[0, 1].item()
print(f"correlation of the two maps: {agreement:.2f}")
assert short or agreement > 0.3

# %% [markdown]
# ## 5 · Beside segmentation
#
# In a training run the comparison is one more term of the loss, with a weight that falls to zero: first see like the teacher, then do what the masks ask. The teacher is not run any more once the weight is zero.

# %%
run_steps = 4 if short else 20
config = nkd.TrainConfig(steps=run_steps, batch_size=1, crop=crop, validate_every=run_steps, seed=0)
settings = nkd.DistillConfig(schedule="linear", steps=run_steps // 2, views=("z",), slices=1)
distilled = nkd.train(
    student,
    training,
    unseen,
    folder / "beside",
    config=config,
    distillation=nkd.Distillation(teacher, student, config=settings),
    progress=False,
)
for record in distilled.history[:: max(1, run_steps // 4)]:
    parts = {key.removeprefix("distill_"): f"{value:.3f}" for key, value in record.items() if "distill" in key}
    print(f"step {record['step']:>2}: loss {record.get('loss', np.nan):.3f}", parts)
weights = [record["distill_weight"] for record in distilled.history if "loss" in record]
assert weights[0] == 1 and weights[run_steps // 2 :] == [0.0] * (run_steps - run_steps // 2)

# %% [markdown]
# Does the student segment better for it? **This notebook does not say.** One seed and a few steps cannot; that takes several seeds, a rate tuned for each arm, and the same crops for all.
#
# ## 6 · An anchor
#
# The other use. A student that was *inflated* from the teacher knows everything at step 0 and may forget it while it is tuned. The Gram loss at a constant weight ties it to the teacher. To make forgetting visible in a few steps, the transferred weights get ten times the usual rate.
#
# *Drift* is measured on crops of the unseen neuron, against the student's own tokens at step 0. The anchor never sees these crops nor these tokens: it compares training crops with the teacher.

# %%
tune_steps = 10 if short else 40
probe = images(unseen, 2 if short else 4, 3, False)
drifts, finals = {}, {}
for name, weight in {"no anchor": 0.0, "Gram anchor": 30.0}.items():
    teacher.cpu()  # where there is a GPU, a run takes it there
    inflated = nkd.NeuronSegmenter.from_teacher(
        teacher, preset="tiny", token=token, window=crop, generator=torch.Generator().manual_seed(0)
    )
    looked_at = inflated.config.taps
    with torch.no_grad():
        first = [m.clone() for m in inflated.vit.feature_maps(probe, looked_at)]
    anchor = nkd.DistillConfig(views=("z",), slices=1, cosine=0.0, gram=1.0, weight=weight)
    drift = drifts[name] = [(0, 0.0, 0.0)]

    def measure(record, model=inflated, first=first, drift=drift):
        """A callback: how far are the tokens from where they were?"""
        if "loss" not in record or record["step"] % (tune_steps // 5):
            return
        device = next(model.parameters()).device
        with torch.no_grad():
            now = [m.float().cpu() for m in model.vit.feature_maps(probe.to(device), model.config.taps)]
        pairs = [
            (centred(a)[None], centred(b)[None])
            for x, y in zip(now, first, strict=True)
            for a, b in zip(x, y, strict=True)
        ]
        losses = [[f(a, b).item() for a, b in pairs] for f in (nkd.cosine_loss, nkd.gram_loss)]
        drift.append((record["step"], *np.mean(losses, axis=1)))

    outcome = nkd.train(
        inflated,
        training,
        unseen,
        folder / name.replace(" ", "-"),
        config=nkd.TrainConfig(
            steps=tune_steps, batch_size=1, crop=crop, lr_transferred=3e-4, validate_every=tune_steps, seed=0
        ),
        distillation=nkd.Distillation(teacher, inflated, config=anchor),
        callback=measure,
        progress=False,
    )
    finals[name] = np.mean([r["loss"] - weight * r.get("distill_gram", 0) for r in outcome.history[-6:-1]])
    print(
        f"{name:>12}: cosine drift {drift[-1][1]:.3f}, Gram drift {drift[-1][2]:.4f}, segmentation loss {finals[name]:.3f}"
    )

# %%
figure, axes = plt.subplots(1, 2, figsize=(9, 3.2), layout="constrained")
for (name, drift), colour in zip(drifts.items(), ("#D55E00", "#0072B2"), strict=True):
    at, cosine, gram = zip(*drift, strict=True)
    for panel, values in zip(axes, (cosine, gram), strict=True):
        panel.plot(at, values, "o-", color=colour, markersize=4, label=name)
for panel, kind in zip(axes, ("direction (1 - cosine)", "similarities (Gram)"), strict=True):
    panel.set(xlabel="step", ylabel=f"drift of {kind}", ylim=(0, None))
    panel.spines[["top", "right"]].set_visible(False)
axes[0].legend(frameon=False)
_ = figure.suptitle("Drift of the tokens on a neuron never trained on")
assert drifts["Gram anchor"][-1][2] < drifts["no anchor"][-1][2]

# %% [markdown]
# The anchor holds what it is told to hold, the similarities, and more loosely the directions of the tokens. Whether less drift is *good* is another question: to learn is to move. The anchor is for small data sets and long runs, and its weight is to be chosen on validation.
#
# ## What was learnt
#
# - A frozen 2D teacher can be asked about a volume in three views; its answers about one place agree, and lie exactly on the student's grid.
# - A student a fraction of its size and built otherwise learns to answer like it on a neuron never seen, without any mask; partly it learns the crops by heart.
# - The same loss at a constant weight is an anchor: the tokens of an inflated student drift less.
# - Not shown: that either use segments better, nor which weights and blocks are best. One seed, one teacher, simulated neurons.
#
# ## Exercises
#
# 1. Leave out the centring. How alike are two tokens of the teacher's last block, at places that have nothing in common? What would the cosine loss of a student be that always gives the same token?
# 2. Turn all tokens of a network by one rotation. What do Gram and cosine say, and what does it mean for the anchor?
# 3. What do two of the three views cost, and how far are the tokens from one view from those of three?

# %% [markdown]
# <details><summary>Solution of exercise 1</summary>
#
# Most of a late token is the same everywhere. A student that has learnt that one token and nothing about the volume would already have nearly no loss. Without what is common, it has a loss of about one half (a zero token points nowhere), and a random one about 1.
#
# </details>

# %% jupyter={"source_hidden": true} tags=["hide-input"]
rows = rearrange(held_out_targets[-1], "b d z y x -> (b z y x) d")
constant = repeat(rows.mean(0), "d -> n d", n=len(rows))
shuffled = rows[torch.randperm(len(rows), generator=torch.Generator().manual_seed(0))]
print(f"mean cosine of tokens of two places: {1 - nkd.cosine_loss(rows, shuffled).item():.2f}")
lazy = nkd.cosine_loss(constant, rows).item()
lazy_centred = nkd.cosine_loss(constant - constant.mean(0), rows - rows.mean(0)).item()
print(f"loss of a student that always says the same: {lazy:.3f} as it is, {lazy_centred:.3f} when centred")
assert lazy < 0.2 < lazy_centred

# %% [markdown]
# <details><summary>Solution of exercise 2</summary>
#
# Gram says "nothing has happened": it compares angles between tokens of one network, and a rotation keeps them. So the anchor holds the *geometry* of what is seen and leaves the student free to turn it; what reads the tokens (the decoder) must turn along.
#
# </details>

# %% jupyter={"source_hidden": true} tags=["hide-input"]
rows = rows - rows.mean(0)
rotation, _ = torch.linalg.qr(torch.randn(rows.shape[1], rows.shape[1], generator=torch.Generator().manual_seed(0)))
turned = rows @ rotation
print(f"Gram {nkd.gram_loss(turned[None], rows[None]).item():.1e}, cosine {nkd.cosine_loss(turned, rows).item():.2f}")
assert nkd.gram_loss(turned[None], rows[None]) < 1e-8 and nkd.cosine_loss(turned, rows) > 0.5

# %% [markdown]
# <details><summary>Solution of exercise 3</summary>
#
# For flat tokens, slices across y and x are many and narrow. One view is cheaper, and it is another target: choose on validation.
#
# </details>

# %% jupyter={"source_hidden": true} tags=["hide-input"]
teacher.cpu()
three = centred(held_out_targets[-1][0])
for chosen in ("z", "zy"):
    start = time.perf_counter()
    (fewer,) = nkd.multi_view_tokens(teacher, held_out[:1], token=token, taps=[11], views=chosen)
    seconds, alike = time.perf_counter() - start, 1 - nkd.cosine_loss(centred(fewer[0]), three).item()
    print(f"views {chosen:>2}: {seconds:.2f} s ({per_crop:.2f} s for three), mean cosine to three views {alike:.2f}")
    assert alike < 0.99

# %% [markdown]
# **Next.** `06_training`: the loop that section 5 used, line by line.
