# ---
# jupyter:
#   jupytext:
#     formats: ipynb,py:percent
# ---

# %% [markdown]
# # What a 2D network sees in neurons
#
# > **Question.** A vision transformer has learnt from photographs and has never seen a neuron. Is there anything in it that could help to find neurites?
# >
# > **Know first.** That a vision transformer cuts an image into patches and turns each into a *token*, a vector that the blocks of the network refine by *attention* to the other tokens. The quickstart, for the words *neurite* and *stack*.
# >
# > **Takes.** @MINUTES@ Downloads 90 MB the first time (the teacher).
#
# We look in three ways, from seeing to measuring: the main directions of the tokens as colours, the attention, and a *linear probe*. Two controls stand beside everything that could be wishful thinking: the same network with its weights shuffled, and plain brightness.

# %%
import dataclasses
from functools import partial

import numpy as np
import torch
from einops import rearrange, reduce
from scipy import ndimage
from torch.nn import functional as F
from tqdm.auto import tqdm

import neurokd as nkd
from neurokd.profile import profile

short = profile() == "ci"  # the same story with fewer and smaller things, for automatic tests

# %% [markdown]
# ## 1 · Slices and projections
#
# A 2D network can be shown a slice of a stack, or a projection of several slices. What is left of a neuron in them? The stacks here are simulated, so the truth is known (orange outlines). Published stacks often have the background cleared; these keep it everywhere, as it leaves the microscope, because the edge of a cleared region would be the most striking thing in the picture.

# %% mystnb={"image": {"alt": "The same volume as one slice, as the maximum of nine slices and of all slices, with the true neurites outlined."}}
shape = (32, 96, 96) if short else (96, 144, 144)
uncleared = nkd.Microscope(box=(500.0, 500.0))  # µm of background kept around the neuron: all of it
neurons = nkd.simulated_neurons(4 if short else 12, seed=0, shape=shape, microscope=uncleared)
parts = {"train": neurons[:-2], "validation": neurons[-2:-1], "test": neurons[-1:]}
if not short:
    parts = {"train": neurons[:6], "validation": neurons[6:8], "test": neurons[8:]}

sample = parts["test"][0]
z = 8 + int(np.argmax(sample.mask[8:-8].sum(axis=(1, 2))))  # the slice with most neurite, not at the border
_ = nkd.plot_views(sample.volume, sample.mask, z=z, spacing=sample.spacing)

volume = nkd.scale_intensity(sample.volume)
views = {"slice": slice(z, z + 1), "slab of 9": slice(z - 4, z + 5), "projection": slice(None)}
print(f"{'':<12}{'neurite pixels':>15}{'pieces':>8}{'background':>12}{'neurite':>9}   (median brightness)")
pieces, background = {}, {}
for name, part in views.items():
    image, truth = volume[part].max(axis=0), sample.mask[part].any(axis=0)
    pieces[name], background[name] = ndimage.label(truth, np.ones((3, 3)))[1], np.median(image[~truth])
    print(f"{name:<12}{truth.mean():>15.1%}{pieces[name]:>8}{background[name]:>12.2f}{np.median(image[truth]):>9.2f}")
assert pieces["slice"] > pieces["projection"]
assert background["slice"] < background["slab of 9"] < background["projection"]

# %% [markdown]
# A slice cuts the tree into dots and short pieces; a projection puts the pieces together, and lays the brightest haze and the fibres of other cells over them. A student for 3D has to live with slices: this is what its layers see. So slices it is.
#
# ## 2 · A teacher and its magnifying glass
#
# The teacher's patch is 14 pixels wide, a neurite two. The network cannot be changed, but the picture can: *magnified* 1.75 times, one patch covers 8 voxels.

# %%
teacher = nkd.load_teacher()
shuffled = nkd.shuffle_teacher(teacher, generator=torch.Generator().manual_seed(0))
print(teacher.source)
print("control:", shuffled.source.name)

token = 8  # voxels
magnification = teacher.patch[0] / token
width = 2 * float(np.median(sample.tree.radius))
print(f"a neurite is {width:.1f} voxels or {width * sample.spacing[2]:.1f} µm wide")
for covers in (teacher.patch[0], token):
    print(f"  of a token of {covers:>2} x {covers:<2} voxels a straight one fills {width / covers:.0%}")
assert magnification == 1.75

