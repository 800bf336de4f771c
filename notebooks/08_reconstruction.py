# ---
# jupyter:
#   jupytext:
#     formats: ipynb,py:percent
# ---

# %% [markdown]
# # From a probability to a tree for other programs
#
# > **Question.** A probability has gaps where the label is missing, and it contains parts of other cells. Which settings of the tracer decide how the tree deals with these errors? What must the file contain so that others can use it?
# >
# > **Know first.** [`00_quickstart`](00_quickstart.ipynb). Section 5 of [`07_evaluation`](07_evaluation.ipynb) explains ESA, DSA, PDS and length precision. [`01_data_loading`](01_data_loading.ipynb) explains why points are `x y z` and volumes `z y x`.
# >
# > **Takes.** 47 s on 2 CPU cores, 38 s in the short profile (`NEUROKD_PROFILE=ci`); 0.9 GB of memory. Downloads less than 1 MB.
#
# ```
# probability ──threshold──► fragments ──max_gap──► one group ──┐
# ┌─────────────────────────────────────────────────────────────┘
# └─► paths to the root ──min_branch──► tree ──► .swc
#               ▲ soma
# ```

# %% jupyter={"source_hidden": true} tags=["colab", "hide-input"]
import sys

if "google.colab" in sys.modules:  # anywhere else this cell does nothing
    from google.colab import files
    from IPython import get_ipython

    print("Choose the wheel of neurokd; in a clone of the repository, `pip wheel --no-deps .` makes it.")
    (wheel,) = files.upload()
    get_ipython().run_line_magic("pip", f"install --quiet ./{wheel}")

# %%
from dataclasses import replace

import ipywidgets
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.collections import LineCollection
from matplotlib.lines import Line2D
from scipy import ndimage
from scipy.optimize import minimize
from scipy.spatial import cKDTree
from scipy.special import expit
from scipy.stats import spearmanr
from tqdm.auto import tqdm

import neurokd as nkd
from neurokd.profile import profile, run_folder

short = profile() == "ci"  # the same story with fewer and smaller things, for automatic tests
folder = run_folder("reconstruction")
shape = (64, 96, 96)
fitted, *validation, sample = nkd.simulated_neurons(4, seed=11, shape=shape)
spacing = sample.spacing
print(f"one neuron to fit on, {len(validation)} to choose on, one to trace: {shape} voxels of {spacing[0]} µm")

# %% [markdown]
# ## 1 · A probability without a network
#
# This notebook trains no network. It uses a *logistic curve* instead. The intensity, smoothed at three widths, is combined by three weights and an offset, which are fitted on one neuron with a known mask. The curve knows brightness but not shape. It therefore makes the same two mistakes as a network, but more often: it loses the neurite where the label is missing, and it mistakes bright fibres of other cells for the neuron. In your own work, use the probability from `nkd.predict`.


# %%
def features(volume):
    """Root of the scaled intensity at three smoothing widths, and a one: `z y x 4`."""
    grey = nkd.scale_intensity(volume)
    smooth = [np.sqrt(ndimage.gaussian_filter(grey, width)) for width in (0.7, 1.5, 4)]
    return np.stack([*smooth, np.ones_like(grey)], axis=-1)


def cross_entropy(weights, known, truth):
    """Mean cross-entropy of the logistic curve, and its gradient."""
    score = known @ weights
    return (np.logaddexp(0, score) - truth * score).mean(), known.T @ (expit(score) - truth) / len(truth)


lit = fitted.volume > 0
weights = minimize(cross_entropy, np.zeros(4), (features(fitted.volume)[lit], fitted.mask[lit]), jac=True).x


def logistic(one):
    """Probability of neurite, float32; 0 where the stack was cut to exactly 0."""
    return np.where(one.volume > 0, expit(features(one.volume) @ weights), 0).astype(np.float32)


