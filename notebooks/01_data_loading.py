# ---
# jupyter:
#   jupytext:
#     formats: ipynb,py:percent
# ---

# %% [markdown]
# # Stacks and trees: loading real data
#
# > **Question.** How do a microscope's stack and a traced neuron become arrays on which a network can be trained? Which mistakes would no later step notice?
# >
# > **Know first.** You need to know numpy arrays. You need no neuroscience.
# >
# > **Takes.** 20 s on 2 CPU cores, 20 s in the short profile (`NEUROKD_PROFILE=ci`); 1.9 GB of memory. Downloads less than 1 MB.
#
# Some mistakes raise no error: a wrong axis, a tree that is upside down, a test crop from a training stack. The network trains, the loss falls, and the numbers are wrong. Therefore every step below ends with a check.
#
# ```
# .tif .v3draw .v3dpbd ──► volume z y x ─────► scaled to [0, 1] ──┐
#                              ▲ do they fit?                     ├──► patches
# .swc ──────────────────► tree  x y z ─────► mask z y x ─────────┘
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
import struct
import time
from types import SimpleNamespace

import matplotlib.pyplot as plt
import numpy as np
from scipy import ndimage

import neurokd as nkd
from neurokd.profile import profile, run_folder

short = profile() == "ci"  # the same story with fewer and smaller things, for automatic tests
folder = run_folder("data-loading")
shape = (48, 96, 96) if short else (96, 160, 160)
neuron = nkd.simulated_neurons(1, seed=3, shape=shape)[0]
try:
    fly = nkd.fly_neuron()
except FileNotFoundError as error:  # neither in NEUROKD_DATA nor in the cache, and no network
    print(error)
    fly = nkd.simulated_neurons(1, seed=4, shape=(96, 160, 160))[0]
print(f"simulated: {neuron.volume.shape} voxels (z, y, x) of {neuron.spacing} µm, {neuron.volume.dtype}")
print(f"{fly.name}: {fly.volume.shape} voxels (z, y, x), {fly.volume.dtype}, voxel size {fly.spacing}")

# %% [markdown]
# ## 1 · Formats
#
# | format | what it is | voxel size |
# |---|---|---|
# | `.tif` | the common format; ImageJ and OME also store the meaning of the axes | in the file, if the program wrote it |
# | `.v3draw` | Vaa3D's format: 43 bytes of header, then the voxels | none |
# | `.v3dpbd` | Vaa3D's compressed format: the same header, then runs of equal or slowly changing voxels | none |
#
# `read_volume` recognises the format by the suffix. It returns `z y x`, with the values and the type as stored. `neurokd` reads v3dpbd but does not write it. The next cell therefore writes such a file by hand. It uses only *repeat* runs: one byte for a length of 1 to 128, and one byte for the value.


# %%
def write_v3dpbd(path, volume):
    """Write 8 bits as repeats alone: simple, and good for stacks that are mostly zero."""
    voxels = volume.ravel()
    starts = np.union1d(np.flatnonzero(np.diff(voxels)) + 1, np.arange(0, voxels.size, 128))
    lengths = np.diff(starts, append=voxels.size)
    runs = np.stack([127 + lengths, voxels[starts]], axis=1).astype(np.uint8)
    header = b"v3d_volume_pkbitdf_encod" + b"L" + struct.pack("<h4i", 1, *volume.shape[::-1], 1)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(header + runs.tobytes())


files = [
    nkd.write_volume(folder / f"stack.{suffix}", neuron.volume, spacing=neuron.spacing) for suffix in ("tif", "v3draw")
]
write_v3dpbd(folder / "stack.v3dpbd", neuron.volume)
files.append(folder / "stack.v3dpbd")
for file in files:
    volume, spacing = nkd.read_volume(file), nkd.read_spacing(file)
    said = "not stated" if spacing is None else " x ".join(f"{length:.2f}" for length in spacing) + " µm"
    print(f"{file.name:<13}{file.stat().st_size / 1e3:>8,.0f} kB   {volume.shape} {volume.dtype}, voxel size {said}")
    assert np.array_equal(volume, neuron.volume) and volume.dtype == neuron.volume.dtype
assert np.allclose(nkd.read_spacing(files[0]), neuron.spacing) and nkd.read_spacing(files[1]) is None

# %% [markdown]
# Downloads may be interrupted. Reading half a file must raise an error. It must never return half a neuron:

# %%
for file in files:
    cut = folder / f"half{file.suffix}"
    cut.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    try:
        nkd.read_volume(cut)
    except ValueError as error:
        print(f"{cut.suffix}: {str(error).removeprefix(str(cut))[2:110]} ...")
    else:
        raise AssertionError(f"half of {file.name} was read as if it were whole")

# %% [markdown]
# ## 2 · A tree on its volume
#
# Each line of an SWC file describes one node: `id type x y z radius parent`. Points are `x y z`, but arrays are `z y x`. `tree.zyx` gives the points in the order of arrays. The figure below shows the tree of a real neuron (purple; the orange dot is its root) over the maximum of the stack along each axis.

# %% mystnb={"image": {"alt": "Three maximum projections of a real fly neuron, with its traced tree drawn over it in purple."}}
_ = nkd.plot_projections(fly.volume, tree=fly.tree, spacing=fly.spacing, orthogonal=True, title=fly.name)

# %% [markdown]
# Tree and stack fit together. Two mistakes are common. The first is to forget to reverse the order of the axes. The second is to use a tree that Vaa3D traced on a TIFF without mirroring it, because Vaa3D counts the rows of a TIFF *from the bottom*. `check_pair` finds such mistakes. It counts how many nodes lie on bright voxels (the brightest 1 % of the voxels that are not zero), for the tree as it is and for its mirror image in y:

# %%
height = fly.volume.shape[1]
trees = {
    "as published with the array": fly.tree,
    "mirrored in y": fly.tree.mirror("y", height),
    "axes not turned": nkd.Tree(fly.tree.zyx, fly.tree.radius, fly.tree.parent, fly.tree.type),
}
checks = {name: nkd.check_pair(fly.volume, tree) for name, tree in trees.items()}
print(
    f"{'':<30}{'inside':>8}{'bright':>8}{'mirrored':>10}   verdict      (by chance: {checks['mirrored in y'].chance:.1%})"
)
for name, check in checks.items():
    verdict = "fits" if check.fits else "mirrored" if check.mirrored else "neither"
    print(f"{name:<30}{check.inside:>8.0%}{check.bright:>8.0%}{check.bright_mirrored:>10.0%}   {verdict}")
assert [check.fits for check in checks.values()] == [True, False, False]
assert [check.mirrored for check in checks.values()] == [False, True, False]

# %% [markdown]
# ### In depth
#
# A projection hides depth: a tree that is some slices off still looks right from above. Three planes through one point show the mistake. Click or drag in one plane to move the others. `slab` is the number of slices whose maximum is shown. The tree is pink where it runs through these slices. (Without a running kernel this is a static picture.)

