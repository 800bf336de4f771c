"""The operator behind the snake convolution: sample the moving taps and multiply, a few planes at a time.

Written directly, ``out(r) = sum_k W_k V(r + t_k e_axis + D_k(r))`` gathers K samples of C channels from 8
corners each, and autograd keeps them all. Two observations make it light:

* A tap moves sideways only and ``t_k`` is whole, so a sample lies *in* a plane across the axis. Interpolation
  is then bilinear, with 4 corners instead of 8. The 2D ``grid_sample`` does it, which is vectorised on CPUs;
  the 3D one is not.
* Samples are needed only for a product with the kernel. A few planes at a time are sampled and multiplied, and
  again in the backward pass. Nothing that grows with K times C is stored for the whole volume.

The operator is registered with torch (``neurokd::snake_taps``), so ``torch.compile`` treats it as one node.

In the shapes below, a is the position along the axis, u and v are the two lateral axes, p counts the planes
and r the rows of a chunk, and n counts the moving taps.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from einops import rearrange
from torch import Tensor
from torch.nn import functional as F

__all__ = ["snake_taps"]

_CHUNK_ELEMENTS = {"cpu": 2**20, "cuda": 2**26}
"""Samples times channels that are stored at a time: what a CPU's caches hold, or enough to fill a GPU."""


def _planes(x: Tensor, axis: int) -> Tensor:
    """View ``b ... z y x`` as ``b a ... u v``: the axis first, the lateral axes last."""
    return x.movedim(x.ndim - 3 + axis, 1)