probability = logistic(sample)
course = sample.tree.resample(1.0)
along = ndimage.map_coordinates(probability, course.zyx.T, order=1)
far = ndimage.distance_transform_edt(~sample.mask)[probability > 0.5] > 3
print(f"average precision {nkd.average_precision(probability, sample.mask):.2f}")
print(f"true centreline below a probability of 0.5: {(along < 0.5).mean():.0%}")
print(f"voxels above 0.5 that are more than 3 voxels away from the neuron: {far.mean():.0%}")
assert (along < 0.5).mean() > 0.1 and far.mean() > 0.05  # both mistakes are there

# %% mystnb={"image": {"alt": "Three projections of the stack, of the probability, and of the true tree over the probability, with gaps and foreign fibres."}} jupyter={"source_hidden": true} tags=["hide-input"]
frame = nkd.Frame(shape, spacing)
figure, panels = plt.subplots(1, 3, figsize=(10, 3.8), layout="constrained", sharey=True)
frame.draw_volume(panels[0], sample.volume)
frame.draw_volume(panels[1], probability, gamma=1.0)
frame.draw_volume(panels[2], probability, gamma=1.0, dimmed=True)
frame.draw_tree(panels[2], sample.tree)
for axes, name in zip(panels, ("stack", "probability", "true tree over the probability"), strict=True):
    axes.set(title=name, xlabel="x (µm)")
panels[0].set_ylabel("y (µm)")
frame.draw_scale_bar(panels[0])

# %% [markdown]
# *Maximum projections along z. The purple tree is the truth, and the orange dot is its root. Bright structures without a purple line are other cells or blobs. Where the purple line runs over black, there is a gap.*
#
# ## 2 · What the threshold does
#
# Voxels above the threshold are candidates. All later steps of the tracer see only these. We trace at several thresholds and compare each tree with the truth by length (`nkd.compare_trees`, tolerance two voxels). We choose the threshold on the validation neurons, and then show the result on another neuron. (Two validation neurons are few. With your own data use more.)

# %%
TOLERANCE, GAP = 2, 10  # voxels
thresholds = np.arange(0.1, 0.95, 0.1 if short else 0.05).round(2).tolist()


def scores_of(tree, one):
    """All scores of a tree, lengths in voxels."""
    return nkd.compare_trees(tree, one.tree, tolerance=TOLERANCE)


def f1(chance, one, threshold):
    """Length F1 of the tree at a threshold."""
    return scores_of(nkd.trace(chance, threshold=threshold, max_gap=GAP), one)["length_f1"]


chances = [logistic(one) for one in validation]
chosen_by = [
    np.mean([f1(chance, one, t) for chance, one in zip(chances, validation, strict=True)])
    for t in tqdm(thresholds, desc="validation neurons")
]
best = thresholds[int(np.argmax(chosen_by))]
trees = {t: nkd.trace(probability, threshold=t, max_gap=GAP) for t in tqdm(thresholds, desc="the neuron to be traced")}
rows = {t: scores_of(tree, sample) for t, tree in trees.items()}
print(f"{'threshold':>10}{'precision':>11}{'recall':>8}{'F1':>6}{'length':>8}{'ESA':>7}{'DSA':>7}{'PDS':>6}")
for t, row in rows.items():
    print(
        f"{t:>10}{row['length_precision']:>11.2f}{row['length_recall']:>8.2f}{row['length_f1']:>6.2f}"
        f"{row['length']:>8.0f}{row['esa']:>7.2f}{row['dsa']:>7.2f}{row['pds']:>6.2f}" + "   chosen" * (t == best)
    )
print(f"true length {sample.tree.length:.0f} voxels")
assert rows[0.9]["length_precision"] > rows[0.1]["length_precision"] + 0.2
assert rows[0.1]["length_recall"] > rows[0.9]["length_recall"] + 0.2
assert rows[best]["length_f1"] > max(rows[0.1]["length_f1"], rows[0.9]["length_f1"])