# %% [markdown]
# All tokens of every eighth slice, once, for the real and for the shuffled network. `feature_maps` gives the tokens after any blocks that are asked for.


# %%
def slices(sample: nkd.Sample) -> torch.Tensor:
    """Every eighth slice of a sample, b 1 y x in [0, 1]."""
    return torch.from_numpy(nkd.scale_intensity(sample.volume)[4::8])[:, None]


blocks = [5, 11] if short else [2, 5, 8, 11]
tokens = {"real": {}, "shuffled": {}}  # network -> sample -> block -> b d y x
for name, network in (("real", teacher), ("shuffled", shuffled)):
    for one in tqdm(neurons, desc=f"tokens of the {name} network"):
        maps = network.feature_maps(slices(one), blocks, magnification=magnification)
        tokens[name][one.name] = dict(zip(blocks, maps, strict=True))

labels = {one.name: nkd.token_labels(one.mask[4::8], token=(token, token)) for one in neurons}
share = np.mean([truth.mean() for truth in labels.values()])
print(f"{sum(truth.size for truth in labels.values())} tokens, a neurite in {share:.1%} of them")
assert all(labels[name].shape == maps[blocks[0]][:, 0].shape for name, maps in tokens["real"].items())

# %% [markdown]
# ## 3 · Main directions as colours
#
# A token has 384 numbers. Principal component analysis (PCA) finds the directions in which tokens differ most; the first three become red, green and blue. Colours are hard to read for some, and hard to interpret for all, so each component stands beside them alone.

# %% mystnb={"image": {"alt": "A slice, its tokens in false colours, and three components; the second one is a smooth gradient over the image."}}
middle = 5
maps = torch.cat([tokens["real"][one.name][middle] for one in parts["train"]])
pca = nkd.TokenPCA.fit(maps)
show = {"z": z, "block": middle, "spacing": sample.spacing}
_ = nkd.plot_slice_features(teacher, pca, sample.volume, **show)

components = pca(maps)
place = [float(part.mean(0).var() / part.var()) for part in components.unbind(1)]
for k in range(3):
    print(f"component {k + 1}: {pca.share[k]:4.0%} of the variance; {place[k]:4.0%} of that is where the token is")
assert max(place) > 0.5

# %% [markdown]
# One of the components does not look at the picture at all: nearly the same gradient for every slice. A token carries its *place*, because attention has no other way to know it. In a photograph that hardly shows; in a dim slice it is much of what there is. It is the same in all slices, so it can be averaged over many and taken off.

# %% mystnb={"image": {"alt": "The same slice; without the mean of each place, the first component follows the neurites."}}
pca = nkd.TokenPCA.fit(maps, per_place=True)
_ = nkd.plot_slice_features(teacher, pca, sample.volume, **show)

truth = np.concatenate([labels[one.name] for one in parts["train"]])
components = pca(maps)
found = [nkd.average_precision(part.flatten(), truth.ravel()) for part in components.unbind(1)]
print("average precision of", ", ".join(f"component {k}: {value:.3f}" for k, value in enumerate(found, 1)))
print(f"chance: {truth.mean():.3f}")
assert float(components.mean(0).abs().max()) < 1e-6  # nothing is left of the place
assert max(found) > 2 * truth.mean()

# %% [markdown]
# *Average precision* asks: if tokens are sorted by this number, how well do those with a neurite come first? Chance is their share, perfect is 1. The largest direction in a network that has never seen a neuron separates neurites from background several times better than chance, and nobody told it to.
#
# ## 4 · Attention
#
# In each block six *heads* decide which tokens look at which. The class token was trained to say what a picture shows; where does it look in a slice through a neuron?


# %% mystnb={"image": {"alt": "A slice and the class token's attention in six heads; several of them follow the neurites."}}
def head_titles(values: torch.Tensor) -> dict[str, torch.Tensor]:
    """Attention heads y x by name, in multiples of what each patch would get if all got the same."""
    return {f"head {k}": head / head.mean() for k, head in enumerate(values)}


picture = torch.from_numpy(volume[z])[None, None]
heads = nkd.attention_maps(teacher, picture, block=middle, magnification=2 * magnification)[0]
assert float(heads.sum(dim=(1, 2)).max()) <= 1 + 1e-5  # shares of one; the rest goes to the class token itself
_ = nkd.plot_maps(
    volume[z], head_titles(heads), mask=sample.mask[z], spacing=sample.spacing, limits=(0, 8),
    label="attention (mean = 1)", title=f"slice {z}",
)  # fmt: skip

