# ---
# jupyter:
#   jupytext:
#     formats: ipynb,py:percent
# ---

# %% [markdown]
# # Does it help?
#
# > **Question.** Does what a 2D network learnt from photographs help to find neurites in 3D stacks, by how much, and when not?
# >
# > **Know first.** [`03_inflation`](03_inflation.ipynb) and [`07_evaluation`](07_evaluation.ipynb). Nothing is trained here: the results of the project's own study come with the package, and every figure below is computed from them.
# >
# > **Takes.** 22 s on 2 CPU cores, 23 s in the short profile (`NEUROKD_PROFILE=ci`); 1.4 GB of memory. Downloads less than 1 MB.

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
from IPython.display import Markdown, display
from scipy.ndimage import distance_transform_edt
from scipy.stats import spearmanr

import neurokd as nkd

cells = nkd.load_study()
arms = ["threshold", "unet", "unet-wide", "no-tokens", "scratch", "shuffled", "center", "full"]
made_with = next(cell["made_with"] for cell in cells if cell["arm"] == "center")
shape, training = made_with["data"]["shape"], made_with["training"]
neurons = [neuron["name"] for neuron in cells[0]["rows"]["test"]]
seeds = sorted({cell["seed"] for cell in cells})
print(f"{len(cells)} cells; seeds {seeds}")
print(f"trained on 4 neurons of {shape} voxels, {training['steps']} steps of one crop of {training['crop']}")
print(f"scored on {len(neurons)} other neurons, once for each table, when its choices had been made")

# %% [markdown]
# ## 1 · What is compared with what
#
# A transferred network that does well proves nothing by itself: the decoder may do the work, or the mere scale of the weights. So each arm differs from its neighbour in one thing, and in its learning rates where another was better on validation (of two that were tried). All see the same crops in the same order.
#
# | arm | what it is | what its neighbour's difference says |
# |---|---|---|
# | `threshold` | "bright means neurite", the best level on validation neurons | what needs no network |
# | `ridge` | a ridge filter of 1998 (Sato's, scale one voxel) and a threshold on it | what needs no training |
# | `unet` | MONAI's BasicUNet with half its channels | what convolutions learn from these crops alone |
# | `unet-wide` | MONAI's BasicUNet as it comes | − unet: what width is worth |
# | `no-tokens` | our light convolutional path alone | what tokens are added to |
# | `scratch` | our hybrid: six blocks of a 3D ViT beside that path, random weights | − no-tokens: what tokens that know nothing do |
# | `shuffled` | the same, the teacher's weights **permuted within each tensor** | − scratch: what the same numbers without order do |
# | `center` | the same, the teacher's weights inflated ([03](03_inflation.ipynb)) | − scratch: transfer, as in arXiv:2405.02686; − shuffled: its *knowledge*; − no-tokens: what tokens are worth here |
# | `full` | `center` with tubes ([04](04_deformable_tubular.ipynb)) and distillation in the first half ([05](05_distillation.ipynb)) | − unet-wide: all of it, as in arXiv:2410.22078 |
# | `plain-…` | the same three beginnings without the convolutional path: the decoder sees tokens alone | |
# | `plain-shuffled-fast` | all of it at the rate that suits `plain-scratch`, ten times that of transferred weights | − plain-scratch: shuffled weights as a mere beginning |
#
# Scores are those of the foreground; the mean over the neurons that were held out, then over seeds, ± the standard deviation over seeds. A volume in which nothing was found would count with its diagonal as HD95.
#
# Some neurons are hard for every arm, so means swing together. What counts is the *paired* difference, neuron by neuron and seed by seed, and how far chance may have moved it: draw neurons and seeds anew, ten thousand times, and keep the middle 95 % of the means (`nkd.paired_difference`). The papers' gains, in per cent, are read as points of Dice (0.01); that reading is ours.


