# ---
# jupyter:
#   jupytext:
#     formats: ipynb,py:percent
# ---

# %% [markdown]
# # What a score hides
#
# > **Question.** A predicted mask has a Dice of 0.8. Was the neuron found, and can it be traced?
# >
# > **Know first.** [`00_quickstart`](00_quickstart.ipynb). This notebook trains no network. It makes the predictions by hand, so that we know what is wrong with them.
# >
# > **Takes.** 36 s on 2 CPU cores, 20 s in the short profile (`NEUROKD_PROFILE=ci`); 1.3 GB of memory. Downloads less than 1 MB.

# %% jupyter={"source_hidden": true} tags=["colab", "hide-input"]
import sys

if "google.colab" in sys.modules:  # anywhere else this cell does nothing
    from google.colab import files
    from IPython import get_ipython

    print("Choose the wheel of neurokd; in a clone of the repository, `pip wheel --no-deps .` makes it.")
    (wheel,) = files.upload()
    get_ipython().run_line_magic("pip", f"install --quiet ./{wheel}")

# %%
import warnings

import matplotlib.pyplot as plt
import numpy as np
from IPython.display import Markdown, display
from scipy import ndimage
from scipy.spatial import cKDTree
from tqdm.auto import tqdm

import neurokd as nkd
from neurokd.profile import profile, run_folder

short = profile() == "ci"
folder = run_folder("evaluation")
shape = (48, 80, 80) if short else (96, 128, 128)
neurons = nkd.simulated_neurons(6 if short else 14, seed=7, shape=shape)
validation, test = neurons[:2], neurons[2:]
sample, stranger = test[:2]  # one that we look at closely, and one that will play the other cell
print(
    f"{len(validation)} neurons to choose a threshold on, {len(test)} to score; {shape} voxels of {sample.spacing[0]} µm"
)

# %% [markdown]
# ## 1 · Four masks with the same Dice
#
# *Dice* is twice the overlap divided by the sum of both volumes. We make four wrong masks of one neuron. Each has exactly the number of wrong voxels that gives a Dice of 0.8. The first is too thick. The second has a gap every twelve voxels. The third has lost a large branch. The fourth contains the whole neuron, but also a part of another cell. (The code is folded.)

# %% jupyter={"source_hidden": true} tags=["hide-input"]
GOAL = 0.8
truth = sample.mask
n_true = int(truth.sum())
added, removed = round(2 * n_true * (1 / GOAL - 1)), round(2 * n_true * (1 - GOAL) / (2 - GOAL))


def along(one):
    """For each true voxel (in the order of argwhere): its nearest node, and the length of the path from there to the root."""
    node = cKDTree(one.tree.zyx).query(np.argwhere(one.mask))[1]
    return node, one.tree.path_lengths[node]


def changed(mask, voxels, value):
    """A copy in which these voxels, rows of `z y x`, have another value."""
    copy = mask.copy()
    copy[tuple(voxels.T)] = value
    return copy


def without_branch(one, count):
    """The mask without `count` voxels of the smallest subtree that has as many, the furthest from the root."""
    node, path = along(one)
    inside = np.bincount(node, minlength=len(one.tree))
    for row, parent in one.tree.edges[::-1]:
        inside[parent] += inside[row]
    enough = np.flatnonzero(inside >= count)
    top = enough[inside[enough].argmin()]
    below = np.zeros(len(one.tree), dtype=bool)
    below[top] = True
    for row, parent in one.tree.edges:
        below[row] |= below[parent]
    far = np.argsort(np.where(below[node], -path, np.inf), kind="stable")[:count]
    return changed(one.mask, np.argwhere(one.mask)[far], False)


rng = np.random.default_rng(0)
rim = np.argwhere(ndimage.binary_dilation(truth, np.ones((3, 3, 3))) & ~truth)
smooth = ndimage.gaussian_filter(rng.normal(size=shape), 2)[tuple(rim.T)]
free = ndimage.distance_transform_edt(~truth) > 4
other = np.argwhere(stranger.mask)[np.argsort(along(stranger)[1], kind="stable")]
other = other[free[tuple(other.T)]][:added]
gaps = np.argsort(along(sample)[1] % 12, kind="stable")[:removed]
masks = {
    "too thick": changed(truth, rim[np.argsort(smooth)[:added]], True),
    "gaps": changed(truth, np.argwhere(truth)[gaps], False),
    "a branch lost": without_branch(sample, removed),
    "another cell": changed(truth, other, True),
}
for name, mask in masks.items():
    print(f"{name:<18}Dice {nkd.dice(mask, truth):.3f}")
    assert abs(nkd.dice(mask, truth) - GOAL) < 0.002