scores = {}
for name, network in (("real", teacher), ("shuffled", shuffled)):
    for part in ("validation", "test"):
        looks = torch.cat(
            [nkd.attention_maps(network, slices(one), block=middle, magnification=magnification) for one in parts[part]]
        )
        truth = np.concatenate([labels[one.name] for one in parts[part]]).ravel()
        scores[name, part] = [nkd.average_precision(head.flatten(), truth) for head in looks.unbind(1)]
    best = int(np.argmax(scores[name, "validation"]))
    print(f"{name:>9}: best head on validation {best}, average precision on test {scores[name, 'test'][best]:.3f}")
print(f"   chance: {truth.mean():.3f}")

# %% mystnb={"image": {"alt": "A slice with one token on a neurite boxed, and where that token looks in six heads."}}
grid = heads.shape[1:]
filled = reduce(sample.mask[z].astype(float), "(y a) (x b) -> y x", "mean", y=grid[0], x=grid[1])
on_neurite = tuple(int(k) for k in np.unravel_index(filled.argmax(), filled.shape))
looks = nkd.attention_maps(teacher, picture, block=middle, query=on_neurite, magnification=2 * magnification)[0]
_ = nkd.plot_maps(
    volume[z], head_titles(looks), mark=on_neurite, spacing=sample.spacing, limits=(0, 8),
    label="attention (mean = 1)", title=f"slice {z}",
)  # fmt: skip
is_neurite = torch.from_numpy(filled > 0)
darkest = reduce(volume[z], "(y a) (x b) -> y x", "mean", y=grid[0], x=grid[1])
elsewhere = tuple(int(k) for k in np.unravel_index(darkest.argmin(), darkest.shape))
gains = {}
for name, query in (("neurite", on_neurite), ("background", elsewhere)):
    looks = nkd.attention_maps(teacher, picture, block=middle, query=query, magnification=2 * magnification)[0]
    gains[name] = looks[:, is_neurite].sum(1) / looks.sum(dim=(1, 2)) / is_neurite.double().mean()
    print(
        f"from {name:<10} to neurites, in multiples of their area:", " ".join(f"{value:.1f}" for value in gains[name])
    )
assert gains["neurite"].mean() > gains["background"].mean()

# %% [markdown]
# Some heads look along the neighbourhood, some look for what is like themselves, wherever it is. This is how a token in the middle of a gap could come to know that it lies between two pieces of neurite, and it is what we want to carry into 3D.
#
# ## 5 · The linear probe
#
# The strict question: *is there a neurite in this token*, answered by one weight per channel. Such a probe cannot compute anything itself, so what it finds lay open in the tokens. It is trained on the tokens of some neurons and tested on other neurons, because tokens of one stack are alike in noise and haze. Block and penalty are chosen on validation neurons, for each contender by itself.
#
# Contenders: the real network, the shuffled one (same numbers, no knowledge), the 64 raw voxels of the token, and the threshold baseline, here the brightest voxel of the token.


# %%
def together(maps: dict, part: str) -> np.ndarray:
    """Token maps b d y x of all samples of a part, as n d."""
    return np.concatenate([rearrange(np.asarray(maps[s.name]), "b d y x -> (b y x) d") for s in parts[part]])


raw = {one.name: rearrange(slices(one), "b 1 (y a) (x c) -> b (a c) y x", a=token, c=token).numpy() for one in neurons}
contenders = {
    name: {block: {sample: maps[block] for sample, maps in by_sample.items()} for block in blocks}
    for name, by_sample in tokens.items()
} | {"raw voxels": {0: raw}}
truth = {part: together({name: value[:, None] for name, value in labels.items()}, part)[:, 0] for part in parts}

penalties = (1e-1, 1e-3) if short else (1.0, 1e-1, 1e-2, 1e-3, 1e-4)
by_block, probes = {}, {}
for name, by in contenders.items():
    tried = {}
    for block, maps in tqdm(by.items(), desc=name):
        for penalty in penalties:
            probe = nkd.fit_probe(together(maps, "train"), truth["train"], penalty=penalty)
            value = nkd.average_precision(probe(together(maps, "validation")), truth["validation"])
            tried[block, penalty] = value, probe
    by_block[name] = {block: max(tried[block, penalty][0] for penalty in penalties) for block in by}
    chosen = max(tried, key=lambda choice: tried[choice][0])
    probes[name] = (*chosen, tried[chosen][1])