# %% jupyter={"source_hidden": true} tags=["hide-input"]
def show_scores(arms, cells):
    """Show a table of scores, a line for each arm."""
    heads = {"dice": 3, "average_precision": 3, "hd95": 2, "cldice": 3, "length_f1": 3}
    lines = [f"| arm | {' | '.join(heads)} |", "|---" * (len(heads) + 1) + "|"]
    for arm in arms:
        figures = []
        for score, digits in heads.items():
            by_seed = nkd.study_scores(cells, arm, score).mean(axis=1)
            spread = f" ± {by_seed.std(ddof=1):.{digits}f}" if len(by_seed) > 1 else ""
            figures.append(f"{by_seed.mean():.{digits}f}{spread}")
        lines.append(f"| `{arm}` | {' | '.join(figures)} |")
    display(Markdown("\n".join(lines)))


def gain(one, other, cells, *, volumes=(4, 4), row="test"):
    """Return how much more Dice one arm has than another, in points: the mean, and the ends of its interval."""
    of = (nkd.study_scores(cells, arm, volumes=n, row=row) for arm, n in zip((one, other), volumes, strict=True))
    return [100 * v for v in nkd.paired_difference(*of)]


def show_gains(pairs, cells, published):
    """Draw paired differences of Dice with their intervals, and return them in points."""
    _, axes = plt.subplots(figsize=(8, 0.8 + 0.4 * len(pairs)), layout="constrained")
    gains = {}
    for row, (one, other) in enumerate(pairs):
        gains[one, other] = mean, low, high = gain(one, other, cells)
        axes.plot([low, high], [row, row], color="C0", lw=2)
        axes.plot(mean, row, "o", color="C0", label="measured, 95 % interval" if row == 0 else None)
        print(f"{one + ' - ' + other:<36}{mean:+6.2f} points, {low:+.2f} to {high:+.2f}")
    for (one, other), (paper, points) in published.items():
        row = pairs.index((one, other))
        axes.plot(points, row, "D", color="C1", label=f"published, other data ({paper})")
        print(f"{one + ' - ' + other:<36}{points:+6.2f} in {paper}")
    axes.axvline(0, color="0.6", lw=1)
    axes.set(yticks=range(len(pairs)), yticklabels=[f"{one} − {other}" for one, other in pairs])
    axes.set(xlabel="difference of Dice (points)", ylim=(len(pairs) - 0.5, -0.5))
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, loc="center left", bbox_to_anchor=(1, 0.5))
    plt.show()
    return gains


# %% [markdown]
# ## 2 · Tokens alone
#
# First a transformer that has to do it all, where a transfer must show if anywhere (what stands above the tokens in the papers is not known to us). The plain decoder is a single convolution from tokens of 2 x 8 x 8 voxels to the logits of their voxels, so whatever is found, the tokens have found.

# %% mystnb={"image": {"alt": "Paired differences of Dice between arms that see tokens alone, with their 95 percent intervals."}}
show_scores(["threshold", "plain-scratch", "plain-shuffled", "plain-shuffled-fast", "plain-center", "unet"], cells)
alone = show_gains(
    [
        ("plain-center", "plain-scratch"),
        ("plain-shuffled", "plain-scratch"),
        ("plain-shuffled-fast", "plain-scratch"),
        ("plain-center", "plain-shuffled"),
        ("plain-center", "unet"),
    ],
    cells,
    {("plain-center", "plain-scratch"): ("arXiv:2405.02686", 8.71)},
)

# %% [markdown]
# ## 3 · Beside convolutions
#
# Nobody has to use tokens alone. The hybrid decoder adds them to a light convolutional path, which keeps what a token of 8 x 8 voxels cannot. The same question again, with U-Nets as rivals.

