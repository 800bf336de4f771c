"""Any volume through a model that takes crops: overlapping windows, blended with a Gaussian (MONAI)."""

from __future__ import annotations

import logging
from typing import cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from neurokd.data.intensity import IntensityScale, scale_intensity
from neurokd.data.volume import check_volume

__all__ = ["predict"]

logger = logging.getLogger(__name__)

_FILL = -1.0  # where nothing was recorded, until the model sees it: for the model it is 0
_EMPTY = -10.0  # logit of a voxel in a window that holds nothing


@torch.no_grad()
def predict(
    model: nn.Module,
    volume: NDArray,
    *,
    window: tuple[int, int, int] | None = None,
    overlap: float = 0.25,
    batch_size: int = 1,
    progress: bool = False,
) -> NDArray[np.float32]:
    """Predict the probability that a voxel belongs to a neurite.

    Parameters
    ----------
    model
        Model that maps ``b 1 z y x`` in [0, 1] to logits of the same shape. It runs where its parameters are.
    volume
        Raw volume (z, y, x) of any size, also smaller than the window; intensities are scaled here, by the
        same function as in training.
    window
        Size (z, y, x) of the windows; by default ``model.config.window``, the crop that the model was made
        for.
    overlap
        Share of a window that overlaps the next, in [0, 1).
    batch_size
        Number of windows at a time.
    progress
        Show a progress bar.

    Returns
    -------
    ndarray
        Probabilities (z, y, x), float32 in [0, 1].

    Raises
    ------
    ValueError
        If the volume cannot be used (see :func:`neurokd.data.volume.check_volume`), or no window is known.

    Notes
    -----
    A constant volume holds nothing: all its probabilities are 0, and a warning is logged.

    Windows in which all raw voxels are at the fill (see :class:`neurokd.IntensityScale`) are not computed but
    taken as background: stacks with a zeroed background are mostly empty. On GPUs that have it, the model
    runs in bf16, as in training.
    """
    from monai.inferers import sliding_window_inference

    window = window_of(model) if window is None else window
    if window is None:
        raise ValueError("window must be given for a model without config.window, got None")
    volume = check_volume(volume)
    if volume.min() == volume.max():
        logger.warning("the volume of shape %s is constant (%s): nothing is found in it", volume.shape, volume.min())
        return np.zeros(volume.shape, dtype=np.float32)
    device = next(model.parameters()).device
    scale = IntensityScale.from_volume(volume)
    scaled = scale_intensity(volume, scale=scale)
    scaled[scale.is_fill(volume)] = _FILL

    def logits_of(windows: Tensor) -> Tensor:
        logits = torch.full_like(windows, _EMPTY)
        recorded = (windows != _FILL).flatten(1).any(dim=1)
        if recorded.any():
            with torch.autocast(device.type, torch.bfloat16, enabled=has_bf16(device)):
                logits[recorded] = model(windows[recorded].clamp(min=0)).float()
        return logits

    training = model.training
    model.eval()
    try:
        logits = sliding_window_inference(
            torch.from_numpy(scaled)[None, None],
            roi_size=window,
            sw_batch_size=batch_size,
            predictor=logits_of,
            overlap=overlap,
            mode="gaussian",
            cval=_FILL,  # around a volume smaller than the window
            sw_device=device,
            device=torch.device("cpu"),  # a large volume's sum of windows need not fit on the accelerator
            progress=progress,
        )
    finally:
        model.train(training)
    return torch.sigmoid(cast(Tensor, logits))[0, 0].numpy()  # MONAI returns what the model does: a tensor


def window_of(model: nn.Module) -> tuple[int, int, int] | None:
    """Return the window (z, y, x) that a model was made for, its ``config.window``; else None."""
    return getattr(getattr(model, "config", None), "window", None)


def has_bf16(device: torch.device) -> bool:
    """Return True for GPUs with instructions for bf16 (compute capability 8 and up); models compute in it.

    CPUs never do, although some have such instructions and take half the time: there the weight gradient of a
    small bf16 3D convolution came from uninitialised memory (channels 32 to 64, 2 x 12 x 12 voxels; torch
    2.15, AMD EPYC).
    """
    return device.type == "cuda" and torch.cuda.get_device_capability(device)[0] >= 8