by_block["brightest voxel"] = {0: nkd.average_precision(together(raw, "validation").max(axis=1), truth["validation"])}

# %% [markdown]
# And now, once, the test neurons.

# %% mystnb={"image": {"alt": "Average precision by block and precision-recall curves; the real network lies above its controls."}}
curves = {
    name: (probe(together(contenders[name][block], "test")), truth["test"])
    for name, (block, _, probe) in probes.items()
}
curves["brightest voxel"] = together(raw, "test").max(axis=1), truth["test"]
_ = nkd.plot_probes(curves, by_block)

result = {name: nkd.average_precision(*curve) for name, curve in curves.items()}
each = np.cumsum([labels[one.name].size for one in parts["test"]])[:-1]
print(f"{'average precision':<18}{'test':>6}   each test neuron")
for name, (score, yes) in curves.items():
    alone = [nkd.average_precision(*pair) for pair in zip(np.split(score, each), np.split(yes, each), strict=True)]
    chosen = f"block {probes[name][0]}, penalty {probes[name][1]:g}" if name in tokens else ""
    print(f"{name:<18}{result[name]:>6.3f}   {' '.join(f'{value:.3f}' for value in alone)}   {chosen}")
print(f"{'chance':<18}{truth['test'].mean():>6.3f}")
assert result["real"] > max(result["raw voxels"], truth["test"].mean())
if not short:
    assert result["real"] > 1.2 * max(result["shuffled"], result["brightest voxel"], result["raw voxels"])

# %% [markdown]
# The knowledge is there, and it lies open. Two honest remarks. The shuffled network beats the raw voxels: random non-linear features are worth something, so "random weights" is the control to beat, not zero. And brightness alone is a strong contender, as always.
#
# Where do the probes say yes?

# %% mystnb={"image": {"alt": "A slice of a test neuron with the true neurites outlined, and the scores of three probes for each token."}}
at = torch.from_numpy(volume[z])[None, None]
answers = {}
for name, network in (("real", teacher), ("shuffled", shuffled)):
    block, _, probe = probes[name]
    (seen,) = network.feature_maps(at, [block], magnification=magnification)
    answers[name] = rearrange(probe(rearrange(seen, "1 d y x -> (y x) d")), "(y x) -> y x", y=seen.shape[2])
voxels = rearrange(at, "1 1 (y a) (x c) -> (y x) (a c)", a=token, c=token).numpy()
answers["raw voxels"] = probes["raw voxels"][2](voxels).reshape(answers["real"].shape)
chances = {name: 1 / (1 + np.exp(-logit)) for name, logit in answers.items()}
_ = nkd.plot_maps(
    volume[z], chances, mask=sample.mask[z], spacing=sample.spacing, label="probability of a neurite", limits=(0, 1),
    title=f"slice {z}",
)  # fmt: skip

# %% [markdown]
# ## 6 · Look around
#
# A picture at another magnification, and below it (where a kernel runs) sliders over slices and magnifications. The colours are those of section 3 throughout: at magnification 1 a token is too coarse to point at a neurite, at 3.5 it follows them, at four times the cost.

# %% mystnb={"image": {"alt": "A slice at magnification 3.5: the components follow the neurites in finer tokens."}}
draw = partial(nkd.plot_slice_features, teacher, pca, sample.volume, block=middle, spacing=sample.spacing)
_ = draw(z=z, magnification=3.5)
nkd.explore(draw, z=(0, len(sample.volume) - 1), magnification=[1.75, 1.0, 3.5])

# %% [markdown]
# ## What was learnt
#
# - Tokens of a network that learnt from photographs separate neurites from background, without and, better, with a linear probe: above the same network shuffled, above raw voxels, above brightness.
# - Only under the magnifying glass, and best in the middle of the network: its last block speaks of whole pictures.
# - Much of a token is its place. What is carried into 3D has to carry that, too, and correctly.
#
# A probe is not a segmenter, and 8 x 8 voxels are not a voxel. How the same knowledge gets into a network for volumes is the next question.
#
# ## Exercises
#
# 1. Let a token cover 14, 8 and 4 voxels, with the same question for each 8 x 8 voxels. What does magnification buy?
# 2. Draw the weights of the control anew, as they are before training, instead of shuffling trained ones. Is it the weaker or the stronger control?
# 3. Show the probe a real neuron. Does it still beat brightness?

