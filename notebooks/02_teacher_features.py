# ---
# jupyter:
#   jupytext:
#     formats: ipynb,py:percent
# ---

# %% [markdown]
# # What a 2D network sees in neurons
#
# > **Question.** A vision transformer has learnt from photographs and has never seen a neuron. Does it contain anything that could help to find neurites?
# >
# > **Know first.** A vision transformer cuts an image into patches and turns each patch into a *token*, a vector. The blocks of the network refine the tokens by *attention* to the other tokens. The quickstart explains the words *neurite* and *stack*.
# >
# > **Takes.** 2 min on 2 CPU cores, 35 s in the short profile (`NEUROKD_PROFILE=ci`); 2.6 GB of memory. Downloads 90 MB the first time.
#
# We look at the network in three ways: the main directions of the tokens as colours, the attention, and a *linear probe*. We begin with pictures and end with a measurement. We compare with three controls: the same network with shuffled weights, the same network with random weights, and plain brightness.

# %% jupyter={"source_hidden": true} tags=["colab", "hide-input"]
import sys

if "google.colab" in sys.modules:  # anywhere else this cell does nothing
    from google.colab import files
    from IPython import get_ipython

    print("Choose the wheel of neurokd; in a clone of the repository, `pip wheel --no-deps .` makes it.")
    (wheel,) = files.upload()
    get_ipython().run_line_magic("pip", f"install --quiet ./{wheel}")

# %%
import ipywidgets as widgets
import matplotlib.pyplot as plt
import numpy as np
import timm
import torch
from einops import einsum, rearrange, reduce
from scipy import ndimage
from torch.nn import functional as F
from tqdm.auto import tqdm

import neurokd as nkd
from neurokd.profile import profile

short = profile() == "ci"  # the same story with fewer and smaller things, for automatic tests

# %% [markdown]
# ## 1 · Slices and projections
#
# A 2D network can look at a slice of a stack, or at a projection of several slices. How much of a neuron is visible in each? The stacks here are simulated, so the truth is known. In published stacks the background is often cleared. Our stacks keep the background everywhere, because the edge of a cleared region would be the most striking thing in the picture.

# %% mystnb={"image": {"alt": "One slice, the maximum of nine slices and that of all slices, each beside the true neurites in it."}}
shape, counts = ((32, 96, 96), (2, 1, 1)) if short else ((64, 144, 144), (6, 2, 4))
uncleared = nkd.Microscope(box=(500.0, 500.0))  # µm of background kept around the neuron: all of it
neurons = nkd.simulated_neurons(sum(counts), seed=0, shape=shape, microscope=uncleared)
ends = np.cumsum(counts)
parts = {"train": slice(0, ends[0]), "validation": slice(ends[0], ends[1]), "test": slice(ends[1], ends[2])}

sample = neurons[parts["test"]][0]
volume = nkd.scale_intensity(sample.volume)
z = 8 + int(np.argmax(sample.mask[8:-8].sum(axis=(1, 2))))  # the slice with most neurite, not at the border
views = {f"slice {z}": slice(z, z + 1), "maximum of 9": slice(z - 4, z + 5), "maximum of all": slice(None)}
pieces, background = [], []
figure = plt.figure(figsize=(10.5, 2.0), layout="constrained")
print(f"{'':<15}{'neurite pixels':>15}{'pieces':>8}{'background':>12}{'neurite':>9}   (median brightness)")
for (name, part), place in zip(views.items(), figure.subfigures(1, 3), strict=True):
    nkd.plot_comparison(volume[part], sample.mask[part], spacing=sample.spacing, title=name, figure=place)
    image, truth = volume[part].max(axis=0), sample.mask[part].any(axis=0)
    pieces.append(ndimage.label(truth, np.ones((3, 3)))[1])
    background.append(np.median(image[~truth]))
    print(f"{name:<15}{truth.mean():>15.1%}{pieces[-1]:>8}{background[-1]:>12.2f}{np.median(image[truth]):>9.2f}")
assert pieces[0] > pieces[2]
assert background[0] < background[1] < background[2]

