"""Curvatures of the brightness, from the Hessian. They tell tubes from blobs and sheets without any learning.

Across a bright tube the brightness bends down in two directions, and along it in none. At a blob it bends
down in three directions, at a sheet in one. The eigenvalues of the matrix of second derivatives, blurred at
the scale of a tube, tell these apart in any orientation:

    volume ─► Gaussian second derivatives at σ, times σ² ─► eigenvalues ─► - l1 >= - l2 >= - l3

    tube  - l1 = - l2 > 0, l3 = 0        blob  - l1 = - l2 = - l3 > 0        sheet  - l1 > 0, l2 = l3 = 0

The filters of Sato et al. (1998, doi:10.1016/S1361-8415(98)80009-1) and Frangi et al. (1998,
doi:10.1007/BFb0056195) are fixed rules on these numbers. Here a decoder gets the numbers besides the volume
and learns its own rule.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import combinations_with_replacement

import torch
from torch import Tensor, nn

__all__ = ["HessianRidges"]


class HessianRidges(nn.Module):
    """Append the curvatures of the brightness at some scales to a volume as channels. Nothing in it learns.

    Parameters
    ----------
    sigmas
        Standard deviations of the Gaussians in voxels, about the radii of the tubes. If empty, the volume is
        returned alone.

    Raises
    ------
    ValueError
        If a sigma is below 0.7 voxels, where the samples of a Gaussian are too few for its derivatives.

    Examples
    --------
    >>> HessianRidges([1.0, 2.0])(torch.rand(1, 1, 8, 16, 16)).shape
    torch.Size([1, 7, 8, 16, 16])
    """

    GAIN = 10.0  # curvatures of volumes in [0, 1] are about 0.1, and channels should be about 1

    def __init__(self, sigmas: Sequence[float]) -> None:
        super().__init__()
        if not all(sigma >= 0.7 for sigma in sigmas):
            raise ValueError(f"sigmas must be at least 0.7 voxels each, got {tuple(sigmas)}")
        self.sigmas = tuple(sigmas)
        self.channels = 1 + 3 * len(self.sigmas)

    def forward(self, volume: Tensor) -> Tensor:
        """Map ``b 1 z y x`` to ``b (1 + 3 scales) z y x``.

        The channels are the volume and, for each scale, the three - 10 σ² l, largest first. No gradient flows
        through the curvatures, because their derivatives are infinite where two are equal.
        """
        maps = [volume]
        # In full precision: second derivatives are small differences of large values.
        with torch.no_grad(), torch.autocast(volume.device.type, enabled=False):
            for sigma in self.sigmas:
                eigenvalues = _symmetric_eigenvalues(*_hessian(volume.float(), sigma))  # l3 <= l2 <= l1
                maps += [(-self.GAIN * value).to(volume.dtype) for value in eigenvalues]
        return torch.cat(maps, dim=1)


def _derivative_matrices(n: int, sigma: float) -> Tensor:
    """Return three matrices ``n n``: blurring of n samples, first and second derivative, times 1, σ and σ².

    Row i holds a Gaussian or its derivative around sample i, cut at 4 σ. The border is repeated outward. As
    matrix products, these convolutions take a fraction of the time of many small 3D ones.
    """
    reach = round(4 * sigma)
    steps = torch.arange(-reach, reach + 1)
    x = steps.double() / sigma
    gauss = torch.softmax(-x.square() / 2, dim=0)
    # x * gauss is the first derivative for a correlation: a convolution would flip it and change its sign.
    kernels = torch.stack([gauss, x * gauss, (x.square() - 1) * gauss]).float()  # 3 k
    seen = (torch.arange(n)[:, None] + steps).clamp(0, n - 1)  # n k: the samples under each row's kernel
    # Adding (not writing) counts the outermost sample once for each step beyond the border.
    return torch.zeros(3, n, n).scatter_add_(2, seen.expand(3, -1, -1), kernels[:, None].expand(-1, n, -1))


def _hessian(volume: Tensor, sigma: float) -> list[Tensor]:
    """Return the second derivatives zz, zy, zx, yy, yx, xx of a volume ``b c z y x`` at a scale, times σ²."""
    matrices = [_derivative_matrices(n, sigma).to(volume.device) for n in volume.shape[2:]]
    maps = []
    for axes in combinations_with_replacement(range(3), 2):
        # Each axis is derived as often as the pair names it, and blurred otherwise: (0, 1) is zy.
        along_z, along_y, along_x = (matrix[axes.count(axis)] for axis, matrix in enumerate(matrices))
        plane = along_y @ volume @ along_x.mT  # b c z y x
        maps.append((along_z @ plane.flatten(3)).view_as(volume))  # b c z (y x), and back
    return maps


def _symmetric_eigenvalues(
    zz: Tensor, zy: Tensor, zx: Tensor, yy: Tensor, yx: Tensor, xx: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the eigenvalues of symmetric 3 x 3 matrices, ascending, by the trigonometric formula.

    The formula is by Smith (1961), doi:10.1145/355578.366316. A general solver would treat one matrix at a
    time; this treats all voxels at once.
    """
    # B = (A - mean I) / spread has trace 0, and its eigenvalues are 2 cos(angle + 2 pi k / 3), k = 0, 1, 2,
    # where cos(3 angle) is half the determinant of B.
    mean = (zz + yy + xx) / 3
    off = zy.square() + zx.square() + yx.square()
    spread = ((zz - mean).square() + (yy - mean).square() + (xx - mean).square() + 2 * off) / 6
    spread = spread.sqrt().clamp_min(torch.finfo(zz.dtype).tiny ** 0.5)  # 0 where all three are equal
    a, b, c, d, e, f = (v / spread for v in (zz - mean, yy - mean, xx - mean, zy, zx, yx))
    half_determinant = (a * (b * c - f * f) - d * (d * c - f * e) + e * (d * f - b * e)) / 2
    angle = torch.acos(half_determinant.clamp(-1, 1)) / 3
    highest = mean + 2 * spread * torch.cos(angle)
    lowest = mean + 2 * spread * torch.cos(angle + 2 * math.pi / 3)
    return lowest, 3 * mean - highest - lowest, highest  # the trace gives the middle one