# %% mystnb={"image": {"alt": "Three orthogonal planes through the stack with a common cursor, and the tree over bright cuts through neurites."}}
viewer = nkd.view_volume(fly.volume, tree=fly.tree, spacing=fly.spacing, slab=9)
crowded = fly.tree.zyx[fly.tree.bifurcations[len(fly.tree.bifurcations) // 2]].round().astype(int)
for axis, place in zip("zyx", crowded.tolist(), strict=True):
    viewer.controls[axis].value = place  # what a click does
print("cursor on a bifurcation, (z, y, x):", crowded)
viewer

# %% [markdown]
# ## 3 · From tree to mask
#
# A network learns from voxels, so the tree must be drawn as a mask. Each edge becomes the volume that a ball sweeps as it moves from one node to the next and its radius changes. Traced radii are often too small, or all 1. If a radius is below half a voxel, the neurite slips between the centres of the voxels and the mask breaks into pieces. `min_radius=0.87` (half the diagonal of a voxel) prevents this. The next cell shows the simulated neuron with smaller radii:

# %% mystnb={"image": {"alt": "The mask of one neuron drawn three times: in many pieces, in one piece, and too thick."}}
settings = {"0.4 of the radii": {}, "min_radius 0.87": {"min_radius": 0.87}, "min_radius 2": {"min_radius": 2.0}}
masks = {
    name: nkd.rasterise(neuron.tree, neuron.volume.shape, radius_scale=0.4, **setting)
    for name, setting in settings.items()
}
pieces = {name: ndimage.label(mask, np.ones((3, 3, 3)))[1] for name, mask in masks.items()}
figure, axes = plt.subplots(1, 3, figsize=(10, 3.8), layout="constrained", sharey=True)
_, size_y, size_x = np.multiply(neuron.volume.shape, neuron.spacing)
for panel, (name, mask) in zip(axes, masks.items(), strict=True):
    panel.imshow(mask.max(axis=0), cmap="gray", extent=(0, size_x, size_y, 0))
    panel.set(xlabel="x (µm)", title=f"{name}: {pieces[name]} piece{'s' * (pieces[name] > 1)}")
axes[0].set_ylabel("y (µm)")
assert pieces["0.4 of the radii"] > 1 and pieces["min_radius 0.87"] == pieces["min_radius 2"] == 1

overlap = {name: nkd.dice(mask, neuron.mask) for name, mask in masks.items()}
print("Dice with the true mask:", ", ".join(f"{value:.2f} ({name})" for name, value in overlap.items()))
assert overlap["min_radius 0.87"] == max(overlap.values())

# %% [markdown]
# The last mask is too thick. Voxels that are neurite in the mask but not in the image teach the network to draw thick lines.
#
# ## 4 · Intensities
#
# Each camera has its own offset and gain. Stacks are therefore scaled to [0, 1], and training and inference use the same function. In many published stacks the background was set to exactly zero. Percentiles over all voxels then say nothing about the neuron, and the brightest voxel may be a fault of the detector. `scale_intensity` therefore leaves out the value of empty voxels (the *fill*), replaces single hot and dead voxels, and finds the level and the noise of the background:

# %%
zero, top = (fly.volume == 0).mean(), np.percentile(fly.volume, 99)
print(f"{zero:.1%} of the voxels are exactly 0; the 99th percentile of all voxels is {top:.0f}")
scale = nkd.IntensityScale.from_volume(fly.volume)
print(f"the fill is {scale.fill:.0f}; {scale.black:.0f} to {scale.white:.0f} becomes 0 to 1")
scaled = nkd.scale_intensity(fly.volume, scale=scale)
assert scaled.dtype == np.float32 and scaled.min() == 0 and scaled.max() == 1
assert (scaled[fly.volume == 0] == 0).all() and (scaled[fly.volume > 0] > 0).mean() > 0.999

other = fly.volume.astype(np.uint16) * 40 + 1000  # another gain, another offset
other.flat[:: other.size // 1000] = 65535  # and a thousand hot voxels
assert np.abs(nkd.scale_intensity(other) - scaled).mean() < 1e-5

# %% [markdown]
# ## 5 · Patches
#
# `Patches` cuts crops out of samples, most of them around a neurite. It then changes the crops as another microscope might: it rotates and mirrors them, makes them dimmer, brighter or noisier, and sometimes sets the background to zero. The first row shows crops without these changes (`augment=False`). The second row shows the same crops with these changes. The third row shows the masks of the second row.

# %% mystnb={"image": {"alt": "Six crops in three rows: plain, augmented, and the augmented masks."}}
size = (16, 48, 48)
plain = nkd.Patches([neuron], size=size, length=100, seed=0, augment=False)
patches = nkd.Patches([neuron], size=size, length=100, seed=0)
figure, rows = plt.subplots(3, 6, figsize=(10, 5.3), layout="constrained")
for i in range(6):
    shown = {"plain": plain[i]["image"], "augmented": patches[i]["image"], "mask": patches[i]["mask"]}
    for panel, (name, crop) in zip(rows[:, i], shown.items(), strict=True):
        panel.imshow(crop[0].amax(dim=0), cmap="gray", vmin=0, vmax=1)
        panel.set(xticks=[], yticks=[], ylabel=name if i == 0 else "")
    rows[0, i].set_title(f"patch {i}")
length = 5.0  # µm
rows[0, 0].plot([2, 2 + length / neuron.spacing[2]], [size[1] - 4] * 2, color="white", linewidth=3)
rows[0, 0].text(2, size[1] - 6, f"{length:g} µm", color="white")
figure.suptitle(f"Maximum projections along z of crops of {size} voxels (z, y, x)")

again = nkd.Patches([neuron], size=size, length=100, seed=0)
assert all((again[i]["image"] == patches[i]["image"]).all() for i in (5, 3))  # whatever was asked for before
with_neurite = np.mean([patches[i]["mask"].any().item() for i in range(100)])
print(f"{with_neurite:.0%} of 100 crops have neurite in them, which is {neuron.mask.mean():.2%} of the voxels")
assert with_neurite > 0.75

# %% [markdown]
# Patch `i` depends only on the seed and on `i`. Therefore an interrupted training run can continue exactly as if it had not been interrupted.
#
# ## 6 · Splits that do not leak
#
# Several neurons may be cut from one stack. They then share its background, its noise, and often parts of each other. The 42 neurons of Janelia's part 1 in BigNeuron's gold166 come from 38 stacks: 36 stacks gave one neuron each, and two gave three. How often does a random split by *neuron* put one of these stacks into two parts?

# %%
janelia = [SimpleNamespace(source=f"stack {k}") for k in range(36)]
janelia += [SimpleNamespace(source=f"stack {k}") for k in (36, 37) for _ in range(3)]


def leaks(parts):
    """Say whether a source stands in more than one part."""
    sources = [{item.source for item in part} for part in parts]
    return len(set.union(*sources)) < sum(len(part) for part in sources)


trials, leaky = 200, {"by neuron": 0, "by stack": 0}
for seed in range(trials):
    shuffled = np.random.default_rng(seed).permutation(np.array(janelia, dtype=object))
    leaky["by neuron"] += leaks(np.split(shuffled, [34, 38]))  # 34 to train on, 4 to choose on, 4 to test on
    leaky["by stack"] += leaks(nkd.split_by_source(janelia, seed=seed))
for name, count in leaky.items():
    print(f"split {name}: {count / trials:.0%} of {trials} splits leak")
assert leaky["by stack"] == 0 and leaky["by neuron"] > trials / 2

# %% [markdown]
# ## 7 · Your own BigNeuron folder
#
# BigNeuron's gold166 (github.com/BigNeuron/Data, release `Gold166_v1`) states no licence, so this package does not contain it. You download it yourself. To show the next steps, the following cell makes a small folder of the same structure with simulated neurons. It has two subsets, two neurons of one stack, several SWC files for one volume, and one tree that is upside down.

# %%
part1 = "p_checked7_janelia_flylight_part1"
layout = [
    (part1, "GMR_57C10_A3-left_optic_lobe.v3draw.extract_1", [".v3dpbd.ano_stamp_2015_06_17_12_57.swc_sorted.swc"]),
    (part1, "GMR_57C10_A3-left_optic_lobe.v3draw.extract_7", [".v3dpbd_stamp_2015_06_15_18_45.swc", ".v3dpbd.ano.swc"]),
    (part1, "GMR_57C10_B2-right_optic_lobe.v3draw.extract_0", [".v3dpbd.ano_stamp_2015_06_16_10_02.swc"]),
    ("p_checked6_mouse_somewhere", "confocal", [".v3draw.ano_stamp_2015_07_15_15_51.swc"]),
]
small = nkd.simulated_neurons(len(layout), seed=5, shape=(32, 64, 64) if short else (64, 128, 128))
for sample, (subset, name, swcs) in zip(small, layout, strict=True):
    place = folder / "gold166" / subset / name
    tree = sample.tree
    if name == "confocal":
        nkd.write_volume(place / f"{name}.v3draw", sample.volume)
        tree = tree.mirror("y", sample.volume.shape[1])
    else:
        write_v3dpbd(place / f"{name}.v3dpbd", sample.volume)
    for swc in swcs:
        nkd.write_swc(place / (name + swc), tree)

pairs = nkd.index_gold166(folder / "gold166")
for pair in pairs:
    print(f"{pair.name}\n    subset {pair.subset}, voxel size {pair.spacing}\n    source {pair.source}")
    print(f"    tree   {pair.swc.name.removeprefix(pair.name)}, {len(pair.others)} not chosen")
assert len({pair.source for pair in pairs}) == 3 and len(pairs) == 4
assert {pair.spacing for pair in pairs if "janelia" in pair.subset} == {(0.38, 0.38, 0.38)}

# %% [markdown]
# If a neuron has several trees, `index_gold166` prefers a sorted tree to a stamped one, and a stamped one to any other. Nothing has been loaded yet, because the split needs only names. `convert_gold166` then checks every pair and writes it once as TIFF and SWC in array coordinates. It finds the mirrored tree, mirrors it back, and notes this in the file.

# %%
try:
    pairs[0].load()
except ValueError as error:
    print("before:", str(error)[len(str(folder)) :], end="\n\n")
start = time.perf_counter()
converted = nkd.convert_gold166(pairs, folder / "converted")
first = time.perf_counter() - start
for pair in converted:
    print(*nkd.read_swc(pair.swc).comments[:-1], sep="\n")  # the last one names the columns
start = time.perf_counter()
assert nkd.convert_gold166(pairs, folder / "converted") == converted  # done already
print(f"\nfirst call {first:.2f} s, second {time.perf_counter() - start:.2f} s")

samples = [pair.load() for pair in nkd.index_gold166(folder / "converted")]
masks = {sample.name: sample.mask for sample in samples}
for sample, (_, name, _) in zip(small, layout, strict=True):
    assert nkd.dice(masks[name], sample.mask) > 0.95  # coordinates are rounded to four decimals in an SWC
parts = nkd.split_by_source(samples, fractions=(0.34, 0.33, 0.33), seed=0)
print("split:", [[sample.source for sample in part] for part in parts])
assert not leaks(parts)
assert nkd.Patches(parts[0], size=size, length=10, seed=0)[0]["mask"].shape == (1, *size)

# %% [markdown]
# The real folder needs the same four calls: `index_gold166`, `split_by_source`, `convert_gold166`, `load`. A real stack (400 x 511 x 511 voxels) takes 104 MB, so load only as many as fit into memory.
#
# ## What was learnt
#
# - Volumes are `z y x` and points are `x y z`. An incomplete file raises an error.
# - A tree fits its volume if most nodes are on bright voxels. The mirror image is the control. Also look at planes, because projections hide depth.
# - Masks are drawn from trees. The radius should be at least 0.87 voxels, but the mask should not be thicker than the neurite in the image.
# - Split data by stack. A split by neuron leaks in more than half of all cases.
#
# ## Exercises
#
# 1. Even if a tree fits, not all of its nodes lie on bright voxels. How far are the other nodes from the nearest bright voxel?
# 2. Some programs count voxels from 1, so their trees are one voxel off along each axis. How much does this reduce Dice?
# 3. How many bytes per voxel do `repeat` runs take in the stack of the fly, and how many in a stack of noise?

# %% [markdown]
# <details><summary>Solution of exercise 1</summary>
#
# The distance transform gives the distance from every voxel to the nearest bright voxel. Nearly all nodes are within two voxels: traces jitter, and annotators click beside a thin neurite. This is not an error in the file. A mirrored tree is much further away.
#
# </details>

# %% jupyter={"source_hidden": true} tags=["hide-input"]
away = ndimage.distance_transform_edt(fly.volume == 0 if zero > 0.99 else fly.volume < top)
for name in ("as published with the array", "mirrored in y"):
    places = np.rint(trees[name].zyx).astype(int).clip(0, np.array(fly.volume.shape) - 1)
    distance = away[tuple(places.T)]
    print(f"{name}: {(distance <= 2).mean():.0%} within two voxels, 95 % within {np.percentile(distance, 95):.0f}")
    if name != "mirrored in y":
        assert (distance <= 2).mean() > 0.8

# %% [markdown]
# <details><summary>Solution of exercise 2</summary>
#
# Most of the overlap is lost, although every neurite is present. The neurites are two to three voxels wide, and the tree is shifted by the diagonal of a voxel, which is 1.7 voxels. `check_pair` notices the shift less, because many nodes still lie on something bright.
#
# </details>

# %% jupyter={"source_hidden": true} tags=["hide-input"]
off = neuron.tree.translate((1, 1, 1))
overlap = nkd.dice(nkd.rasterise(off, neuron.volume.shape), neuron.mask)
print(f"Dice of the true mask with itself, one voxel off along each axis: {overlap:.2f}")
right, wrong = (nkd.check_pair(neuron.volume, tree).bright for tree in (neuron.tree, off))
print(f"nodes on bright voxels: {right:.0%}, one voxel off {wrong:.0%}")
assert overlap < 0.5 and 0.3 < wrong < right

# %% [markdown]
# <details><summary>Solution of exercise 3</summary>
#
# One run holds up to 128 zeros, so a stack that is mostly zero becomes very small. In noise almost every run has one voxel and takes two bytes, which is twice the raw size. For such data Vaa3D also has runs of literal values and runs of differences.
#
# </details>

# %% jupyter={"source_hidden": true} tags=["hide-input"]
noise = np.random.default_rng(0).integers(0, 256, neuron.volume.shape, dtype=np.uint8)
per_voxel = {}
for name, volume in {"fly": fly.volume, "noise": noise}.items():
    write_v3dpbd(folder / f"{name}.v3dpbd", volume)
    assert np.array_equal(nkd.read_volume(folder / f"{name}.v3dpbd"), volume)
    per_voxel[name] = (folder / f"{name}.v3dpbd").stat().st_size / volume.size
    print(f"{name:>6}: {per_voxel[name]:.3f} bytes per voxel")
assert per_voxel["noise"] > 1.9 > per_voxel["fly"]

# %% [markdown]
# **Next.** [02 · Teacher features](02_teacher_features.ipynb) shows what a network that learnt from photographs sees in such stacks.
