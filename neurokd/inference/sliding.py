"""Any volume through a model that takes crops: overlapping windows, blended with a Gaussian (MONAI)."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from neurokd.data.io import scale_intensity

__all__ = ["predict"]


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
        Maps ``b 1 z y x`` in [0, 1] to logits of the same shape; it runs where its parameters are.
    volume
        Raw volume (z, y, x) of any size, also smaller than the window; intensities are scaled here, by the same
        function as in training.
    window
        Size (z, y, x) of the windows; by default ``model.config.window``, the crop that the model was made for.
    overlap
        Share of a window that overlaps the next, in [0, 1).
    batch_size
        Windows at a time.
    progress
        Show a progress bar.

    Returns
    -------
    ndarray
        Probabilities (z, y, x), float32 in [0, 1].

    Raises
    ------
    ValueError
        If the volume cannot be used (see :func:`neurokd.data.io.scale_intensity`), or no window is known.

    Notes
    -----
    Only the box around the non-zero voxels, widened by half a window, is looked at: stacks with a zeroed background
    are mostly empty, and there the probability is set to 0.
    """
    from monai.inferers import sliding_window_inference

    if window is None:
        window = getattr(getattr(model, "config", None), "window", None)
        if window is None:
            raise ValueError("window is not given and the model does not say which it was made for")
    scaled = scale_intensity(volume)
    box = _signal_box(scaled, margin=[n // 2 for n in window])
    device = next(model.parameters()).device
    training = model.training
    model.eval()
    try:
        logits = sliding_window_inference(
            torch.from_numpy(np.ascontiguousarray(scaled[box]))[None, None],
            roi_size=window,
            sw_batch_size=batch_size,
            predictor=model,
            overlap=overlap,
            mode="gaussian",
            sw_device=device,
            device=torch.device("cpu"),  # a large volume's sum of windows need not fit on the accelerator
            progress=progress,
        )
    finally:
        model.train(training)
    probability = np.zeros(scaled.shape, dtype=np.float32)
    probability[box] = torch.sigmoid(logits.float())[0, 0].numpy()
    return probability


def _signal_box(volume: NDArray, *, margin: list[int]) -> tuple[slice, ...]:
    """Return the box around the non-zero voxels, widened by ``margin`` voxels (z, y, x) inside the volume."""
    box = []
    for axis, (size, extra) in enumerate(zip(volume.shape, margin, strict=True)):
        others = tuple(i for i in range(3) if i != axis)
        hits = np.flatnonzero(volume.any(axis=others))
        box.append(slice(max(0, hits[0] - extra), min(size, hits[-1] + 1 + extra)))
    return tuple(box)
