# ---
# jupyter:
#   jupytext:
#     formats: ipynb,py:percent
# ---

# %% [markdown]
# # A kernel that bends with the neurite
#
# > **Question.** A teacher's patch kernel is a flat square, and a neurite is a tube that bends. Can the kernel be laid along the neurite? How much of the kernel is left then?
# >
# > **Know first.** You need to know what a convolution is and what gradient descent is. [`03_inflation`](03_inflation.ipynb) helps with the last third.
# >
# > **Takes.** 20 s on 2 CPU cores, 20 s in the short profile (`NEUROKD_PROFILE=ci`); 1.4 GB of memory. Downloads 90 MB the first time.
#
# The idea comes from *DINeuro* (Cheng et al. 2024, arXiv:2410.22078), as its abstract and public summaries describe it: flatten the 2D kernel, lay it along a tube for each axis, let the tube deform, and combine the three views. They do not say how the taps move, how the flattened kernel lies in a volume, or how the views are combined. These are our choices.

# %% jupyter={"source_hidden": true} tags=["colab", "hide-input"]
import sys

if "google.colab" in sys.modules:  # anywhere else this cell does nothing
    from google.colab import files
    from IPython import get_ipython

    print("Choose the wheel of neurokd; in a clone of the repository, `pip wheel --no-deps .` makes it.")
    (wheel,) = files.upload()
    get_ipython().run_line_magic("pip", f"install --quiet ./{wheel}")

# %%
import itertools
import time

import ipywidgets as widgets
import matplotlib.pyplot as plt
import numpy as np
import torch
from einops import rearrange, repeat
from scipy import ndimage

import neurokd as nkd
from neurokd.profile import profile

short = profile() == "ci"
try:
    neuron, trace_name = nkd.fly_neuron(), "automatic trace"
except FileNotFoundError as error:  # neither in NEUROKD_DATA nor in the cache, and no network
    print(error)
    neuron, trace_name = nkd.simulated_neurons(1, seed=2, shape=(96, 160, 160))[0], "true centreline"
volume = nkd.scale_intensity(neuron.volume)
teacher = nkd.load_teacher()
print(f"{neuron.name}: {volume.shape} voxels (z, y, x); traced: {neuron.tree.length:.0f} voxels of neurite")
print(teacher.source)

# %% [markdown]
# ## 1 · Taps in a row
#
# A tube is a row of *taps*, the places at which the volume is read. The taps are one voxel apart along an axis, and move only sideways. For each tap the network learns its *step* `d` relative to its inner neighbour. The position of a tap is the sum of all steps from the middle outward, so the tube never breaks:
#
# ```
# sideways                 o---o           D[m+2] = d[m+1] + d[m+2]
#    ^            o---o--/                 D[m+1] = d[m+1]
#    |       o---/                         D[m]   = 0             the middle stays
#    |   ---/                              D[m-1] = d[m-1]        and so on
#    +----------------------> along the axis
# ```

# %%
by_hand = torch.zeros(1, 2, 4, 1, 1, 1)  # b, sideways axes (z and y), the four taps that move, one place
by_hand[0, 1, :, 0, 0, 0] = torch.tensor([1.0, 2.0, 4.0, 8.0])  # steps along y
places = nkd.snake_coordinates(by_hand, "x")[0, :, 0, 0, 0]
for tap, (z, y, x) in enumerate(places.tolist()):
    print(f"tap {tap}: x {x:+.0f}, y {y:+.0f}, z {z:+.0f}")
assert places[:, 1].tolist() == [3, 2, 0, 4, 12]  # 2 + 1, 2, the middle, 4, 4 + 8

