"""A model's average precision under what microscopes, converters and detectors do to a stack."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from test_intensity import CHANGES
from torch import nn

import neurokd
from neurokd.models.storage import released_models

HARMLESS = ("100 ppm hot", "1,000 ppm hot, uint16", "dead float", "offset", "gain, uint16", "int16", "border")


def changes_of_average_precision(model: nn.Module, volume: NDArray, mask: NDArray[np.bool_]) -> dict[str, float]:
    """Return by how much each harmless change of a stack, and cutting away half of it, changes average precision."""
    half = np.s_[:, :, : volume.shape[2] // 2]
    before = neurokd.predict(model, volume)
    whole = neurokd.average_precision(before, mask)
    changes = {}
    for name in HARMLESS:
        spoil, inside, _ = CHANGES[name]
        after = neurokd.predict(model, spoil(volume.astype(np.float32)))[inside]
        changes[name] = neurokd.average_precision(after, mask) - whole
    after = neurokd.average_precision(neurokd.predict(model, volume[half]), mask[half])
    return changes | {"half": after - neurokd.average_precision(before[half], mask[half])}


@pytest.mark.slow
@pytest.mark.parametrize("background", ["zero", "noisy"])
@pytest.mark.parametrize("name", sorted(released_models()))
def test_harmless_changes_of_a_stack_do_not_change_average_precision(name: str, background: str) -> None:
    (sample,) = neurokd.simulated_neurons(1, seed=11, shape=(16, 128, 256))  # half of it fills a window
    volume = sample.volume
    if background == "noisy":
        noise = np.random.default_rng(0).normal(60, 4, volume.shape)
        volume = (noise + 0.7 * volume).clip(0, 255).round().astype(np.uint8)
    model = neurokd.NeuronSegmenter.from_pretrained(name)
    changes = changes_of_average_precision(model, volume, sample.mask)
    assert max(abs(change) for change in changes.values()) < 0.02, changes