def _chunks(source: Tensor, taps: int) -> Iterator[tuple[slice, slice]]:
    """Yield slices of planes and rows of ``source a c u v`` within the budget, whole planes if they fit."""
    planes, channels, rows, columns = source.shape
    budget = _CHUNK_ELEMENTS.get(source.device.type, _CHUNK_ELEMENTS["cuda"]) // (taps * channels * columns)
    some_planes, some_rows = max(1, budget // rows), max(1, min(rows, budget))
    for plane in range(0, planes, some_planes):
        for row in range(0, rows, some_rows):
            yield slice(plane, min(plane + some_planes, planes)), slice(row, min(row + some_rows, rows))


class _Chunk:
    """Some planes and rows of ``source a c u v``, and the displacements ``moved a 2 n u v`` of their taps."""

    def __init__(self, source: Tensor, moved: Tensor, planes: slice, rows: slice) -> None:
        (count, _, height, width), taps = source.shape, moved.shape[2]
        # Tap n lies in the plane `away` planes off. The middle tap (0) is not among the moving ones.
        away = torch.arange(taps, device=source.device) - taps // 2
        away = torch.where(away < 0, away, away + 1)
        places = torch.arange(planes.start, planes.stop, device=source.device)
        self.size = {"p": len(places), "n": taps, "r": rows.stop - rows.start, "v": width}
        self.index = (places[:, None] + away).clamp_(0, count - 1).flatten()  # (p n): clamped at the border
        self.planes = source[self.index]  # (p n) c u v
        # grid_sample counts from -1 at the first voxel of a line to 1 at the last.
        self.scale = (2 / max(height - 1, 1), 2 / max(width - 1, 1))
        u, v = (
            torch.arange(part.start, part.stop, dtype=source.dtype, device=source.device) * scale - 1
            for part, scale in zip((rows, slice(0, width)), self.scale, strict=True)
        )
        u = torch.add(u[:, None], moved[planes, 0, :, rows], alpha=self.scale[0])  # p n r v
        v = torch.add(v, moved[planes, 1, :, rows], alpha=self.scale[1])  # p n r v
        # grid_sample expects the last axis first.
        self.grid = torch.stack([v, u], dim=-1).flatten(0, 1)  # (p n) r v 2

    def samples(self) -> Tensor:
        """Return the samples ``p (n c) (r v)``."""
        # (p n) c r v
        samples = F.grid_sample(self.planes, self.grid, padding_mode="border", align_corners=True)
        return rearrange(samples, "(p n) c r v -> p (n c) (r v)", **self.size)

    def gradients(self, grad_samples: Tensor, *, planes: bool) -> tuple[Tensor, Tensor]:
        """Return the gradients of ``self.planes`` (valid if ``planes``) and of ``moved``, ``p 2 n r v``."""
        grad_samples = rearrange(grad_samples, "p (n c) (r v) -> (p n) c r v", **self.size)
        grad_planes, grad_grid = torch.ops.aten.grid_sampler_2d_backward(
            grad_samples, self.planes, self.grid, 0, 1, True, [planes, True]
        )
        # From (v, u) in units of the grid back to (u, v) in voxels.
        grad_v, grad_u = rearrange(grad_grid, "(p n) r v two -> two p n r v", **(self.size | {"two": 2}))
        return grad_planes, torch.stack([grad_u * self.scale[0], grad_v * self.scale[1]], dim=1)


@torch.library.custom_op(
    "neurokd::snake_taps",
    mutates_args=(),
    schema="(Tensor volume, Tensor moved, Tensor kernel, int axis) -> Tensor",
)
def snake_taps(volume: Tensor, moved: Tensor, kernel: Tensor, axis: int) -> Tensor:
    """Sum the moving taps of every tube times their kernel. The caller adds the middle tap.

    Parameters
    ----------
    volume
        ``b c z y x`` in float32 or float64.
    moved
        Displacements D of the n moving taps in voxels, ``b 2 n z y x``, in the volume's dtype; n even, at
        least 2.
    kernel
        Kernel ``o n c`` in the volume's dtype.
    axis
        Number of the axis along which the tubes lie: 0, 1 or 2 for z, y or x.

    Returns
    -------
    Tensor
        ``b o z y x``.
    """
    out = volume.new_empty(len(volume), len(kernel), *volume.shape[2:])  # b o z y x
    matrix = kernel.flatten(1)  # o (n c)
    with torch.autocast(volume.device.type, enabled=False):
        for source, move, target in zip(*(_planes(x, axis) for x in (volume, moved, out)), strict=True):
            source = source.contiguous()  # a c u v
            for planes, rows in _chunks(source, kernel.shape[1]):
                product = matrix @ _Chunk(source, move, planes, rows).samples()  # p o (r v)
                part = target[planes, :, rows]  # p o r v, a view of `out`
                part.copy_(product.view(part.shape))
    return out


@snake_taps.register_fake
def _(volume: Tensor, moved: Tensor, kernel: Tensor, axis: int) -> Tensor:
    return volume.new_empty(len(volume), len(kernel), *volume.shape[2:])


@torch.library.custom_op(
    "neurokd::snake_taps_backward",
    mutates_args=(),
    schema="(Tensor grad_out, Tensor volume, Tensor moved, Tensor kernel, int axis, bool wanted)"
    " -> (Tensor, Tensor, Tensor)",
)
def _snake_taps_backward(
    grad_out: Tensor, volume: Tensor, moved: Tensor, kernel: Tensor, axis: int, wanted: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the gradients of the volume (empty unless ``wanted``), the displacements and the kernel."""
    grad_volume, grad_moved, grad_kernel = _empty_gradients(volume, moved, kernel, axis, wanted)
    matrix, grad_matrix = kernel.flatten(1), grad_kernel.flatten(1)  # o (n c), a view of grad_kernel
    with torch.autocast(volume.device.type, enabled=False):
        for sample, (source, move, grad, grad_move) in enumerate(
            zip(*(_planes(x, axis) for x in (volume, moved, grad_out, grad_moved)), strict=True)
        ):
            source = source.contiguous()  # a c u v
            for planes, rows in _chunks(source, kernel.shape[1]):
                chunk = _Chunk(source, move, planes, rows)
                part = grad[planes, :, rows].flatten(2)  # p o (r v)
                # The forward pass is a product, out = matrix @ samples, and so are its two gradients.
                grad_matrix += (part @ chunk.samples().mT).sum(0)
                grad_planes, grad_move[planes, :, :, rows] = chunk.gradients(matrix.T @ part, planes=wanted)
                if wanted:  # several taps read the same plane, so their gradients are added
                    _planes(grad_volume, axis)[sample].index_add_(0, chunk.index, grad_planes)
    return grad_volume, grad_moved, grad_kernel


def _empty_gradients(
    volume: Tensor, moved: Tensor, kernel: Tensor, axis: int, wanted: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """Make tensors for the gradients. The volume's has its planes first in memory, to add plane by plane."""
    grad_volume = volume.new_empty(0)
    if wanted:
        grad_volume = volume.new_zeros(_planes(volume, axis).shape).movedim(1, axis + 2)  # b c z y x
    return grad_volume, moved.new_empty(moved.shape), kernel.new_zeros(kernel.shape)


@_snake_taps_backward.register_fake
def _(
    grad_out: Tensor, volume: Tensor, moved: Tensor, kernel: Tensor, axis: int, wanted: bool
) -> tuple[Tensor, Tensor, Tensor]:
    return _empty_gradients(volume, moved, kernel, axis, wanted)


def _setup_context(ctx: Any, inputs: tuple[Tensor, Tensor, Tensor, int], output: Tensor) -> None:
    *tensors, ctx.axis = inputs
    ctx.save_for_backward(*tensors)


def _backward(ctx: Any, grad_out: Tensor) -> tuple[Tensor | None, Tensor, Tensor, None]:
    wanted = ctx.needs_input_grad[0]
    gradients = _snake_taps_backward(grad_out, *ctx.saved_tensors, ctx.axis, wanted)
    grad_volume, grad_moved, grad_kernel = gradients
    return grad_volume if wanted else None, grad_moved, grad_kernel, None


snake_taps.register_autograd(_backward, setup_context=_setup_context)