# %% mystnb={"image": {"alt": "Left: precision rises and recall falls with the threshold. Right: three trees, with found, missed and invented parts in three colours."}} jupyter={"source_hidden": true} tags=["hide-input"]
def judge(axes, tree, one=sample):
    """Draw what was found, missed and invented of a tree; returns the panel."""
    traced, true = tree.resample(1.0), one.tree.resample(1.0)
    pieces = {
        "missed": (true, cKDTree(traced.xyz).query(true.xyz)[0] >= TOLERANCE),
        "invented": (traced, cKDTree(true.xyz).query(traced.xyz)[0] >= TOLERANCE),
        "found": (traced, cKDTree(true.xyz).query(traced.xyz)[0] < TOLERANCE),
    }
    for kind, (which, where) in pieces.items():
        lines = (which.xyz[:, :2] * spacing[2])[which.edges[where[1:]]]
        axes.add_collection(LineCollection(lines, colors=nkd.COLOURS[kind], linewidths=1.5), autolim=False)
    axes.plot(*tree.xyz[0, :2] * spacing[2], "o", color="white", markersize=5, scalex=False, scaley=False)
    axes.set_xlabel("x (µm)")
    return axes


def legend(axes):
    """Name the three colours below a panel."""
    kinds = ("found", "missed", "invented")
    handles = [Line2D([], [], color=nkd.COLOURS[kind], linewidth=2, label=kind) for kind in kinds]
    handles.append(Line2D([], [], marker="o", linestyle="", color="white", markeredgecolor="black", label="root"))
    axes.figure.legend(handles=handles, loc="outside lower center", ncols=4, frameon=False)


def row_of(items):
    """Trees side by side over the probability."""
    figure, panels = plt.subplots(1, len(items), figsize=(3.4 * len(items), 4.1), layout="constrained", sharey=True)
    for axes, (name, tree) in zip(panels, items.items(), strict=True):
        frame.draw_volume(axes, probability, gamma=1.0, dimmed=True)
        judge(axes, tree).set_title(name)
    panels[0].set_ylabel("y (µm)")
    frame.draw_scale_bar(panels[0])
    legend(panels[0])
    return figure


figure, axes = plt.subplots(figsize=(6, 3.4), layout="constrained")
for key, style, colour in (("precision", "o-", 0.0), ("recall", "s--", 0.4), ("f1", "^:", 0.75)):
    curve = [row[f"length_{key}"] for row in rows.values()]
    axes.plot(thresholds, curve, style, color=plt.cm.viridis(colour), label=f"length {key.replace('f1', 'F1')}")
axes.axvline(best, color="0.7", zorder=0, label="chosen on validation")
axes.set(xlabel="threshold", ylabel="score (1 is perfect)", ylim=(0, 1.05), title="Length found, length invented")
axes.legend(frameon=False, fontsize="small", loc="center left", bbox_to_anchor=(1, 0.5))
axes.spines[["top", "right"]].set_visible(False)

_ = row_of({f"threshold {t}: F1 {rows[t]['length_f1']:.2f}": trees[t] for t in (0.1, best, 0.9)})

# %% [markdown]
# *Projections along z.* At a low threshold, noise in the haze and other cells become branches. At a high threshold, parts of the neuron are lost. If the gap between two parts becomes wider than `max_gap`, everything behind the gap is lost as well. Therefore recall may suddenly drop although the mask hardly changes. Try the thresholds in between (without a running kernel this is a static picture):

# %%
nkd.view_figure(
    lambda threshold: row_of({f"threshold {threshold}": trees[threshold], f"the chosen one, {best}": trees[best]}),
    threshold=ipywidgets.SelectionSlider(options=thresholds, value=0.5, description="threshold"),
)

# %% [markdown]
# ## 3 · Gaps, and bridges over them
#
# At any threshold the candidates form several *fragments*. The tracer bridges the gaps between them, up to a width of `max_gap` voxels. It begins with the narrowest and least empty gaps. Fragments that are further away are left out, and the tree's header says how much was left out.

