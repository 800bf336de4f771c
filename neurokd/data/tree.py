"""The shape of a neuron: a rooted tree of points with radii, and what can be done to its geometry.

    soma (root) ──o──o──bifurcation──o──tip          every node but the root names its parent;
                            └──o──o──tip             between two nodes lies a cone that tapers linearly

Points are `x y z` in voxels, as in SWC files, while volumes are `z y x`: :attr:`Tree.zyx` turns one into
the other, and the point (0, 0, 0) is the centre of the first voxel. Reading and writing files is in
:mod:`neurokd.data.swc`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from neurokd.data.volume import check_spacing

__all__ = ["Tree"]

_COLUMNS = {"xyz": np.float64, "radius": np.float64, "parent": np.int64, "type": np.int64}


@dataclass(frozen=True, eq=False)
class Tree:
    """A neuron as one rooted tree, its nodes sorted parents first.

    Parameters
    ----------
    xyz
        (n, 3) points `x y z`, voxels.
    radius
        (n,) radii, same unit, >= 0.
    parent
        (n,) row of each node's parent, smaller than the node's own row; -1 for the root, which is row 0.
    type
        (n,) SWC types: 0 undefined, 1 soma, 2 axon, 3 (basal) dendrite, 4 apical dendrite, 5 and up:
        anything else.
    comments
        Header lines of the file, without their `#`.

    Raises
    ------
    ValueError
        No nodes, arrays of unequal length, a coordinate or radius that is not finite, a negative radius, or
        parents that do not make one tree sorted parents first (:meth:`from_nodes` sorts them).
    """

    xyz: NDArray[np.float64]
    radius: NDArray[np.float64]
    parent: NDArray[np.int64]
    type: NDArray[np.int64]
    comments: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for name, dtype in _COLUMNS.items():
            object.__setattr__(self, name, np.asarray(getattr(self, name), dtype=dtype))
        object.__setattr__(self, "comments", tuple(self.comments))
        n = len(self.parent) if self.parent.ndim == 1 else 0
        if n == 0:
            raise ValueError(f"parent must have the shape (n,), n >= 1, got {self.parent.shape}")
        if self.xyz.shape != (n, 3) or self.radius.shape != (n,) or self.type.shape != (n,):
            raise ValueError(
                f"xyz, radius and type must have the shapes ({n}, 3), ({n},) and ({n},) for {n} parents, "
                f"got {self.xyz.shape}, {self.radius.shape} and {self.type.shape}"
            )
        if not (np.isfinite(self.xyz).all() and np.isfinite(self.radius).all()):
            raise ValueError("xyz and radius must be finite, got NaN or infinity")
        if (self.radius < 0).any():
            raise ValueError(f"radius must be >= 0, got {self.radius.min()}")
        if self.parent[0] != -1 or (self.parent[1:] < 0).any() or (self.parent[1:] >= np.arange(1, n)).any():
            raise ValueError("nodes must be sorted parents first, the root (parent -1) in row 0; use from_nodes")

    @classmethod
    def from_nodes(
        cls,
        xyz: ArrayLike,
        radius: ArrayLike,
        parent: ArrayLike,
        type: ArrayLike,
        *,
        comments: Sequence[str] = (),
    ) -> Tree:
        """Make a tree of nodes in any order.

        An order that is already right is kept. Otherwise nodes are sorted depth first, which keeps branches
        together.

        Parameters
        ----------
        xyz, radius, parent, type, comments
            Columns as in :class:`Tree`, but parents may come after their children, and the root may be
            anywhere.

        Returns
        -------
        Tree
            The same nodes, parents first.

        Raises
        ------
        ValueError
            There is not exactly one root, a parent is no row, the root does not reach all nodes (a cycle), or
            an error of :class:`Tree`.
        """
        parent = np.maximum(np.asarray(parent, dtype=np.int64), -1)
        order = _parents_first(parent)
        row = np.empty(len(order) + 1, dtype=np.int64)
        row[order] = np.arange(len(order))
        row[-1] = -1  # the root's parent, -1, picks this last entry and stays -1
        xyz, radius, type = np.asarray(xyz)[order], np.asarray(radius)[order], np.asarray(type)[order]
        return cls(xyz, radius, row[parent][order], type, tuple(comments))

    def __len__(self) -> int:
        return len(self.parent)

    @property
    def zyx(self) -> NDArray[np.float64]:
        """(n, 3) points in the axis order of a volume."""
        return self.xyz[:, ::-1]

    @property
    def edges(self) -> NDArray[np.int64]:
        """(n - 1, 2) rows of child and parent."""
        return np.stack([np.arange(1, len(self)), self.parent[1:]], axis=1)

    @cached_property
    def edge_lengths(self) -> NDArray[np.float64]:
        """(n - 1,) lengths of :attr:`edges`, voxels."""
        return np.linalg.norm(self.xyz[1:] - self.xyz[self.parent[1:]], axis=1)

    @property
    def length(self) -> float:
        """Total length, voxels."""
        return float(self.edge_lengths.sum())

    @cached_property
    def path_lengths(self) -> NDArray[np.float64]:
        """(n,) lengths of the way from each node to the root along the tree, voxels."""
        # Each node knows the way to an ancestor; in every round it adds the way that this ancestor knows.
        path, ancestor = np.r_[0.0, self.edge_lengths], np.maximum(self.parent, 0)
        while ancestor.any():
            path, ancestor = path + path[ancestor], ancestor[ancestor]
        return path

    @cached_property
    def n_children(self) -> NDArray[np.int64]:
        """(n,) number of children of each node."""
        return np.bincount(self.parent[1:], minlength=len(self))

    @property
    def tips(self) -> NDArray[np.int64]:
        """Rows without children, the root left out."""
        return 1 + np.flatnonzero(self.n_children[1:] == 0)

    @property
    def bifurcations(self) -> NDArray[np.int64]:
        """Rows with two or more children, the root left out (the neurites of a soma are no bifurcation)."""
        return 1 + np.flatnonzero(self.n_children[1:] >= 2)

    def segments(self) -> list[NDArray[np.int64]]:
        """Return the unbranched runs: rows from root or bifurcation to the next bifurcation or tip.

        Both ends are included.
        """
        runs = []
        for end in sorted([*self.bifurcations, *self.tips]):
            run = [end, self.parent[end]]
            while run[-1] > 0 and self.n_children[run[-1]] == 1:
                run.append(self.parent[run[-1]])
            runs.append(np.array(run[::-1]))
        return runs

    def scale(self, factors_xyz: ArrayLike) -> Tree:
        """Stretch by a factor per axis.

        Parameters
        ----------
        factors_xyz
            Three factors > 0, `x y z`. For voxels to µm see :meth:`to_microns`.

        Returns
        -------
        Tree
            The stretched tree; its radii are multiplied by the factors' geometric mean.

        Raises
        ------
        ValueError
            `factors_xyz` is not three numbers > 0.
        """
        factors = np.asarray(factors_xyz, dtype=np.float64)
        if factors.shape != (3,) or not (factors > 0).all():
            raise ValueError(f"factors_xyz must be three numbers > 0, got {factors_xyz!r}")
        return replace(self, xyz=self.xyz * factors, radius=self.radius * np.prod(factors) ** (1 / 3))

    def to_microns(self, spacing: Sequence[float]) -> Tree:
        """Return the tree in µm, given in voxels.

        Parameters
        ----------
        spacing
            Voxel size ``(z, y, x)``, µm, in the order of a volume's axes.

        Returns
        -------
        Tree
            Points in µm; radii times the cube root of a voxel's volume. A comment states the voxel size.

        Raises
        ------
        ValueError
            Not three sizes > 0.
        """
        spacing = check_spacing(spacing)
        note = f"x y z and radius in µm: scaled by a voxel size of {spacing} µm (z, y, x)"
        return replace(self.scale(spacing[::-1]), comments=(*self.comments, note))

    def translate(self, offset_xyz: ArrayLike) -> Tree:
        """Move by an offset.

        Parameters
        ----------
        offset_xyz
            Offset `x y z`, voxels.

        Returns
        -------
        Tree
            The same tree elsewhere.
        """
        return replace(self, xyz=self.xyz + np.asarray(offset_xyz, dtype=np.float64))

    def mirror(self, axis: Literal["x", "y", "z"], size: int) -> Tree:
        """Mirror within a volume: coordinate c becomes size - 1 - c.

        Vaa3D counts the rows of a TIFF from the bottom, so its trees are mirrored in y against the array.

        Parameters
        ----------
        axis
            Axis along which to mirror.
        size
            Size of the volume along that axis, voxels.

        Returns
        -------
        Tree
            The mirror image; its comments say so.

        Raises
        ------
        ValueError
            `axis` is none of the three.
        """
        if axis not in ("x", "y", "z"):
            raise ValueError(f"axis must be 'x', 'y' or 'z', got {axis!r}")
        xyz = self.xyz.copy()
        column = "xyz".index(axis)
        xyz[:, column] = size - 1 - xyz[:, column]
        note = f"mirrored: {axis} -> {size - 1} - {axis}"
        return replace(self, xyz=xyz, comments=(*self.comments, note))

    def resample(self, step: float) -> Tree:
        """Space the nodes evenly along every unbranched run.

        Parameters
        ----------
        step
            Largest distance between neighbouring nodes along the path, voxels, > 0. A step longer than the
            old spacing cuts corners.

        Returns
        -------
        Tree
            Root, bifurcations and tips stay where they are; radii are interpolated along the path; a new node
            takes the type of the old node at or after it.

        Raises
        ------
        ValueError
            `step` is not > 0.
        """
        if not step > 0:
            raise ValueError(f"step must be > 0 voxels, got {step}")
        xyz, radius, parent, type_ = [self.xyz[:1]], [self.radius[:1]], [np.array([-1])], [self.type[:1]]
        new_row, n = {0: 0}, 1  # where the ends of the runs went
        for run in self.segments():
            old = np.r_[0.0, np.cumsum(self.edge_lengths[run[1:] - 1])]  # path length at each old node
            pieces = max(1, int(np.ceil(old[-1] / step - 1e-9)))
            new = np.linspace(0, old[-1], pieces + 1)[1:]  # path length at each new node
            xyz.append(np.stack([np.interp(new, old, column) for column in self.xyz[run].T], axis=1))
            radius.append(np.interp(new, old, self.radius[run]))
            type_.append(self.type[run[1:]][np.searchsorted(old[1:], new - 1e-9).clip(max=len(run) - 2)])
            parent.append(np.r_[new_row[run[0]], np.arange(n, n + len(new) - 1)])
            n += len(new)
            new_row[run[-1]] = n - 1
        nodes = np.concatenate(xyz), np.concatenate(radius), np.concatenate(parent), np.concatenate(type_)
        return Tree(*nodes, comments=self.comments)


def _parents_first(parent: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the rows in an order in which every parent comes before its children."""
    roots = np.flatnonzero(parent < 0)
    if len(roots) != 1:
        raise ValueError(f"parent must have one root (a negative entry), got {len(roots)}")
    if (parent >= len(parent)).any():
        raise ValueError(f"parent must be < {len(parent)}, the number of nodes, got {parent.max()}")
    if roots[0] == 0 and (parent < np.arange(len(parent))).all():
        return np.arange(len(parent))
    children: list[list[int]] = [[] for _ in parent]
    for row, parent_row in enumerate(parent):
        if parent_row >= 0:
            children[parent_row].append(row)
    order, stack = [], [int(roots[0])]
    while stack:
        order.append(stack.pop())
        stack += reversed(children[order[-1]])
    if len(order) < len(parent):
        raise ValueError(f"{len(parent) - len(order)} nodes hang on a cycle of parents, not on the root")
    return np.array(order)
