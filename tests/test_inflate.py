"""What inflation keeps exactly (identities 2 and 3), against timm and against the teacher on resized images."""

import pytest
import timm
import torch
from einops import rearrange, repeat
from test_vit import ARCHITECTURES, as_volume_model, randomised, timm_block_outputs
from torch.nn import functional as F

from neurokd.models.inflate import _resize_matrix, grey_fold, inflate_depth, inflate_kernel, resize_kernel

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def normalised(grey):
    """RGB-replicated and normalised as the teacher wants it."""
    mean, std = (torch.tensor(v, dtype=grey.dtype).view(3, 1, 1) for v in (MEAN, STD))
    return (repeat(grey, "b 1 y x -> b 3 y x") - mean) / std


@pytest.mark.parametrize("bias", [True, False])
def test_grey_fold_equals_the_rgb_convolution(bias):
    conv = torch.nn.Conv2d(3, 7, 4, stride=4, bias=bias).double()
    grey = torch.rand(2, 1, 8, 12, dtype=torch.float64)
    weight, offset = grey_fold(conv.weight, conv.bias, mean=MEAN, std=STD)
    torch.testing.assert_close(F.conv2d(grey, weight, offset, stride=4), conv(normalised(grey)), rtol=0, atol=1e-12)


@pytest.mark.parametrize("inflation", ["average", "center"])
@pytest.mark.parametrize("depth", [1, 2, 5])
def test_kernel_sums_over_depth_to_the_2d_kernel(inflation, depth):
    weight = torch.randn(6, 1, 4, 4, dtype=torch.float64)
    inflated = inflate_depth(weight, depth, inflation=inflation)
    torch.testing.assert_close(inflated.sum(dim=2), weight, rtol=0, atol=1e-14)
    assert inflated.shape[2] == depth
    if inflation == "center":
        assert torch.equal(inflated[:, :, depth // 2], weight)


@pytest.mark.parametrize("inflation", ["average", "center"])
@pytest.mark.parametrize("architecture", ARCHITECTURES)
@torch.no_grad()
def test_volume_constant_in_z_equals_the_teacher_on_the_slice(architecture, inflation):
    vit = randomised(architecture, **ARCHITECTURES[architecture])
    p = vit.patch_embed.patch_size[0]
    grey = torch.rand(1, 1, 3 * p, 4 * p, dtype=torch.float64)
    theirs, _ = timm_block_outputs(vit, normalised(grey))
    model = as_volume_model(vit, inflation=inflation, depth=3, mean=MEAN, std=STD)
    volume = repeat(grey, "b 1 y x -> b 1 z y x", z=3)
    for ours, their in zip(model.block_outputs(volume, range(len(vit.blocks))), theirs[1:], strict=True):
        torch.testing.assert_close(ours, their, rtol=0, atol=1e-9 * their.abs().max().item())


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@torch.no_grad()
def test_several_slabs_equal_the_teacher_under_balance_prefix_only(architecture):
    vit = randomised(architecture, **ARCHITECTURES[architecture])
    p, prefix = vit.patch_embed.patch_size[0], vit.num_prefix_tokens
    grey = torch.rand(1, 1, 3 * p, 4 * p, dtype=torch.float64)
    theirs = timm_block_outputs(vit, normalised(grey))[0][1:]
    volume = repeat(grey, "b 1 y x -> b 1 z y x", z=8)
    options = {"inflation": "center", "depth": 2, "slabs": 4, "mean": MEAN, "std": STD}
    balanced = as_volume_model(vit, balance_prefix=True, **options).block_outputs(volume, range(3))
    plain = as_volume_model(vit, **options).block_outputs(volume, range(3))
    for ours, their in zip(balanced, theirs, strict=True):
        expected = torch.cat([their[:, :prefix], their[:, prefix:].repeat(1, 4, 1)], dim=1)
        torch.testing.assert_close(ours, expected, rtol=0, atol=1e-9 * their.abs().max().item())
    without = (plain[-1][:, prefix:] - theirs[-1][:, prefix:].repeat(1, 4, 1)).abs().max()
    assert without > 1e-3 if prefix else without < 1e-9  # without prefix tokens there is nothing to balance


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@torch.no_grad()
def test_attention_within_slabs_is_the_teacher_on_each_middle_slice_whatever_lies_around(architecture):
    vit = randomised(architecture, **ARCHITECTURES[architecture])
    p, prefix = vit.patch_embed.patch_size[0], vit.num_prefix_tokens
    volume = torch.rand(2, 1, 9, 3 * p, 4 * p, dtype=torch.float64)
    options = {"inflation": "center", "depth": 3, "slabs": 3, "mean": MEAN, "std": STD}
    maps = as_volume_model(vit, attention="slab", balance_prefix=True, **options).feature_maps(volume, range(3))
    across = as_volume_model(vit, attention="volume", balance_prefix=True, **options).feature_maps(volume, range(3))
    for slab in range(3):
        theirs = timm_block_outputs(vit, normalised(volume[:, :, 3 * slab + 1]))[0][1:]
        for ours, joint, their in zip(maps, across, theirs, strict=True):
            expected = rearrange(their[:, prefix:], "b (y x) d -> b d y x", y=3)
            torch.testing.assert_close(ours[:, :, slab], expected, rtol=0, atol=1e-9 * their.abs().max().item())
            assert (joint[:, :, slab] - expected).abs().max() > 1e-3  # there the other slabs have a say


@pytest.mark.parametrize("token", [(8, 8), (4, 7), (14, 5)])
def test_smaller_token_gives_the_teachers_token_on_the_magnified_patch(token):
    weight = torch.randn(6, 3, 14, 14, dtype=torch.float64)
    patch = torch.rand(5, 3, *token, dtype=torch.float64)
    magnified = F.interpolate(patch, size=(14, 14), mode="bicubic", align_corners=False)
    small = resize_kernel(weight, token)
    torch.testing.assert_close(F.conv2d(patch, small), F.conv2d(magnified, weight), rtol=0, atol=1e-10)
    torch.testing.assert_close(small.sum((2, 3)), weight.sum((2, 3)), rtol=0, atol=1e-10)


def test_larger_token_gives_the_teachers_token_on_the_patch_as_timm_does():
    weight = torch.randn(6, 3, 8, 8)
    large = resize_kernel(weight, (12, 16))
    patch = torch.rand(5, 3, 8, 8)
    magnified = F.interpolate(patch, size=(12, 16), mode="bicubic", align_corners=False)
    torch.testing.assert_close(F.conv2d(magnified, large), F.conv2d(patch, weight), rtol=0, atol=1e-3)
    torch.testing.assert_close(
        large, timm.layers.resample_patch_embed(weight, [12, 16], antialias=False), rtol=0, atol=1e-4
    )


def test_pseudo_inverse_would_be_wrong_for_shrinking():
    """Why two rules: on the magnified patch the pseudo-inverse misses the teacher's token, the transpose does not."""
    weight = torch.randn(64, 3, 14, 14)
    patch = torch.rand(16, 3, 8, 8)
    truth = F.conv2d(F.interpolate(patch, size=(14, 14), mode="bicubic", align_corners=False), weight)
    pseudo = F.conv2d(patch, timm.layers.resample_patch_embed(weight, [8, 8]))
    ours = F.conv2d(patch, resize_kernel(weight, (8, 8)))
    assert (pseudo - truth).norm() > 0.2 * truth.norm() > 1e4 * (ours - truth).norm()


def test_same_size_is_the_identity():
    assert torch.equal(_resize_matrix(14, 14), torch.eye(14, dtype=torch.float64))


def test_inflated_kernel_has_a_bias_where_the_teacher_has_none():
    weight, bias = inflate_kernel(
        torch.randn(6, 3, 8, 8), None, token=(5, 4, 4), inflation="average", mean=MEAN, std=STD
    )
    assert weight.shape == (6, 1, 5, 4, 4)
    assert bias.shape == (6,)
    assert bias.abs().min() > 0


def test_bad_choices_are_named():
    weight = torch.zeros(1, 1, 4, 4)
    with pytest.raises(ValueError, match="'median'"):
        inflate_depth(weight, 3, inflation="median")
    with pytest.raises(ValueError, match=r"depth .* 0"):
        inflate_depth(weight, 0, inflation="center")
    with pytest.raises(ValueError, match=r"size .* \(0, 4\)"):
        resize_kernel(weight, (0, 4))
