"""The rotation against timm's, and against multiplication by complex numbers."""

import torch
from timm.layers.pos_embed_sincos import RotaryEmbeddingDinoV3

from neurokd.models.rope import rotary_angles, rotate


def test_angles_are_timms_in_every_slab_and_zero_on_the_prefix():
    embed = RotaryEmbeddingDinoV3(16, temperature=100.0).get_embed([3, 5])
    sin, cos = embed[:, :8], embed[:, 16:24]  # timm repeats each half of the channels
    angles = rotary_angles((2, 3, 5), head_dim=16, temperature=100.0, prefix=4, like=torch.zeros(1))
    assert angles.shape == (4 + 2 * 15, 8)
    assert not angles[:4].any()
    for slab in angles[4:].split(15):
        assert torch.equal(slab.sin(), sin)
        assert torch.equal(slab.cos(), cos)


def test_rotation_is_a_complex_product_and_sees_distances_only():
    q, k, angles = torch.randn(2, 3, 7, 8), torch.randn(2, 3, 7, 8), torch.randn(7, 4)
    turned = rotate(q, angles.cos(), angles.sin())
    expected = torch.complex(q[..., :4], q[..., 4:]) * torch.exp(1j * angles)
    torch.testing.assert_close(turned, torch.cat([expected.real, expected.imag], dim=-1))
    # The same further turn of queries and keys leaves every product as it was.
    products = [
        rotate(q, (angles + turn).cos(), (angles + turn).sin())
        @ rotate(k, (angles + turn).cos(), (angles + turn).sin()).mT
        for turn in (0, 1.3)
    ]
    torch.testing.assert_close(*products, rtol=1e-4, atol=1e-4)
