"""Write the book's reference pages from the package itself: one page a room, the presets, the list of notebooks.

    neurokd/__init__.pyi --> public names by module --> one page (RST, for autodoc) for each folder of the package
    PRESETS              --> a table
    notebooks/*.py       --> what each asks, needs and takes

Every public name has its place by construction, since the pages are made from the list that makes it public. This
module is also an extension of Sphinx, for the links in docstrings.
"""

from __future__ import annotations

import ast
import importlib
import inspect
import re
import textwrap
from itertools import pairwise
from pathlib import Path

import neurokd
import notebooks

ROOT = Path(__file__).resolve().parents[1]
ROOMS = ("data", "models", "inference", "evaluation", "training", "viz")  # in the order in which data flow


def public_names() -> dict[str, list[str]]:
    """Return the public names by the module they come from, in the order of the package's list."""
    table: dict[str, list[str]] = {}
    for node in ast.parse((ROOT / "neurokd" / "__init__.pyi").read_text(encoding="utf-8")).body:
        if isinstance(node, ast.ImportFrom) and node.module:
            table.setdefault(f"neurokd.{node.module}", []).extend(alias.name for alias in node.names)
    return table


def setup(app) -> dict[str, bool]:
    """Register with Sphinx."""
    app.connect("autodoc-process-docstring", _use_public_links)
    return {"parallel_read_safe": True}


def _use_public_links(app, what, name, thing, options, lines: list[str]) -> None:
    lines[:] = map(public_links, lines)


def public_links(text: str) -> str:
    """Return a docstring with links to public names, ``neurokd.ViT3D`` for ``neurokd.models.vit.ViT3D``."""
    modules = "|".join(map(re.escape, public_names()))
    return re.sub(rf"`(?:{modules})\.(\w[\w.]*)`", r"`\1 <neurokd.\1>`", text)


def heading(text: str, under: str) -> str:
    """Return an RST heading."""
    return f"{text}\n{under * len(text)}\n"


def prose(doc: str) -> str:
    """Return a module's docstring as RST, its pictures in characters kept as they are."""
    blocks: list[str] = []
    for block in inspect.cleandoc(doc).split("\n\n"):
        picture = block.startswith("    ") or "-->" in block
        if picture and not (blocks and blocks[-1].endswith("::")):
            blocks.append(".. code-block:: text")
        blocks.append(block if block.startswith("    ") or not picture else textwrap.indent(block, "    "))
    return public_links("\n\n".join(blocks)) + "\n"


def room_page(room: str) -> str:
    """Return the reference page of one folder of the package."""
    modules = {module: names for module, names in public_names().items() if module.split(".")[1] == room}
    parts = [heading(f"neurokd.{room}", "="), prose(importlib.import_module(f"neurokd.{room}").__doc__)]
    parts += [".. currentmodule:: neurokd\n", _overview(modules)]
    for module, names in modules.items():
        parts += [heading(module, "-"), f".. py:module:: {module}\n", ".. currentmodule:: neurokd\n"]
        parts += [prose(importlib.import_module(module).__doc__), *(_entry(name, module) for name in names)]
    return "\n".join(parts)


def _overview(modules: dict[str, list[str]]) -> str:
    """Return a table of a room's names: what each is, and the notebooks that use it."""
    lines = [".. list-table::", "   :header-rows: 1", "   :widths: 30 70", "   :class: names", ""]
    lines += ["   * - name", "     - what it is, and the notebooks that use it"]
    texts = {source.stem: source.read_text(encoding="utf-8") for source in notebooks.sources()}
    for module, names in modules.items():
        for name in names:
            first = " ".join(_words(name, module).split("\n\n")[0].split())
            used = [stem for stem, text in texts.items() if re.search(rf"\bnkd\.{name}\b", text)]
            links = ", ".join(f":doc:`{stem[:2]} </notebooks/{stem}>`" for stem in used)
            lines += [f"   * - `{name}`", f"     - {first} ({links})" if links else f"     - {first}"]
    return "\n".join(lines) + "\n"


