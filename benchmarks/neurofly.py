"""NeuroFly's network for neurites, untouched: the rival that was trained on real stacks (fMOST and VISoR).

The package neurofly 0.1.4 (GPL-3) carries a 3D U-Net of 1.36 million weights, ``universal_tiny.pth``. pip
downloads the wheel into the user's cache, its SHA-256 is checked, and the module that defines the network is
imported from within that file. It is not installed, no part of it is copied into this repository, and its
weights are read without running code (``weights_only``).

What its pipeline does is followed from its code: a stack of at most 128 voxels a side goes through whole, a
larger one in blocks of 100 with a border of 4, mirrored at the stack's ends; each block is scaled by its own
minimum and maximum; a voxel is foreground from 0.5 on. Three things differ. Sides that two poolings cannot
halve are mirrored up to a multiple of 4 (its network fails on them). A block that is the same everywhere
holds nothing (there it divides by zero). Its cut at a raw brightness of 150, a setting for the 16-bit stacks
of its microscopes, is left out: of 8-bit stacks it leaves nearly nothing. It also drops specks under 50
voxels, which is `nkd.trace`'s task here.
"""

from __future__ import annotations

import importlib.util
import io
import logging
import tempfile
import zipfile
import zipimport
from collections.abc import Callable
from itertools import product
from pathlib import Path

import numpy as np
import pooch
import torch
from numpy.typing import NDArray

from neurokd.data.files import cache_folder
from neurokd.models.wheels import download_wheel

REQUIREMENT = "neurofly==0.1.4"
SHA256 = "01630a1c47b6b0a067acfb8d02339a59f54c0a409f532b0c0ee598330f4dea6e"
WEIGHTS = "neurofly/models/universal_tiny.pth"
BLOCK, BORDER, WHOLE = 100, 4, 128  # voxels

logger = logging.getLogger(__name__)


def wheel() -> Path:
    """Return the wheel in the user's cache, downloaded where it is not there, checked in any case."""
    path = cache_folder() / "wheels" / "neurofly-0.1.4-py3-none-any.whl"
    if not path.is_file():
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=path.parent) as folder:
            download_wheel(REQUIREMENT, SHA256, Path(folder)).replace(path)
    if (found := pooch.file_hash(str(path))) != SHA256:
        raise ValueError(f"{path} has SHA-256 {found}, expected {SHA256}; remove it")
    return path


def network() -> torch.nn.Module:
    """Return the network with its weights, as its package builds it."""
    path = wheel()
    spec = zipimport.zipimporter(str(path / "neurofly" / "models")).find_spec("unet_torch")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    model = module.UNet(1, 1, [32, 64, 128], norm_type="batch", dim=3)
    with zipfile.ZipFile(path) as archive:
        state = torch.load(io.BytesIO(archive.read(WEIGHTS)), map_location="cpu", weights_only=True)
    state = state.get("model", state)
    model.load_state_dict({key.removeprefix("module."): value for key, value in state.items()})
    return model.eval()


def predict(model: Callable[[torch.Tensor], torch.Tensor], volume: NDArray) -> NDArray[np.float32]:
    """Return the probabilities (z, y, x) of a raw volume, computed in blocks as the package does it."""
    if max(volume.shape) <= WHOLE:
        margin = [(0, -n % 4) for n in volume.shape]
        return _block(model, np.pad(volume, margin, mode="reflect"))[tuple(map(slice, volume.shape))]
    bordered = np.pad(volume, BORDER, mode="reflect")
    probability = np.zeros(volume.shape, dtype=np.float32)
    for corner in product(*(range(0, n, BLOCK) for n in volume.shape)):
        size = np.minimum(BLOCK, np.subtract(volume.shape, corner))
        block = bordered[tuple(map(slice, corner, corner + size + 2 * BORDER))]
        block = np.pad(block, [(0, BLOCK - n) for n in size], mode="reflect")
        inner = _block(model, block)[tuple(slice(BORDER, BORDER + n) for n in size)]
        probability[tuple(map(slice, corner, corner + size))] = inner
        logger.info("neurofly: block at %s", corner)
    return probability


@torch.no_grad()
def _block(model: Callable[[torch.Tensor], torch.Tensor], block: NDArray) -> NDArray[np.float32]:
    low, high = float(block.min()), float(block.max())
    if low == high:
        return np.zeros(block.shape, dtype=np.float32)
    scaled = ((block - low) / (high - low)).astype(np.float32)
    return model(torch.from_numpy(scaled)[None, None])[0, 0].numpy()  # 1 1 z y x -> z y x
