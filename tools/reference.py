"""Write the book's reference pages from the package itself: one page a room, the presets, the list of notebooks.

    neurokd/__init__.pyi --> public names by module --> one page (RST, for autodoc) for each folder of the package
    PRESETS              --> a table
    notebooks/*.py       --> what each asks, needs and takes

Every public name has its place by construction, since the pages are made from the list that makes it public.
"""

import ast
import importlib
import inspect
import re
import textwrap
from itertools import pairwise
from pathlib import Path

import neurokd
import notebooks
import openings

ROOT = Path(__file__).resolve().parents[1]
ROOMS = ("data", "models", "inference", "evaluation", "training", "viz")  # in the order in which data flow


def public_names() -> dict[str, list[str]]:
    """Return the public names by the module they come from, in the order of the package's list."""
    table: dict[str, list[str]] = {}
    for node in ast.parse((ROOT / "neurokd" / "__init__.pyi").read_text(encoding="utf-8")).body:
        if isinstance(node, ast.ImportFrom) and node.module:
            table.setdefault(f"neurokd.{node.module}", []).extend(alias.name for alias in node.names)
    return table


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
    return "\n\n".join(blocks) + "\n"


def room_page(room: str) -> str:
    """Return the reference page of one folder of the package."""
    parts = [heading(f"neurokd.{room}", "="), f"{_first_line(f'neurokd.{room}')}\n"]
    parts.append(".. currentmodule:: neurokd\n")
    modules = {module: names for module, names in public_names().items() if module.split(".")[1] == room}
    parts.append(_overview(modules))
    for module, names in modules.items():
        parts.append(heading(module, "-"))
        parts.append(prose(importlib.import_module(module).__doc__))
        parts += [_entry(name, module) for name in names]
    return "\n".join(parts)


def _overview(modules: dict[str, list[str]]) -> str:
    """Return a table of a room's names: what each is, and the notebooks that use it."""
    shown = shown_in()
    lines = [".. list-table::", "   :header-rows: 1", "   :widths: 30 70", "   :class: names", ""]
    lines += ["   * - name", "     - what it is, and the notebooks that use it"]
    for module, names in modules.items():
        for name in names:
            thing = getattr(neurokd, name)
            known = inspect.isclass(thing) or inspect.isfunction(thing)
            said = inspect.cleandoc(thing.__doc__) if known else _words_below(name, module)
            links = ", ".join(f":doc:`{stem[:2]} </notebooks/{stem}>`" for stem in shown.get(name, []))
            first = " ".join(said.split("\n\n")[0].split())
            lines += [f"   * - `{name}`", f"     - {first} {f'({links})' if links else ''}".rstrip()]
    return "\n".join(lines) + "\n"


def shown_in() -> dict[str, list[str]]:
    """Return the notebooks that use each public name, as ``nkd.NAME``."""
    table: dict[str, list[str]] = {}
    for source in notebooks.sources():
        for name in sorted(set(re.findall(r"\bnkd\.(\w+)", source.read_text(encoding="utf-8")))):
            table.setdefault(name, []).append(source.stem)
    return table


def _entry(name: str, module: str) -> str:
    thing = getattr(neurokd, name)
    if inspect.isclass(thing):
        return f".. autoclass:: {name}\n   :members:\n   :member-order: bysource\n"
    if inspect.isfunction(thing):
        return f".. autofunction:: {name}\n"
    # autodoc sees only what kind of thing a constant is; its words are the string below it in the source
    return f".. py:data:: {name}\n\n{textwrap.indent(_words_below(name, module), '   ')}\n"


def _words_below(name: str, module: str) -> str:
    body = ast.parse(inspect.getsource(importlib.import_module(module))).body
    for node, below in pairwise(body):
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == name and isinstance(below, ast.Expr):
            return inspect.cleandoc(below.value.value)
    raise ValueError(f"{module}.{name} has no string below it that says what it is")


def _first_line(module: str) -> str:
    return inspect.cleandoc(importlib.import_module(module).__doc__).splitlines()[0]


def notebooks_page() -> str:
    """Return the reference page of what a notebook uses beside the public names."""
    module = "neurokd.profile"
    parts = [heading("neurokd.profile", "="), prose(importlib.import_module(module).__doc__)]
    parts += [f".. currentmodule:: {module}\n"]
    parts += [f".. autofunction:: {name}\n" for name in importlib.import_module(module).__all__]
    return "\n".join(parts)


def presets_page() -> str:
    """Return the page of presets, with the number of weights counted from models that are made for it."""
    import torch

    rows = []
    for name, preset in neurokd.PRESETS.items():
        depth, width = preset["depth"], preset["width"]
        counts = []
        for dim, heads in ((384, 6), (768, 12)):  # ViT-S and ViT-B
            with torch.device("meta"):
                model = neurokd.NeuronSegmenter.from_scratch(dim=dim, heads=heads, depth=depth, width=width)
            counts.append(sum(parameter.numel() for parameter in model.parameters()) / 1e6)
        rows.append([f"`{name}`", depth, width, *(f"{count:.1f} million" for count in counts)])
    head = ["preset", "blocks", "channels of the decoder", "weights, as wide as a ViT-S", "as wide as a ViT-B"]
    return _filled("reference/presets.md", PRESETS=_table(head, rows))


def formats_page() -> str:
    """Return the page of file formats, with the table of `neurokd.FORMATS`."""
    rows = []
    for kind in neurokd.FORMATS:
        suffixes = ", ".join(f"`{suffix}`" for suffix in kind.suffixes)
        spacing = ("read and written" if kind.write else "read") if kind.read_spacing else "no place for it"
        rows.append([suffixes, kind.reads, kind.writes, spacing])
    return _filled("reference/formats.md", FORMATS=_table(["suffix", "read", "written", "voxel size"], rows))


def notation_page() -> str:
    """Return the page of notation, with the table of `neurokd.SCORES`."""
    rows = [
        [score.label, f"`{key}`", score.compares, "length" if score.unit else "", score.better or "", score.definition]
        for key, score in neurokd.SCORES.items()
    ]
    head = ["score", "key", "compares", "unit", "better", "definition"]
    return _filled("background/notation.md", SCORES=_table(head, rows))


def tutorial_page() -> str:
    """Return the first page of the tutorial: what each notebook asks, from the notebooks' own boxes."""
    rows = []
    for source in notebooks.sources():
        text = source.read_text(encoding="utf-8")
        title = re.search(r"^# # (.+)$", text, re.M)[1]
        question = re.search(r"^# > \*\*Question\.\*\* (.+)$", text, re.M)[1]
        takes = openings.takes_briefly(openings.measured().get(source.stem, {}))
        rows.append([f"[{title}](notebooks/{source.stem}.ipynb)", question, takes])
    return _filled("tutorial.md", NOTEBOOKS=_table(["notebook", "question", "takes"], rows))


def _table(head: list[str], rows: list[list]) -> str:
    return "\n".join(f"| {' | '.join(str(cell) for cell in row)} |" for row in [head, ["---"] * len(head), *rows])


def _filled(page: str, **tables: str) -> str:
    text = (ROOT / "book" / page).read_text(encoding="utf-8")
    for name, table in tables.items():
        text = text.replace(f"<!-- {name} -->", table)
    return text