# %% mystnb={"image": {"alt": "Paired differences of Dice between hybrid arms and U-Nets with their 95 percent intervals."}}
show_scores(arms, cells)
gains = show_gains(
    [
        ("center", "scratch"),
        ("shuffled", "scratch"),
        ("center", "shuffled"),
        ("center", "no-tokens"),
        ("scratch", "no-tokens"),
        ("full", "center"),
        ("full", "unet-wide"),
        ("unet-wide", "unet"),
    ],
    cells,
    {("center", "scratch"): ("arXiv:2405.02686", 8.71), ("full", "unet-wide"): ("arXiv:2410.22078", 4.53)},
)

# %% [markdown]
# ## 4 · How many annotated neurons
#
# What 2D knowledge should save is annotation. The same arms with one to sixteen training neurons, one seed. All see 200 crops, so more neurons offer variety and no more time. On the right the same networks on two real stacks, where all there is to compare with is the trace of another program.

# %% mystnb={"image": {"alt": "Dice on held-out neurons and agreement on real stacks over the number of training neurons, a line for each arm."}}
compared, numbers = ("unet", "scratch", "center", "full"), [1, 2, 4, 8, 16]
first = [cell for cell in cells if cell["seed"] == 0]
figure, panels = plt.subplots(1, 2, figsize=(10, 3.6), layout="constrained")
for axes, row, words in zip(panels, ("test", "real"), ("held out", "real (agreement)"), strict=True):
    for arm in compared:
        dice = [nkd.study_scores(first, arm, volumes=n, row=row).mean() for n in numbers]
        axes.plot(numbers, dice, "o-", label=arm)
    axes.axhline(nkd.study_scores(cells, "threshold", row=row).mean(), color="0.6", lw=1, label="threshold")
    axes.set(xscale="log", xlabel="training neurons", ylabel="Dice", title=words)
    axes.set_xticks(numbers, labels=numbers)
    axes.minorticks_off()
    axes.spines[["top", "right"]].set_visible(False)
panels[1].legend(frameon=False, loc="center left", bbox_to_anchor=(1, 0.5))
plt.show()


def first_gain(one, n, other, m):
    """Print and return the gain of an arm with n neurons over one with m, seed 0, in points."""
    mean, low, high = gain(one, other, first, volumes=(n, m))
    print(f"{one} ({n}) - {other} ({m}): {mean:+.2f} points, {low:+.2f} to {high:+.2f}")
    return mean, low, high


by_number = {n: first_gain("center", n, "scratch", n) for n in numbers}

# %% [markdown]
# Not what one would expect: in 200 crops one neuron teaches at least as much about others of its kind as sixteen do, and the lines go up and down by as much as seeds differ. What is scarce here is steps, not annotation. On the real stacks, which look different, all arms are poor with one or two neurons: variety pays where the kind changes. And transfer saves no annotation beside convolutions: with one, two and eight neurons `center` is no better than `scratch`.
#
# Four neurons with a teacher are ahead of sixteen without one, but read with the curve: so is one neuron without.

# %%
alone_16 = first_gain("plain-center", 4, "plain-scratch", 16)
full_16 = first_gain("full", 4, "scratch", 16)
one_16 = first_gain("scratch", 1, "scratch", 16)

# %% [markdown]
# ## 5 · One interval by hand
#
# `center` and `scratch` on each neuron, the mean over seeds. A point above the diagonal is a neuron on which `center` is better. Hard neurons are hard for both, which is why the means of either say so little and their difference so much.

# %% mystnb={"image": {"alt": "Dice of center against Dice of scratch, one point for each neuron, and a histogram of the mean difference over bootstrap draws."}}
center, scratch = nkd.study_scores(cells, "center"), nkd.study_scores(cells, "scratch")
apart = center - scratch
rng = np.random.default_rng(0)
drawn = []
for _ in range(2000):
    s, n = (rng.integers(size, size=size) for size in apart.shape)
    drawn.append(apart[np.ix_(s, n)].mean())
low, high = np.percentile(drawn, (2.5, 97.5))

figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.8), layout="constrained")
left.plot(scratch.mean(axis=0), center.mean(axis=0), "o", color="C0")
edges = [min(scratch.mean(axis=0).min(), center.mean(axis=0).min()) - 0.02, center.mean(axis=0).max() + 0.02]
left.plot(edges, edges, color="0.6", lw=1)
left.set(xlabel="Dice, scratch", ylabel="Dice, center", aspect="equal", title="one point a neuron")
right.hist(100 * np.array(drawn), bins=40, color="C0", alpha=0.6)
right.axvline(0, color="0.6", lw=1)
for edge in (low, high):
    right.axvline(100 * edge, color="C1")
right.set(xlabel="mean difference (points)", ylabel="draws", title="neurons and seeds drawn anew")
for axes in (left, right):
    axes.spines[["top", "right"]].set_visible(False)
plt.show()
unpaired = np.sqrt(center.mean(axis=0).var(ddof=1) / 12 + scratch.mean(axis=0).var(ddof=1) / 12)
print(
    f"by hand {100 * low:+.2f} to {100 * high:+.2f} points; as if the neurons were different ones: ±{196 * unpaired:.2f}"
)
by_library = nkd.paired_difference(center, scratch)
assert abs(apart.mean() - by_library[0]) < 1e-9
assert abs(low - by_library[1]) < 0.005 and abs(high - by_library[2]) < 0.005

# %% [markdown]
# ## 6 · Early knowledge
#
# Training sees the validation neurons only for these points. A line is the mean over seeds, a dot one seed. Dashed: tokens alone.

# %% mystnb={"image": {"alt": "Validation Dice over training steps for each arm."}}
figure, axes = plt.subplots(figsize=(7, 3.8), layout="constrained")
for arm in [*arms[1:], "plain-scratch", "plain-shuffled", "plain-center"]:
    of = [c["validations"] for c in cells if (c["arm"], c["volumes"]) == (arm, 4)]
    steps = [v["step"] for v in of[0]]
    dice = np.array([[v["val_dice"] for v in seed] for seed in of])
    (line,) = axes.plot(steps, dice.mean(axis=0), "--" if arm.startswith("plain") else "-", label=arm)
    axes.plot(steps, dice.T, ".", color=line.get_color(), alpha=0.5)
axes.set(xlabel="step (one crop each)", ylabel="Dice, validation", xticks=steps)
axes.spines[["top", "right"]].set_visible(False)
axes.legend(frameon=False, loc="center left", bbox_to_anchor=(1, 0.5))
plt.show()

# %% [markdown]
# ## 7 · Elsewhere
#
# A gain that holds only where training took place is worth little. The same networks, with the thresholds of the validation neurons: on the test neurons under another microscope (a wider point spread, half the photons, three times the blobs); on neurons that people traced, rendered; and on parts of two real stacks, against an automatic trace one voxel thin. The last is agreement with a program, not accuracy.

# %% mystnb={"image": {"alt": "Dice of each arm on four kinds of neurons."}}
kinds = {"test": "held out", "shifted": "other microscope", "flies": "traced by people", "real": "real (agreement)"}
shown = ["threshold", "ridge", *arms[1:], "unet-ridge", "full-ridge", "plain-scratch", "plain-center"]
scored = [cell["rows"] for cell in cells if cell["arm"] in shown and cell["volumes"] == 4]
kinds = {row: words for row, words in kinds.items() if all(rows.get(row) for rows in scored)}
figure, panels = plt.subplots(1, len(kinds), figsize=(10, 3.8), layout="constrained", sharey=True)
for axes, (row, words) in zip(panels, kinds.items(), strict=True):
    for place, arm in enumerate(shown):
        by_seed = nkd.study_scores(cells, arm, row=row).mean(axis=1)
        axes.plot(by_seed, [place] * len(by_seed), "o", color="C0", alpha=0.5)
        axes.plot(by_seed.mean(), place, "|", color="C0", ms=16, mew=2)
    axes.set(title=words, xlabel="Dice", yticks=range(len(shown)), yticklabels=shown)
    axes.grid(axis="x", alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)