# %% [markdown]
# A slice cuts the tree into dots and short pieces. A projection joins the pieces, but also overlays the brightest haze and the fibres of other cells. A network for volumes must work with slices, so we use slices.
#
# ## 2 · A teacher, its magnification, and two controls
#
# The teacher's patch is 14 pixels wide, and a neurite is about two pixels wide. We cannot change the network, but we can *magnify* the picture. At a magnification of 1.75, one patch covers 8 voxels.
#
# Good results could also come from the architecture alone, because even random layers mix pixels in useful ways. We therefore use two more networks as controls. One has *random* weights, as before training. In the other, the trained weights are *shuffled* within each layer: it has the same numbers but no knowledge.

# %%
teacher = nkd.load_teacher()
print(teacher.source)
shuffled = nkd.shuffle_teacher(teacher, generator=torch.Generator().manual_seed(0))
print(shuffled.source)
torch.manual_seed(0)
fresh = timm.create_model("vit_small_patch14_dinov2", num_classes=0, dynamic_img_size=True)
source = nkd.TeacherSource(name="random", kind="control", detail="as before training: knows nothing", sha256="")
random = nkd.Teacher(fresh, mean=teacher.mean, std=teacher.std, source=source)
networks = {"real": teacher, "shuffled": shuffled, "random": random}
assert fresh.blocks[0].ls1.gamma.max() < 1.1e-5  # remembered below

token = 8  # voxels
magnification = teacher.patch[0] / token
width = 2 * float(np.median(sample.tree.radius))
print(f"a neurite is {width:.1f} voxels or {width * sample.spacing[2]:.1f} µm wide")
for covers in (teacher.patch[0], token):
    print(f"  of a token of {covers:>2} x {covers:<2} voxels a straight one fills {width / covers:.0%}")
assert magnification == 1.75

# %% [markdown]
# The next cell computes all tokens of every eighth slice for the three networks. `feature_maps` returns the tokens after the blocks that we name. A token's label is *yes* if at least one of its voxels is neurite.

# %%
slices = torch.from_numpy(np.stack([nkd.scale_intensity(one.volume)[4::8] for one in neurons]))  # n b y x
masks = np.stack([one.mask[4::8] for one in neurons])
labels = reduce(masks, "n b (y i) (x j) -> n b y x", "max", i=token, j=token)
blocks = [5, 11] if short else [2, 5, 8, 11]
tokens = {name: {block: [] for block in blocks} for name in networks}
for name, network in networks.items():
    for images in tqdm(slices, desc=f"tokens of the {name} network"):
        maps = network.feature_maps(rearrange(images, "b y x -> b 1 y x"), blocks, magnification=magnification)
        for block, found in zip(blocks, maps, strict=True):
            tokens[name][block].append(found)
tokens = {name: {block: torch.stack(maps) for block, maps in of.items()} for name, of in tokens.items()}  # n b d y x
print(f"{labels.size} tokens, a neurite in {labels.mean():.1%} of them")
assert tokens["real"][5][:, :, 0].shape == labels.shape

# %% [markdown]
# ## 3 · Main directions as colours
#
# A token has 384 numbers. Principal component analysis (PCA) finds the directions in which tokens differ most. The first three become red, green and blue. Colours are hard to interpret, and some readers cannot distinguish them, so each component is also shown by itself.


# %% mystnb={"image": {"alt": "A slice, its tokens in false colours, and three components; one of them is a smooth gradient over the image."}}
def project(maps, mean, axes):
    """Components b k y x of token maps b d y x; the mean is brought to their grid."""
    mean = F.interpolate(mean, size=maps.shape[2:], mode="bicubic", antialias=True)
    return einsum(maps - mean, axes, "b d y x, d k -> b k y x")


def main_directions(maps, mean):
    """Three directions (d k) in which tokens differ most, the rarer ones upward, and their share of the variance."""
    centred = rearrange(maps - mean, "b d y x -> (b y x) d")
    variance, axes = torch.linalg.eigh(centred.T @ centred)  # ascending
    axes = axes.flip(1)[:, :3]
    return axes * ((centred @ axes) ** 3).mean(0).sign(), (variance.flip(0)[:3] / variance.sum()).tolist()