# %% [markdown]
# <details><summary>Solution of exercise 1</summary>
#
# Tokens are brought to the grid of the question by interpolation: four small ones are averaged, large ones serve several. The finer, the better, at a price that grows with the square of the magnification and faster. A few slices are enough to see it.
#
# </details>

# %% jupyter={"source_hidden": true} tags=["hide-input"]
every = 1 if short else 3
question = {part: np.concatenate([labels[s.name][::every] for s in parts[part]]).ravel() for part in parts}
for factor in (1.0, 1.75) if short else (1.0, 1.75, 3.5):
    seen = {}
    for part in ("train", "test"):
        maps = torch.cat(
            [teacher.feature_maps(slices(s)[::every], [middle], magnification=factor)[0] for s in parts[part]]
        )
        maps = F.interpolate(maps, size=labels[sample.name].shape[1:], mode="bilinear", align_corners=False)
        seen[part] = rearrange(maps, "b d y x -> (b y x) d").numpy()
    probe = nkd.fit_probe(seen["train"], question["train"], penalty=0.03)
    value = nkd.average_precision(probe(seen["test"]), question["test"])
    print(f"a token covers {teacher.patch[0] / factor:>4.1f} voxels: average precision {value:.3f}")

# %% [markdown]
# <details><summary>Solution of exercise 2</summary>
#
# It is the weaker one. A fresh network of this kind scales what its blocks add by 1e-5 (LayerScale), so it passes on little more than a linear function of the raw voxels, and does as they do. Whoever compares with it alone credits training with what a mere non-linearity would give.
#
# </details>

# %% jupyter={"source_hidden": true} tags=["hide-input"]
import timm

torch.manual_seed(0)
fresh = dataclasses.replace(teacher.source, name="fresh weights", kind="control", sha256="")
architecture = "vit_small_patch14_dinov2"
vit = timm.create_model(architecture, pretrained=False, num_classes=0, dynamic_img_size=True)
control = nkd.Teacher(vit, mean=teacher.mean, std=teacher.std, source=fresh)
seen = {s.name: control.feature_maps(slices(s), [middle], magnification=magnification)[0] for s in neurons}
tried = {}
for penalty in penalties:
    probe = nkd.fit_probe(together(seen, "train"), truth["train"], penalty=penalty)
    tried[nkd.average_precision(probe(together(seen, "validation")), truth["validation"])] = probe
value = nkd.average_precision(tried[max(tried)](together(seen, "test")), truth["test"])
print(f"fresh {value:.3f}, raw voxels {result['raw voxels']:.3f}, shuffled {result['shuffled']:.3f}")

# %% [markdown]
# <details><summary>Solution of exercise 3</summary>
#
# The reference is an automatic trace, drawn one voxel thin, and the background of this stack was cleared; both are unlike what the probe was trained on. So read the numbers as agreement, and the comparison as a first look.
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
    trace = nkd.rasterise(fly.tree, fly.volume.shape)[:, :rows, :columns]
    scaled = nkd.scale_intensity(fly.volume)[:, :rows, :columns]
    chosen = np.linspace(10, len(scaled) - 10, 2 if short else 8).astype(int)
    pictures = torch.from_numpy(scaled[chosen])[:, None]
    block, _, probe = probes["real"]
    seen = torch.cat([teacher.feature_maps(one, [block], magnification=magnification)[0] for one in pictures.split(1)])
    answer = probe(rearrange(seen, "b d y x -> (b y x) d"))
    brightest = reduce(scaled[chosen], "b (y a) (x c) -> (b y x)", "max", a=token, c=token)
    traced = nkd.token_labels(trace[chosen], token=(token, token)).ravel()
    for name, score in (("probe", answer), ("brightest voxel", brightest)):
        print(f"{name:<16}average precision against the automatic trace {nkd.average_precision(score, traced):.3f}")

# %% [markdown]
# **Next.** [03 · Inflation](03_inflation.ipynb): how a layer for pictures becomes a layer for volumes without losing what it knows.