panels[0].invert_yaxis()
plt.show()
for row, words in kinds.items():
    for one, other in (("center", "scratch"), ("center", "no-tokens"), ("scratch", "no-tokens")):
        mean, low, high = gain(one, other, cells, row=row)
        print(f"{words:<18}{one} - {other:<10}{mean:+6.2f} points, {low:+.2f} to {high:+.2f}")

# %% [markdown]
# ## 8 · What was known before
#
# A neurite is a bright tube, and what a bright tube looks like was written down long ago: the brightness bends down across it in two directions, and not along it. `ridge` is that rule and a threshold, learnt from nothing. Networks can be given the same three curvatures (`HessianRidges`, at scales of one and two voxels) beside the volume: `unet-ridge` is `unet-wide` with them, `full-ridge` is `full` with them and a decoder half as wide again.

# %% mystnb={"image": {"alt": "Paired differences of Dice between arms that see curvatures of the brightness and others, with their 95 percent intervals."}}
show_scores(["threshold", "ridge", "unetr", "unet-wide", "full", "unet-ridge", "full-ridge"], cells)
ridges = show_gains(
    [
        ("full-ridge", "unet-wide"),
        ("full-ridge", "full"),
        ("unet-ridge", "unet-wide"),
        ("full-ridge", "unet-ridge"),
    ],
    cells,
    {("full-ridge", "unet-wide"): ("arXiv:2410.22078", 4.53)},
)

# %% [markdown]
# ## 9 · One thing at a time
#
# Parts of the recipe alone, other beginnings, another teacher, larger rivals. Each differs from the arm that it is compared with in what its name says; one seed each, and a seed alone moves an arm by two points, which these intervals (over neurons) do not hold.
#
# | arm | what it is |
# |---|---|
# | `frozen-shuffled` | shuffled weights that are not trained: a fixed random function of the volume |
# | `scratch-slow` | random weights, moved as slowly as transferred ones |
# | `average` | inflated by *average* in the place of *center* |
# | `clip` | CLIP's ViT-B/16 in the place of DINOv2's ViT-S/14, four times the weights |
# | `tube`, `tube-…` | the four readings of the tubes ([04](04_deformable_tubular.ipynb)), without distillation; `tube` is *grid*, as in `full` |
# | `distilled` | distillation without tubes |
# | `unetr`, `swinunetr` | MONAI's transformers with convolutions around them, random weights |

# %% mystnb={"image": {"alt": "Paired differences of Dice between variants of the recipe and the arm they vary, with their intervals over neurons."}}
beginnings = ("frozen-shuffled", "average", "clip")
recipe = ("tube", "tube-literal", "tube-patch", "tube-lines", "distilled", "full")
varied = show_gains(
    [(arm, "center") for arm in (*beginnings, *recipe)]
    + [("scratch-slow", "scratch"), ("scratch-slow", "no-tokens"), ("unetr", "unet-wide"), ("swinunetr", "unet-wide")],
    first,
    {},
)

# %% [markdown]
# - **Which inflation, which teacher** is not to be told from one seed.
# - **Tubes alone** took half a point to a point of the neurons held out, in every reading.
# - **Distillation alone** changed nothing on the neurons held out, gave three points and more under the other microscope, and took more than that on the real stacks; of either little is left in `full`, which contains it, over three seeds.
# - **Transformers with convolutions around them**, from random weights, are behind the U-Net in this seed; SwinUNETR at four times its cost or more. (Over three seeds UNETR only probably is.)
# - **Random tokens** do harm on the neurons held out whatever the rate: `scratch-slow` learns at the rates of `center`, and is behind `no-tokens`.

# %%
distilled = {row: gain("distilled", "center", first, row=row) for row in kinds}
for row, (mean, low, high) in distilled.items():
    print(f"distilled - center, {kinds[row]}: {mean:+.2f} points, {low:+.2f} to {high:+.2f}")