def look(z, magnification, mean, axes):
    """Draw a slice and its tokens: three components, in colour and one by one."""
    picture = torch.from_numpy(volume[z])[None, None]
    found = project(*teacher.feature_maps(picture, [5], magnification=magnification), mean, axes)[0].numpy()
    low, high = np.percentile(found, (2, 98), axis=(1, 2), keepdims=True)
    colours = rearrange(((found - low) / (high - low)).clip(0, 1), "k y x -> y x k")
    covers = teacher.patch[0] / magnification
    named = {f"component {k}": component for k, component in enumerate(found, 1)}
    return nkd.plot_maps(
        volume[z], {f"tokens of {covers:.0f} x {covers:.0f} voxels": colours} | named, mask=sample.mask[z],
        spacing=sample.spacing, columns=5, title=f"slice {z}",
    )  # fmt: skip


maps = rearrange(tokens["real"][5][parts["train"]], "n b d y x -> (n b) d y x")
overall = reduce(maps, "b d y x -> 1 d 1 1", "mean")
axes, shares = main_directions(maps, overall)
_ = look(z, magnification, overall, axes)
place = []
for k, component in enumerate(project(maps, overall, axes).unbind(1)):
    place.append(float(component.mean(0).var() / component.var()))
    print(f"component {k + 1}: {shares[k]:4.0%} of the variance; {place[k]:4.0%} of that is where the token is")
assert max(place) > 0.5

# %% [markdown]
# One of the components does not depend on the picture: it shows nearly the same gradient for every slice. A token contains its *position*, because attention has no other way to know it. In a photograph this is hardly visible. In a dim slice it is a large part of the token. The position is the same in all slices, so we average the tokens over many slices, place by place, and subtract this mean.

# %% mystnb={"image": {"alt": "The same slice; without the mean of each place, the first component follows the neurites."}}
per_place = reduce(maps, "b d y x -> 1 d y x", "mean")
axes, shares = main_directions(maps, per_place)
_ = look(z, magnification, per_place, axes)

chance = labels[parts["train"]].mean()
truth = rearrange(labels[parts["train"]], "n b y x -> (n b) y x")
found = [nkd.average_precision(component, truth) for component in project(maps, per_place, axes).unbind(1)]
print("average precision of", ", ".join(f"component {k}: {value:.3f}" for k, value in enumerate(found, 1)))
print(f"chance: {chance:.3f}")
assert found[0] > 3 * chance

# %% [markdown]
# *Average precision* measures how well a number ranks the tokens with a neurite before all others. A perfect ranking gives 1. Chance gives the share of tokens with a neurite. The network has never seen a neuron and got no labels. Still, its largest direction separates neurites from background several times better than chance.
#
# ## 4 · Attention
#
# In each block six *heads* decide which tokens attend to which. The class token was trained to describe what a picture shows. Where does it look in a slice through a neuron? (This picture uses twice the magnification, to be sharper.)

# %% mystnb={"image": {"alt": "A slice and the class token's attention in six heads; several of them follow the neurites."}}
picture = torch.from_numpy(volume[z])[None, None]
fine = {"block": 5, "magnification": 2 * magnification}
drawn = {"spacing": sample.spacing, "label": "attention (mean = 1)", "limits": (0, 8), "title": f"slice {z}"}


def heads_of(query=None):
    """Attention of each head, y x, in multiples of what each patch would get if all got the same."""
    heads = nkd.attention_maps(teacher, picture, query=query, **fine)[0]
    return {f"head {k}": head / head.mean() for k, head in enumerate(heads)}


_ = nkd.plot_maps(volume[z], heads_of(), mask=sample.mask[z], **drawn)

part = {name: rearrange(slices[of], "n b y x -> (n b) 1 y x") for name, of in parts.items()}
for name in ("real", "shuffled"):
    precision = {}
    for held_out in ("validation", "test"):
        truth = rearrange(labels[parts[held_out]], "n b y x -> (n b) y x")
        heads = nkd.attention_maps(networks[name], part[held_out], block=5, magnification=magnification).unbind(1)
        precision[held_out] = [nkd.average_precision(head, truth) for head in heads]
    best = int(np.argmax(precision["validation"]))
    print(f"{name:>9}: best head on validation {best}, average precision on test {precision['test'][best]:.3f}")
print(f"   chance: {truth.mean():.3f}")

# %% [markdown]
# We can look at the attention of any token. The next picture shows it for a token on a neurite (boxed). The numbers compare it with a token in the background.