# %%
gaps = (0, 2, 4, 6, 8, 10, 15, 20, 40, np.inf)
pieces = ndimage.label(probability > best, np.ones((3, 3, 3)))[1]
bridged = {gap: nkd.trace(probability, threshold=best, max_gap=gap) for gap in tqdm(gaps, desc="gaps")}
by_gap = {gap: scores_of(tree, sample) for gap, tree in bridged.items()}
print(f"{pieces} fragments above {best}, specks included; what the header says of the others:")
for gap, tree in bridged.items():
    print(f"  max_gap {gap:>3}, F1 {by_gap[gap]['length_f1']:.2f}: {tree.comments[-1]}")


def empty(tree):
    """Which nodes lie where the probability is below the threshold: the bridges."""
    return ndimage.map_coordinates(probability, tree.zyx.T, order=1) <= best


share = {gap: empty(tree).mean() for gap, tree in bridged.items()}
on_bridge = empty(bridged[GAP])
right = cKDTree(course.xyz).query(bridged[GAP].xyz)[0] < TOLERANCE
print(f"{on_bridge.mean():.0%} of the nodes lie on bridges; right are {right[on_bridge].mean():.0%} of those")
print(f"and {right[~on_bridge].mean():.0%} of all others")
assert right[on_bridge].mean() < right[~on_bridge].mean()
assert by_gap[np.inf]["length"] > 1.2 * by_gap[0]["length"]
assert max(row["length_f1"] for row in by_gap.values()) > by_gap[0]["length_f1"] + 0.1
assert share[np.inf] > share[0] and by_gap[np.inf]["length_precision"] < by_gap[0]["length_precision"] - 0.05

# %% mystnb={"image": {"alt": "Left: scores against max_gap rise and level off. Right: the length of the tree and the part of it on bridges."}} jupyter={"source_hidden": true} tags=["hide-input"]
figure, panels = plt.subplots(1, 2, figsize=(10, 3.4), layout="constrained")
places = np.arange(len(gaps))
for key, style, colour in (("precision", "o-", 0.0), ("recall", "s--", 0.4), ("f1", "^:", 0.75)):
    panels[0].plot(
        places,
        [row[f"length_{key}"] for row in by_gap.values()],
        style,
        color=plt.cm.viridis(colour),
        label=key.replace("f1", "F1"),
    )
panels[0].set(ylabel="length score", ylim=(0, 1.05))
lengths = np.array([row["length"] for row in by_gap.values()]) * spacing[0]
panels[1].bar(places, lengths, color=plt.cm.viridis(0.25), label="traced")
panels[1].bar(places, lengths * [*share.values()], color=plt.cm.viridis(0.9), label="of it on bridges")
panels[1].axhline(sample.tree.length * spacing[0], color="0.3", linestyle="--", label="true length")
panels[1].set(ylabel="length (µm)")
for axes in panels:
    axes.set(xlabel="max_gap (voxels)", xticks=places, xticklabels=["any" if gap == np.inf else gap for gap in gaps])
    axes.legend(frameon=False, fontsize="small", loc="lower right" if axes is panels[0] else "upper left")
    axes.spines[["top", "right"]].set_visible(False)
_ = panels[1].set_ylim(0, 1.45 * max(*lengths, sample.tree.length * spacing[0]))

_ = row_of({
    f"max_gap {'any' if gap == np.inf else gap}: F1 {by_gap[gap]['length_f1']:.2f}": bridged[gap] for gap in (0, GAP, np.inf)
})  # fmt: skip

