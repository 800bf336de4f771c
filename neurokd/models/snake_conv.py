"""Dynamic snake convolution for volumes: kernels of K taps in a row that bend along thin, curved structures.

    offset head:  3 x 3 x 3 convolution, tanh    ->  steps aside, summed outward from the middle (snake)
    taps:         W_k V(r + t_k e_axis + D_k)     ->  sampled and multiplied a few planes at a time (snake_op)
    output:       their sum, over the axes too

After Qi et al. 2023, arXiv:2307.08388. It needs nothing else of this package and serves any 3D network.
"""

from __future__ import annotations

import torch
from einops import einsum, rearrange
from torch import Tensor, nn

from neurokd.models.snake import AXES, accumulate, axis_number
from neurokd.models.snake_op import snake_taps

__all__ = ["SnakeConv3d", "snake_conv3d"]


def snake_conv3d(volume: Tensor, offsets: Tensor, weight: Tensor, bias: Tensor | None = None, *, axis: str) -> Tensor:
    """Convolve along tubes that bend: ``out = sum_k weight_k volume(r + t_k e_axis + D_k) + bias``.

    Parameters
    ----------
    volume
        ``b c z y x``. Beyond the border its outermost voxels go on.
    offsets
        Sideways steps of the K - 1 taps that move, ``b 2 (K - 1) z y x`` in voxels, as in
        :func:`neurokd.models.snake.snake_coordinates`.
    weight
        ``o c K`` with K odd.
    bias
        ``o``.
    axis
        ``"z"``, ``"y"`` or ``"x"``.

    Returns
    -------
    Tensor
        ``b o z y x`` in the volume's dtype. Computed in float32 or float64, also under autocast: in half precision
        the places of the taps would be off by a fraction of a voxel.

    Raises
    ------
    ValueError
        If the axis is unknown, the kernel's length is even, or the shapes do not fit together.

    Notes
    -----
    With offsets of zero this is a plain convolution with replicate padding. Differentiable once in volume, offsets,
    weight and bias; one-sided where a coordinate is a whole number. Memory beyond inputs, outputs and their
    gradients: two copies of the volume and a bounded buffer.

    Examples
    --------
    >>> volume, offsets = torch.rand(1, 4, 8, 8, 8), torch.zeros(1, 2, 4, 8, 8, 8)
    >>> snake_conv3d(volume, offsets, torch.rand(6, 4, 5), axis="x").shape
    torch.Size([1, 6, 8, 8, 8])
    """
    number = axis_number(axis)
    if volume.ndim != 5 or weight.ndim != 3 or weight.shape[1] != volume.shape[1] or weight.shape[2] % 2 == 0:
        shapes = f"{tuple(volume.shape)} and {tuple(weight.shape)}"
        raise ValueError(f"volume and weight have shapes {shapes}; expected b c z y x and o c k with k odd")
    expected = (len(volume), 2, weight.shape[2] - 1, *volume.shape[2:])
    if offsets.shape != expected:
        raise ValueError(f"offsets have shape {tuple(offsets.shape)}; expected {expected}, b 2 (k - 1) z y x")
    dtype = torch.promote_types(volume.dtype, torch.float32)
    source, kernel, half = volume.to(dtype), rearrange(weight.to(dtype), "o c k -> k o c"), weight.shape[2] // 2
    with torch.autocast(volume.device.type, enabled=False):
        out = einsum(kernel[half], source, "o c, b c z y x -> b o z y x")
        if half:
            outer = rearrange(torch.cat([kernel[:half], kernel[half + 1 :]]), "n o c -> o n c")
            out = out + snake_taps(source, accumulate(offsets.to(dtype)), outer, number)
        if bias is not None:
            out = out + rearrange(bias.to(dtype), "o -> o 1 1 1")
    return out.to(volume.dtype)


class SnakeConv3d(nn.Module):
    """Dynamic snake convolution for volumes: K taps in a row that learn to bend along thin, curved structures.

    Each axis has a kernel of its own, and a 3 x 3 x 3 convolution that looks at the input and says how far each tap
    steps aside from its inner neighbour, ``slope * tanh(.)``. That convolution starts at zero, so the layer starts as
    the plain convolution whose kernel is the cross of the axes' lines (one line for one axis). The views of the axes
    are added. Size is kept; borders are clamped.

    Parameters
    ----------
    in_channels, out_channels
        Channels before and after.
    kernel_size
        Taps K of each tube, odd and at least 3.
    axes
        Any of the letters ``z``, ``y`` and ``x``: the directions of the tubes.
    slope
        Largest step aside per tap, in voxels; raise it where voxels are longer along the tube than across.
    bias
        Whether a bias is added.

    Raises
    ------
    ValueError
        If the kernel's length is even or below 3, or the axes are not among z, y and x.

    Notes
    -----
    After Qi et al. 2023, "Dynamic snake convolution", arXiv:2307.08388. Ours: offsets on every lateral axis, summed
    outward from a middle that stays on all three axes, no batch normalisation before the tanh, views added.

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
            raise ValueError(f"kernel_size is {kernel_size}; it must be odd and at least 3")
        if not axes or len(set(axes)) != len(axes) or not set(axes) <= set(AXES):
            raise ValueError(f"axes is {axes!r}; it must be some of 'zyx', each once")
        self.axes, self.kernel_size, self.slope = axes, kernel_size, slope
        self.weight = nn.Parameter(torch.empty(len(axes), out_channels, in_channels, kernel_size))
        # As nn.Conv3d does, which starts with uniform numbers in +- 1 / sqrt(inputs of one output).
        bound = (len(axes) * in_channels * kernel_size) ** -0.5
        nn.init.uniform_(self.weight, -bound, bound)
        self.bias = nn.Parameter(torch.empty(out_channels).uniform_(-bound, bound)) if bias else None
        self.heads = nn.ModuleList(nn.Conv3d(in_channels, 2 * (kernel_size - 1), 3, padding=1) for _ in axes)
        for head in self.heads:
            nn.init.zeros_(head.weight)
            nn.init.zeros_(head.bias)

    def offsets(self, volume: Tensor) -> list[Tensor]:
        """Return each axis' steps aside ``b 2 (k - 1) z y x``, in voxels."""
        steps = (self.slope * torch.tanh(head(volume)) for head in self.heads)
        return [rearrange(step, "b (lateral k) z y x -> b lateral k z y x", lateral=2) for step in steps]

    def forward(self, volume: Tensor) -> Tensor:
        """Map ``b c z y x`` to ``b o z y x``."""
        views = zip(self.axes, self.offsets(volume), self.weight, strict=True)
        out = sum(snake_conv3d(volume, offsets, weight, axis=axis) for axis, offsets, weight in views)
        return out if self.bias is None else out + rearrange(self.bias, "o -> o 1 1 1").to(out.dtype)

    def extra_repr(self) -> str:
        """Show the settings in the printed module."""
        _, o, c, k = self.weight.shape
        return f"{c}, {o}, kernel_size={k}, axes={self.axes!r}, slope={self.slope}, bias={self.bias is not None}"