# %% mystnb={"image": {"alt": "A slice with one token on a neurite boxed, and where that token looks in six heads."}}
rows, columns = heads_of()["head 0"].shape
filled, brightness = (
    reduce(of.astype(float), "(y i) (x j) -> y x", "mean", y=rows, x=columns) for of in (sample.mask[z], volume[z])
)
queries = {
    "neurite": np.unravel_index(filled.argmax(), filled.shape),
    "background": np.unravel_index(brightness.argmin(), filled.shape),
}
looks = {name: heads_of(query) for name, query in queries.items()}
_ = nkd.plot_maps(volume[z], looks["neurite"], mark=queries["neurite"], **drawn)
gains = {name: [float(head[filled > 0].mean()) for head in heads.values()] for name, heads in looks.items()}
for name, gain in gains.items():
    print(f"attention from {name:<10} to neurites (mean = 1), by head:", " ".join(f"{value:.1f}" for value in gain))
assert np.mean(gains["neurite"]) > np.mean(gains["background"])

# %% [markdown]
# Some heads attend to the neighbourhood. Others attend to similar tokens, wherever they are. In this way a token in a gap could find out that it lies between two pieces of neurite. This is what we want to carry into 3D.
#
# ## 5 · The linear probe
#
# Now we measure. A linear probe answers the question *is there a neurite in this token?* with one weight per channel (least squares with a *ridge* penalty on the weights). Such a probe can compute very little by itself, so it can only find what the tokens show openly. The probe is trained on the tokens of some neurons and tested on other neurons, because tokens of one stack have similar noise and haze. For each candidate, the block and the penalty are chosen on validation neurons.
#
# The candidates are the three networks, the 64 raw voxels of the token, and the threshold baseline. The baseline is the brightest voxel of the token.


# %% mystnb={"image": {"alt": "Left: average precision by block. Right: on the test neurons, one dot each. The real network lies above its controls."}}
def flat(maps, part):
    """Token maps n b d y x of the neurons of a part, as a list of tokens n d."""
    return rearrange(np.asarray(maps)[parts[part]], "n b d y x -> (n b y x) d")


def fit(x, yes, penalties):
    """Weights and bias of the linear probe, for each penalty."""
    mean, spread = x.mean(0), x.std(0) + 1e-6
    x, share = (x - mean) / spread, yes.mean()
    square, slope = x.T @ x / len(x), x.T @ (yes - share) / len(x)
    weights = [np.linalg.solve(square + penalty * np.eye(len(mean)), slope) / spread for penalty in penalties]
    return [(weight, share - mean @ weight) for weight in weights]


voxels = rearrange(slices, "n b (y i) (x j) -> n b (i j) y x", i=token, j=token)
contenders = tokens | {"raw voxels": {0: voxels}}
truth = {part: flat(labels[:, :, None], part)[:, 0] for part in parts}
penalties = 10.0 ** np.arange(-3 if short else -4, 1)
by_block, probes = {}, {}
for name, maps in contenders.items():
    by_block[name], best = {}, 0.0
    for block in tqdm(maps, desc=f"probes on {name}"):
        held_out = flat(maps[block], "validation")
        fitted = fit(flat(maps[block], "train"), truth["train"], penalties)
        values = [nkd.average_precision(held_out @ weight + bias, truth["validation"]) for weight, bias in fitted]
        by_block[name][block] = max(values)
        if max(values) > best:
            best, probes[name] = max(values), (block, *fitted[int(np.argmax(values))])

# And now, once, the test neurons.
scores = {name: flat(contenders[name][block], "test") @ weight + bias for name, (block, weight, bias) in probes.items()}
scores["brightest voxel"] = flat(voxels, "test").max(axis=1)
by_block["brightest voxel"] = {0: nkd.average_precision(flat(voxels, "validation").max(axis=1), truth["validation"])}
result = {name: nkd.average_precision(score, truth["test"]) for name, score in scores.items()}
chance, neuron = truth["test"].mean(), np.repeat(np.arange(counts[2]), labels[0].size)
alone = {
    name: [nkd.average_precision(score[neuron == k], truth["test"][neuron == k]) for k in range(counts[2])]
    for name, score in scores.items()
}
print(f"{'average precision':<18}{'test':>6}   each test neuron")
for name, value in result.items():
    chosen = f"   (block {probes[name][0]})" if name in networks else ""
    print(f"{name:<18}{value:>6.3f}   {' '.join(f'{one:.3f}' for one in alone[name])}{chosen}")
