"""The operator behind the snake convolution: sample the taps that move and multiply, a few planes at a time.

``out(r) = sum_k W_k V(r + t_k e_axis + D_k(r))`` as it stands gathers K samples of C channels from 8 corners each, and
autograd keeps them all. Two observations make it light:

* a tap moves sideways only and ``t_k`` is whole, so a sample lies *in* a plane across the axis: interpolation is
  bilinear, 4 corners instead of 8, by the 2D ``grid_sample``, which is vectorised on CPUs where the 3D one is not;
* samples are needed only for a product with the kernel. A few planes at a time are sampled and multiplied, backward
  samples them again, and nothing that grows with K times C is ever held for the whole volume.

It is registered with torch (``neurokd::snake_taps``), so that ``torch.compile`` takes it as one node.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from einops import rearrange
from torch import Tensor
from torch.nn import functional as F

__all__ = ["snake_taps"]

CHUNK_ELEMENTS = {"cpu": 2**20, "cuda": 2**26}
"""Samples times channels that are held at a time: on a CPU what its caches hold, on a GPU enough to fill it."""


def _planes(x: Tensor, axis: int) -> Tensor:
    """View ``b ... z y x`` as ``b axis ... u v``: planes across the axis first, the lateral axes last."""
    return x.movedim(x.ndim - 3 + axis, 1)


def _chunks(source: Tensor, taps: int) -> Iterator[tuple[slice, slice]]:
    """Yield slices of planes and rows of ``source a c u v`` within the budget: whole planes where they fit."""
    planes, channels, rows, columns = source.shape
    budget = CHUNK_ELEMENTS.get(source.device.type, CHUNK_ELEMENTS["cuda"]) // (taps * channels * columns)
    some_planes, some_rows = max(1, budget // rows), max(1, min(rows, budget))
    for plane in range(0, planes, some_planes):
        for row in range(0, rows, some_rows):
            yield slice(plane, min(plane + some_planes, planes)), slice(row, min(row + some_rows, rows))


class _Chunk:
    """Some planes and rows of ``source a c u v`` with the displacements ``moved a 2 n u v`` of their moving taps."""

    def __init__(self, source: Tensor, moved: Tensor, planes: slice, rows: slice) -> None:
        (count, _, height, width), taps = source.shape, moved.shape[2]
        away = torch.arange(taps, device=source.device) - taps // 2
        away = torch.where(away < 0, away, away + 1)  # the middle is not among the moving taps
        places = torch.arange(planes.start, planes.stop, device=source.device)
        self.size = {"p": len(places), "n": taps, "r": rows.stop - rows.start, "v": width}
        self.index = (places[:, None] + away).clamp_(0, count - 1).flatten()
        self.planes = source[self.index]  # (p n) c u v
        # grid_sample counts from -1 at the first voxel of a line to 1 at the last.
        self.scale = (2 / max(height - 1, 1), 2 / max(width - 1, 1))
        u, v = (
            torch.arange(part.start, part.stop, dtype=source.dtype, device=source.device) * scale - 1
            for part, scale in zip((rows, slice(0, width)), self.scale, strict=True)
        )
        u = torch.add(u[:, None], moved[planes, 0, :, rows], alpha=self.scale[0])
        v = torch.add(v, moved[planes, 1, :, rows], alpha=self.scale[1])
        self.grid = torch.stack([v, u], dim=-1).flatten(0, 1)  # (p n) r v 2; it wants the last axis first

    def samples(self) -> Tensor:
        """Return the samples ``p (n c) (r v)``."""
        samples = F.grid_sample(self.planes, self.grid, padding_mode="border", align_corners=True)
        return rearrange(samples, "(p n) c r v -> p (n c) (r v)", **self.size)

    def gradients(self, of_samples: Tensor, *, planes: bool) -> tuple[Tensor, Tensor]:
        """Return the gradients of ``self.planes`` (of no use unless ``planes``) and of ``moved``, ``p 2 n r v``."""
        of_samples = rearrange(of_samples, "p (n c) (r v) -> (p n) c r v", **self.size)
        of_planes, of_grid = torch.ops.aten.grid_sampler_2d_backward(
            of_samples, self.planes, self.grid, 0, 1, True, [planes, True]
        )
        of_grid = rearrange(of_grid, "(p n) r v two -> two p n r v", **(self.size | {"two": 2}))
        return of_planes, torch.stack([of_grid[1] * self.scale[0], of_grid[0] * self.scale[1]], dim=1)


@torch.library.custom_op(
    "neurokd::snake_taps", mutates_args=(), schema="(Tensor volume, Tensor moved, Tensor kernel, int axis) -> Tensor"
)
def snake_taps(volume: Tensor, moved: Tensor, kernel: Tensor, axis: int) -> Tensor:
    """Sum the moving taps of every tube times their kernel; the tap in the middle is left to the caller.

    Parameters
    ----------
    volume
        ``b c z y x`` in float32 or float64.
    moved
        Displacements D of the n moving taps in voxels, ``b 2 n z y x``, in the volume's dtype; n even, at least 2.
    kernel
        ``o n c``, in the volume's dtype.
    axis
        0, 1 or 2 for z, y or x.

    Returns
    -------
    Tensor
        ``b o z y x``.
    """
    out, matrix = volume.new_empty(len(volume), len(kernel), *volume.shape[2:]), kernel.flatten(1)
    with torch.autocast(volume.device.type, enabled=False):
        for source, move, target in zip(*(_planes(x, axis) for x in (volume, moved, out)), strict=True):
            source = source.contiguous()
            for planes, rows in _chunks(source, kernel.shape[1]):
                product = matrix @ _Chunk(source, move, planes, rows).samples()
                part = target[planes, :, rows]
                part.copy_(product.view(part.shape))
    return out


@snake_taps.register_fake
def _(volume: Tensor, moved: Tensor, kernel: Tensor, axis: int) -> Tensor:
    return volume.new_empty(len(volume), len(kernel), *volume.shape[2:])


@torch.library.custom_op(
    "neurokd::snake_taps_backward",
    mutates_args=(),
    schema="(Tensor grad, Tensor volume, Tensor moved, Tensor kernel, int axis, bool wanted)"
    " -> (Tensor, Tensor, Tensor)",
)
def _snake_taps_backward(
    grad: Tensor, volume: Tensor, moved: Tensor, kernel: Tensor, axis: int, wanted: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the gradients of the volume (empty unless ``wanted``), the displacements and the kernel."""
    to_volume, to_moved, to_kernel = _gradients_like(volume, moved, kernel, axis, wanted)
    matrix, to_matrix = kernel.flatten(1), to_kernel.flatten(1)  # the second is a view, and filled through it
    with torch.autocast(volume.device.type, enabled=False):
        for sample, (source, move, out, to_move) in enumerate(
            zip(*(_planes(x, axis) for x in (volume, moved, grad, to_moved)), strict=True)
        ):
            source = source.contiguous()
            for planes, rows in _chunks(source, kernel.shape[1]):
                chunk, part = _Chunk(source, move, planes, rows), out[planes, :, rows].flatten(2)
                to_matrix += (part @ chunk.samples().mT).sum(0)
                to_planes, to_move[planes, :, :, rows] = chunk.gradients(matrix.T @ part, planes=wanted)
                if wanted:
                    _planes(to_volume, axis)[sample].index_add_(0, chunk.index, to_planes)
    return to_volume, to_moved, to_kernel