# %% [markdown]
# *Left: without bridges; middle: bridges over gaps of at most ten voxels; right: bridges over gaps of any width.* Without bridges only the largest fragment remains. Bridges recover the rest of the neuron, but they also add parts of other cells, because the tracer cannot know to which cell a fragment belongs. Bridges are also less often right than the rest of the tree. The last two lines of the numbers above show this, as the share of nodes within two voxels of the true tree. Check the bridges first when you proofread a tree.
#
# ## 4 · Spurs
#
# If the wall of a neurite is rough, its trace has short false side branches, called *spurs*. `min_branch` removes branches that reach less than this number of voxels beyond the volume of their stem. Real branches that are equally short are removed, too:

# %%
shortest = (0, 1, 2, 4, 8, 16)
pruned = {least: nkd.trace(probability, threshold=best, max_gap=GAP, min_branch=least) for least in shortest}
by_branch = {least: scores_of(tree, sample) for least, tree in pruned.items()}
print(f"{'min_branch':>10}{'tips':>6}{'tip precision':>15}{'tip recall':>12}{'length recall':>15}")
for least, row in by_branch.items():
    numbers = f"{row['tip_precision']:>15.2f}{row['tip_recall']:>12.2f}{row['length_recall']:>15.2f}"
    print(f"{least:>10}{len(pruned[least].tips):>6}{numbers}")
print(f"true tips: {len(sample.tree.tips)}")
assert len(pruned[0].tips) > 1.5 * len(pruned[16].tips)
assert by_branch[16]["tip_recall"] < by_branch[0]["tip_recall"]
assert by_branch[2]["length_recall"] > by_branch[16]["length_recall"]

# %% [markdown]
# Spurs hardly change the length, but they change the number of tips. If you count branches, choose `min_branch` by the tip scores on validation neurons, and report its value.
#
# ## 5 · The root
#
# A tree has a direction: it leads away from the soma. By default the tracer puts the root at the thickest place. This neuron was cut from a larger one, and its soma is not in the volume. The thickest place is only a bead. Therefore we tell the tracer where the neuron enters the volume:


# %%
place, unrooted = sample.tree.zyx[0], bridged[GAP]
wrong = unrooted.zyx[unrooted.tips[np.linalg.norm(unrooted.zyx[unrooted.tips] - place, axis=1).argmax()]]
rooted = {
    "the thickest place": unrooted,
    "where it enters": nkd.trace(probability, threshold=best, max_gap=GAP, soma=place),
    "the furthest tip": nkd.trace(probability, threshold=best, max_gap=GAP, soma=wrong),
}
true_way = course.path_lengths  # from every node to the root, voxels
wrong_way, length_f1 = {}, {}
for name, tree in rooted.items():
    away, node = cKDTree(course.xyz).query(tree.xyz)
    wrong_way[name] = np.abs(tree.path_lengths - true_way[node])[away < TOLERANCE].mean()
    length_f1[name] = scores_of(tree, sample)["length_f1"]
    print(
        f"{name:<19} root {np.linalg.norm(tree.zyx[0] - place):>4.1f} voxels off; length F1 {length_f1[name]:.2f}; "
        f"ways to it wrong by {wrong_way[name]:.0f} voxels (mean)"
    )
off = {name: np.linalg.norm(tree.zyx[0] - place) for name, tree in rooted.items()}
assert off["where it enters"] < 5 < off["the thickest place"]
assert wrong_way["the furthest tip"] > 2 * wrong_way["where it enters"]
assert max(length_f1.values()) - min(length_f1.values()) < 0.1

# %% [markdown]
# The length scores do not depend on the root, because they ignore direction. Path lengths, Sholl profiles and Strahler orders do depend on it. `soma=` also says *which* cell you mean: the tracer keeps the fragments that are connected with this place, instead of the group with the most voxels.
#
# ## 6 · Radii
#
# The radius of a node is the distance to the nearest voxel that is not a candidate. These neurites are two or three voxels wide, so only few values are possible. If a neurite has a larger traced radius, is it really thicker? Rank correlation measures how well the order of the radii is preserved where the trace is right:

