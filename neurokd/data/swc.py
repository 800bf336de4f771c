"""SWC files: one node a line, `id type x y z radius parent`, by the rules of the INCF.

A file read here is one tree or an error that names the line; a file written here has one root, parents
before children and ids 1..n, as Vaa3D, SNT, neuTube and NeuroM expect. The tree type and its geometry are in
:mod:`neurokd.data.tree`; the rules at https://swc-specification.readthedocs.io.
"""

from __future__ import annotations

import math
import os
import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from neurokd.data.files import existing_file, writing_to
from neurokd.data.tree import Tree

__all__ = ["read_swc", "write_swc"]

_FIELDS = ("id", "type", "x", "y", "z", "radius", "parent")
_LARGEST = 1e100  # far beyond any neuron, and squares of distances are still finite


def read_swc(path: str | os.PathLike[str], *, repair: bool = False) -> Tree:
    """Read a tree from an SWC file.

    Windows line ends, a byte order mark, blank lines, columns after the seventh, ids with gaps or from 0 and
    children before their parents are accepted. Nodes are sorted parents first. Any negative parent means a
    root.

    Parameters
    ----------
    path
        The file.
    repair
        Mend three errors, with a warning: several roots (each further one is tied to the nearest node of the
        trees before it), two nodes that are each other's parent where the root should be (the one with the
        lower id becomes the root), and negative radii (they become 0).

    Returns
    -------
    Tree
        The tree in the file's own unit.

    Raises
    ------
    FileNotFoundError
        There is no such file.
    ValueError
        There are no nodes; a line has too few fields, or one that is not a number of at most 1e100 (for id,
        type and parent: not an integer); an id comes twice; a parent is not in the file; there is a cycle,
        several roots or a negative radius. The message names file and line.
    """
    path = existing_file(path)
    comments, nodes = _read_nodes(path)
    lines = list(nodes)
    ids, types, *point, radius, parent_ids = zip(*nodes.values(), strict=True)
    rows = {id_: row for row, id_ in enumerate(ids)}
    for id_, parent_id, number in zip(ids, parent_ids, lines, strict=True):
        if parent_id >= 0 and parent_id not in rows:
            raise ValueError(f"{path}, line {number}: parent {parent_id} of node {id_} is not in the file")
    xyz, radius = np.stack(point, axis=1), np.array(radius)
    parent = np.array([rows.get(parent_id, -1) for parent_id in parent_ids])

    def mend(problem: str, mended: str) -> None:
        if not repair:
            raise ValueError(f"{problem}; read_swc(..., repair=True) mends this: {mended}")
        warnings.warn(f"{problem}; mended: {mended}", stacklevel=3)

    if (radius < 0).any():
        first = int(np.flatnonzero(radius < 0)[0])
        mend(f"{path}, line {lines[first]}: radius {radius[first]} is negative", "negative radii become 0")
        radius = np.maximum(radius, 0)
    ring = _find_cycle(parent)
    if len(ring) == 2 and (parent >= 0).all():
        top = min(ring, key=lambda i: ids[i])
        mend(
            f"{path}, line {lines[top]}: no root, and two nodes are each other's parent",
            f"node {ids[top]} becomes the root",
        )
        parent[top] = -1
        ring = _find_cycle(parent)
    if ring:
        chain = " -> ".join(str(ids[i]) for i in [*ring, ring[0]][:10])
        raise ValueError(f"{path}, line {lines[min(ring)]}: the parents form a cycle of {len(ring)}, {chain}")
    roots = np.flatnonzero(parent < 0)
    if len(roots) > 1:
        mend(
            f"{path}, line {lines[roots[1]]}: {len(roots)} roots, a tree has one",
            "each further root is tied to the nearest node of the trees before it",
        )
        parent = _tie_roots(xyz, parent, roots)
    return Tree.from_nodes(xyz, radius, parent, types, comments=comments)


