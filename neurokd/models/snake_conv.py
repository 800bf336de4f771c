"""Dynamic snake convolution for volumes: kernels of K taps in a row that bend along thin, curved structures.

    offset head:  3 x 3 x 3 convolution, tanh    ->  sideways steps, summed outward from the middle (snake)
    taps:         W_k V(r + t_k e_axis + D_k)     ->  sampled and multiplied a few planes at a time (snake_op)
    output:       the sum over all taps and axes

After Qi et al. 2023, arXiv:2307.08388. The layer can be used in any 3D network.
"""

from __future__ import annotations

import functools

import torch
from einops import einsum, rearrange
from torch import Tensor, nn

from neurokd.models.snake import AXES, accumulate, axis_number, check_axes
from neurokd.models.snake_op import snake_taps

__all__ = ["SnakeConv3d", "snake_conv3d"]


def snake_conv3d(
    volume: Tensor,
    offsets: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    *,
    axis: str,
) -> Tensor:
    """Convolve along tubes that bend: ``out = sum_k weight_k volume(r + t_k e_axis + D_k) + bias``.

    Parameters
    ----------
    volume
        ``b c z y x``. Beyond the border its outermost voxels are repeated.
    offsets
        Sideways steps of the K - 1 moving taps in voxels, ``b 2 (K - 1) z y x``, see
        :func:`neurokd.models.snake.snake_coordinates`.
    weight
        Kernel ``o c K`` with K odd.
    bias
        Bias ``o``, or None.
    axis
        Axis along which the tubes lie: ``"z"``, ``"y"`` or ``"x"``.

    Returns
    -------
    Tensor
        ``b o z y x`` in the volume's dtype. It is computed in float32 or float64, also under autocast,
        because in half precision the places of the taps would be wrong by a fraction of a voxel.

    Raises
    ------
    ValueError
        If the axis is unknown, the kernel's length is even, or the shapes do not fit together.

    Notes
    -----
    With offsets of zero this is a plain convolution with replicate padding. It is differentiable once in
    volume, offsets, weight and bias; the gradient is one-sided where a coordinate is a whole number. Beyond
    inputs, outputs and their gradients it needs memory for two copies of the volume and a bounded buffer.

    Examples
    --------
    >>> volume, offsets = torch.rand(1, 4, 8, 8, 8), torch.zeros(1, 2, 4, 8, 8, 8)
    >>> snake_conv3d(volume, offsets, torch.rand(6, 4, 5), axis="x").shape
    torch.Size([1, 6, 8, 8, 8])
    """
    number = axis_number(axis)
    if volume.ndim != 5 or weight.ndim != 3 or weight.shape[1] != volume.shape[1] or weight.shape[2] % 2 == 0:
        shapes = f"{tuple(volume.shape)} and {tuple(weight.shape)}"
        raise ValueError(f"volume and weight must be b c z y x and o c k with k odd, got shapes {shapes}")
    expected = (len(volume), 2, weight.shape[2] - 1, *volume.shape[2:])
    if offsets.shape != expected:
        raise ValueError(f"offsets must be b 2 (k - 1) z y x = {expected}, got shape {tuple(offsets.shape)}")
    dtype = torch.promote_types(volume.dtype, torch.float32)
    source, half = volume.to(dtype), weight.shape[2] // 2
    kernel = rearrange(weight.to(dtype), "o c k -> k o c")
    with torch.autocast(volume.device.type, enabled=False):
        # The middle tap stays on its voxel: a 1 x 1 x 1 convolution. Only the other taps have to be sampled.
        out = einsum(kernel[half], source, "o c, b c z y x -> b o z y x")
        if half:
            outer = rearrange(torch.cat([kernel[:half], kernel[half + 1 :]]), "n o c -> o n c")
            out = out + snake_taps(source, accumulate(offsets.to(dtype)), outer, number)
        if bias is not None:
            out = out + rearrange(bias.to(dtype), "o -> o 1 1 1")
    return out.to(volume.dtype)


class SnakeConv3d(nn.Module):
    """Dynamic snake convolution for volumes: K taps in a row that learn to bend along thin structures.

    Each axis has its own kernel and its own 3 x 3 x 3 convolution, the offset head. The head computes from
    the input how far each tap steps sideways from its inner neighbour, ``slope * tanh(.)``. It starts at
    zero, so the layer starts as the plain convolution whose kernel is the cross of the axes' lines (one line
    for one axis). The views of the axes are added. The size is kept, and the outermost voxels are repeated
    beyond the border.

    Parameters
    ----------
    in_channels, out_channels
        Channels before and after.
    kernel_size
        Taps K of each tube, odd and at least 3.
    axes
        Directions of the tubes, some of the letters ``z``, ``y`` and ``x``.
    slope
        Largest sideways step per tap, in voxels. Raise it where voxels are longer along the tube than across.
    bias
        Whether a bias is added.

    Raises
    ------
    ValueError
        If ``kernel_size`` is even or below 3, or an axis is unknown or repeated.

    Notes
    -----
    After Qi et al. 2023, "Dynamic snake convolution", arXiv:2307.08388. Four details are ours: offsets on
    both lateral axes, a middle tap that never moves, no batch normalisation before the tanh, and views that
    are added.

    Examples
    --------
    >>> layer = SnakeConv3d(8, 16, kernel_size=7)
    >>> layer(torch.rand(1, 8, 12, 20, 20)).shape
    torch.Size([1, 16, 12, 20, 20])
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        kernel_size: int = 9,
        axes: str = AXES,
        slope: float = 1.0,
        bias: bool = True,
    ) -> None:
        super().__init__()
        if kernel_size < 3 or kernel_size % 2 == 0:
            raise ValueError(f"kernel_size must be odd and at least 3, got {kernel_size}")
        check_axes(axes)
        self.axes, self.kernel_size, self.slope = axes, kernel_size, slope
        self.weight = nn.Parameter(torch.empty(len(axes), out_channels, in_channels, kernel_size))
        # nn.Conv3d starts with the same uniform numbers in +- 1 / sqrt(inputs of one output).
        bound = (len(axes) * in_channels * kernel_size) ** -0.5
        nn.init.uniform_(self.weight, -bound, bound)
        self.bias = nn.Parameter(torch.empty(out_channels).uniform_(-bound, bound)) if bias else None
        self.heads = nn.ModuleList(nn.Conv3d(in_channels, 2 * (kernel_size - 1), 3, padding=1) for _ in axes)
        for parameter in self.heads.parameters():
            nn.init.zeros_(parameter)

    def offsets(self, volume: Tensor) -> list[Tensor]:
        """Return the sideways steps of each axis, ``b 2 (k - 1) z y x`` in voxels."""
        steps = (self.slope * torch.tanh(head(volume)) for head in self.heads)
        return [rearrange(step, "b (lateral k) z y x -> b lateral k z y x", lateral=2) for step in steps]

    def forward(self, volume: Tensor) -> Tensor:
        """Map ``b c z y x`` to ``b o z y x``."""
        views = zip(self.axes, self.offsets(volume), self.weight, strict=True)
        out = functools.reduce(
            torch.add,
            (snake_conv3d(volume, steps, weight, axis=axis) for axis, steps, weight in views),
        )
        return out if self.bias is None else out + rearrange(self.bias, "o -> o 1 1 1").to(out.dtype)

    def extra_repr(self) -> str:
        """Return the settings, for the printed module."""
        _, o, c, k = self.weight.shape
        settings = f"kernel_size={k}, axes={self.axes!r}, slope={self.slope}, bias={self.bias is not None}"
        return f"{c}, {o}, {settings}"