# %%
tree = rooted["where it enters"]
for t in (thresholds[0], best, thresholds[-1]):
    print(f"threshold {t}: median radius {np.median(trees[t].radius) * spacing[0]:.2f} µm")
print(f"true median {np.median(sample.tree.radius) * spacing[0]:.2f} µm; a voxel is {spacing[0]} µm")
away, node = cKDTree(course.xyz).query(tree.xyz)
order = spearmanr(tree.radius[away < TOLERANCE], course.radius[node[away < TOLERANCE]]).statistic
print(f"rank correlation of traced and true radii: {order:.2f}\n")
drawn = {
    "its own radii": nkd.rasterise(tree, shape),
    "all of 0.87 voxels": nkd.rasterise(replace(tree, radius=np.full(len(tree), 0.87)), shape),
    "true median": nkd.rasterise(replace(tree, radius=np.full(len(tree), np.median(sample.tree.radius))), shape),
}
for name, mask in drawn.items():
    print(f"the tree as a mask, {name:<19}Dice with the true mask {nkd.dice(mask, sample.mask):.2f}")
assert order < 0.6
assert 0.5 < np.median(tree.radius) / np.median(sample.tree.radius) < 2

# %% [markdown]
# The median is about right, but a single radius says little. Report the thickness of whole branches or neurons, or measure it in the image.
#
# ## 7 · The file
#
# An SWC file is a text file with one node per line. Our files have ids from 1, one root, and parents before their children. The root has type 1. All other nodes have type 0 (*undefined*), because a mask does not show what is axon. A header says how the tree was made. To check this independently of our reader, we read the file with numpy alone:

# %%
file = nkd.write_swc(folder / "neuron-voxels.swc", tree)
for line in file.read_text().splitlines()[:6]:
    print(line[:150])


def plain(path):
    """The seven columns by numpy: id, type, x, y, z, radius, parent."""
    return np.loadtxt(path, comments="#", ndmin=2).T


ids, types, *point, radius, parents = plain(file)
assert (ids == np.arange(1, len(tree) + 1)).all() and (parents < ids).all()
assert (parents == -1).sum() == 1 and parents[0] == -1
assert types[0] == 1 and (types[1:] == 0).all()
again = nkd.read_swc(file)
assert np.abs(np.stack(point, axis=1) - tree.xyz).max() < 1e-4 and np.abs(again.xyz - tree.xyz).max() < 1e-4
assert (again.parent == tree.parent).all() and np.abs(radius - tree.radius).max() < 1e-4
assert again.comments[: len(tree.comments)] == tree.comments
print(f"\n{len(again)} nodes read again, {file.stat().st_size / 1e3:.0f} kB")

# %% [markdown]
# ### Opened elsewhere
#
# The format has no field for the unit or for the position of row 0. Programs differ in their conventions, and none gives a warning:
#
# | program | unit | what to write |
# |---|---|---|
# | the INCF's rules, NeuroM, NeuroMorpho.org | µm | `tree.to_microns(spacing)` |
# | SNT (Fiji) | the unit of the image, µm if it is calibrated | the same, and the stack with `nkd.write_volume(..., spacing=spacing)` |
# | Vaa3D, a TIFF | voxels, rows from the *bottom* | `tree.mirror("y", volume.shape[1])` |
# | Vaa3D, a `.v3draw`; neuTube | voxels | the tree as it is |
#
# We check the first row by running NeuroM. The other rows are the conventions of those programs. `to_microns` multiplies radii by the geometric mean of the spacing. Keep only those lines of the header that are still true. The next cell reads each file again and checks its content. If NeuroM is installed, it measures the tree, too (`pip install neurom`; `neurokd` does not need it):

# %%
height = sample.volume.shape[1]
made = tree.comments[0]
files = {
    "um": replace(tree.to_microns(spacing), comments=(made, "x y z and radius in µm")),
    "vaa3d-tiff": replace(tree.mirror("y", height), comments=(made, "voxels, rows counted from the bottom")),
}
files = {name: nkd.write_swc(folder / f"neuron-{name}.swc", one) for name, one in files.items()}

