# ---
# jupyter:
#   jupytext:
#     formats: ipynb,py:percent
# ---

# %% [markdown]
# # From a network for pictures to one for volumes
#
# > **Question.** How can a layer that was trained on colour photographs become a layer for grey volumes without losing what it knows?
# >
# > **Know first.** You need to know what a convolution is. A vision transformer begins with a convolution (a patch becomes a token) and continues with attention between tokens. Notebook 02 shows what knowledge could be lost. A little linear algebra helps.
# >
# > **Takes.** 25 s on 2 CPU cores, 27 s in the short profile (`NEUROKD_PROFILE=ci`); 2.0 GB of memory. Downloads 90 MB the first time.
#
# Only the first layer and the positions of a vision transformer depend on rows, columns and colours. All other layers see a list of tokens, and are copied. The conversion therefore has four small steps, and each can be checked exactly:
#
# ```
# kernel  3 x 14 x 14 ──fold colours──► 14 x 14 ──smaller token──► 8 x 8 ──depth──► 4 x 8 x 8
# positions     37 x 37 ──────────resample──────────► 12 x 12 ──repeat──► 4 x 12 x 12
# ```
#
# (arXiv:2405.02686 proposes such an initialisation for neurons, in two variants, *average* and *center*. Its abstract and summaries do not describe everything. Colours and token sizes, for example, are our choice.)

# %% jupyter={"source_hidden": true} tags=["colab", "hide-input"]
import sys

if "google.colab" in sys.modules:  # anywhere else this cell does nothing
    from google.colab import files
    from IPython import get_ipython

    print("Choose the wheel of neurokd; in a clone of the repository, `pip wheel --no-deps .` makes it.")
    (wheel,) = files.upload()
    get_ipython().run_line_magic("pip", f"install --quiet ./{wheel}")

# %%
import matplotlib.pyplot as plt
import numpy as np
import timm
import torch
from einops import rearrange, repeat
from torch.nn import functional as F

import neurokd as nkd
from neurokd.profile import profile

short = profile() == "ci"  # fewer blocks in the long comparisons, for automatic tests
torch.set_grad_enabled(False)

teacher = nkd.load_teacher()
print(teacher.source)
teacher = teacher.double()  # exact equality is a matter of 64 bits
vit, patch = teacher.vit, teacher.patch[0]
weight, bias = vit.patch_embed.proj.weight, vit.patch_embed.proj.bias

sample = nkd.simulated_neurons(
    1, seed=3, shape=(32, 8 * patch, 8 * patch), microscope=nkd.Microscope(box=(500.0, 500.0))
)[0]
volume = torch.from_numpy(nkd.scale_intensity(sample.volume)).double()
z = int(np.argmax(sample.mask.sum(axis=(1, 2))))
picture = volume[z][None, None]  # b c y x, a slice through a neuron
print("kernel", tuple(weight.shape), "· slice", tuple(picture.shape))

# %% [markdown]
# ## 1 · Fold the colours
#
# The teacher expects red, green and blue, each normalised: $(v - \mu_c) / \sigma_c$. A grey value $v$ is used for all three. All of this is linear, so we can fold it into the kernel once:
#
# $$\sum_c W_c \frac{v - \mu_c}{\sigma_c} + b = \Big(\sum_c \frac{W_c}{\sigma_c}\Big) v + \Big(b - \sum_c \frac{\mu_c}{\sigma_c} \textstyle\sum W_c\Big)$$
#
# This is a *sum* over colours. Some code takes the mean instead, which leaves only a third of the response.

# %%
grey, grey_bias = nkd.grey_fold(weight, bias, mean=teacher.mean, std=teacher.std)
truth = F.conv2d(teacher.normalise(picture), weight, bias, stride=patch)
folded = F.conv2d(picture, grey, grey_bias, stride=patch)
error = float((folded - truth).abs().max() / truth.abs().max())
print(f"grey fold against the teacher on the grey picture in colour: error {error:.0e}")
assert error < 1e-9

