"""Which of timm's models fit, what their weights are called, and that loading them is all or nothing."""

import pytest
import timm
import torch
from test_vit import SMALL, randomised

from neurokd.models.families import fill, vit_config


def small(architecture, **options):
    return timm.create_model(architecture, **(SMALL | options))


@pytest.mark.parametrize(
    ("architecture", "expected"),
    [
        ("vit_small_patch14_reg4_dinov2", {"registers": 4, "layer_scale": True, "position_on_prefix": False}),
        ("deit_small_distilled_patch16_224", {"class_token": True, "registers": 1, "position_on_prefix": True}),
        ("vit_base_patch16_clip_quickgelu_224", {"pre_norm": True, "activation": "quick_gelu"}),
        ("vit_base_patch16_siglip_224", {"class_token": False, "activation": "gelu", "final_norm": True}),
        ("vit_so400m_patch16_siglip_256", {"class_token": False, "activation": "gelu_tanh"}),
        ("vit_small_patch16_dinov3", {"rope_temperature": 100.0, "learned_position": False, "qkv_bias": False}),
        ("vit_small_plus_patch16_dinov3_qkvb", {"registers": 4, "activation": "swiglu", "qkv_bias": True}),
    ],
)
def test_what_each_family_is_made_of(architecture, expected):
    config = vit_config(small(architecture), depth=2)
    assert {name: getattr(config, name) for name in expected} == expected
    assert (config.depth, config.dim, config.heads, config.patch) == (2, 64, 4, (4, 4))


@pytest.mark.parametrize(
    ("architecture", "options", "part"),
    [
        ("resnet18", None, "not a plain"),
        ("beit_base_patch16_224", SMALL, "not a plain"),
        ("vit_small_patch16_224", SMALL | {"qk_norm": True}, "q_norm"),
        ("vit_small_patch16_224", SMALL | {"pos_embed": "none"}, "no position embedding"),
        ("vit_small_patch16_224", SMALL | {"act_layer": "relu"}, "activation is ReLU"),
        ("vit_small_patch16_224", SMALL | {"norm_layer": "rmsnorm"}, "norms are RmsNorm"),
        ("vit_small_patch16_224", SMALL | {"in_chans": 1}, "1 channels, not 3"),
        ("vit_small_patch16_18x2_224", SMALL, "blocks are ParallelThingsBlock"),
        ("eva02_tiny_patch14_224", SMALL, "RotaryEmbeddingCat, not DINOv3's"),
        ("vit_small_patch16_dinov3", SMALL | {"rope_rotate_half": False}, "laid out in another way"),
        ("vit_small_patch16_dinov3", SMALL | {"scale_attn_inner": True}, "attention has a norm"),
        ("vit_small_patch16_dinov3", SMALL | {"qkv_fused": False}, "separate projections"),
    ],
)
def test_what_does_not_fit_is_refused_by_part(architecture, options, part):
    vit = timm.create_model(architecture, **(options or {}))
    with pytest.raises(ValueError, match=f"vit .*{part}"):
        vit_config(vit)


@pytest.mark.parametrize(
    ("published", "ours"),
    [
        (("vit_base_patch16_siglip_224", {}), ("vit_base_patch16_siglip_gap_224", {})),  # one file for both on the hub
        (("vit_small_patch16_224", {"global_pool": "avg", "fc_norm": True}),) * 2,
        (("deit_small_distilled_patch16_224", {}),) * 2,
        (("vit_small_plus_patch16_dinov3_qkvb", {"num_classes": 10}), ("vit_small_plus_patch16_dinov3_qkvb", {})),
    ],
    ids=["attention pool", "norm after pooling", "two heads", "classifier"],
)
def test_heads_are_left_out_and_nothing_else(published, ours):
    source = small(published[0], **published[1])
    state = source.state_dict()
    vit = small(ours[0], **ours[1])
    fill(vit, state)
    assert not [key for key in vit.state_dict() if key.startswith(("head", "fc_norm", "attn_pool"))]
    images = torch.rand(1, 3, 20, 20)
    assert torch.equal(vit.eval().forward_features(images), source.eval().forward_features(images))
    with pytest.raises(ValueError, match=r"unexpected \['something\.weight'\]"):
        fill(small(ours[0], **ours[1]), state | {"something.weight": torch.zeros(1)})
    del state["blocks.1.norm2.weight"]
    with pytest.raises(ValueError, match=r"missing \['blocks\.1\.norm2\.weight'\]"):
        fill(small(ours[0], **ours[1]), state)
    with pytest.raises(ValueError, match=r"shape \(.*32,?\), got \(.*64,?\)"):
        fill(small(ours[0], **ours[1], embed_dim=32), source.state_dict())


def as_meta_publishes(vit):
    """A DINOv3 state dict under the names of the authors' repository."""
    state = {}
    for key, value in vit.state_dict().items():
        key = key.replace("gamma_", "ls").replace("reg_token", "storage_tokens")
        state[f"{key}.gamma" if key.endswith(("ls1", "ls2")) else key] = value
    for i in range(len(vit.blocks)):
        stem = f"blocks.{i}.attn."
        q, v = (state.pop(f"{stem}{name}", torch.zeros(64)) for name in ("q_bias", "v_bias"))
        state[f"{stem}qkv.bias"] = torch.cat([q, torch.randn(64), v])
        state[f"{stem}qkv.bias_mask"] = torch.cat([torch.ones(64), torch.zeros(64), torch.ones(64)])
    return state | {"mask_token": torch.randn(1, 64), "rope_embed.periods": torch.randn(4)}


def test_dinov3_as_its_authors_publish_it(capsys):
    names = ("vit_small_patch16_dinov3_qkvb", "vit_small_patch16_dinov3")
    with_biases, without = (randomised(name, **SMALL).float() for name in names)
    for name, vit in zip(names, (with_biases, without), strict=True):
        same = small(name)
        fill(same, as_meta_publishes(vit))
        images = torch.rand(1, 3, 20, 20)
        assert torch.equal(same.eval().forward_features(images), vit.forward_features(images))
    assert capsys.readouterr().out == ""
    with pytest.raises(ValueError, match=r"blocks\.0\.attn\.qkv\.bias .*_qkvb"):
        fill(without, as_meta_publishes(with_biases))