def write_swc(
    path: str | os.PathLike[str], tree: Tree, *, comments: Sequence[str] = (), overwrite: bool = False
) -> Path:
    """Write a tree as SWC: ids 1..n in the tree's order, numbers with four decimals.

    Parameters
    ----------
    path
        The file to write; its folder is made if need be. The file appears whole or not at all.
    tree
        The tree; its own comments come first.
    comments
        Further header lines, without `#`.
    overwrite
        Replace an existing file.

    Returns
    -------
    Path
        The file.

    Raises
    ------
    FileExistsError
        The file exists and `overwrite` is false.
    """
    columns = " ".join(_FIELDS)
    header = [line for comment in (*tree.comments, *comments) for line in comment.splitlines()]
    header = [line for line in header if line != columns]
    lines = [f"# {line}".rstrip() for line in (*header, columns)]
    parent_id = np.where(tree.parent < 0, -1, tree.parent + 1)
    for i, (x, y, z) in enumerate(tree.xyz):
        lines.append(f"{i + 1} {tree.type[i]} {x:.4f} {y:.4f} {z:.4f} {tree.radius[i]:.4f} {parent_id[i]}")
    with writing_to(path, overwrite=overwrite) as part:
        part.write_text("\n".join(lines) + "\n", encoding="utf-8", newline="\n")
    return Path(path)


def _read_nodes(path: Path) -> tuple[list[str], dict[int, tuple[float, ...]]]:
    """Return the comments, and the seven numbers of every node by the number of its line."""
    comments: list[str] = []
    nodes: dict[int, tuple[float, ...]] = {}
    line_of: dict[float, int] = {}  # by id
    # Comments may be in any encoding, the numbers are ASCII in all of them.
    text = path.read_text(encoding="utf-8-sig", errors="replace")
    for number, line in enumerate(text.split("\n"), start=1):
        line = line.strip()
        if line.startswith("#"):
            comments.append(line[1:].strip())
        elif line:
            node = _parse(line, f"{path}, line {number}")
            if node[0] in line_of:
                raise ValueError(f"{path}, line {number}: id {node[0]} already stands in line {line_of[node[0]]}")
            nodes[number], line_of[node[0]] = node, number
    if not nodes:
        raise ValueError(f"{path}: no nodes in the file, only comments or blank lines")
    return comments, nodes


def _parse(line: str, where: str) -> tuple[float, ...]:
    """Return the seven numbers of one line; id, type and parent are integers."""
    fields = line.split("#")[0].split()
    if len(fields) < 7:
        raise ValueError(f"{where}: {len(fields)} fields, need seven ({' '.join(_FIELDS)})")
    numbers = []
    for name, text in zip(_FIELDS, fields, strict=False):
        try:
            number = math.nan if "_" in text else float(text)  # Python would read 1_0 as 10
        except ValueError:
            number = math.nan
        if not abs(number) <= _LARGEST:
            raise ValueError(f"{where}: {name} must be a number of at most {_LARGEST:g}, got {text[:40]!r}")
        if name in ("id", "type", "parent"):
            if not number.is_integer() or abs(number) > 2**53:  # beyond that, floats skip integers
                raise ValueError(f"{where}: {name} must be an integer, got {text[:40]!r}")
            number = int(number)
        numbers.append(number)
    if numbers[0] < 0:
        raise ValueError(f"{where}: id must be >= 0, got {numbers[0]}")
    return tuple(numbers)


def _find_cycle(parent: NDArray[np.int64]) -> list[int]:
    """Return the rows of one cycle, from child to parent; none if there is no cycle."""
    seen = np.full(len(parent), -1)  # the row where the walk that came by had started
    for start in range(len(parent)):
        path, row = [], start
        while row >= 0 and seen[row] < 0:
            seen[row] = start
            path.append(row)
            row = int(parent[row])
        if row >= 0 and seen[row] == start:
            return path[path.index(row) :]
    return []


def _tie_roots(xyz: NDArray[np.float64], parent: NDArray[np.int64], roots: NDArray[np.int64]) -> NDArray[np.int64]:
    """Give every root but the first a parent: the nearest node of the trees before it."""
    tree_of = np.arange(len(parent))
    for _ in range(len(parent).bit_length()):  # pointer jumping: every node learns its root in log2 n steps
        tree_of = np.where(parent[tree_of] < 0, tree_of, tree_of[np.maximum(parent[tree_of], 0)])
    parent = parent.copy()
    for root in roots[1:]:
        earlier = np.flatnonzero(tree_of < root)  # nodes of the trees before this one
        parent[root] = earlier[cKDTree(xyz[earlier]).query(xyz[root])[1]]
    return parent