mean, std = np.mean(teacher.mean), np.mean(teacher.std)
averaged = F.conv2d((picture - mean) / std, weight.mean(1, keepdim=True), bias, stride=patch)


def variation(tokens: torch.Tensor) -> torch.Tensor:
    """What changes from patch to patch."""
    return tokens - tokens.mean((2, 3), keepdim=True)


left = float((variation(averaged) * variation(truth)).sum() / (variation(truth) ** 2).sum())
print(f"the mean over colours instead of the sum leaves {left:.0%} of the response")
assert 0.3 < left < 0.37

# %% [markdown]
# ## 2 · Smaller tokens
#
# Notebook 02 magnified pictures so that a patch covers 8 voxels instead of 14. In a volume, interpolation would have to produce three times as many voxels, and the first layer would then combine them again. Instead we make the kernel smaller. The small kernel should give on 8 x 8 voxels what the teacher gives on the same voxels after magnification.
#
# Magnifying one patch is linear: $X \mapsto A X A^\top$ with a fixed 14 x 8 matrix $A$. The response of a kernel is its inner product with the patch, $\langle w, A X A^\top \rangle = \langle A^\top w A, X \rangle$. So the kernel that we want is $w' = A^\top w A$. We call this the **transpose rule**. It contains no approximation.
#
# The usual method for other patch sizes is the **pseudo-inverse** (FlexiViT; `resample_patch_embed` in timm). It answers a different question: which 8 x 8 kernel gives on a *shrunken* patch what the teacher gives on the original? For enlarging a kernel, this question has an exact answer. For shrinking it has none, because detail is lost. The pseudo-inverse then gives the best compromise over all possible patches. Most of these are noise that no magnified picture contains.

# %%
token = 8
small = nkd.resize_kernel(grey, (token, token))
pseudo = timm.layers.resample_patch_embed(grey, [token, token])


def answers(kernel: torch.Tensor, patches: torch.Tensor) -> torch.Tensor:
    """Tokens of single patches b 1 y x, without bias."""
    return F.conv2d(patches, kernel)[:, :, 0, 0]


def off(tokens: torch.Tensor, truth: torch.Tensor) -> float:
    """Relative error."""
    return float((tokens - truth).norm() / truth.norm())


