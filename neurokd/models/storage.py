"""A model as a folder of two files: settings as JSON, weights as safetensors. Neither can run code when it is read.

Released models are such folders within the package, each with its model card, so that they are there offline.
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
    """Return where a model is, given the name of a released one or a folder.

    Raises
    ------
    ValueError
        If the string names a released model and something in the current directory as well.
    """
    folder = Path(name_or_folder)
    if name_or_folder not in released_models():  # nor is Path("name"), which is a folder
        return folder
    if folder.exists():
        raise ValueError(
            f"{name_or_folder!r} is a released model, and there is {folder.resolve()} as well; write './{folder}' for "
            "the latter, or give it another name"
        )
    return RELEASED / folder


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
        temporary.chmod(0o755)  # temporary folders are their owner's alone, and so is what safetensors writes
        (temporary / WEIGHTS).chmod(0o644)
        os.replace(temporary, folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return folder


def read_model(folder: str | os.PathLike[str]) -> tuple[SegmenterConfig, dict[str, Tensor]]:
    """Read a model's folder, weights of any precision as float32; as :meth:`NeuronSegmenter.from_pretrained`."""
    from safetensors.torch import load_file

    folder = Path(folder)
    for name in (CONFIG, WEIGHTS):
        if not (folder / name).is_file():
            raise FileNotFoundError(
                f"{folder} holds no {name}; it is neither a folder written by save_pretrained nor a released model, "
                f"which are: {', '.join(released_models())}"
            )
    try:
        config = SegmenterConfig(**json.loads((folder / CONFIG).read_text()))
    except (TypeError, ValueError) as error:
        raise ValueError(f"{folder / CONFIG} is not a segmenter's: {error}") from error
    try:
        state = load_file(folder / WEIGHTS)
    except Exception as error:
        raise ValueError(f"{folder / WEIGHTS} cannot be read: {error}") from error
    return config, {key: value.float() if value.is_floating_point() else value for key, value in state.items()}