cost = {cell["arm"]: cell["cpu_seconds"] for cell in first if "cpu_seconds" in cell and cell["volumes"] == 4}
print(f"CPU seconds to train: swinunetr {cost['swinunetr']:.0f}, unet-wide {cost['unet-wide']:.0f}")

# %% [markdown]
# ## 10 · What is still wrong
#
# The model that comes with the package, on a neuron that it has not seen. What it misses is dimmer than what it finds. Part of what it invents is a border one voxel off. The rest lies away from the neuron: vessels and fibres of other cells, which look like neurites slice by slice.

# %% mystnb={"image": {"alt": "Projections of a neuron with true voxels, missed voxels and invented voxels of the released model."}}
sample = nkd.simulated_neurons(1, seed=3, shape=(96, 128, 128))[0]
model = nkd.NeuronSegmenter.from_pretrained("neurokd-tiny")
found = nkd.predict(model, sample.volume) > model.config.threshold
_ = nkd.plot_comparison(sample.volume, sample.mask, found, spacing=sample.spacing)

# %%
away = distance_transform_edt(~sample.mask)
false = found & ~sample.mask
near, far = false & (away < 2), false & (away >= 2)
score = nkd.dice(found, sample.mask)
print(f"Dice {score:.3f}; of {false.sum()} invented voxels {far.sum()} lie 2 or more voxels from the neuron")
print(
    f"without these {nkd.dice(found & ~far, sample.mask):.3f}; without those at its border {nkd.dice(found & ~near, sample.mask):.3f}"
)
grey = nkd.scale_intensity(sample.volume)
hit, missed = grey[sample.mask & found].mean(), grey[sample.mask & ~found].mean()
print(f"mean brightness of true voxels that were found {hit:.2f}, of those that were missed {missed:.2f}")
assert nkd.dice(found & ~far, sample.mask) > score and missed < 0.8 * hit

# %% [markdown]
# ## 11 · What did not help
#
# `benchmarks/NOTES.md` in the repository has every trial with its numbers. In words:
#
# - **A deep decoder on tokens alone.** A pyramid of convolutions above the tokens had learnt next to nothing when the single convolution of section 2 was done.
# - **Finer tokens, stronger gates, a frozen transformer** did not change the hybrid within what one seed may do by chance.
# - **Tokens as further input channels of a U-Net** made it much worse.
# - **Tokens on top of a trained U-Net.** The teacher's do add something, shuffled ones do not; eigenvalues of the Hessian add more, and beside them little is left for the tokens. What tells a neurite from a vessel is its course in 3D, which no single slice shows.
#
# ## What was learnt
#
# - **Where all must come from the tokens, what a 2D network learnt from photographs counts**: more than the paper's gain over random weights, in Dice, and surfaces lie closer, too. Shuffled weights are worse than random ones, at the rate that suits the real ones and even more at that of random ones: before any training their tokens hardly differ from place to place, which may be why. So the scale of the weights does not explain the gain (but shuffling takes away more than knowledge).
# - **Beside convolutions little of it is left.** The transferred hybrid is better than the same one from random weights by less than a third of the paper's gain, and not to be told from its convolutional path alone, while random tokens are worse than none. So on these neurons most of what transfer gains is that it does no harm. All of the machinery together is level with a U-Net as it comes. And a U-Net is far ahead of tokens alone.
# - **An old rule is hard to beat.** A ridge filter without any training is ahead of tokens alone and close to a U-Net of so few steps. Networks with convolutions gained at least as much by its curvatures as by transfer. Without training it fails under another microscope, like the threshold. The full model with them is ahead of every rival without; a U-Net with them has most of that gain as well.
# - **Annotation was not what was scarce.** With 200 crops, one annotated neuron does as well as sixteen on neurons of its kind, with a teacher or without; on real stacks one or two are too few. To see whether a teacher saves annotation would take steps until nothing more is learnt from few.
# - **Elsewhere** the order changes. On neurons that people traced tokens alone keep most of their gain; under another microscope little of it is left, and U-Nets are ahead of every hybrid without curvatures. On the two real stacks, with four training neurons, all transferred students agree less with the automatic trace than those from random weights.
# - **Seeds.** After two, shuffled weights seemed to give most of the hybrid's gain, and this page said so. The third undid it. A single seed of `unet-wide` differs from another by more than most differences in section 3.
#
# The papers' numbers are of other data, other baselines, other budgets: nothing here repeats or contradicts them. What is a number above is checked:

