"""What a filament looks like before anything is learnt: curvatures of the brightness, from the Hessian.

Across a bright tube the brightness bends down in two directions, along it in none; at a blob in three, at a sheet in
one. The eigenvalues of the matrix of second derivatives, blurred at a tube's scale, say which, however it is turned:

    volume ─► Gaussian second derivatives at σ, times σ² ─► eigenvalues ─► - l1 >= - l2 >= - l3

    tube  - l1 = - l2 > 0, l3 = 0        blob  - l1 = - l2 = - l3 > 0        sheet  - l1 > 0, l2 = l3 = 0

The filters of Sato et al. (1998, doi:10.1016/S1361-8415(98)80009-1) and Frangi et al. (1998, doi:10.1007/BFb0056195)
are rules on these figures; here a decoder gets them beside the volume, and learns its own.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import combinations_with_replacement

import torch
from torch import Tensor, nn

__all__ = ["HessianRidges"]


class HessianRidges(nn.Module):
    """Put the curvatures of its brightness at some scales beside a volume. Nothing in it is learnt.

    Parameters
    ----------
    sigmas
        Standard deviations of the Gaussians, voxels; about the radii of the tubes. None of them: the volume alone.

    Raises
    ------
    ValueError
        If a sigma is below 0.7 voxels, where the samples of a Gaussian are too few for its derivatives.

    Examples
    --------
    >>> HessianRidges([1.0, 2.0])(torch.rand(1, 1, 8, 16, 16)).shape
    torch.Size([1, 7, 8, 16, 16])
    """

    GAIN = 10.0  # curvatures of volumes in [0, 1] are about a tenth

    def __init__(self, sigmas: Sequence[float]) -> None:
        super().__init__()
        if not all(sigma >= 0.7 for sigma in sigmas):
            raise ValueError(f"ridges are {tuple(sigmas)}; each must be a scale of at least 0.7 voxels")
        self.sigmas = tuple(sigmas)
        self.channels = 1 + 3 * len(self.sigmas)

    def forward(self, volume: Tensor) -> Tensor:
        """Map ``b 1 z y x`` to ``b (1 + 3 scales) z y x``: the volume, and - 10 σ² l for each scale, largest first.

        No gradient flows through the curvatures: their derivatives are infinite where two are equal.
        """
        maps = [volume]
        with torch.no_grad(), torch.autocast(volume.device.type, enabled=False):  # differences of near values
            for sigma in self.sigmas:
                eigenvalues = symmetric_eigenvalues(*hessian(volume.float(), sigma))
                maps += [(-self.GAIN * value).to(volume.dtype) for value in eigenvalues]
        return torch.cat(maps, dim=1)


def derivative_matrices(n: int, sigma: float) -> Tensor:
    """Return matrices (3, n, n) that blur n samples and take their first two derivatives, times 1, σ and σ².

    A row holds a Gaussian or its derivative around its place, cut at 4 σ; the border is repeated outward. As products
    of matrices these convolutions take a fraction of the time that many small ones in 3D do.
    """
    reach = round(4 * sigma)
    steps = torch.arange(-reach, reach + 1)
    x = steps.double() / sigma
    gauss = torch.softmax(-x.square() / 2, dim=0)
    kernels = torch.stack([gauss, x * gauss, (x.square() - 1) * gauss]).float()  # correlated: the first one is odd
    seen = (torch.arange(n)[:, None] + steps).clamp(0, n - 1)
    return torch.zeros(3, n, n).scatter_add_(2, seen.expand(3, -1, -1), kernels[:, None].expand(-1, n, -1))


def hessian(volume: Tensor, sigma: float) -> list[Tensor]:
    """Return the second derivatives zz, zy, zx, yy, yx, xx of a volume ``b c z y x`` at a scale, times σ²."""
    matrices = [derivative_matrices(n, sigma).to(volume.device) for n in volume.shape[2:]]
    maps = []
    for axes in combinations_with_replacement(range(3), 2):
        along_z, along_y, along_x = (of[axes.count(axis)] for axis, of in enumerate(matrices))
        maps.append((along_z @ (along_y @ volume @ along_x.mT).flatten(3)).view_as(volume))
    return maps


def symmetric_eigenvalues(
    zz: Tensor, zy: Tensor, zx: Tensor, yy: Tensor, yx: Tensor, xx: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the eigenvalues of symmetric 3 x 3 matrices, ascending, by the trigonometric formula.

    Smith (1961), doi:10.1145/355578.366316. A general solver takes a matrix at a time; this takes all voxels at once.
    """
    mean = (zz + yy + xx) / 3
    off = zy.square() + zx.square() + yx.square()
    spread = ((zz - mean).square() + (yy - mean).square() + (xx - mean).square() + 2 * off) / 6
    spread = spread.sqrt().clamp_min(torch.finfo(zz.dtype).tiny ** 0.5)
    a, b, c, d, e, f = (v / spread for v in (zz - mean, yy - mean, xx - mean, zy, zx, yx))
    half_determinant = (a * (b * c - f * f) - d * (d * c - f * e) + e * (d * f - b * e)) / 2
    angle = torch.acos(half_determinant.clamp(-1, 1)) / 3
    highest = mean + 2 * spread * torch.cos(angle)
    lowest = mean + 2 * spread * torch.cos(angle + 2 * math.pi / 3)
    return lowest, 3 * mean - highest - lowest, highest