# %% jupyter={"source_hidden": true} tags=["hide-input"]
frame = nkd.Frame(shape, sample.spacing)
figure, panels = plt.subplots(1, len(masks), figsize=(10, 3.1), layout="constrained")
for axes, (name, mask) in zip(panels, masks.items(), strict=True):
    frame.draw_verdict(axes, mask, truth)
    axes.set(title=f"{name}: Dice {nkd.dice(mask, truth):.2f}", xticks=[], yticks=[])
frame.draw_scale_bar(panels[0])

# %% [markdown]
# *Projections along z. Green: found; orange: missed; blue: invented.* The pictures show four different results. The next cell computes all scores:

# %%
scores = {name: nkd.evaluate_masks(mask, truth, spacing=sample.spacing) for name, mask in masks.items()}
columns = ("dice", "precision", "recall", "cldice", "hd95", "betti0_error")
print(f"{'':<14}" + "".join(f"{key.removesuffix('_error'):>11}" for key in columns))
for name, row in scores.items():
    print(f"{name:<14}" + "".join(f"{row[key]:>11.3f}" for key in columns))

assert scores["too thick"]["cldice"] > 0.85  # every neurite is there
assert scores["gaps"]["betti0_error"] > 10 * max(row["betti0_error"] for name, row in scores.items() if name != "gaps")
assert scores["another cell"]["hd95"] > 5 * scores["too thick"]["hd95"]
assert scores["a branch lost"]["recall"] < 0.7 < scores["another cell"]["recall"]

# %% [markdown]
# - **Precision and recall** separate what was invented from what was missed. Dice combines them.
# - **clDice** compares skeletons. It rates a mask that is too thick everywhere as nearly right.
# - **HD95** is the distance between the surfaces, without the worst 5 %. It penalises errors that are *far away* from the truth.
# - **Betti-0 error** is the difference in the number of pieces. Gaps make many pieces.
#
# None of these scores is the best for every purpose. Which error matters depends on the use of the mask. Section 5 looks at the tree.
#
# ## 2 · Three numbers called HD95
#
# All three begin with the same distances: from every voxel of one surface to the other surface, in both directions. They differ in how they take the 95th percentile:
#
# | function | 95th percentile |
# |---|---|
# | `nkd.hd95`, used in all our tables | of each direction separately, then the **larger** of the two (as in MONAI) |
# | `nkd.hd95_pooled` | of both directions **together** |
# | `nkd.hd95_area` | of each direction separately, with each piece of surface weighted by its **area**, then the larger (as in DeepMind's `surface-distance`) |
#
# As an example, we take a soma with an axon that is one voxel thin. The prediction has lost the end of the axon:

# %%
z, y, x = np.indices((25, 25, 200))
cell = np.sqrt((z - 12) ** 2 + (y - 12) ** 2 + (x - 20) ** 2) <= 9
cell |= (z == 12) & (y == 12) & (x >= 20) & (x < 180)
lost = np.arange(0, 121, 12 if short else 3)
functions = {"max (ours)": nkd.hd95, "pooled": nkd.hd95_pooled, "by area": nkd.hd95_area}
curves = {
    name: np.array([function(cell & (x < 180 - n), cell, spacing=(1, 1, 1)) for n in lost])
    for name, function in functions.items()
}
figure, axes = plt.subplots(figsize=(6, 3.4), layout="constrained")
for (name, curve), style, colour in zip(curves.items(), ("-", "--", ":"), (0.0, 0.4, 0.75), strict=True):
    axes.plot(lost, curve, style, color=plt.cm.viridis(colour), linewidth=2.5, label=name)
axes.set(xlabel="axon lost (µm)", ylabel="HD95 (µm)", title="One axon, three numbers")
axes.legend(frameon=False)
axes.spines[["top", "right"]].set_visible(False)

at = int(np.flatnonzero(lost == 60)[0])
length = int((cell.any(axis=(0, 1)) & (np.arange(200) > 29)).sum())
print(f"60 of {length} µm of axon lost: " + ", ".join(f"{name} {curve[at]:.1f} µm" for name, curve in curves.items()))
assert curves["pooled"][at] == 0  # the soma's surface drowns it
assert curves["by area"][at] > 2 * curves["max (ours)"][at] > 10  # a thin axon has more surface for each voxel