# %%
assert alone["plain-center", "plain-scratch"][0] > 8.71 and alone["plain-center", "plain-scratch"][1] > 0
assert alone["plain-center", "plain-shuffled"][0] > 8.71 and alone["plain-center", "plain-shuffled"][1] > 0
assert alone["plain-shuffled", "plain-scratch"][2] < 0
assert alone["plain-shuffled-fast", "plain-scratch"][2] < 0
assert alone["plain-shuffled-fast", "plain-scratch"][0] < alone["plain-shuffled", "plain-scratch"][0]
surfaces = nkd.paired_difference(*(nkd.study_scores(cells, arm, "hd95") for arm in ("plain-center", "plain-scratch")))
assert surfaces[2] < 0
assert alone["plain-center", "unet"][0] < -5 and alone["plain-center", "unet"][2] < 0

assert gains["center", "scratch"][1] > 0 and gains["center", "scratch"][0] < 8.71 / 3
assert gains["center", "shuffled"][1] < 0 < gains["center", "shuffled"][2]
assert gains["center", "no-tokens"][1] < 0 < gains["center", "no-tokens"][2] and gains["scratch", "no-tokens"][2] < 0
assert abs(gains["center", "no-tokens"][0]) < -gains["scratch", "no-tokens"][0]
assert gains["full", "unet-wide"][1] < 0 < gains["full", "unet-wide"][2]

assert min(alone_16[1], full_16[1], one_16[1]) > 0
assert all(by_number[n][1] < 0 for n in (1, 2, 8))
few, many = ([nkd.study_scores(first, arm, volumes=n).mean() for arm in compared] for n in (1, 16))
print("Dice with one neuron and with sixteen:", *(f"{a:.3f} {b:.3f};" for a, b in zip(few, many, strict=True)))
assert all(a > b for a, b in zip(few, many, strict=True))
for arm in compared:
    on_real = {n: nkd.study_scores(first, arm, volumes=n, row="real").mean() for n in numbers}
    assert max(on_real[1], on_real[2]) < min(on_real[8], on_real[16])

assert all(-1 < varied[arm, "center"][0] <= -0.5 and varied[arm, "center"][2] < 0 for arm in recipe[:4])
assert all(abs(varied[arm, "center"][0]) < 0.5 for arm in ("average", "clip", "distilled"))
assert distilled["shifted"][1] > 0 and distilled["shifted"][0] > 3
assert "real" not in kinds or -distilled["real"][0] > distilled["shifted"][0]
assert varied["swinunetr", "unet-wide"][2] < 0 and varied["unetr", "unet-wide"][0] < 0
assert varied["scratch-slow", "no-tokens"][2] < 0
left_in_full = {row: gain("full", "center", cells, row=row)[0] for row in kinds}
assert left_in_full["shifted"] < distilled["shifted"][0] / 2
assert "real" not in kinds or left_in_full["real"] > distilled["real"][0] / 2
assert cost["swinunetr"] > 4 * cost["unet-wide"]

old, narrow = (nkd.study_scores(cells, arm).mean() for arm in ("ridge", "unet"))
print(f"Dice: ridge filter {old:.3f}, U-Net {narrow:.3f}")
assert nkd.study_scores(cells, "plain-center").mean() < old < narrow < old + 0.05
assert ridges["full-ridge", "full"][0] > gains["center", "scratch"][0]
assert ridges["unet-ridge", "unet-wide"][1] > 0 and ridges["full-ridge", "unet-wide"][1] > 0
assert ridges["unet-ridge", "unet-wide"][0] > ridges["full-ridge", "unet-wide"][0] / 2

