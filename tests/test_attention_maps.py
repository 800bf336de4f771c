"""Attention as timm computes it against the formula on our own ViT, for every family; the teacher is left as it was."""

import pytest
import torch
from einops import rearrange, repeat
from test_vit import ARCHITECTURES, randomised

from neurokd.models.attention_maps import attention_maps
from neurokd.models.families import vit_config
from neurokd.models.inflate import inflate_state_dict
from neurokd.models.rope import rotate
from neurokd.models.teacher import Teacher, TeacherSource
from neurokd.models.vit import ViT3D

STATISTICS = {"mean": (0.5,) * 3, "std": (0.25,) * 3}


def small_teacher(architecture="vit_small_patch14_reg4_dinov2", **options):
    vit = randomised(architecture, **(ARCHITECTURES[architecture] | options))
    return Teacher(vit, **STATISTICS, source=TeacherSource("small", "file", "a test", "0"))


def softmax_of_the_formula(teacher, image, *, block):
    """softmax(q k^T / sqrt(d)) of a block, ``heads n n``, by our own ViT on the image as a volume of one slab."""
    config = vit_config(teacher.vit)
    vit = ViT3D(config, token=(1, *config.patch)).double().eval()
    state = teacher.vit.state_dict()
    vit.load_state_dict(inflate_state_dict(state, config, token=(1, *config.patch), inflation="center", **STATISTICS))
    volume = repeat(image, "1 1 y x -> 1 1 1 y x")
    tokens = vit.embed(volume) if block == 0 else vit.block_outputs(volume, [block - 1])[0]
    one = vit.blocks[block]
    q, k, _ = rearrange(one.attn.qkv(one.norm1(tokens)), "1 n (three h d) -> three 1 h n d", three=3, h=config.heads)
    turn = vit.rotation(vit.grid(volume), tokens)
    if turn is not None:
        q, k = rotate(q, *turn), rotate(k, *turn)
    return (q @ k.mT / q.shape[-1] ** 0.5).softmax(dim=-1)[0]


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@torch.no_grad()
def test_attention_equals_the_formula_in_every_family(architecture):
    teacher = small_teacher(architecture)
    config = vit_config(teacher.vit)
    image = torch.rand(1, 1, 12, 16, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    for block in (0, 2):
        shares = softmax_of_the_formula(teacher, image, block=block)
        for query, token in (((1, 2), config.prefix + 6), *([(None, 0)] if config.class_token else [])):
            expected = rearrange(shares[:, token, config.prefix :], "h (y x) -> 1 h y x", y=3)
            assert expected.std() > 0.01  # not the same share for all
            torch.testing.assert_close(
                attention_maps(teacher, image, block=block, query=query), expected, rtol=0, atol=1e-9
            )


@torch.no_grad()
def test_the_teacher_is_as_it_was():
    teacher, image = small_teacher(), torch.rand(1, 1, 12, 16, dtype=torch.float64)
    attention = teacher.vit.blocks[1].attn
    before, fused = teacher(image), attention.fused_attn
    attention_maps(teacher, image, block=1)
    assert torch.equal(teacher(image), before)
    assert attention.fused_attn == fused
    assert not attention.attn_drop._forward_hooks


def test_a_magnified_image_has_more_patches_to_look_at():
    teacher, image = small_teacher(), torch.rand(2, 1, 8, 12, dtype=torch.float64)
    maps = attention_maps(teacher, image, block=2, magnification=2.0)
    assert maps.shape == (2, 4, 4, 6)
    torch.testing.assert_close(maps, attention_maps(teacher, teacher.magnify(image, 2.0), block=2))
    total = maps.sum(dim=(2, 3))
    assert (total < 1).all() and (total > 0).all()  # class and register tokens keep a share for themselves


@pytest.mark.parametrize(
    ("options", "choice", "match"),
    [
        ({}, {"block": 3}, "block"),
        ({}, {"block": 0, "query": (2, 0)}, r"query.*\(2, 0\)"),
        ({"architecture": "vit_base_patch16_siglip_224"}, {"block": 0}, "query"),
        ({"architecture": "vit_small_patch16_224", "qk_norm": True}, {"block": 0}, "q_norm"),
    ],
)
def test_bad_questions_are_named(options, choice, match):
    with pytest.raises(ValueError, match=match):
        attention_maps(small_teacher(**options), torch.rand(1, 1, 8, 12, dtype=torch.float64), **choice)