# %% [markdown]
# None of the three is wrong, but a table must say which one it shows. Our reports say it below each table.
#
# ## 3 · The missed neuron
#
# If nothing is predicted, there is no surface and no distance. Most software then returns NaN or infinity, and most tables leave such volumes out of the mean. A method may then *improve its score by missing a neuron*. We show this with the baseline: the best threshold on the validation neurons. Of the voxels above it, we keep pieces of at least 30 voxels.


# %%
def large_pieces(mask, least=30):
    """Drop pieces that have fewer voxels."""
    piece, _ = ndimage.label(mask, np.ones((3, 3, 3)))
    return mask & (np.bincount(piece.ravel()) >= least)[piece]


bright = nkd.best_threshold([nkd.scale_intensity(s.volume) for s in validation], [s.mask for s in validation])
predictions = {s.name: large_pieces(nkd.scale_intensity(s.volume) > bright) for s in tqdm(test, desc="segmenting")}
report = nkd.evaluate_samples(test, predictions, title="threshold")
victim = report.worst("hd95", 1)[0]
with_a_miss = nkd.evaluate_samples(
    test, {**predictions, victim: np.zeros(shape, dtype=bool)}, title=f"threshold, nothing found in {victim}"
)

import torch
from monai.metrics import compute_hausdorff_distance

missed = next(s for s in test if s.name == victim)
with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # MONAI warns that the result may be NaN or infinite: it is
    raw = compute_hausdorff_distance(
        torch.zeros(1, 1, *shape, dtype=torch.bool), torch.from_numpy(missed.mask)[None, None],
        include_background=True, percentile=95, spacing=missed.spacing,
    ).item()  # fmt: skip
rest = [row["hd95"] for row in report.rows if row["name"] != victim]
print(
    f"MONAI's HD95 of an empty prediction: {raw}; the diagonal of the volume: {np.linalg.norm(np.multiply(shape, sample.spacing)):.1f} µm"
)
print(f"mean HD95 of all {len(test)} neurons            {report.summary['hd95']['mean']:6.2f} µm")
print(f"the worst is missed, and left out       {np.mean(rest):6.2f} µm   a better score for a worse method")
print(
    f"the worst is missed, and counted        {with_a_miss.summary['hd95']['mean']:6.2f} µm   with {len(with_a_miss.failures)} failure"
)
assert not np.isfinite(raw)
assert np.mean(rest) < report.summary["hd95"]["mean"] < with_a_miss.summary["hd95"]["mean"]
assert with_a_miss.failures == [victim] and report.failures == []

# %% [markdown]
# ## 4 · Thick, thin and short
#
# clDice is the harmonic mean of two shares: the share of the predicted skeleton that lies in the truth, and the share of the true skeleton that lies in the prediction. It therefore measures *length*. In the left panel we add shells of voxels to the true mask. In the right panel we remove branches from it:

# %%
shells = range(4)
grown = [ndimage.binary_dilation(truth, iterations=n) if n else truth for n in shells]
shares = np.linspace(0, 0.6, 4 if short else 7)
shorter = [without_branch(sample, round(share * n_true)) if share else truth for share in shares]
figure, panels = plt.subplots(1, 2, figsize=(9, 3.2), sharey=True, layout="constrained")
drawn = {}
for axes, xs, series, label in (
    (panels[0], shells, grown, "shells added (voxels)"),
    (panels[1], shares, shorter, "share of the voxels lost with their branches"),
):
    for name, function, colour in (("Dice", nkd.dice, 0.0), ("clDice", nkd.cldice, 0.7)):
        drawn[label, name] = [function(mask, truth) for mask in series]
        axes.plot(xs, drawn[label, name], "o-", color=plt.cm.viridis(colour), label=name)
    axes.set(xlabel=label, ylim=(0, 1.05))
    axes.spines[["top", "right"]].set_visible(False)
panels[0].set(ylabel="score (1 is perfect)", xticks=list(shells))
panels[0].legend(frameon=False)

assert drawn["shells added (voxels)", "Dice"][1] < 0.6 < drawn["shells added (voxels)", "clDice"][1]
assert drawn["share of the voxels lost with their branches", "clDice"][-1] < 0.75

# %% [markdown]
# *Left: one more shell halves Dice, but lowers clDice only a little. With more shells branches merge, and clDice falls, too. Right: lost branches lower both.*
#
# There is a trap: the thinning function of scikit-image makes some shapes *vanish*, and neurites are thin enough for this to happen. `nkd.cldice` restores such pieces:

# %%
from skimage.morphology import skeletonize