microns = nkd.read_swc(files["um"])
print(f"length {tree.length:.1f} voxels, {microns.length:.1f} µm; radius of the root {microns.radius[0]:.2f} µm")
assert np.isclose(microns.length, tree.length * spacing[0], rtol=1e-3)
assert np.allclose(microns.radius, tree.radius * spacing[0], atol=1e-4)

upside_down = nkd.read_swc(files["vaa3d-tiff"])
for name, volume in {"the array": sample.volume, "the array with its rows reversed": sample.volume[:, ::-1]}.items():
    check = nkd.check_pair(volume, upside_down)
    print(f"the file for Vaa3D on {name}: {check.bright:.0%} on bright voxels, mirrored {check.bright_mirrored:.0%}")
    assert check.mirrored if volume is sample.volume else check.fits
assert nkd.check_pair(sample.volume, tree).fits
assert np.abs(upside_down.mirror("y", height).xyz - tree.xyz).max() < 1e-4

try:
    import neurom
except ImportError:
    print("NeuroM is not installed: skipped")
else:
    cell = neurom.load_morphology(str(files["um"]))
    length, tips = neurom.get("total_length", cell), neurom.get("number_of_leaves", cell)
    print(f"NeuroM: {length:.1f} µm, {tips} tips; here {microns.length:.1f} µm, {len(microns.tips)} tips")
    print(f"soma at {np.round(cell.soma.center, 2)} µm, here {microns.xyz[0].round(2)}")
    assert tips == len(microns.tips) and np.isclose(length, microns.length, rtol=0.05)
    assert np.allclose(cell.soma.center, microns.xyz[0], atol=1e-3)

# %% [markdown]
# ## 8 · A real neuron
#
# Now we trace the fly neuron of [`01_data_loading`](01_data_loading.ipynb). It has no mask and no voxel size. Instead of a true tree there is the tree of another program, Rivulet2, so we measure *agreement*. The background was set to zero, and most of the rest is neuron. We can therefore use the scaled intensity as the probability, with a low threshold. No score shows whether the resulting tree is right, but the header says how much was left out.

# %%
try:
    fly = nkd.fly_neuron()
except FileNotFoundError as error:  # neither in NEUROKD_DATA nor in the cache, and no network
    print(error)
    fly = sample
real = nkd.trace(nkd.scale_intensity(fly.volume), threshold=0.1, max_gap=20)
agreement = nkd.compare_trees(real, fly.tree, tolerance=3)
print(f"{fly.name}: {real.length:.0f} voxels, {len(real.tips)} tips; {real.comments[-1]}")
print(f"the other tree: {fly.tree.length:.0f} voxels, {len(fly.tree.tips)} tips")
for key in ("length_precision", "length_recall", "esa", "dsa", "pds"):
    print(f"  {key.replace('_', ' '):<17}{agreement[key]:.2f}")
print(f"thickest place and the other program's root: {np.linalg.norm(real.xyz[0] - fly.tree.xyz[0]):.0f} voxels apart")
nkd.write_swc(folder / f"{fly.name}.swc", real)
if fly is not sample:
    assert agreement["length_recall"] > 0.75 and agreement["length_precision"] > 0.75
    assert np.linalg.norm(real.xyz[0] - fly.tree.xyz[0]) < 20  # here the soma is in the stack, and is the thickest

_ = nkd.plot_projections(
    fly.volume, tree=real, spacing=fly.spacing, orthogonal=True, title=f"{fly.name}: traced, seen from three sides"
)

# %% [markdown]
# The viewer shows the same tree in 3D. Drag to rotate it. (Without a running kernel this is a static picture. The three projections above show the same.)

# %%
viewer = nkd.view_tree(fly.volume, real, spacing=fly.spacing)
viewer.controls["azimuth"].value, viewer.controls["elevation"].value = 30, 20  # what dragging does
viewer

