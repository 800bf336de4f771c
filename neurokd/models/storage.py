"""A model as a folder of two files: settings as JSON, weights as safetensors. Neither can run code when it is read."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path

from torch import Tensor

from neurokd.models.config import SegmenterConfig

__all__ = ["read_model", "write_model"]

CONFIG, WEIGHTS = "config.json", "model.safetensors"


def write_model(
    folder: str | os.PathLike[str], config: SegmenterConfig, state: Mapping[str, Tensor], *, overwrite: bool
) -> Path:
    """Write a model's folder in one piece or not at all; as :meth:`NeuronSegmenter.save_pretrained`."""
    from safetensors.torch import save_file

    folder = Path(folder)
    if folder.exists() and not (overwrite and {p.name for p in folder.iterdir()} <= {CONFIG, WEIGHTS}):
        raise FileExistsError(f"{folder} exists; choose another folder or, if it holds a model only, overwrite=True")
    folder.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{folder.name}-"))
    try:
        save_file({key: value.contiguous().cpu() for key, value in state.items()}, temporary / WEIGHTS)
        (temporary / CONFIG).write_text(json.dumps(asdict(config), indent=1) + "\n")
        if folder.exists():
            shutil.rmtree(folder)
        temporary.chmod(0o755)  # temporary folders are their owner's alone
        os.replace(temporary, folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return folder


def read_model(folder: str | os.PathLike[str]) -> tuple[SegmenterConfig, dict[str, Tensor]]:
    """Read a model's folder; as :meth:`NeuronSegmenter.from_pretrained`."""
    from safetensors.torch import load_file

    folder = Path(folder)
    for name in (CONFIG, WEIGHTS):
        if not (folder / name).is_file():
            raise FileNotFoundError(f"{folder} holds no {name}; is it a folder written by save_pretrained?")
    try:
        config = SegmenterConfig(**json.loads((folder / CONFIG).read_text()))
    except (TypeError, ValueError) as error:
        raise ValueError(f"{folder / CONFIG} is not a segmenter's: {error}") from error
    try:
        return config, load_file(folder / WEIGHTS)
    except Exception as error:
        raise ValueError(f"{folder / WEIGHTS} cannot be read: {error}") from error