square = np.zeros((8, 8, 40), dtype=bool)
square[3:5, 3:5, 5:35] = True
print(f"skeleton of a tube of 2 x 2 x 30 voxels by scikit-image: {int(skeletonize(square).sum())} voxels")
print(f"clDice of its first half against all of it: {nkd.cldice(square & (np.arange(40) < 20), square):.2f}")
assert 0.6 < nkd.cldice(square & (np.arange(40) < 20), square) < 0.75  # shares of 1 and 1/2: 2/3

# %% [markdown]
# ## 5 · What the tree says
#
# In the end a neuroscientist needs the tree. We therefore trace the four masks of section 1 and compare the *trees* by length, not by voxels.
#
# | score | meaning |
# |---|---|
# | length precision | share of the traced length that is closer to the true tree than a tolerance |
# | length recall | share of the true length that is closer to the traced tree than a tolerance |
# | ESA | entire structure average: mean distance between the trees |
# | DSA | different structure average: mean distance where the trees are apart |
# | PDS | share of the trees that is apart |
# | tips | precision and recall of the end points, matched one to one |

# %%
TOLERANCE = 2 * sample.spacing[0]  # two voxels, in µm
rows = []
for name, mask in {"the true mask": truth, **masks}.items():
    traced = nkd.trace(mask)
    rows.append({"name": name, **nkd.compare_trees(traced, sample.tree, spacing=sample.spacing, tolerance=TOLERANCE)})
columns = {"length_precision": "precision", "length_recall": "recall", "esa": "ESA µm", "dsa": "DSA µm", "pds": "PDS"}
columns |= {"tip_precision": "tip prec.", "tip_recall": "tip recall"}
print(f"{'':<14}" + "".join(f"{heading:>11}" for heading in columns.values()))
for row in rows:
    print(f"{row['name']:<14}" + "".join(f"{row[key]:>11.3f}" for key in columns))

by_name = {row["name"]: row for row in rows}
assert by_name["gaps"]["length_recall"] > 0.9 * by_name["the true mask"]["length_recall"]
assert by_name["gaps"]["length_recall"] > 1.2 * by_name["a branch lost"]["length_recall"]
assert by_name["a branch lost"]["length_precision"] > 0.9

# %% [markdown]
# The mask with gaps has the worst Betti-0 error, but the tree hardly suffers, because the tracer bridges such narrow gaps. The lost branches stay lost. Even the true mask does not give exactly the true tree. The row of the true mask shows the error of tracing alone. Compare the other rows with it.
#
# **Two conventions.** ESA, DSA and PDS come from Vaa3D. Vaa3D samples every *segment* of a tree, so its scores depend on the positions of the nodes. By default we weight by *length*. The next cell writes the same tree with five times as many nodes in the half that was lost:


# %%
def crowded(tree, where, times=5):
    """The same course, with more nodes on the edges above the nodes `where`."""
    xyz, parent = [*tree.xyz], tree.parent.copy()
    parents = [*parent]
    for row in np.flatnonzero(where & (tree.parent >= 0)):
        last = row
        for step in range(1, times):
            xyz.append(tree.xyz[row] + (tree.xyz[tree.parent[row]] - tree.xyz[row]) * step / times)
            parents[last] = len(xyz) - 1
            parents.append(0)
            last = len(xyz) - 1
        parents[last] = tree.parent[row]
    n = len(xyz)
    return nkd.Tree.from_nodes(xyz, np.ones(n), parents, np.zeros(n))


traced = nkd.trace(masks["a branch lost"])
fine = sample.tree.resample(1.0)
away = cKDTree(traced.xyz).query(fine.xyz)[0] > 5
uneven = crowded(fine, away)
esa = {}
for convention in ("length", "vaa3d"):
    esa[convention] = [nkd.esa(traced, one, convention=convention) for one in (fine, uneven)]
    before, after = esa[convention]
    print(
        f"{convention:>8}: ESA {before:.2f} voxels, with more nodes in the lost half {after:.2f} ({after / before - 1:+.1%})"
    )
assert abs(esa["length"][1] / esa["length"][0] - 1) < 0.01
assert esa["vaa3d"][1] / esa["vaa3d"][0] > 1.1

# %% [markdown]
# Use `convention="vaa3d"` only to compare with published numbers.
#
# ## 6 · A set of volumes
#
# A mean alone does not show its uncertainty. The report lists every volume, the mean, the standard deviation, the bootstrap interval of the mean, and the number of failures. (For the interval, the volumes are drawn ten thousand times with replacement.) The report also states the definitions of the scores.

# %%
display(Markdown(report.to_markdown()))
report.to_json(folder / "threshold.json")
low, high = (report.summary["dice"][bound] for bound in ("low", "high"))
assert low < report.summary["dice"]["mean"] < high

