"""A model as a folder of two files: settings as JSON, weights as safetensors. Reading them runs no code.

Released models are such folders within the package, each with its model card, so they need no network.
"""

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

__all__ = ["model_folder", "read_model", "released_models", "write_model"]

CONFIG, WEIGHTS = "config.json", "model.safetensors"
RELEASED = Path(__file__).parents[1] / "weights"


def released_models() -> list[str]:
    """Return the names of the models that come with the package."""
    return sorted(path.parent.name for path in RELEASED.glob(f"*/{CONFIG}"))


def model_folder(name_or_folder: str | os.PathLike[str]) -> Path:
    """Return the folder of a model, given the name of a released model or a folder.

    Raises
    ------
    ValueError
        If the string names both a released model and something in the current directory.
    """
    folder = Path(name_or_folder)
    if name_or_folder not in released_models():  # a Path always means a folder, and never equals a string
        return folder
    if folder.exists():
        raise ValueError(
            f"name_or_folder must not be both a released model and a path, got {name_or_folder!r} and "
            f"{folder.resolve()}; write './{folder}' for the latter, or rename it"
        )
    return RELEASED / folder


def write_model(
    folder: str | os.PathLike[str], config: SegmenterConfig, state: Mapping[str, Tensor], *, overwrite: bool
) -> Path:
    """Write the folder of a model completely or not at all, see :meth:`NeuronSegmenter.save_pretrained`."""
    from safetensors.torch import save_file

    folder = Path(folder)
    if folder.exists() and not (overwrite and {p.name for p in folder.iterdir()} <= {CONFIG, WEIGHTS}):
        raise FileExistsError(
            f"folder must be new, or hold nothing but a model with overwrite=True, got {folder}, which exists"
        )
    folder.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{folder.name}-"))
    try:
        save_file({key: value.contiguous().cpu() for key, value in state.items()}, temporary / WEIGHTS)
        (temporary / CONFIG).write_text(json.dumps(asdict(config), indent=1) + "\n")
        if folder.exists():
            shutil.rmtree(folder)
        temporary.chmod(0o755)  # only the owner may read temporary folders and what safetensors writes
        (temporary / WEIGHTS).chmod(0o644)
        os.replace(temporary, folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return folder


def read_model(folder: str | os.PathLike[str]) -> tuple[SegmenterConfig, dict[str, Tensor]]:
    """Read the folder of a model with its weights in float32, see :meth:`NeuronSegmenter.from_pretrained`."""
    from safetensors.torch import load_file

    folder = Path(folder)
    for name in (CONFIG, WEIGHTS):
        if not (folder / name).is_file():
            raise FileNotFoundError(
                f"name_or_folder must be a folder written by save_pretrained or a released model "
                f"({', '.join(released_models())}), got {folder}, which holds no {name}"
            )
    try:
        config = SegmenterConfig(**json.loads((folder / CONFIG).read_text()))
    except (TypeError, ValueError) as error:
        raise ValueError(f"{folder / CONFIG} must hold the settings of a segmenter: {error}") from error
    try:
        state = load_file(folder / WEIGHTS)
    except Exception as error:
        raise ValueError(f"{folder / WEIGHTS} cannot be read: {error}") from error
    for key, value in state.items():
        state[key] = value.float() if value.is_floating_point() else value
    return config, state
