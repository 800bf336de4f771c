"""Our ViT against timm's, every block, with every parameter randomised (identity 1)."""

import pytest
import timm
import torch
from einops import repeat

from neurokd.models.families import vit_config
from neurokd.models.inflate import inflate_state_dict
from neurokd.models.vit import ViT3D, ViTConfig

SMALL = {"depth": 3, "embed_dim": 64, "num_heads": 4, "patch_size": 4, "img_size": 20}
ARCHITECTURES = {  # the structure of each family, small
    "vit_small_patch16_224": SMALL,  # also DINO, MAE and DeiT
    "vit_small_patch14_dinov2": SMALL,
    "vit_small_patch14_reg4_dinov2": SMALL,
    "vit_giant_patch14_dinov2": SMALL | {"mlp_ratio": 4},  # packed SwiGLU
    "deit3_small_patch16_224": SMALL,
    "deit_small_distilled_patch16_224": SMALL,
    "vit_base_patch16_clip_quickgelu_224": SMALL,
    "vit_base_patch16_siglip_224": SMALL,
    "vit_so400m_patch16_siglip_256": SMALL,
    "vit_small_patch16_dinov3": SMALL,
    "vit_small_patch16_dinov3_qkvb": SMALL,
    "vit_small_plus_patch16_dinov3": SMALL,
    "eva_giant_patch14_224": SMALL,
}


def randomised(architecture, *, seed=0, depth=3, **options):
    """A timm model in float64 whose every parameter is drawn anew: a fresh one's LayerScale of 1e-5 hides errors."""
    vit = timm.create_model(architecture, num_classes=0, dynamic_img_size=True, depth=depth, **options).double().eval()
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in vit.named_parameters():
        spread = 0.3 if parameter.ndim == 1 or "embed" in name or "token" in name else 2 * parameter[0].numel() ** -0.5
        noise = spread * torch.randn(parameter.shape, dtype=parameter.dtype, generator=generator)
        parameter.data = noise + (1.0 if "norm" in name and name.endswith("weight") else 0.0)
    return vit


def timm_block_outputs(vit, images):
    """The input of the first block and the output of every block, prefix tokens included."""
    outputs = []
    hooks = [vit.blocks[0].register_forward_pre_hook(lambda _, args: outputs.append(args[0]))]
    hooks += [block.register_forward_hook(lambda _, __, out: outputs.append(out)) for block in vit.blocks]
    final = vit.forward_features(images)
    for hook in hooks:
        hook.remove()
    return outputs, final


def as_volume_model(vit, *, inflation="center", depth=1, slabs=1, token=None, mean=None, std=None, **options):
    """The inflated counterpart of a timm model, in its dtype; by default no normalisation is folded in."""
    config = vit_config(vit)
    token = token or (depth, *config.patch)
    state = inflate_state_dict(
        vit.state_dict(),
        config,
        token=token,
        inflation=inflation,
        mean=mean or [0] * 3,
        std=std or [1] * 3,
        slabs=slabs,
    )
    model = ViT3D(config, token=token, slabs=slabs, **options).to(next(vit.parameters()).dtype)
    model.load_state_dict(state)
    return model.eval()


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("patches", [(5, 5), (3, 7)], ids=["own grid", "other grid"])
@torch.no_grad()
def test_equals_timm_in_every_block(architecture, patches):
    vit = randomised(architecture, **ARCHITECTURES[architecture])
    p = vit.patch_embed.patch_size[0]
    grey = torch.rand(2, 1, patches[0] * p, patches[1] * p, dtype=torch.float64)
    theirs, final = timm_block_outputs(vit, repeat(grey, "b 1 y x -> b 3 y x"))

    model = as_volume_model(vit)
    ours = [model.embed(grey[:, :, None]), *model.block_outputs(grey[:, :, None], range(len(vit.blocks)))]
    for a, b, before in zip(ours[1:], theirs[1:], theirs[:-1], strict=True):
        assert (b - before).abs().max() > 0.01 * before.abs().max()  # the block does something
        torch.testing.assert_close(a, b, rtol=0, atol=1e-9 * b.abs().max().item())
    torch.testing.assert_close(ours[0], theirs[0], rtol=0, atol=1e-9)
    torch.testing.assert_close(model(grey[:, :, None]), final, rtol=0, atol=1e-9)


def test_positions_survive_a_round_trip():
    config = ViTConfig(dim=8, depth=1, heads=2, hidden=16, patch=(4, 4), grid=(3, 5))
    model = ViT3D(config, token=(2, 4, 4), slabs=3)
    on_prefix, on_patches = model.positions((1, 3, 5))
    assert torch.equal(torch.cat([on_prefix, on_patches], dim=1), model.pos_embed)
    torch.nn.init.normal_(model.depth_embed)
    by_slab = model.positions((3, 3, 5))[1].reshape(3, 15, 8) - on_patches
    assert torch.allclose(by_slab, model.depth_embed.transpose(0, 1).expand(-1, 15, -1), atol=1e-6)


def test_depth_embedding_of_a_scratch_model_starts_at_zero():
    model = ViT3D(ViTConfig(dim=8, depth=1, heads=2, hidden=16, patch=(4, 4), grid=(3, 5)), token=(2, 4, 4), slabs=3)
    assert not model.depth_embed.any()


def test_bad_sizes_and_blocks_are_named():
    config = ViTConfig(dim=8, depth=2, heads=2, hidden=16, patch=(4, 4), grid=(3, 5))
    model = ViT3D(config, token=(2, 4, 4))
    with pytest.raises(ValueError, match=r"volume .*\(2, 4, 4\).*\(1, 1, 3, 8, 8\)"):
        model(torch.zeros(1, 1, 3, 8, 8))
    for blocks in ([], [1, 0], [2]):
        with pytest.raises(ValueError, match="blocks"):
            model.block_outputs(torch.zeros(1, 1, 2, 8, 8), blocks)
    with pytest.raises(ValueError, match=r"dim .* 9"):
        ViTConfig(dim=9, depth=1, heads=2, hidden=16, patch=(4, 4), grid=(3, 5))
    with pytest.raises(ValueError, match="activation"):
        ViTConfig(dim=8, depth=1, heads=2, hidden=16, patch=(4, 4), grid=(3, 5), activation="silu")


def test_an_attention_that_there_is_not_is_refused():
    with pytest.raises(ValueError, match=r"attention .* 'slabs'"):
        ViT3D(
            ViTConfig(dim=8, depth=1, heads=2, hidden=8, patch=(4, 4), grid=(2, 2)), token=(1, 4, 4), attention="slabs"
        )
