"""The topology losses against the papers' definitions, written out naively, and against hand-drawn neurites."""

import itertools

import numpy as np
import pytest
import torch

from neurokd.training.losses import SegmentationLoss, dice_cross_entropy
from neurokd.training.skeleton_losses import skeleton_recall_loss, skeleton_tube, soft_cldice_loss

FACES = [(0, 0, 0), (1, 0, 0), (-1, 0, 0), (0, 1, 0), (0, -1, 0), (0, 0, 1), (0, 0, -1)]
BOX = list(itertools.product((-1, 0, 1), repeat=3))


def pool(array, offsets, best):
    """The minimum or maximum over a neighbourhood; what lies outside the volume does not count."""
    out = np.empty_like(array)
    for at in np.ndindex(array.shape):
        near = [tuple(np.add(at, offset)) for offset in offsets]
        inside = [p for p in near if all(0 <= i < n for i, n in zip(p, array.shape, strict=True))]
        out[at] = best(array[p] for p in inside)
    return out


def soft_skeleton(array, iterations):
    """Algorithm 1 of arXiv:2003.07311, with the neighbourhoods of the authors' 3D code."""

    def opened(a):
        return pool(pool(a, FACES, min), BOX, max)

    skeleton = np.maximum(array - opened(array), 0)
    for _ in range(iterations):
        array = pool(array, FACES, min)
        skeleton = skeleton + (1 - skeleton) * np.maximum(array - opened(array), 0)
    return skeleton


def volume(array):
    return torch.from_numpy(np.asarray(array))[None, None]