# %% [markdown]
# ## What was learnt
#
# - A lower threshold finds more of the neuron, but also invents more. Recall may drop suddenly when a gap becomes wider than `max_gap`.
# - A larger `max_gap` recovers parts of the neuron behind gaps in the label, but also adds parts of other cells. Bridges are wrong more often than the rest of the tree, so check them first.
# - `min_branch` hardly changes the length, but it decides the number of tips.
# - The root is at the thickest place, unless you give its position. No length score notices a wrong root.
# - Radii are right in the median, but a single radius is inaccurate.
# - An SWC file states neither its unit nor the position of row 0. Write the unit that the other program expects, and read the file again.
#
# ## Exercises
#
# 1. What harms this tree most: the gaps in its label, the fibres of other cells, or the haze? `nkd.render` images the same tree again, with `nkd.Microscope(gaps=0)`, `fibres=0` or `haze=(0, 0)`.
# 2. Choose the threshold by Dice on the validation neurons (`nkd.best_threshold`) instead of by the trees. How does this change the tree?

# %% [markdown]
# <details><summary>Solution of exercise 1</summary>
#
# Each image has its own noise, so one image of each kind says little: the cell takes the mean of several. The intensity scale follows the background, so a threshold that suits hazy images does not suit clean ones. The cell therefore takes the best of four thresholds for each image. Without gaps F1 rises.
#
# </details>

# %% jupyter={"source_hidden": true} tags=["hide-input"]
imaged = {}
for name, change in {
    "as it is": {},
    "no gaps": {"gaps": 0.0},
    "no fibres": {"fibres": 0.0},
    "no haze": {"haze": (0.0, 0.0)},
}.items():
    found = []
    for seed in range(3 if short else 6):
        rng = np.random.default_rng(seed)
        stack, mask = nkd.render(sample.tree, shape, rng, nkd.Microscope(**change), spacing=spacing)
        one = replace(sample, volume=stack, mask=mask)
        chance = logistic(one)
        rows = [scores_of(nkd.trace(chance, threshold=t, max_gap=GAP), one) for t in (0.3, 0.5, 0.7, 0.85)]
        row = max(rows, key=lambda row: row["length_f1"])
        found.append([row[f"length_{key}"] for key in ("precision", "recall", "f1")])
    imaged[name] = np.mean(found, axis=0)
    print(f"{name:<10} precision {imaged[name][0]:.2f}, recall {imaged[name][1]:.2f}, F1 {imaged[name][2]:.2f}")
assert imaged["no gaps"][2] > imaged["as it is"][2]

# %% [markdown]
# <details><summary>Solution of exercise 2</summary>
#
# Dice counts voxels, and most voxels are in thick neurites. The tree needs gaps that are narrow enough to be bridged. The two criteria can therefore choose different thresholds. On the validation neurons the threshold chosen by the trees is the best of the tested ones by construction. On a new neuron it is probably better, but not certainly.
#
# </details>

# %% jupyter={"source_hidden": true} tags=["hide-input"]
by_dice = nkd.best_threshold(chances, [one.mask for one in validation])
both = [f1(probability, sample, t) for t in (best, by_dice)]
print(f"chosen by trees: {best}, length F1 {both[0]:.2f}; chosen by Dice: {by_dice:.2f}, length F1 {both[1]:.2f}")
on_validation = np.mean([f1(chance, one, by_dice) for chance, one in zip(chances, validation, strict=True)])
print(f"on the validation neurons: {max(chosen_by):.2f} and {on_validation:.2f}")
assert min(both) > 0.3

# %% [markdown]
# **Next.** [10 · Your own data](10_your_own_data.ipynb) shows all steps with a folder of your own stacks. You can also replace the logistic curve by `nkd.predict` with a student that you trained ([06 · Training](06_training.ipynb)). The same cells then show how good the network's trees are.