def _entry(name: str, module: str) -> str:
    """Return the directive that describes a public name."""
    thing = getattr(neurokd, name)
    if inspect.isclass(thing):
        return f".. autoclass:: {name}\n   :members:\n   :member-order: bysource\n"
    if inspect.isfunction(thing):
        return f".. autofunction:: {name}\n"
    return f".. py:data:: {name}\n\n{textwrap.indent(_words(name, module), '   ')}\n"


def _words(name: str, module: str) -> str:
    """Return the docstring of a class or function; of a constant the string below it in the source."""
    thing = getattr(neurokd, name)
    if inspect.isclass(thing) or inspect.isfunction(thing):
        return inspect.cleandoc(thing.__doc__)
    for node, below in pairwise(ast.parse(inspect.getsource(importlib.import_module(module))).body):
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == name and isinstance(below, ast.Expr):
            return inspect.cleandoc(below.value.value)
    raise ValueError(f"{module}.{name} must have a string below it that says what it is")


def notebooks_page() -> str:
    """Return the reference page of what a notebook uses beside the public names."""
    module = importlib.import_module("neurokd.profile")
    parts = [heading(module.__name__, "="), prose(module.__doc__), f".. currentmodule:: {module.__name__}\n"]
    return "\n".join([*parts, *(f".. autofunction:: {name}\n" for name in module.__all__)])


def presets_page() -> str:
    """Return the page of presets, with the number of weights counted from models that are made for it."""
    import torch

    rows = [["preset", "blocks", "channels of the decoder", "weights, as wide as a ViT-S", "as wide as a ViT-B"]]
    for name, preset in neurokd.PRESETS.items():
        counts = []
        for dim, heads in ((384, 6), (768, 12)):  # ViT-S and ViT-B
            with torch.device("meta"):
                model = neurokd.NeuronSegmenter.from_scratch(dim=dim, heads=heads, **preset)
            counts.append(sum(parameter.numel() for parameter in model.parameters()) / 1e6)
        rows.append([f"`{name}`", preset["depth"], preset["width"], *(f"{count:.1f} million" for count in counts)])
    return _filled("reference/presets.md", "PRESETS", rows)


def formats_page() -> str:
    """Return the page of file formats, with the table of `neurokd.FORMATS`."""
    rows = [["suffix", "read", "written", "voxel size"]]
    for kind in neurokd.FORMATS:
        suffixes = ", ".join(f"`{suffix}`" for suffix in kind.suffixes)
        spacing = ("read and written" if kind.write else "read") if kind.read_spacing else "no place for it"
        rows.append([suffixes, kind.reads, kind.writes, spacing])
    return _filled("reference/formats.md", "FORMATS", rows)


def notation_page() -> str:
    """Return the page of notation, with the table of `neurokd.SCORES`."""
    rows = [["score", "key", "compares", "unit", "better", "definition"]]
    for key, score in neurokd.SCORES.items():
        unit = "length" if score.unit else ""
        rows.append([score.label, f"`{key}`", score.compares, unit, score.better or "", score.definition])
    return _filled("background/notation.md", "SCORES", rows)


def tutorial_page() -> str:
    """Return the first page of the tutorial: what each notebook asks, from the notebooks' own boxes."""
    rows = [["notebook", "question", "takes"]]
    for source in notebooks.sources():
        text = source.read_text(encoding="utf-8")
        title = re.search(r"^# # (.+)$", text, re.M)[1]
        question = re.search(r"^# > \*\*Question\.\*\* (.+)$", text, re.M)[1]
        rows.append([f"[{title}](notebooks/{source.stem}.ipynb)", question, notebooks.takes(source.stem, briefly=True)])
    return _filled("tutorial.md", "NOTEBOOKS", rows)


def _filled(page: str, name: str, rows: list[list]) -> str:
    """Return a page of the book with a table, its head first, in the place of ``<!-- NAME -->``."""
    head, *body = rows
    lines = [f"| {' | '.join(map(str, row))} |" for row in (head, ["---"] * len(head), *body)]
    return (ROOT / "book" / page).read_text(encoding="utf-8").replace(f"<!-- {name} -->", "\n".join(lines))
