"""Make every notebook from its paired text file, or check that the two say the same.

    python tools/notebooks.py                  write notebooks/*.ipynb from notebooks/*.py, and say what changed
    python tools/notebooks.py --check          only say where a pair differs, and exit with 1 if any does
    python tools/notebooks.py --text NOTEBOOK  write the .py of a notebook that was edited in JupyterLab

The text file (``py:percent``) is the source: it is what is reviewed and linted. The notebook is what
Colab and JupyterLab open. It carries no outputs, no execution counts and no program versions, and a
cell keeps its id for as long as jupytext recognises it, so that a change reads as a change. JupyterLab
is not told of the pair: its jupytext refuses to open a notebook that is newer than an unequal text.
"""

import argparse
import hashlib
import sys
from itertools import zip_longest
from pathlib import Path

import jupytext
import nbformat
from jupytext.combine import map_outputs_to_inputs

FOLDER = Path(__file__).resolve().parents[1] / "notebooks"
METADATA = {
    "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
    "language_info": {"name": "python"},
}


def sources(folder: Path = FOLDER) -> list[Path]:
    """Return the text files of a folder's notebooks."""
    return sorted(path for path in folder.glob("*.py") if path.name != "conftest.py")


def build(source: Path) -> nbformat.NotebookNode:
    """Return the notebook that a text file stands for, with the ids of the notebook already beside it.

    The id of a new cell comes from its text and place, so that the same text always gives the same file.
    """
    cells = jupytext.read(source, fmt="py:percent").cells
    for place, cell in enumerate(cells):
        cell.id = hashlib.sha256(f"{place}\n{cell.source}".encode()).hexdigest()[:8]
    target = source.with_suffix(".ipynb")
    if target.exists():
        earlier = nbformat.read(target, as_version=4).cells
        for cell, match in zip(cells, map_outputs_to_inputs(cells, earlier), strict=True):
            if match is not None:
                cell.id = earlier[match].id
    notebook = nbformat.v4.new_notebook(cells=cells, metadata=METADATA)
    nbformat.validate(notebook)
    return notebook


def differences(folder: Path = FOLDER) -> list[str]:
    """Say, one line each, what is wrong with the pairs of a folder; an empty list is good."""
    found = []
    texts = {path.stem for path in sources(folder)}
    notebooks = {path.stem for path in folder.glob("*.ipynb")}
    found += [f"{name}.py has no {name}.ipynb" for name in sorted(texts - notebooks)]
    found += [f"{name}.ipynb has no {name}.py" for name in sorted(notebooks - texts)]
    for name in sorted(texts & notebooks):
        said = jupytext.read(folder / f"{name}.py", fmt="py:percent").cells
        notebook = nbformat.read(folder / f"{name}.ipynb", as_version=4)
        if notebook.metadata != METADATA:
            found.append(f"{name}.ipynb: metadata of the notebook are not those that this tool writes")
        for place, (text, cell) in enumerate(zip_longest(said, notebook.cells)):
            if text is None or cell is None:
                found.append(f"{name}: {len(said)} cells in .py, {len(notebook.cells)} in .ipynb")
                break
            if any(text[part] != cell[part] for part in ("cell_type", "source", "metadata")):
                found.append(f"{name}: cell {place} differs between .py and .ipynb")
            if cell.get("outputs") or cell.get("execution_count") is not None:
                found.append(f"{name}.ipynb: cell {place} holds outputs or an execution count")
    return found


def write_text(notebook: Path) -> None:
    """Write the text file of a notebook, without a header: all it could say is the same for every notebook."""
    content = nbformat.read(notebook, as_version=4)
    content.metadata = {"jupytext": {"notebook_metadata_filter": "-all"}}
    jupytext.write(content, notebook.with_suffix(".py"), fmt="py:percent")


def main(argv: list[str] | None = None) -> int:
    """Run the command line; return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--check", action="store_true", help="change nothing, exit with 1 where a pair differs")
    what.add_argument("--text", type=Path, metavar="NOTEBOOK", help="write the .py of this notebook first")
    arguments = parser.parse_args(argv)
    if arguments.text:
        write_text(arguments.text)
    found = differences()
    for line in found:
        print(line)
    if arguments.check:
        if found:
            print("`make notebooks` writes the notebooks from their .py")
        return bool(found)
    for source in sources():
        nbformat.write(build(source), source.with_suffix(".ipynb"))
    return 0


if __name__ == "__main__":
    sys.exit(main())