def bar(thickness=3, length=20, shape=(9, 11, 24)):
    """A straight neurite along x, two voxels off either end."""
    mask = np.zeros(shape, bool)
    z, y = (n // 2 - thickness // 2 for n in shape[:2])
    mask[z : z + thickness, y : y + thickness, 2 : 2 + length] = True
    return mask


@pytest.mark.parametrize("iterations", [0, 2])
def test_soft_cldice_is_the_papers(iterations):
    rng = np.random.default_rng(0)
    p, m = rng.random((2, 5, 6, 7)), rng.random((2, 5, 6, 7)) > 0.6
    own = [
        (soft_skeleton(a, iterations), soft_skeleton(b.astype(float), iterations)) for a, b in zip(p, m, strict=True)
    ]
    sp, sm = (np.stack(s) for s in zip(*own, strict=True))
    precision, sensitivity = ((sp * m).sum() + 1) / (sp.sum() + 1), ((sm * p).sum() + 1) / (sm.sum() + 1)
    expected = 1 - 2 * precision * sensitivity / (precision + sensitivity)
    loss = soft_cldice_loss(torch.from_numpy(p)[:, None], torch.from_numpy(m)[:, None], iterations=iterations)
    assert loss.item() == pytest.approx(expected, rel=1e-12)


def test_soft_cldice_of_a_line_with_a_gap_by_hand():
    """A line one voxel thick is its own skeleton: 16 of 20 voxels are found, all that is found is true."""
    line = bar(thickness=1)
    found = line.copy()
    found[..., 10:14] = False
    sensitivity = (16 + 1) / (20 + 1)
    loss = soft_cldice_loss(volume(found).float(), volume(line))
    assert loss.item() == pytest.approx(1 - 2 * sensitivity / (1 + sensitivity), abs=1e-6)
    both = soft_cldice_loss(volume(line).float(), volume(line))
    assert both.item() == pytest.approx(0, abs=1e-6)
    missed = soft_cldice_loss(volume(np.zeros_like(line)).float(), volume(line))
    assert 0.9 < missed.item() <= 1


def test_a_break_costs_more_than_as_many_voxels_at_the_side():
    thick = bar(thickness=5)
    broken, thinned = thick.copy(), thick.copy()
    broken[..., 11:13] = False  # 50 voxels
    thinned[2, 3:8, 2:12] = False  # 50 voxels
    assert broken.sum() == thinned.sum()
    break_, side = (soft_cldice_loss(volume(found).float(), volume(thick)).item() for found in (broken, thinned))
    assert break_ > 0.05
    assert side < 0.01


@pytest.mark.parametrize("loss", [soft_cldice_loss, skeleton_recall_loss])
def test_the_gradient_closes_a_gap(loss):
    mask = bar()
    p = volume(np.where(mask, 0.9, 0.1)).float()
    p[..., 10:13] = 0.1
    p.requires_grad_()
    loss(p, volume(mask)).backward()
    assert (p.grad[0, 0, 4, 5, 10:13] < 0).all()


def test_tube_of_a_bar_by_hand():
    mask = bar(thickness=7, length=20, shape=(11, 13, 24))
    line = skeleton_tube(volume(mask), radius=0)[0, 0].numpy()
    z, y, x = np.nonzero(line)
    assert set(z) == {5} and set(y) == {6}  # the axis, shortened by about the radius at its ends
    assert x.size == np.ptp(x) + 1 >= 20 - 8
    tube = skeleton_tube(volume(mask))[0, 0].numpy()
    profile = np.zeros((11, 13), bool)
    for dz, dy in itertools.product(range(-2, 3), repeat=2):
        profile[5 + dz, 6 + dy] = abs(dz) + abs(dy) <= 2
    assert (tube[..., x[x.size // 2]] == profile).all()
    thin = bar(thickness=1)
    assert (skeleton_tube(volume(thin))[0, 0].numpy() == thin).all()  # never outside the mask


def test_skeleton_recall_by_hand():
    mask = bar(thickness=3)
    tube = skeleton_tube(volume(mask)).numpy()
    p = np.zeros_like(mask, dtype=np.float32)
    p[..., :12] = 0.5
    expected = 1 - (0.5 * tube[..., :12].sum() + 1) / (tube.sum() + 1)
    assert skeleton_recall_loss(volume(p), volume(mask)).item() == pytest.approx(expected, rel=1e-6)
    assert skeleton_recall_loss(volume(np.ones_like(p)), volume(mask)).item() == 0  # of recall alone, that is perfect


def test_crops_of_a_batch_have_skeletons_of_their_own():
    masks = torch.cat([volume(bar()), volume(np.zeros_like(bar())), volume(bar(thickness=1))])
    tubes = skeleton_tube(masks)
    for mask, tube in zip(masks, tubes, strict=True):
        assert torch.equal(skeleton_tube(mask[None])[0], tube)
    assert not tubes[1].any()


@pytest.mark.parametrize("loss", [soft_cldice_loss, skeleton_recall_loss])
def test_logits_and_other_shapes_are_refused(loss):
    mask = volume(bar())
    for low, high in ((-3.0, 2.0), (0.0, 1.5), (float("nan"), 1.0)):
        logits = torch.full(mask.shape, high)
        logits[..., 0] = low
        with pytest.raises(ValueError, match="logits"):
            loss(logits, mask)
    with pytest.raises(ValueError, match=r"\(9, 11, 24\)"):
        loss(torch.zeros(9, 11, 24), mask[0, 0])
    with pytest.raises(ValueError, match=r"\(1, 1, 2, 2, 2\)"):
        loss(torch.zeros(1, 1, 2, 2, 2), mask)
    with pytest.raises(ValueError, match="smooth"):
        loss(torch.zeros(mask.shape), mask, smooth=0)


@pytest.mark.parametrize("logit", [-20.0, 0.0, 20.0])
def test_a_batch_of_empty_masks_gives_a_finite_loss_and_gradient(logit):
    loss = SegmentationLoss(cldice=0.5, skeleton_recall=0.5)
    logits = (logit + torch.randn(2, 1, 8, 9, 10, generator=torch.Generator().manual_seed(0))).requires_grad_()
    value = loss(logits, torch.zeros(2, 1, 8, 9, 10))
    value.backward()
    assert torch.isfinite(value)
    assert torch.isfinite(logits.grad).all()
    probability = torch.zeros(2, 1, 8, 9, 10)
    assert soft_cldice_loss(probability, probability) == 0
    assert skeleton_recall_loss(probability, probability) == 0


def test_all_of_them_lie_in_their_range():
    generator = torch.Generator().manual_seed(0)
    for share in (0.0, 0.01, 0.5, 1.0):
        p = torch.rand(2, 1, 7, 8, 9, generator=generator)
        mask = torch.rand(p.shape, generator=generator) < share
        for loss in (soft_cldice_loss, skeleton_recall_loss):
            assert 0 <= loss(p, mask).item() <= 1


def test_segmentation_loss_is_the_weighted_sum_of_its_parts():
    mask = volume(bar())
    logits = torch.randn(mask.shape, generator=torch.Generator().manual_seed(0))
    value, parts = SegmentationLoss(cldice=0.4, skeleton_recall=0.3, iterations=5, radius=1).with_parts(logits, mask)
    expected = {
        "dice_ce": dice_cross_entropy()(logits, mask.float()),
        "cldice": soft_cldice_loss(logits.sigmoid(), mask, iterations=5),
        "skeleton_recall": skeleton_recall_loss(logits.sigmoid(), mask, radius=1),
    }
    assert parts == expected
    torch.testing.assert_close(value, parts["dice_ce"] + 0.4 * parts["cldice"] + 0.3 * parts["skeleton_recall"])
    plain = SegmentationLoss()
    assert plain(logits, mask) == expected["dice_ce"]
    assert list(plain.with_parts(logits, mask)[1]) == ["dice_ce"]
    for name in ("cldice", "skeleton_recall", "iterations", "radius"):
        with pytest.raises(ValueError, match=f"{name} must not be negative, got -1"):
            SegmentationLoss(**{name: -1})


def test_a_tube_of_two_by_two_voxels_has_a_skeleton_to_be_recalled():
    mask = torch.zeros(1, 1, 8, 8, 20)
    mask[..., 3:5, 3:5, 4:16] = 1  # scikit-image's 3D skeleton of it is empty
    along_x = skeleton_tube(mask, radius=0)[0, 0].any(dim=0).any(dim=0)
    assert along_x[5:15].all()


# --- sparse annotation: a loss is that of the known voxels alone


def sparse_batch():
    """Random logits and masks of two crops, of which one slab and one slice are known."""
    generator = torch.Generator().manual_seed(3)
    logits = torch.randn(2, 1, 9, 8, 7, generator=generator, dtype=torch.float64).mul(3).requires_grad_()
    mask = (torch.rand(logits.shape, generator=generator) < 0.3).double()
    known = torch.zeros(logits.shape, dtype=torch.bool)
    known[0, :, 2:4], known[1, :, 6] = True, True
    return logits, mask, known


def test_dice_and_cross_entropy_are_those_of_a_dense_tensor_of_the_known_voxels():
    logits, mask, known = sparse_batch()
    loss = dice_cross_entropy()
    # two slices of the first crop, one of the second: three dense crops of one slice
    slices = [torch.cat([t[:1, :, 2:3], t[:1, :, 3:4], t[1:, :, 6:7]]) for t in (logits, mask)]
    torch.testing.assert_close(loss(logits, mask, known), loss(*slices), rtol=1e-12, atol=0)
    torch.testing.assert_close(loss(logits, mask, torch.ones_like(known)), loss(logits, mask), rtol=1e-12, atol=0)
    loss(logits, mask, known).backward()
    assert (logits.grad[~known] == 0).all() and (logits.grad[known] != 0).all()


@pytest.mark.parametrize(("loss", "depth"), [(soft_cldice_loss, 1), (soft_cldice_loss, 2), (skeleton_recall_loss, 2)])
def test_a_loss_on_skeletons_is_that_of_the_cut_out_slab(loss, depth):
    logits, _, _ = sparse_batch()
    probability = logits[:1].sigmoid()
    mask = volume(bar(thickness=5, length=5, shape=(9, 8, 7)))  # nearly fills the crop: thicker than a slab
    known = torch.zeros(mask.shape, dtype=torch.bool)
    slab = slice(4, 4 + depth)
    known[:, :, slab] = True
    expected = loss(probability[:, :, slab], mask[:, :, slab])
    value = loss(probability, mask, known=known)
    torch.testing.assert_close(value, expected, rtol=1e-12, atol=0)
    assert value != loss(probability, mask)
    torch.testing.assert_close(loss(probability, mask, known=torch.ones_like(known)), loss(probability, mask))
    (gradient,) = torch.autograd.grad(value, probability)
    assert (gradient[~known] == 0).all() and (gradient[known] != 0).any()


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_a_neurite_in_one_known_slice_has_a_tube_around_its_2d_skeleton(axis):
    cylinder = np.zeros((9, 11, 24), bool)
    cylinder[2:7, 3:8, 2:22] = True  # five voxels thick; in 3D scikit-image finds no skeleton of one slice of it
    mask = np.moveaxis(cylinder, 0, axis)
    known = np.zeros_like(mask)
    known[(slice(None),) * axis + ([3, 5],)] = True
    tubes = np.moveaxis(skeleton_tube(volume(mask), known=volume(known), radius=1)[0, 0].numpy(), axis, 0)
    assert not tubes[[0, 1, 2, 4, 6, 7, 8]].any()
    for tube in tubes[[3, 5]]:
        middle = tube[:, 6:18]  # away from the ends
        assert middle[4:7].all() and not middle[:4].any() and not middle[7:].any()


def test_all_parts_of_the_segmentation_loss_leave_out_what_is_not_known():
    logits, mask, known = sparse_batch()
    loss = SegmentationLoss(cldice=0.5, skeleton_recall=0.5)
    value, parts = loss.with_parts(logits, mask, known)
    changed = torch.where(known, logits, torch.randn_like(logits)), torch.where(known, mask, 1 - mask)
    again, same = loss.with_parts(*changed, known)
    assert torch.equal(value, again) and parts == same and set(parts) == {"dice_ce", "cldice", "skeleton_recall"}
    assert value == loss(logits, mask, known)
    p = logits.sigmoid()
    assert parts["cldice"] == soft_cldice_loss(p, mask, known=known)
    assert parts["skeleton_recall"] == skeleton_recall_loss(p, mask, known=known)


def test_known_that_says_nothing_is_refused():
    logits, mask, known = sparse_batch()
    calls = [dice_cross_entropy(), lambda x, m, k: soft_cldice_loss(x.sigmoid(), m, known=k)]
    for loss in calls:
        for bad, words in ((known[:1], "shape"), (known.float(), "boolean"), (known & False, "no known voxel")):
            with pytest.raises(ValueError, match=words):
                loss(logits, mask, bad)