generator = torch.Generator().manual_seed(0)
for axis, taps in itertools.product("zyx", (9, 16)):  # an even number has two taps in the middle, and both stay
    steps = torch.randn(1, 2, 2 * ((taps - 1) // 2), 3, 4, 5, generator=generator)
    bent, straight = (nkd.snake_coordinates(d, axis, taps=taps) for d in (steps, 0 * steps))
    still = (bent == straight).all(dim=(0, 2, 3, 4, 5))
    assert still.nonzero().flatten().tolist() == sorted({(taps - 1) // 2, taps // 2})
print("random steps, 9 and 16 taps, three axes: all taps move but those in the middle")

# %% [markdown]
# All axes are treated alike: if we permute the axes of the volume and of the steps, the samples are permuted in the same way. The next cell checks all six orders of the axes and all three tubes, up to rounding:

# %%
cube = torch.rand(1, 1, 5, 6, 7, dtype=torch.float64, generator=generator)
steps = torch.randn(1, 2, 4, 5, 6, 7, dtype=torch.float64, generator=generator)
worst = 0.0
for order in itertools.permutations("zyx"):
    turn = " ".join(order)
    turned = rearrange(cube, f"b c z y x -> b c {turn}")
    for axis, old in zip("zyx", order, strict=True):  # what was the axis `old` is now called `axis`
        sideways = [name for name in order if name != old]
        moved = steps if sideways == sorted(sideways, reverse=True) else steps.flip(1)  # z before y before x
        moved = rearrange(moved, f"b side n z y x -> b side n {turn}")
        expected = rearrange(nkd.snake_sample(cube, steps, old), f"b c k z y x -> b c k {turn}")
        worst = max(worst, (nkd.snake_sample(turned, moved, axis) - expected).abs().max().item())
print(f"largest difference: {worst:.1e}")
assert worst < 1e-12

# %% [markdown]
# ## 2 · Steer one yourself
#
# We need a neurite that bends. The (folded) cell searches the traced tree for sections that run along x, and cuts a box around each. It sorts them so that the section that bends most is first.

# %% jupyter={"source_hidden": true} tags=["hide-input"]
HALF, MARGIN = 12, np.array([16, 16, 20])  # taps on either side of the middle; half a box, in voxels


def stretches(tree, shape):
    """Find centres, and curves sideways of them, where a neurite runs along x for 2 HALF + 1 voxels."""
    tree, found = tree.resample(1.0), []
    for tip in tree.tips:
        path = [tip]
        while tree.parent[path[-1]] >= 0:
            path.append(tree.parent[path[-1]])
        points = ndimage.gaussian_filter1d(tree.zyx[path], 3, axis=0, mode="nearest")  # traces jitter
        points = points if points[0, 2] < points[-1, 2] else points[::-1]
        for row in range(0, len(points), 4):
            centre, near = points[row], points[max(0, row - 2 * HALF) : row + 2 * HALF + 1]
            near = near[abs(near[:, 2] - centre[2]) <= HALF + 1]
            x, corner = centre[2] + np.arange(-HALF, HALF + 1), np.round(centre).astype(int) - MARGIN
            if (np.diff(near[:, 2]) <= 0).any() or near[0, 2] > x[0] or near[-1, 2] < x[-1]:
                continue
            curve = np.stack([np.interp(x, near[:, 2], near[:, side]) for side in (0, 1)], axis=1) - centre[:2]
            if (corner >= 0).all() and (corner + 2 * MARGIN < shape).all() and abs(np.diff(curve, axis=0)).max() < 0.9:
                found.append((np.linalg.norm(curve, axis=1).max(), centre, curve))
    found.sort(key=lambda entry: -entry[0])
    kept = []
    for entry in found:
        if all(np.linalg.norm(entry[1] - other[1]) > 15 for other in kept):
            kept.append(entry)
    return kept


kept = stretches(neuron.tree, volume.shape)[: 6 if short else 12]
corners = [np.round(centre).astype(int) - MARGIN for _, centre, _ in kept]
crops = np.stack([volume[tuple(slice(a, a + 2 * m + 1) for a, m in zip(c, MARGIN, strict=True))] for c in corners])
x = MARGIN[2] + np.arange(-HALF, HALF + 1.0)
traces = np.stack([np.column_stack([MARGIN[:2] + curve, x]) for _, _, curve in kept])  # in voxels of the box
start = tuple(MARGIN.tolist())
print(f"{len(kept)} stretches of {2 * HALF + 1} voxels; the most bent leaves its axis by {kept[0][0]:.1f} voxels")

# %% [markdown]
# In the next two cells, four numbers steer a tube of 25 taps. `tilt` adds the same step everywhere, and `bow` adds steps that grow outward. The number in the title is the mean brightness under the tube, from 0 to 1. The first cell draws a static picture with the tilt and bow that are closest to the trace.


# %%
def tube_of(tilt, bow):
    """Steps ``1 2 n 1 1 1`` of a tube from its tilt and bow along (z, y)."""
    outward = torch.arange(1, HALF + 1) / HALF
    steps = [torch.cat([-t + b * outward.flip(0), t + b * outward]) for t, b in zip(tilt, bow, strict=True)]
    return rearrange(torch.stack(steps).clamp(-1, 1), "side n -> 1 side n 1 1 1")


def steer(tilt_z=0.0, bow_z=0.0, tilt_y=0.0, bow_y=0.0):
    """Draw the tube that these four numbers make."""
    steps = tube_of((tilt_z, tilt_y), (bow_z, bow_y))
    bright = nkd.snake_sample(torch.from_numpy(crops[:1, None]), steps, "x", start=start).mean()
    tube = nkd.snake_coordinates(steps, "x", start=start)[0, :, 0, 0, 0]
    return nkd.plot_snake(
        crops[0], {"tube": tube}, spacing=neuron.spacing, title=f"mean brightness under the tube {bright:.2f}"
    )


taps = np.arange(-HALF, HALF + 1)
design = np.stack([taps, abs(taps) * (abs(taps) + 1) / (2 * HALF)], axis=1)  # what tilt 1 and bow 1 sum up to
(tilt_z, tilt_y), (bow_z, bow_y) = np.linalg.lstsq(design, kept[0][2])[0].round(2)
print(f"tilt z {tilt_z}, bow z {bow_z}, tilt y {tilt_y}, bow y {bow_y}")
_ = steer(tilt_z, bow_z, tilt_y, bow_y)

# %% [markdown]
# *Left: the brightest 3 % of the box's voxels in space, and the tube through them. The other panels show the box from above, from the side and from the front. The ring is the middle tap, which does not move.* Now try it yourself, starting from a straight tube. Can you get a higher brightness?

# %%
names = ("tilt_z", "bow_z", "tilt_y", "bow_y")
sliders = {name: widgets.FloatSlider(0, min=-1, max=1, step=0.05, continuous_update=False) for name in names}
nkd.view_figure(steer, **sliders)

# %% [markdown]
# ## 3 · Gradient descent steers better
#
# Samples are interpolated between voxels, so the brightness under the tube has a gradient with respect to every step. We begin where the truth is known: a curve that we draw ourselves as a blurred tube. The steps start at zero. The only aim of the optimisation is a high brightness under the tube. `tanh` keeps each step below one voxel per voxel along the axis.


# %%
def fit(images, taps, start, iterations=150):
    """Find steps ``b 2 (taps - 1) 1 1 1`` of one tube along x in each of the images ``b 1 z y x``."""
    free = torch.zeros(len(images), 2, taps - 1, 1, 1, 1, requires_grad=True)
    optimizer = torch.optim.Adam([free], lr=0.05)
    for _ in range(iterations):
        optimizer.zero_grad()
        (-nkd.snake_sample(images, free.tanh(), "x", start=start).mean()).backward()
        optimizer.step()
    return free.tanh().detach()


def drawn_tube(centre=16.0, radius=1.5, length=41):
    """A curved tube around (centre, centre) along x, ``z y x``, and its centreline ``x 2``."""
    along = torch.arange(length) - length // 2
    curve = centre + torch.stack([0.025 * along**2, 5 * torch.sin(along / 9)], dim=-1)
    z, y = (rearrange(torch.arange(33.0), pattern) for pattern in ("z -> z 1 1", "y -> 1 y 1"))
    return torch.exp(-((z - curve[:, 0]) ** 2 + (y - curve[:, 1]) ** 2) / (2 * radius**2)), curve


image, curve = drawn_tube()
middle, taps = (16.0, 16.0, 20.0), 31
found = nkd.snake_coordinates(fit(image[None, None], taps, middle), "x", start=middle)[0, :, 0, 0, 0]
truth = torch.cat([curve[5:-5], torch.arange(5.0, 36)[:, None]], dim=1)
error = (found - truth).norm(dim=1)
straight = (truth[:, :2] - 16).norm(dim=1)
print(
    f"distance from the curve, voxels: straight up to {straight.max():.2f}; fitted up to {error.max():.2f}, mean {error.mean():.2f}"
)
assert straight.max() > 5
assert error.max() < 0.5
_ = nkd.plot_snake(image, {"true curve": truth, "fitted": found}, title="A curved tube of our own, and the fit")

# %% [markdown]
# *The fitted tube (blue) lies on the true curve (orange), in space and in all three projections.*
#
# Now we fit the real neurite: all sections at once, with one tube each. The image is slightly blurred, because a tube can only find what lies within the blur. The fit does not use the trace. For the fly neuron the trace is the output of another program, not the truth. The distance from it therefore measures agreement, not error.

# %%
blurred = np.stack([ndimage.gaussian_filter(np.sqrt(crop), 1.0) for crop in crops])
fitted = fit(torch.from_numpy(blurred[:, None]), 2 * HALF + 1, start)
tubes = rearrange(nkd.snake_coordinates(fitted, "x", start=start), "b k 1 1 1 zyx -> b k zyx").numpy()
lines = rearrange(nkd.snake_coordinates(0 * fitted, "x", start=start), "b k 1 1 1 zyx -> b k zyx").numpy()
images = torch.from_numpy(crops[:, None])
bright = {
    name: nkd.snake_sample(images, steps, "x", start=start).mean((1, 2, 3, 4, 5))
    for name, steps in {"straight": 0 * fitted, "fitted": fitted}.items()
}
off = {
    name: np.linalg.norm(place - traces, axis=2).mean(1) for name, place in {"straight": lines, "fitted": tubes}.items()
}
for name in bright:
    print(
        f"{name:>8}: mean brightness {bright[name].mean():.2f}, {np.median(off[name]):.2f} voxels from the {trace_name} (median)"
    )
assert (bright["fitted"] > bright["straight"]).all()
assert np.median(off["fitted"]) < min(1.0, np.median(off["straight"]))
shown = {"straight": lines[0], "fitted": tubes[0], trace_name: traces[0]}
_ = nkd.plot_snake(crops[0], shown, spacing=neuron.spacing, title=f"{neuron.name}: the most bent stretch")

# %% [markdown]
# *The straight tube (orange) leaves the neurite on both sides. The fitted tube (blue) stays on it, beside the trace (green, dashed).*
#
# A network does not fit tubes one by one. A small convolution, the *offset head*, computes the steps from the voxels of a token. It is trained together with the other weights.
#
# ## 4 · Four readings of "a kernel along a tube"
#
# Where do the weights of a flat `p x p` kernel go? DINeuro's summaries say "flattened to 1 x 1 x 256", which leaves this open. We implement four readings, which `TubeConfig(reading=...)` selects:
#
# | reading | along the tube | at zero offset it is |
# |---|---|---|
# | `literal` | all p·p weights in a row, one voxel apart | a rigid convolution of p·p taps |
# | `patch` | all p·p weights in a row, compressed to the length of one token | a convolution whose few weights are the p·p weights interpolated onto the nearest voxels |
# | `lines` | p taps, each with the sum of one row of the kernel | a convolution with these p sums |
# | `grid` | the whole square in each of p slices; each slice is shifted as a whole | plain inflation |
#
# Every reading is linear in the kernel, so it is a *matrix* that maps p·p weights to voxels. We obtain this matrix from the library. For each of the p·p kernels that are one in one place and zero elsewhere, we take the gradient of the token with respect to the voxels. With this matrix we check the right-hand column on all three axes. (A token has 7 x 7 x 7 voxels here. This is half of the teacher's patch, and it is odd, so that the middle is a voxel.)

# %%
p, readings = 7, ("literal", "patch", "lines", "grid")
units = torch.eye(p * p, dtype=torch.float64).reshape(p * p, 1, p, p)


def matrix(reading, axis):
    """What a reading makes of each unit kernel: ``(p p) along across across'``, read off at zero offset."""
    config = nkd.TubeConfig(reading=reading, role="instead", axes=axis)
    embed = nkd.DeformableTubularEmbed(p * p, token=(p, p, p), config=config).double()
    embed.load_kernel(repeat(units / 3, "d 1 y x -> d 3 y x"), None, mean=(0, 0, 0), std=(1, 1, 1))
    size = [9 * p if name == axis else p for name in "zyx"]  # nine tokens along the tube; the one in the middle
    box = torch.zeros(1, 1, *size, dtype=torch.float64)
    dense = torch.autograd.functional.jacobian(lambda voxels: embed(voxels).flatten(2)[0, :, 4], box)[:, 0, 0]
    return dense.movedim(1 + "zyx".index(axis), 1)


along = torch.arange(9 * p, dtype=torch.float64)
spots = 4.5 * p - 0.5 + (torch.arange(p * p) - (p * p - 1) / 2) / p  # taps of `patch`, p to a voxel
hats = (1 - (spots[:, None] - along).abs()).clamp(min=0)  # linear interpolation between the two nearest voxels
rows = repeat(torch.eye(p, dtype=torch.float64), "row tap -> (row column) tap", column=p)
square = rearrange(units, "k 1 u v -> k 1 u v")
matrices = {}
for reading, axis in itertools.product(readings, "zyx"):
    dense = matrices[reading] = matrix(reading, axis)
    line, first = dense[:, :, p // 2, p // 2], 4 * p  # the tube's own line of voxels; where its token begins
    if reading == "grid":
        assert torch.allclose(dense[:, first : first + p], square / p, atol=1e-12)  # average inflation
    else:
        right = {"literal": torch.eye(p * p).double(), "patch": hats, "lines": rows}[reading]
        begin = {"literal": (9 * p - p * p) // 2, "patch": 0, "lines": first}[reading]
        assert torch.allclose(line[:, begin : begin + right.shape[1]], right, atol=1e-9)
        assert torch.isclose(dense.abs().sum(), right.sum())  # and nothing beside it
print("at zero offset each reading is its right-hand column, along z, y and x")

# %% [markdown]
# ## 5 · How much of the kernel is left
#
# A matrix loses the part of a kernel that it maps to zero. This part could be anything, and no voxel would be affected. The rest is the part that a reading *keeps*. We measure its share of the kernel's energy (sum of squares) on the real kernels of the teacher. A second number measures whether the token still has the same meaning. We take 300 patches of the neuron and repeat them along the tube, as along a straight neurite. Then we compare the token with the teacher's token (correlation, mean over channels).

# %%
source = teacher.vit.patch_embed.proj
grey, bias = nkd.grey_fold(source.weight.detach(), source.bias.detach(), mean=teacher.mean, std=teacher.std)
kernels = rearrange(nkd.resize_kernel(grey, (p, p)), "d 1 u v -> d (u v)").double()

rng = np.random.default_rng(0)
bright_places = np.argwhere((volume > 0.3)[:, 3:-3, 3:-3])
chosen = bright_places[rng.choice(len(bright_places), 300, replace=False)]
patches = torch.from_numpy(np.stack([volume[z, y : y + p, x : x + p] for z, y, x in chosen]))
extruded = repeat(patches, "n u v -> n 1 z u v", z=9 * p)  # tubes along z
wanted = patches.flatten(1).double() @ kernels.T + bias

kept_share, left = {}, {}
print(f"{'reading':<9}{'voxels':>7}{'rank':>6}{'energy kept':>13}{'by chance':>11}{'agreement':>11}")
for reading in readings:
    flat = matrices[reading].flatten(1)
    basis, strength, _ = torch.linalg.svd(flat, full_matrices=False)
    basis = basis[:, strength > 1e-9]
    left[reading] = kernels @ basis @ basis.T
    kept_share[reading] = (left[reading].square().sum() / kernels.square().sum()).item()
    config = nkd.TubeConfig(reading=reading, role="instead", axes="z")
    embed = nkd.DeformableTubularEmbed(len(kernels), token=(p, p, p), config=config)
    embed.load_kernel(source.weight, source.bias, mean=teacher.mean, std=teacher.std)
    with torch.no_grad():
        tokens = embed(extruded)[:, :, 4, 0, 0].double()
    both = [(t - t.mean(0)) / (t - t.mean(0)).norm(dim=0) for t in (tokens, wanted)]
    agreement = (both[0] * both[1]).sum(0).mean().item()
    voxels, rank = int((flat != 0).any(0).sum()), basis.shape[1]
    print(f"{reading:<9}{voxels:>7}{rank:>6}{kept_share[reading]:>13.1%}{rank / p**2:>11.1%}{agreement:>11.2f}")
    if reading == "grid":
        assert torch.allclose(tokens, wanted, atol=1e-3 * wanted.abs().max())
    else:  # the kernel's sum times the brightness on the line
        assert torch.allclose(tokens, patches[:, p // 2, p // 2, None] * kernels.sum(1) + bias, atol=1e-3)
        assert agreement < 0.5
assert kept_share["literal"] > 0.999 and kept_share["grid"] > 0.999
assert kept_share["patch"] < 0.2 and kept_share["lines"] < 0.2

# %% [markdown]
# *By chance* is the share that a kernel of pure noise would keep: `rank / 49`. The teacher's kernels keep even less in `patch` and `lines`. They look for edges and texture, and the sums cancel these. `literal` keeps every weight, but it agrees no better: its weights lie in a row, and along a neurite they all see the same brightness. Where nothing changes along the tube, these three readings see one number, the brightness on the tube's line. Their tokens are this brightness times a factor, plus the bias. `grid` also looks *across* the tube, and equals the teacher.

# %%
channel = int(kernels.square().sum(1).argmax())
figure, axes = plt.subplots(2, 5, figsize=(11.5, 4.9), height_ratios=(1, 1.2), layout="constrained")
for (above, below), reading in zip(axes.T[1:], readings, strict=True):
    embed = nkd.DeformableTubularEmbed(
        1, token=(p, p, p), config=nkd.TubeConfig(reading=reading, role="instead", axes="x")
    )
    torch.nn.init.constant_(embed.views[0].head.bias, 0.4)  # a bow: every step is slope * tanh(0.4)
    with torch.no_grad():
        taps = embed.views[0].coordinates(torch.zeros(1, 1, p, p, 9 * p))[0, :, :, 0, 0, 4]
    above.plot(taps[..., 2] - 4.5 * p + 0.5, taps[..., 1] - p // 2, "o", color="#0072B2", markersize=2)
    above.add_patch(plt.Rectangle((-p / 2, -p / 2), p, p, fill=False, color="#E69F00", linewidth=2))
    reach = 26 if reading == "literal" else 6
    above.set(xlim=(-reach, reach), ylim=(-reach, reach), aspect="equal")
    above.set(title=reading, xlabel="along the tube (voxels)", ylabel="across (voxels)")
    below.imshow(
        left[reading][channel].reshape(p, p), cmap="PuOr", clim=np.array([-1, 1]) * kernels[channel].abs().max().item()
    )
    below.set_title(f"keeps {kept_share[reading]:.0%}", fontsize="medium")
drawn = axes[1, 0].imshow(kernels[channel].reshape(p, p), cmap="PuOr", clim=below.images[0].get_clim())
axes[0, 0].set_axis_off()
axes[1, 0].set_title(f"teacher, channel {channel}", fontsize="medium")
for panel in axes[1]:
    panel.set(xlabel="x (voxels)", ylabel="y (voxels)", xticks=[0, 3, 6], yticks=[0, 3, 6])
_ = figure.colorbar(drawn, ax=axes[1], label="weight", shrink=0.8)

# %% [markdown]
# *Above: the taps of one token (orange) when the tube bows. The taps of `literal` lie far outside the token. Below: one kernel of the teacher, and the part of it that each reading keeps (percentages: all channels). `literal` keeps all the weights, but not their arrangement in a square.*
#
# ## 6 · In a network
#
# `from_teacher(..., tube=TubeConfig())` puts the tubes *beside* the inflated embedding, behind a gate that starts at zero. A student with tubes is therefore exactly equal to the student without tubes at step 0. The gate has a gradient from the first step on, so training can use the tubes.


# %%
def student(tube):
    """The same student, with tubes or without."""
    generator = torch.Generator().manual_seed(0)
    return nkd.NeuronSegmenter.from_teacher(
        teacher, preset="tiny", window=(8, 32, 32), tube=tube, generator=generator
    ).eval()


crop = torch.from_numpy(crops[0][None, None, 12:20, :32, :32].copy())
plain, beside = student(None), student(nkd.TubeConfig())
with torch.no_grad():
    logits = plain(crop)
    assert torch.equal(beside(crop), logits)
beside(crop).square().mean().backward()
gate = beside.vit.patch_embed.gate
assert gate.detach().abs().max() == 0 and gate.grad.abs().max() > 0
with torch.no_grad():
    gate.fill_(1.0)
    opened = (beside(crop) - logits).abs().max().item()
print(f"step 0: equal, bit for bit; with the gate open the logits change by up to {opened:.2f}")
weights = [sum(w.numel() for w in model.parameters()) / 1e6 for model in (plain, beside)]
print(f"{weights[0]:.2f} million weights without tubes, {weights[1]:.2f} with")
assert opened > 0

# %% [markdown]
# ## 7 · In a decoder
#
# Tubes need no teacher. `SnakeConv3d` is a layer with a row of taps along each axis (after dynamic snake convolution, Qi et al. 2023, arXiv:2307.08388). Its offset heads look at the input and give, for each voxel, the steps of its tubes. The heads start at zero, so the layer starts as a plain convolution with the shape of a cross.
#
# Here the layer replaces the last block of a trained decoder, the one of `neurokd-tiny`. Everything before that block stays fixed, so its output is computed once. Three new blocks learn from one simulated neuron, on the same crops: a convolution of 3 x 3 x 3 voxels, tubes that stay straight, and tubes that may bend.

# %%
ready = nkd.NeuronSegmenter.from_pretrained("neurokd-tiny").requires_grad_(False)
known, unseen = nkd.simulated_neurons(2, seed=3, shape=(24, 64, 64) if short else (32, 96, 96))


def enters(sample):
    """Compute what enters the decoder's last block, ``1 c z y x``."""
    caught = []
    hook = ready.decoder.up[0].register_forward_pre_hook(lambda block, inputs: caught.extend(inputs))
    with torch.no_grad():
        ready(rearrange(torch.from_numpy(nkd.scale_intensity(sample.volume)), "z y x -> 1 1 z y x"))
    hook.remove()
    return caught[0]


def last_block(kind):
    """Make a new last block, and the head that gives the logits."""
    torch.manual_seed(0)
    width = ready.config.width
    layer = nkd.SnakeConv3d(width, width, kernel_size=5)
    if kind == "3 x 3 x 3":
        layer = torch.nn.Conv3d(width, width, 3, padding=1)
    elif kind == "straight":
        layer.heads.requires_grad_(False)
    head = torch.nn.Conv3d(width, 1, 1)
    torch.nn.init.constant_(head.bias, -4.6)  # 1 % of the voxels are neurite
    return torch.nn.Sequential(layer, torch.nn.GroupNorm(8, width), torch.nn.GELU(), head)


def crops_of(mask, steps, size=(16, 32, 32)):
    """Draw crops around voxels of the neurite, as indices."""
    rng, places = np.random.default_rng(0), np.argwhere(mask)
    for place in places[rng.integers(len(places), size=steps)]:
        corner = np.clip(place - np.array(size) // 2, 0, np.array(mask.shape) - size)
        yield (..., *(slice(a, a + n) for a, n in zip(corner, size, strict=True)))


inside, new = enters(known), enters(unseen)
masks = {one.name: rearrange(torch.from_numpy(one.mask), "z y x -> 1 1 z y x").float() for one in (known, unseen)}
blocks = {kind: last_block(kind) for kind in ("3 x 3 x 3", "straight", "bent")}
with torch.no_grad():
    assert torch.equal(blocks["straight"](inside), blocks["bent"](inside))  # at step 0
loss_of, losses, dices = nkd.dice_cross_entropy(), {}, {}
for kind, block in blocks.items():
    optimizer = torch.optim.Adam([weight for weight in block.parameters() if weight.requires_grad], lr=3e-3)
    losses[kind], begin = [], time.perf_counter()
    for crop in crops_of(known.mask, 25 if short else 60):
        optimizer.zero_grad()
        loss = loss_of(block(inside[crop]), masks[known.name][crop])
        loss.backward()
        optimizer.step()
        losses[kind].append(loss.item())
    seconds = time.perf_counter() - begin
    with torch.no_grad():
        seen, found = (block(volume).sigmoid()[0, 0].numpy() for volume in (inside, new))
    dices[kind] = nkd.dice(found > nkd.best_threshold([seen], [known.mask]), unseen.mask)
    losses[kind] = np.mean(losses[kind][-10:])
    print(f"{kind:>9}: loss {losses[kind]:.3f} at the end, Dice {dices[kind]:.3f} on the other neuron; {seconds:.0f} s")

# %% [markdown]
# Where do the taps go? For the tubes of all neurite voxels of the other neuron, we count the share of taps that lie on a neurite.

# %%
layer, neurite = blocks["bent"][0], torch.from_numpy(unseen.mask)
with torch.no_grad():
    offsets = dict(zip(layer.axes, layer.offsets(new), strict=True))
for axis, steps in offsets.items():
    straight, bent = (
        nkd.snake_sample(masks[unseen.name], bend * steps, axis)[0, 0][:, neurite].mean().item() for bend in (0, 1)
    )
    aside = steps[0][:, :, neurite].abs().mean()
    print(
        f"along {axis}: steps aside of {aside:.2f} voxels; on a neurite {straight:.0%} if straight, {bent:.0%} as learnt"
    )
    assert bent < straight
assert losses["bent"] < losses["straight"]

bending = sum(steps[0].abs().sum((0, 1)) for steps in offsets.values()) * neurite  # z y x
inner = (slice(6, -6),) * 3
z, y, x = np.unravel_index(bending[inner].numpy().argmax(), bending[inner].shape)  # corner of the box around it
at = (..., *(slice(place + 6, place + 7) for place in (z, y, x)))
learnt = {
    f"along {axis}": nkd.snake_coordinates(steps[at], axis, start=(6, 6, 6))[0, :, 0, 0, 0]
    for axis, steps in offsets.items()
}
box = unseen.volume[z : z + 13, y : y + 13, x : x + 13]
_ = nkd.plot_snake(box, learnt, spacing=unseen.spacing, title="The neurite voxel whose tubes bend most")

# %% [markdown]
# *The three tubes of one voxel. The ring marks the voxel.* The tubes learn to bend, and bent tubes reach a lower loss than straight ones on the neuron they learn from. But they do **not** follow the neurite: fewer of their taps lie on it than if they were straight. Nothing in the loss asks them to follow, and a tap beside a neurite shows where the neurite ends. On the other neuron the three blocks differ by a few hundredths of Dice. One seed and one neuron cannot say which is best. The plain convolution is the fastest.

# %% [markdown]
# ## What was learnt
#
# - A tube has a fixed middle and steps that add up outward. Gradient descent on the steps alone follows a curve to within half a voxel. It follows a real neurite to within a voxel of an automatic trace.
# - "Flattened along a tube" can mean several things. `patch` and `lines` keep about a tenth of the teacher's kernel. `literal` keeps the weights but not the square. `grid` keeps everything, so it is the default.
# - Tubes beside the inflated embedding, behind a gate of zero, change nothing at step 0.
# - A snake convolution in a decoder learns to bend. It does not learn to follow: our tubes reach across the neurite.
# - A tube belongs to a token. It can only follow a neurite that passes through the middle of that token (exercise 1).
#
# This notebook does *not* show whether tubes make a better student. [09 · Does it help?](09_does_it_help.ipynb) compares students with and without tubes.
#
# ## Exercises
#
# 1. Start the fit of section 3 three voxels beside the curve. Which taps find the curve?
# 2. `TubeConfig` inflates `grid` by `average`, although `center` is the better start for the plain embedding. Why? Look at the gradient of the offset heads.
# 3. Tokens have 4 x 8 x 8 voxels. How many taps of `literal` lie outside a crop of 16 x 48 x 48 voxels, along each axis?

# %% [markdown]
# <details><summary>Solution of exercise 1</summary>
#
# The outer taps find it. Each tap may move one voxel further than its inner neighbour, so the third or fourth tap reaches the curve. The middle never does. If a neurite passes between the middles of two tokens, tubes can still bend towards it on both sides of their own middle.
#
# </details>

# %% jupyter={"source_hidden": true} tags=["hide-input"]
beside_it = (16.0, 19.0, 20.0)
found = nkd.snake_coordinates(fit(image[None, None], 31, beside_it), "x", start=beside_it)[0, :, 0, 0, 0]
error = (found - truth).norm(dim=1)
print("distance by tap, from the middle outward:", [round(e, 1) for e in error[15:].tolist()])
assert error[15] == 3 and error[20:].median() < 0.5

# %% [markdown]
# <details><summary>Solution of exercise 2</summary>
#
# With `center`, all slices except the middle one are zero, and the middle slice does not move. The positions of the other slices make no difference. The offsets therefore have no gradient until training has filled those slices.
#
# </details>

# %% jupyter={"source_hidden": true} tags=["hide-input"]
for inflation in ("center", "average"):
    config = nkd.TubeConfig(role="instead", inflation=inflation)
    embed = nkd.DeformableTubularEmbed(len(kernels), token=(p, p, p), config=config)
    embed.load_kernel(source.weight, source.bias, mean=teacher.mean, std=teacher.std)
    embed(images[:1]).square().mean().backward()
    slope = sum(view.head.weight.grad.norm().item() for view in embed.views)
    print(f"{inflation:>8}: gradient of the offset heads {slope:.3g}")
    assert (slope > 0) == (inflation == "average")

# %% [markdown]
# <details><summary>Solution of exercise 3</summary>
#
# After resizing to 8 x 8, the kernel has 64 weights, but the crop is 16 voxels deep. Along z, three of four taps lie outside the crop and read the clamped border. Along y and x, a row of 64 taps does not fit into 48 voxels either.
#
# </details>

# %% jupyter={"source_hidden": true} tags=["hide-input"]
embed = nkd.DeformableTubularEmbed(1, token=(4, 8, 8), config=nkd.TubeConfig(reading="literal", role="instead"))
for number, view in enumerate(embed.views):
    size = (16, 48, 48)
    with torch.no_grad():
        places = view.coordinates(torch.zeros(1, 1, *size))[..., number]
    outside = ((places < 0) | (places > size[number] - 1)).float().mean().item()
    print(f"along {view.axis}: {outside:.0%} of the taps are outside")
    assert outside > (0.7 if view.axis == "z" else 0.25)

# %% [markdown]
# **Next.** [05 · Distillation](05_distillation.ipynb) uses the teacher's *features*, not only its weights.