patches = rearrange(picture, "1 1 (y a) (x b) -> (y x) 1 a b", a=token, b=token)
magnified = F.interpolate(patches, size=(patch, patch), mode="bicubic", align_corners=False)
noise = torch.randn(500, 1, patch, patch, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
shrunken = F.interpolate(noise, size=(token, token), mode="bicubic", align_corners=False, antialias=True)

errors = {}
print(f"{'error of the token':<20}{'magnified slice':>17}{'shrunken noise':>16}")
for name, kernel in (("transpose rule", small), ("pseudo-inverse", pseudo)):
    errors[name] = (
        off(answers(kernel, patches), answers(grey, magnified)),
        off(answers(kernel, shrunken), answers(grey, noise)),
    )
    print(f"{name:<20}{errors[name][0]:>17.0e}{errors[name][1]:>16.2f}")
assert errors["transpose rule"][0] < 1e-9  # our question: exact
assert errors["pseudo-inverse"][0] > 0.2
assert errors["pseudo-inverse"][1] < errors["transpose rule"][1]  # its own question: the better compromise

# %% mystnb={"image": {"alt": "Kernels of five channels: red, green, blue, folded to grey, 8 x 8 by the transpose rule and by the pseudo-inverse."}}
smooth = (small.flatten(1).norm(dim=1) / grey.flatten(1).norm(dim=1) * token / patch).sort(descending=True)
channels = smooth.indices[[0, 1, 2, 3, len(grey) // 2]].tolist()
shown = ", ".join(f"{share:.0%}" for share in smooth.values[[0, 1, 2, 3, len(grey) // 2]])
print(f"of the norm of these five kernels, a magnified picture can show {shown}")
larger = pseudo.flatten(1).norm(dim=1) / small.flatten(1).norm(dim=1)
print("norm by the pseudo-inverse over norm by the transpose rule:", " ".join(f"{of:.2f}" for of in larger[channels]))
print(f"half of all {len(larger)} channels are above {larger.median():.2f}")
assert larger[channels[:3]].max() < 1.05 and larger.median() > 1.5
steps = {"red": weight[:, 0], "green": weight[:, 1], "blue": weight[:, 2], "grey fold": grey[:, 0]}
steps |= {"8 x 8, transpose": small[:, 0], "8 x 8, pseudo-inv.": pseudo[:, 0]}
figure, panels = plt.subplots(len(channels), len(steps), figsize=(8.6, 7.4), layout="compressed")
for column, (name, kernel) in zip(panels.T, steps.items(), strict=True):
    limit = float(kernel[channels].abs().max())
    for panel, channel in zip(column, channels, strict=True):
        panel.imshow(kernel[channel], cmap="PuOr", vmin=-limit, vmax=limit)
        panel.set(xticks=[], yticks=[])
    column[0].set_title(f"{name}\n±{limit:.2g}", fontsize="small")
for panel, channel in zip(panels[:, 0], channels, strict=True):
    panel.set_ylabel(f"channel {channel}", fontsize="small")

# %% [markdown]
# The kernels have 14 x 14 pixels or 8 x 8 voxels. Each column has its own scale, which is given above it. The upper four rows are this teacher's smoothest kernels. The last row is a typical kernel. The transpose rule concentrates a kernel's weight in fewer taps, so its numbers are larger. The sum stays the same, so a uniform patch gets the same token. For smooth kernels the pseudo-inverse gives nearly the same as the transpose rule. For a rough kernel the pseudo-inverse gives larger numbers. It compensates for the contrast that noise loses when it is shrunk, but a magnified picture never had this contrast.
#
# For a whole picture one difference remains. Magnifying a whole picture mixes neighbouring patches at their borders. Our rule magnifies each patch alone. How much does this change the first and the last tokens of the teacher?

# %% mystnb={"image": {"alt": "Values of small kernels against the teacher's on the magnified slice: the transpose rule lies along the diagonal, the pseudo-inverse is scattered."}}
large = teacher.magnify(picture, patch / token)
truth = F.conv2d(large, grey, stride=patch)
found = {
    "transpose rule": F.conv2d(picture, small, stride=token),
    "pseudo-inverse": F.conv2d(picture, pseudo, stride=token),
}
figure, panels = plt.subplots(1, 2, sharey=True, figsize=(6.8, 3.6), layout="compressed")
slope = {}
for panel, (name, tokens), colour in zip(panels, found.items(), ("#0072B2", "#E69F00"), strict=True):
    slope[name] = float((variation(tokens) * variation(truth)).sum() / variation(truth).square().sum())
    panel.plot(truth.flatten()[::8], tokens.flatten()[::8], ".", color=colour, markersize=2)
    panel.axline((0, 0), slope=1, color="0.6", linewidth=1)
    panel.set(title=f"{name}, slope {slope[name]:.2f}", xlabel="teacher on the magnified slice", aspect="equal")
panels[0].set_ylabel("small kernel on the slice")
assert abs(slope["transpose rule"] - 1) < 0.1 and slope["pseudo-inverse"] > 1.25

config = nkd.vit_config(vit)
statistics = {"mean": teacher.mean, "std": teacher.std}
student = nkd.ViT3D(config, token=(1, token, token)).double().eval()
final = teacher(large)
cosine = {}
for name, kernel in (("transpose rule", small), ("pseudo-inverse", pseudo)):
    state = nkd.inflate_state_dict(vit.state_dict(), config, token=(1, token, token), inflation="center", **statistics)
    student.load_state_dict(state | {"patch_embed.proj.weight": rearrange(kernel, "d 1 y x -> d 1 1 y x")})
    last = student(rearrange(picture, "b c y x -> b c 1 y x"))
    cosine[name] = float(F.cosine_similarity(last, final, dim=-1).mean())
    print(f"{name}: first tokens off by {off(found[name], truth):.0%}, final tokens' cosine {cosine[name]:.3f}")
assert cosine["transpose rule"] > 0.97 > cosine["pseudo-inverse"]

# %% [markdown]
# ## 3 · Give it a depth: average or center
#
# A token of a volume is a box, for example 4 slices of 8 x 8 voxels. We must distribute the kernel over these slices so that their sum is the 2D kernel. **Average** puts a quarter into each slice. **Center** puts all of it into the middle slice and zeros into the others.

# %% mystnb={"image": {"alt": "Three channels slice by slice: average has the same faint kernel in all four slices, center has the full kernel in one."}}
depth = 4
inflated = {name: nkd.inflate_depth(small, depth, inflation=name) for name in ("average", "center")}
for kernel in inflated.values():
    assert float((kernel.sum(dim=2) - small).abs().max()) < 1e-12
figure = nkd.plot_kernels(torch.cat([*inflated.values()], dim=2), channels=channels[:3])
names = [f"{name}, z = {k}" for name in inflated for k in range(depth)]
for panel, name in zip(figure.axes, names, strict=False):
    panel.set_title(name, fontsize="small")

# %% [markdown]
# On a volume that does not change along z, the two variants give the same. On a neurite that crosses only some of the slices, they differ. To see this, we put the slice through the neuron into a dark box, as its slice $k$. How much of the teacher's response to the slice remains?

# %% mystnb={"image": {"alt": "Bars: average answers every slice with a quarter, center answers slice 2 fully and the others not at all."}}
reference = F.conv2d(picture, small, stride=token).norm()
response = {}
for name, kernel in inflated.items():
    response[name] = []
    for k in range(depth):
        box = torch.zeros(1, 1, depth, *picture.shape[2:], dtype=torch.float64)
        box[:, :, k] = picture
        response[name].append(float(F.conv3d(box, kernel, stride=(depth, token, token)).norm() / reference))
assert np.allclose(response["average"], 1 / depth) and np.allclose(response["center"], [0, 0, 1, 0])

with torch.enable_grad():  # what one step of training would do to the zeros of center
    kernel = inflated["center"].clone().requires_grad_()
    box = rearrange(volume[z - 2 : z + 2], "z y x -> 1 1 z y x")
    F.conv3d(box, kernel, stride=(depth, token, token)).square().mean().backward()
gradient = kernel.grad.square().sum(dim=(0, 1, 3, 4)).sqrt()
print("gradient of center's four slices:", " ".join(f"{value:.2g}" for value in gradient))
assert gradient.min() > 0.1 * gradient.max()

figure, axes = plt.subplots(figsize=(5, 2.6), layout="constrained")
for shift, (name, values), colour in zip((-0.2, 0.2), response.items(), ("#0072B2", "#E69F00"), strict=True):
    axes.bar(np.arange(depth) + shift, values, width=0.38, color=colour, label=name)
axes.set(xticks=range(depth), xlabel="slice of the token that holds the neurite", ylabel="share of the response")
axes.spines[["top", "right"]].set_visible(False)
_ = axes.legend(frameon=False)

# %% [markdown]
# *Average* responds to every slice, but weakly: a neurite in one slice of four is four times fainter, as if it were out of focus. *Center* sees one slice sharply and ignores the others until training fills the zeros. The zeros get a gradient from the first step on. Summaries of arXiv:2405.02686 report that center is better.
#
# ## 4 · Positions
#
# Notebook 02 showed that tokens contain their position. It comes from a position embedding that was learnt for a grid of 37 x 37 patches. We resample this embedding to the grid of the volume's slices, as timm does for pictures of another size, and repeat it along z. A *depth embedding* is added so that the network can distinguish slabs (layers of tokens along z). It starts at zero, so at first all slabs have the same positions. (DINOv3 has no position embedding. It rotates queries and keys by the position of their tokens. Our student does the same in every slab.)

# %% mystnb={"image": {"alt": "Similarity of one place to all others: a bright spot on the trained grid, the same on 12 x 12 tokens, and the same again in the last slab."}}
slabs, grid = 4, (12, 12)
state = nkd.inflate_state_dict(
    vit.state_dict(), config, token=(depth, token, token), inflation="center", slabs=slabs, **statistics
)
student = nkd.ViT3D(config, token=(depth, token, token), slabs=slabs).double().eval()
student.load_state_dict(state)

own = student.positions((1, *config.grid))[1]
assert torch.equal(own, vit.pos_embed[:, 1:])  # the trained grid comes back as it was
resampled = timm.layers.resample_abs_pos_embed(vit.pos_embed, new_size=list(grid), num_prefix_tokens=1)[:, 1:]
by_slab = rearrange(student.positions((slabs, *grid))[1], "1 (z n) d -> z n d", z=slabs)
difference = float((by_slab - resampled).abs().max() / resampled.abs().max())
print(f"every slab against timm's positions for a picture of {grid[0]} x {grid[1]} patches: {difference:.0e}")
assert difference < 1e-5  # both interpolate in 32 bits
assert not student.depth_embed.any()

point, panes = (0.3, 0.6), {f"trained grid, {config.grid[0]} x {config.grid[1]}": (own[0], config.grid)}
panes |= {f"{grid[0]} x {grid[1]}, slab {k + 1} of {slabs}": (by_slab[k], grid) for k in (0, slabs - 1)}
figure, panels = plt.subplots(1, len(panes), figsize=(10, 3.2), layout="compressed")
for panel, (name, (positions, (rows, columns))) in zip(panels, panes.items(), strict=True):
    row, column = int(point[0] * rows), int(point[1] * columns)
    field = rearrange(F.normalize(positions, dim=1), "(y x) d -> y x d", y=rows)
    drawn = panel.imshow(field @ field[row, column], cmap="cividis", vmin=-0.5, vmax=1)
    panel.plot(column, row, "o", color="#E69F00", markersize=6, markerfacecolor="none")
    panel.set(title=name, xlabel="x (tokens)", ylabel="y (tokens)")
    panel.locator_params(integer=True, nbins=6)
_ = figure.colorbar(drawn, ax=panels, label="cosine to the place in the ring", shrink=0.8, extend="min")

# %% [markdown]
# ## 5 · Exactly equal
#
# Now we test all steps together with the real weights. A volume that repeats one slice must give the teacher's tokens of that slice, after every block, up to rounding. Rounding errors in 64 bits are about 1e-16, and a dozen blocks multiply them. The token is 14 x 14 pixels here, so that nothing is resampled. We also try several slabs, with the student's option `balance_prefix` on and off.

# %% mystnb={"image": {"alt": "Error after each block: near 1e-14 for one slab and for balanced slabs, near 0.1 for several slabs without balancing."}}
blocks = range(4 if short else len(vit.blocks))
tokens = []
hooks = [vit.blocks[k].register_forward_hook(lambda *args: tokens.append(args[2])) for k in blocks]
teacher(picture)
for hook in hooks:
    hook.remove()


def block_errors(*, inflation: str, depth: int, slabs: int, balance_prefix: bool) -> list[float]:
    """Largest error after each block on a volume constant in z, in units of the largest token."""
    box = (depth, patch, patch)
    model = nkd.ViT3D(config, token=box, slabs=slabs, balance_prefix=balance_prefix).double().eval()
    model.load_state_dict(
        nkd.inflate_state_dict(vit.state_dict(), config, token=box, inflation=inflation, slabs=slabs, **statistics)
    )
    constant = repeat(picture, "1 1 y x -> 1 1 z y x", z=depth * slabs)
    found = []
    for ours, theirs in zip(model.block_outputs(constant, blocks), tokens, strict=True):
        prefix, patches = theirs[:, : config.prefix], theirs[:, config.prefix :]
        expected = torch.cat([prefix, patches.repeat(1, slabs, 1)], dim=1)
        found.append(float((ours - expected).abs().max() / expected.abs().max()))
    return found


errors = {
    "average, one slab": block_errors(inflation="average", depth=4, slabs=1, balance_prefix=False),
    "center, one slab": block_errors(inflation="center", depth=4, slabs=1, balance_prefix=False),
    "center, 4 slabs, balanced": block_errors(inflation="center", depth=2, slabs=4, balance_prefix=True),
    "center, 4 slabs": block_errors(inflation="center", depth=2, slabs=4, balance_prefix=False),
}
for name, values in errors.items():
    print(f"{name:<27}largest error of any block {max(values):.0e}")
assert all(max(values) < 1e-9 for name, values in errors.items() if name != "center, 4 slabs")
assert max(errors["center, 4 slabs"]) > 1e-3

figure, panel = plt.subplots(figsize=(6.4, 3.2), layout="constrained")
styles = (("#0072B2", "o-"), ("#E69F00", "s--"), ("#009E73", "^-."), ("0.45", "v:"))
for (name, values), (colour, style) in zip(errors.items(), styles, strict=True):
    panel.semilogy(blocks, np.maximum(values, 1e-17), style, color=colour, markersize=4, label=name)
panel.set(xlabel="after block (from 0)", ylabel="largest error / largest token", xticks=blocks)
panel.spines[["top", "right"]].set_visible(False)
_ = panel.legend(frameon=False, fontsize="small", loc="center left", bbox_to_anchor=(1, 0.5))

# %% [markdown]
# With one slab, the student equals the teacher up to rounding. With several slabs it does not, although the volume contains nothing new: it is the same slice four times. The first exercise asks why, and what `balance_prefix` does about it.
#
# ## What was learnt
#
# - Only the first layer and the positions change. The first layer changes by linear algebra without approximation: colours are folded, smaller tokens follow from the transpose rule, and depth from average or center.
# - The pseudo-inverse answers another question. It gives tokens that differ from the teacher's.
# - Positions are resampled and repeated. The slabs learn to differ.
# - At the start, the student gives *exactly* what the teacher gives, slice by slice. All later differences come from training.
#
# ## Exercises
#
# 1. Why do several slabs break the equality, although each slab is the same slice? Which number must be added to the attention logits of the class token (as a key) to restore it? Derive the number, then confirm it by experiment.
# 2. Real volumes change along z. For which picture does the student then give the teacher's tokens, with *center* and with *average*?
# 3. Now use larger tokens: 28 x 28 voxels, for a picture that was magnified twice. Which rule is exact now? What would the transpose rule do?

# %% [markdown]
# <details><summary>Solution of exercise 1</summary>
#
# A token attends to the class token with weight $e^{l_0} / (e^{l_0} + \sum_i e^{l_i})$, where $i$ runs over the patches. With $S$ equal slabs each patch occurs $S$ times, and the weight becomes $e^{l_0} / (e^{l_0} + S \sum_i e^{l_i})$. The share of the patches has grown, and the share of the class token has shrunk. If we add $\log S$ to its logit, the weight is $S e^{l_0} / (S e^{l_0} + S \sum_i e^{l_i})$. The factors $S$ cancel, and the weight is the original one. The same holds for register tokens. The values of equal patches are equal, so it does not matter how their share is divided among the slabs.
#
# The cell below confirms this: the error has its minimum at $\log 4 \approx 1.39$. There, only rounding errors remain.
#
# </details>

# %% jupyter={"source_hidden": true} tags=["hide-input"] mystnb={"image": {"alt": "Error of the last block against the number added to the logits: a sharp minimum at log 4."}}
slabs, box = 4, (1, patch, patch)
model = nkd.ViT3D(config, token=box, slabs=slabs).double().eval()
model.load_state_dict(
    nkd.inflate_state_dict(vit.state_dict(), config, token=box, inflation="center", slabs=slabs, **statistics)
)
constant = repeat(picture, "1 1 y x -> 1 1 z y x", z=slabs)
added = np.log(slabs) * np.linspace(0, 2, 5 if short else 17)
found = []
for number in added:
    state = model.embed(constant)
    logits = torch.zeros(state.shape[1], dtype=torch.float64)
    logits[: config.prefix] = number
    for k in blocks:
        state = model.blocks[k](state, logits)
    error = (state[:, config.prefix :] - tokens[len(blocks) - 1][:, config.prefix :].repeat(1, slabs, 1)).abs().max()
    found.append(float(error / state.abs().max()))
best = added[int(np.argmin(found))]
print(f"least error {min(found):.0e} at {best:.3f}; log {slabs} = {np.log(slabs):.3f}; without: {found[0]:.2f}")
assert np.isclose(best, np.log(slabs)) and min(found) < 1e-9

figure, axes = plt.subplots(figsize=(5, 2.8), layout="constrained")
axes.semilogy(added, np.maximum(found, 1e-17), color="#0072B2", marker="o", markersize=4)
axes.axvline(np.log(slabs), color="#E69F00", linestyle="--", label=f"log {slabs}")
axes.set(xlabel="added to the class token's logits", ylabel="largest error / largest token")
axes.spines[["top", "right"]].set_visible(False)
_ = axes.legend(frameon=False)

# %% [markdown]
# <details><summary>Solution of exercise 2</summary>
#
# With *center*, the student gives the teacher's tokens of the middle slice of the token, because the other slices have weight zero. With *average*, it gives those of the mean of the token's slices, because the first layer is linear. Both are exact. A mean of four slices looks like a photograph that is out of focus: the noise becomes weaker, and so does a thin neurite.
#
# </details>

# %% jupyter={"source_hidden": true} tags=["hide-input"]
box = (4, patch, patch)
part = volume[z - 2 : z + 2]
stand_in = {"center": part[2], "average": part.mean(0)}
for inflation, image in stand_in.items():
    model = nkd.ViT3D(config, token=box).double().eval()
    model.load_state_dict(
        nkd.inflate_state_dict(vit.state_dict(), config, token=box, inflation=inflation, **statistics)
    )
    theirs = teacher(image[None, None])
    error = float((model(part[None, None]) - theirs).abs().max() / theirs.abs().max())
    print(f"{inflation:>8}: error {error:.0e}")
    assert error < 1e-9

# %% [markdown]
# <details><summary>Solution of exercise 3</summary>
#
# For enlarging, the pseudo-inverse is exact. We want a kernel that gives on the magnified patch what the teacher gives on the original, and such a kernel exists. The transpose rule with a matrix that shrinks would give a blurred kernel. It would show what the teacher sees in a shrunken copy of the large patch, which is another question. `resize_kernel` uses the right rule for each direction.
#
# </details>

# %% jupyter={"source_hidden": true} tags=["hide-input"]
patches = rearrange(picture, "1 1 (y a) (x b) -> (y x) 1 a b", a=patch, b=patch)
magnified = F.interpolate(patches, size=(2 * patch, 2 * patch), mode="bicubic", align_corners=False)
shrink = F.interpolate(torch.eye(2 * patch, dtype=torch.float64)[:, None, :, None], size=(patch, 1), mode="bicubic")
shrink = rearrange(shrink, "j 1 i 1 -> i j")
transposed = torch.einsum("ij,dcik,kl->dcjl", shrink, grey, shrink)
errors = {
    "resize_kernel (pseudo-inverse)": off(
        answers(nkd.resize_kernel(grey, (2 * patch, 2 * patch)), magnified), answers(grey, patches)
    ),
    "transpose of shrinking": off(answers(transposed, magnified), answers(grey, patches)),
}
for name, error in errors.items():
    print(f"{name:<32}{error:.0e}")
assert errors["resize_kernel (pseudo-inverse)"] < 1e-6 < errors["transpose of shrinking"]

# %% [markdown]
# **Next.** [04 · Deformable tubes](04_deformable_tubular.ipynb) bends the kernel along the neurites. [The quickstart](00_quickstart.ipynb) trains an inflated student.