print(f"{'chance':<18}{chance:>6.3f}")
assert result["real"] > max(result["random"], result["raw voxels"], 3 * chance)
if not short:
    assert min(by_block["real"].values()) > max(max(of.values()) for name, of in by_block.items() if name != "real")
    assert by_block["real"][11] < max(by_block["real"].values())
    assert all(max(of) == of[0] for of in zip(*alone.values(), strict=True))  # the real one comes first in the table
    assert result["shuffled"] > result["brightest voxel"] > max(result["random"], result["raw voxels"])

colours = dict(zip(result, ("#E69F00", "#0072B2", "#56B4E9", "#009E73", "0.45"), strict=True))
figure, (left, right) = plt.subplots(1, 2, figsize=(10, 3.6), layout="constrained")
for name, of in by_block.items():
    if len(of) > 1:
        left.plot(list(of), list(of.values()), marker="o", color=colours[name], label=name)
    else:
        left.axhline(*of.values(), linestyle="--", color=colours[name], label=name)
left.set(xlabel="block (from 0)", ylabel="average precision, validation", xticks=blocks, ylim=(0, None))
left.legend(frameon=False, fontsize="small", loc="upper left", bbox_to_anchor=(1, 1))
right.barh(list(result), list(result.values()), color=colours.values(), height=0.6)
for row, name in enumerate(result):
    right.plot(alone[name], [row] * counts[2], "o", markersize=4, color="black", markerfacecolor="white")
right.axvline(chance, color="black", linestyle=":")
right.set(xlabel="average precision, test (dots: each neuron; dotted: chance)", xlim=(0, 1))
right.invert_yaxis()
for panel in (left, right):
    panel.spines[["top", "right"]].set_visible(False)

# %% [markdown]
# The real network contains knowledge that a linear probe can read. In the full run it is ahead in every block and on every test neuron. Three remarks:
#
# - *Shuffled* is the control that matters most. Layers of a good scale mix neighbouring pixels in many non-linear ways, even if they have learnt nothing. In the full run, on more neurons, this control is better than brightness.
# - *Random* is too easy a control. A new network of this kind scales what its blocks add by 1e-5 (LayerScale), so its tokens are little more than a linear function of the voxels. A comparison with this control alone would credit the photographs with what any non-linearity gives.
# - Brightness is a strong candidate. It is better than a linear probe on raw voxels, because the probe can add voxels but cannot take the brightest.
#
# Where do the probes find neurites?

# %% mystnb={"image": {"alt": "A slice of a test neuron with the true neurites outlined, and the scores of four probes for each token."}}
answers = {}
for name, (block, weight, bias) in probes.items():
    seen = rearrange(picture, "1 1 (y i) (x j) -> 1 (i j) y x", i=token, j=token)
    if name in networks:
        (seen,) = networks[name].feature_maps(picture, [block], magnification=magnification)
    answers[name] = einsum(seen[0].numpy(), weight, "d y x, d -> y x") + bias
_ = nkd.plot_maps(
    volume[z], answers, mask=sample.mask[z], spacing=sample.spacing, label="score (yes = 1, no = 0)", limits=(0, 0.6),
    columns=5, title=f"slice {z}",
)  # fmt: skip

# %% [markdown]
# ## 6 · Look around
#
# The sliders select slices and magnifications (if a kernel is running). The static picture below them shows the main directions at magnification 3.5. At magnification 1 a token is too coarse to locate a neurite. At 3.5 the tokens follow it, but there are four times as many tokens as at 1.75. (`nkd.view_features(teacher, volume)` opens a viewer that also shows similarity and attention at the place where you click.)

# %%
nkd.view_figure(
    lambda z, magnification: look(z, magnification, per_place, axes),
    z=widgets.IntSlider(z, min=0, max=len(volume) - 1, continuous_update=False),
    magnification=widgets.Dropdown(options=[1.75, 1.0, 3.5]),
)

# %% mystnb={"image": {"alt": "A slice at magnification 3.5: the components follow the neurites in finer tokens."}}
_ = look(z, 3.5, per_place, axes)