# %% [markdown]
# Then look at the worst volumes. Their pictures show what goes wrong:

# %%
worst = report.worst("cldice", 3)
figure = plt.figure(figsize=(9, 9.6), layout="constrained")
for part, name in zip(figure.subfigures(3, 1), worst, strict=True):
    one = next(s for s in test if s.name == name)
    row = next(r for r in report.rows if r["name"] == name)
    nkd.plot_comparison(
        one.volume, one.mask, predictions[name], spacing=one.spacing, title=f"clDice {row['cldice']:.2f}", figure=part
    )
figure.savefig(folder / "worst.png", dpi=120)

# %% [markdown]
# *The three volumes with the lowest clDice, the worst first: the stack, the truth, and what the threshold found (green), missed (orange) and invented (blue).*
#
# ## What was learnt
#
# - Masks with the same Dice can be very different: too thick, cut into pieces, without a branch, or mixed with another cell. Two scores with different weaknesses, such as clDice and HD95, tell these cases apart.
# - Three different numbers are called HD95. State which one you use, and give the unit.
# - A volume in which nothing was found must stay in the mean.
# - Scores of the tree answer the questions of a neuroscientist: how much of the traced length is right, and how much of the neuron was found?
# - Report an interval with each mean, and look at pictures of the worst volumes.
#
# ## Exercises
#
# 1. Put one speck of 27 voxels into a corner, far from the neuron. Which scores change?
# 2. Take the tree of the mask with a lost branch. How does its length recall depend on the tolerance? Which tolerance would you choose?
# 3. On twelve volumes, method A has a mean Dice 0.03 above that of method B. Each mean has an interval of ± 0.05. Is A better? Look at the *differences*.

# %% [markdown]
# <details><summary>Solution of exercise 1</summary>
#
# Precision and Dice hardly change. HD95 does not change at all, because it ignores the worst 5 %. The Betti-0 error counts the speck.
#
# </details>

# %% jupyter={"source_hidden": true} tags=["hide-input"]
speck = truth.copy()
speck[1:4, 1:4, 1:4] = True
noticed = nkd.evaluate_masks(speck, truth, spacing=sample.spacing)
print(", ".join(f"{key} {value:.3f}" for key, value in noticed.items()))
assert noticed["hd95"] == 0 and noticed["dice"] > 0.98 and noticed["betti0_error"] == 1

# %% [markdown]
# <details><summary>Solution of exercise 2</summary>
#
# Recall rises fast up to about the radius of a neurite, which is the size of the jitter of the centreline. Then it rises slowly, and in this range the choice hardly matters. Two voxels, the usual choice, lies in this range. A tolerance is too large if lost branches count as found because other branches pass nearby.
#
# </details>

# %% jupyter={"source_hidden": true} tags=["hide-input"]
recall = {t: nkd.length_scores(traced, sample.tree, tolerance=t)["recall"] for t in (0.5, 1.0, 2.0, 4.0, 8.0, 16.0)}
for t, value in recall.items():
    print(f"tolerance {t:>4g} voxels: length recall {value:.2f}")
assert recall[1.0] - recall[0.5] > recall[4.0] - recall[2.0]

# %% [markdown]
# <details><summary>Solution of exercise 3</summary>
#
# Some neurons are hard for every method, so both means rise and fall together. The difference on each volume varies less. A report of the differences has its own interval. In the cell below, method B is the baseline that keeps the pieces of less than 30 voxels.
#
# </details>

# %% jupyter={"source_hidden": true} tags=["hide-input"]
plain = nkd.evaluate_samples(test, {s.name: nkd.scale_intensity(s.volume) > bright for s in test})
paired = nkd.Report([
    {"name": a["name"], "difference": a["dice"] - b["dice"]} for a, b in zip(report.rows, plain.rows, strict=True)
])  # fmt: skip
for name, summary in (
    ("A", report.summary["dice"]),
    ("B", plain.summary["dice"]),
    ("A - B", paired.summary["difference"]),
):
    print(f"{name:<6}{summary['mean']:.3f}, interval {summary['low']:.3f} to {summary['high']:.3f}")
widths = [one["high"] - one["low"] for one in (report.summary["dice"], paired.summary["difference"])]
assert widths[1] < widths[0]

# %% [markdown]
# **Next.** [08 · Reconstruction](08_reconstruction.ipynb) shows how the tracer's settings change the tree. You can also use `nkd.evaluate_samples` and `nkd.compare_trees` on your own predictions.