def _gradients_like(
    volume: Tensor, moved: Tensor, kernel: Tensor, axis: int, wanted: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """Make room for the gradients; that of the volume has its planes first in memory, as they are added one by one."""
    batch, planes, *rest = _planes(volume, axis).shape
    to_volume = volume.new_zeros(batch, planes, *rest).movedim(1, axis + 2) if wanted else volume.new_empty(0)
    return to_volume, moved.new_empty(moved.shape), kernel.new_zeros(kernel.shape)


@_snake_taps_backward.register_fake
def _(
    grad: Tensor, volume: Tensor, moved: Tensor, kernel: Tensor, axis: int, wanted: bool
) -> tuple[Tensor, Tensor, Tensor]:
    return _gradients_like(volume, moved, kernel, axis, wanted)


def _setup_context(ctx: Any, inputs: tuple[Tensor, Tensor, Tensor, int], output: Tensor) -> None:
    *tensors, ctx.axis = inputs
    ctx.save_for_backward(*tensors)


def _backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor, Tensor, None]:
    wanted = ctx.needs_input_grad[0]
    to_volume, to_moved, to_kernel = _snake_taps_backward(grad, *ctx.saved_tensors, ctx.axis, wanted)
    return to_volume if wanted else None, to_moved, to_kernel, None


snake_taps.register_autograd(_backward, setup_context=_setup_context)
