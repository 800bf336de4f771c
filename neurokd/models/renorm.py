"""Batch renormalisation: normalisation that does not depend on what else a window holds.

GroupNorm uses the mean and the deviation of each window. A bright neurite therefore changes how a dim one
beside it looks, and overlapping windows disagree along their seams. Here averages over the whole training
normalise a window:

    training    y = (x - m_batch) / s_batch * r + d       r = s_batch / s_run,  d = (m_batch - m_run) / s_run
    later       y = (x - m_run) / s_run                   (no gradient flows through r and d)

Both lines give the same numbers as long as r and d are not clipped, so training and inference agree for
batches of any size. The method is by Ioffe 2017, arXiv:1702.03275; Buglakova et al. 2025, arXiv:2503.19545,
use it for tiles of microscopy stacks.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

__all__ = ["BatchRenorm3d"]


class BatchRenorm3d(nn.Module):
    """Normalise each channel by its running mean and deviation, then scale and shift it.

    Parameters
    ----------
    channels
        Channels of the input ``b c z y x``.
    momentum
        Share of a batch in the running averages.
    warmup
        Steps over which the limits of the corrections r and d grow: from 1 and 0 (plain BatchNorm) to
        3 and 5.
    eps
        Number that is added to the variance.
    """

    running_mean: Tensor
    running_std: Tensor
    steps: Tensor

    def __init__(
        self,
        channels: int,
        *,
        momentum: float = 0.02,
        warmup: int = 200,
        eps: float = 1e-5,
    ) -> None:
        super().__init__()
        self.momentum, self.warmup, self.eps = momentum, warmup, eps
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))
        self.register_buffer("running_mean", torch.zeros(channels))
        self.register_buffer("running_std", torch.ones(channels))
        self.register_buffer("steps", torch.zeros((), dtype=torch.long))

    def forward(self, x: Tensor) -> Tensor:
        """Normalise ``b c z y x``."""
        if not self.training:
            scale = self.weight / self.running_std
            return self._affine(x, scale, self.bias - self.running_mean * scale)
        precise = x.to(torch.promote_types(x.dtype, torch.float32))
        variance, mean = torch.var_mean(precise, dim=(0, 2, 3, 4), correction=0)  # c
        std = (variance + self.eps).sqrt()
        with torch.no_grad():
            # Plain averages at first: running averages that start at 0 and 1 would be wrong for many steps.
            share = max(self.momentum, 1 / (int(self.steps) + 1))
            free = min(1.0, int(self.steps) / self.warmup)
            most_r, most_d = 1 + 2 * free, 5 * free
            # r and d turn the batch's normalisation into that of the running averages. They carry no
            # gradient, so the gradient is that of BatchNorm, times r.
            r = (std / self.running_std).clamp(1 / most_r, most_r)
            d = ((mean - self.running_mean) / self.running_std).clamp(-most_d, most_d)
            self.running_mean.lerp_(mean, share)
            self.running_std.lerp_(std, share)
            self.steps += 1
        # weight * ((x - mean) / std * r + d) + bias, as one factor and one summand per channel
        scale = self.weight * r / std
        return self._affine(x, scale, self.weight * d + self.bias - mean * scale)

    @staticmethod
    def _affine(x: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
        """Return ``scale * x + shift`` for each channel, in the dtype of ``x``."""
        scale, shift = (value.to(x.dtype)[:, None, None, None] for value in (scale, shift))  # c 1 1 1
        return x * scale + shift
