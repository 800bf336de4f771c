"""Simulated samples: a neuron grown, placed in a volume and imaged, with its exact mask and tree.

    Growth --grow_neuron--> tree --place--> part in the volume --render(Microscope)--> uint8 volume + mask

The two models are in `neurokd.data.growth` and `neurokd.data.microscope`.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from neurokd.data.growth import Growth, grow_neuron
from neurokd.data.microscope import Microscope, render
from neurokd.data.tree import Tree

__all__ = ["Growth", "Microscope", "grow_neuron", "render", "simulate_neuron"]

BORDER = 3  # voxels between the neuron's nodes and the faces of its volume


def simulate_neuron(
    rng: np.random.Generator,
    *,
    shape: Sequence[int] = (150, 150, 150),
    growth: Growth | None = None,
    microscope: Microscope | None = None,
) -> tuple[NDArray[np.uint8], NDArray[np.bool_], Tree]:
    """Grow a neuron, place it in a volume and image it.

    Parameters
    ----------
    rng
        Source of all randomness: the same state gives the same bytes.
    shape
        (z, y, x) of the volume, voxels of 0.38 µm, each at least 16.
    growth, microscope
        Parameters of the two models; None for their defaults.

    Returns
    -------
    volume
        (z, y, x) uint8.
    mask
        (z, y, x) bool, the tree drawn: gaps are in it, other neurons are not.
    tree
        The neuron in voxels of the volume. Of a neuron larger than the volume it is one connected part,
        rooted at the node nearest the soma.

    Raises
    ------
    ValueError
        A shape that is not three sizes of at least 16.
    """
    if len(shape) != 3 or min(shape) < 16:
        raise ValueError(f"shape must be three sizes of at least 16 (z, y, x), got {tuple(shape)}")
    tree = place(rng, grow_neuron(rng, growth or Growth()), shape)
    return *render(tree, shape, rng, microscope or Microscope()), tree


def largest_part(tree: Tree, inside: NDArray[np.bool_]) -> Tree | None:
    """Cut a tree down to the connected part of the chosen nodes that holds most cable.

    Parameters
    ----------
    tree
        Any tree.
    inside
        (n,) True for the nodes that may stay.

    Returns
    -------
    Tree or None
        The part, rooted at its node nearest the old root; None if no two neighbouring nodes stay.
    """
    part = np.full(len(tree), -1)
    cable = np.zeros(len(tree))
    for node, up in enumerate(tree.parent):
        if not inside[node]:
            continue
        part[node] = part[up] if up >= 0 and inside[up] else node
        if part[node] != node:
            cable[part[node]] += tree.edge_lengths[node - 1]
    if not cable.any():
        return None
    keep = part == cable.argmax()
    row = np.cumsum(keep) - 1
    parent = row[tree.parent[keep]]
    parent[0] = -1
    return Tree(xyz=tree.xyz[keep], radius=tree.radius[keep], parent=parent, type=tree.type[keep])


def place(rng: np.random.Generator, tree: Tree, shape: Sequence[int]) -> Tree:
    """Move a neuron into a volume; of one that does not fit, keep the longest part of eight windows.

    Parameters
    ----------
    rng
        Draws the places.
    tree
        In voxels.
    shape
        (z, y, x) of the volume.

    Returns
    -------
    Tree
        In voxels of the volume, `BORDER` off its faces.
    """
    size = np.array(shape[::-1]) - 1
    lowest = BORDER - tree.xyz.min(axis=0)
    highest = size - BORDER - tree.xyz.max(axis=0)
    parts: list[Tree] = []
    for node in rng.integers(len(tree), size=8):
        offset = np.where(
            lowest <= highest,
            rng.uniform(lowest, np.maximum(lowest, highest)),
            np.clip(size / 2 - tree.xyz[node], highest, np.maximum(lowest, highest)),
        )
        moved = tree.translate(offset)
        inside = np.all((moved.xyz >= BORDER) & (moved.xyz <= size - BORDER), axis=1)
        part = largest_part(moved, inside)
        if part is not None:
            parts.append(part)
    if not parts:
        return place(rng, tree, shape)
    return max(parts, key=lambda part: part.length)