away = {row: {arm: nkd.study_scores(cells, arm, row=row).mean() for arm in shown} for row in kinds}
assert min(away["shifted"][arm] for arm in ("unet", "unet-wide")) > max(
    away["shifted"][arm] for arm in ("scratch", "shuffled", "center", "full")
)
assert abs(away["shifted"]["ridge"] - away["shifted"]["threshold"]) < 0.01
assert max(away["real"][arm] for arm in ("center", "full")) < away["real"]["scratch"]
left = {row: away[row]["plain-center"] - away[row]["plain-scratch"] for row in kinds}
print("tokens alone, center - scratch:", {kinds[row]: float(round(100 * points, 2)) for row, points in left.items()})
assert left["real"] < 0 and left["shifted"] < left["test"] / 4 and left["flies"] > left["test"] / 2

by_seed = {
    arm: 100 * nkd.study_scores(cells, arm).mean(axis=1) for arm in ("center", "scratch", "shuffled", "unet-wide")
}
assert (by_seed["shuffled"] - by_seed["scratch"])[:2].mean() > (by_seed["center"] - by_seed["scratch"])[:2].mean() / 2
assert gains["shuffled", "scratch"][1] < 0 < gains["shuffled", "scratch"][2]
assert np.ptp(by_seed["unet-wide"]) > 3

# %% [markdown]
# ## Exercises
#
# 1. With a single seed, how often would `center` have seemed better than `scratch` by more than it is on average, or worse?
# 2. How many test neurons would it take to tell a gain of one point from nothing, and how many seeds?
# 3. Which neuron gains most, and is it a hard one?

# %% [markdown]
# <details><summary>Solution of exercise 1</summary>
#
# With three seeds that cannot be told well; look at how far they lie apart.
#
# </details>

# %% jupyter={"source_hidden": true} tags=["hide-input"]
by_seed = apart.mean(axis=1)
for seed, value in zip(seeds, by_seed, strict=True):
    print(f"seed {seed}: {100 * value:+.2f} points")
print(f"mean {100 * by_seed.mean():+.2f}, standard deviation over seeds {100 * by_seed.std(ddof=1):.2f}")

# %% [markdown]
# <details><summary>Solution of exercise 2</summary>
#
# The standard error of a mean of n paired differences is their standard deviation over the root of n; two of them must fit into one point. So it goes with seeds, and they are what is scarce here.
#
# </details>

# %% jupyter={"source_hidden": true} tags=["hide-input"]
for words, axis in (("neurons", 0), ("seeds", 1)):
    spread = 100 * apart.mean(axis=axis).std(ddof=1)
    print(f"standard deviation over {words} {spread:.2f} points: {int(np.ceil((2 * spread) ** 2))} {words}")

# %% [markdown]
# <details><summary>Solution of exercise 3</summary>
#
# Look at the rank correlation of the gain with the Dice of `scratch`: with so few neurons it must be large to mean anything.
#
# </details>

# %% jupyter={"source_hidden": true} tags=["hide-input"]
gained, level = apart.mean(axis=0), scratch.mean(axis=0)
best = int(gained.argmax())
correlation, p = spearmanr(gained, level)
print(
    f"{neurons[best]}: {100 * gained[best]:+.2f} points at a Dice of {level[best]:.3f} (neurons: {level.min():.3f} to {level.max():.3f})"
)
print(f"rank correlation of gain and Dice {correlation:+.2f} (p = {p:.2f})")

# %% [markdown]
# **Next.** [10 · Your own data](10_your_own_data.ipynb). The study itself: `benchmarks/study.py`, which runs every cell again by one command.