# %% [markdown]
# ## What was learnt
#
# - Tokens of a network that learnt from photographs separate neurites from background. Their largest direction does so without labels. A linear probe does so better than with the shuffled network, with brightness, or with raw voxels.
# - All tested blocks contain this knowledge. In the full run, which tests four blocks, the last block is not the best.
# - A large part of a token is its position. A 3D network must receive the positions correctly, too.
# - Look at the pictures again: fibres of other cells and bright specks also light up. In one slice they look like neurites. To distinguish them, a network needs the volume.
#
# A probe is not a segmenter, and it decides on 8 x 8 voxels at once, not on single voxels. The next notebook brings the same knowledge into a network for volumes.
#
# ## Exercises
#
# 1. Let a token cover 14, 8 and 4 voxels, and answer the same question for each field of 8 x 8 voxels. How much does magnification help?
# 2. Apply the probe to a real neuron. Is it still better than brightness?

# %% [markdown]
# <details><summary>Solution of exercise 1</summary>
#
# Interpolation brings the tokens to the grid of 8 x 8 voxels: four small tokens are averaged, and a large token covers several fields. Tokens of eight voxels are much better than tokens of fourteen, and tokens of four are no better than tokens of eight. The number of tokens grows with the square of the magnification. The cost grows faster, because every token attends to every other. Some of the slices are enough to show this.
#
# </details>

# %% jupyter={"source_hidden": true} tags=["hide-input"]
every, by_size = 1 if short else 2, {}
for factor in (1.0, 1.75) if short else (1.0, 1.75, 3.5):
    seen = [
        teacher.feature_maps(rearrange(images[::every], "b y x -> b 1 y x"), [5], magnification=factor)[0]
        for images in tqdm(slices, desc=f"magnified {factor} times")
    ]
    grid = labels.shape[2:]
    seen = torch.stack([F.interpolate(one, size=grid, mode="bilinear", align_corners=False) for one in seen])
    yes = {part: flat(labels[:, ::every, None], part)[:, 0] for part in parts}
    fitted = fit(flat(seen, "train"), yes["train"], penalties)
    on_validation = [nkd.average_precision(flat(seen, "validation") @ w + b, yes["validation"]) for w, b in fitted]
    weight, bias = fitted[int(np.argmax(on_validation))]
    by_size[factor] = nkd.average_precision(flat(seen, "test") @ weight + bias, yes["test"])
    print(f"a token covers {teacher.patch[0] / factor:>4.1f} voxels: average precision {by_size[factor]:.3f}")
assert by_size[1.75] > by_size[1.0] + 0.02
assert short or by_size[3.5] < by_size[1.75] + 0.02

# %% [markdown]
# <details><summary>Solution of exercise 2</summary>
#
# The reference is an automatic trace that was drawn one voxel thin. The background of this stack was cleared. Both differ from the data on which the probe was trained. The numbers therefore measure agreement, and the comparison is only a first look. The probe is far better than chance. With the background cleared, the brightest voxel of a token already tells almost everything.
#
# </details>

# %% jupyter={"source_hidden": true} tags=["hide-input"]
try:
    fly = nkd.fly_neuron()
except FileNotFoundError as error:  # neither in NEUROKD_DATA nor in the cache, and no network
    fly = None
    print(error)

if fly is not None:
    rows, columns = (n // token * token for n in fly.volume.shape[1:])
    chosen = np.linspace(10, len(fly.volume) - 10, 2 if short else 8).astype(int)
    pictures = nkd.scale_intensity(fly.volume)[chosen, :rows, :columns]
    traced = nkd.rasterise(fly.tree, fly.volume.shape)[chosen, :rows, :columns]
    traced, brightest = (reduce(of, "b (y i) (x j) -> b y x", "max", i=token, j=token) for of in (traced, pictures))
    block, weight, bias = probes["real"]
    seen = [
        teacher.feature_maps(torch.from_numpy(one)[None, None], [block], magnification=magnification)[0]
        for one in pictures
    ]
    answer = einsum(torch.cat(seen).numpy(), weight, "b d y x, d -> b y x") + bias
    on_fly = {
        "probe": nkd.average_precision(answer, traced),
        "brightest voxel": nkd.average_precision(brightest, traced),
    }
    for name, value in (on_fly | {"chance": traced.mean()}).items():
        print(f"{name:<16}average precision against the automatic trace {value:.3f}")
    assert on_fly["probe"] > 2 * traced.mean()

# %% [markdown]
# **Next.** [03 · Inflation](03_inflation.ipynb) shows how a layer for pictures becomes a layer for volumes without losing what it knows.
