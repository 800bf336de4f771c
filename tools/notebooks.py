"""Write every notebook from its paired text file, and what it opens with.

    python tools/notebooks.py                  update notebooks/*.py, write notebooks/*.ipynb, and say what changed
    python tools/notebooks.py --check          change nothing; exit with 1 where something would change
    python tools/notebooks.py --text NOTEBOOK  first write the .py of a notebook that was edited in JupyterLab

The text file (``py:percent``) is the source: it is what is reviewed and linted. The notebook is what Colab and
JupyterLab open. It holds no outputs, execution counts or program versions. A cell keeps its id while jupytext
recognises it, so that a change reads as a change. JupyterLab is not told of the pair: its jupytext refuses to open a
notebook that is newer than an unequal text.

Two things in the text file are written here: the line ``> **Takes.** ...`` of the box, from ``book/measured.json``,
and the cell that installs neurokd in Colab, from the repository's address in ``pyproject.toml``.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import re
import sys
from pathlib import Path

import jupytext
import nbformat
from jupytext.combine import map_outputs_to_inputs

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).resolve().parents[1]
FOLDER = ROOT / "notebooks"
MEASURED = ROOT / "book" / "measured.json"  # written by tools/execute.py --measure
METADATA = {
    "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
    "language_info": {"name": "python"},
}
TAKES = re.compile(r"^# > \*\*Takes\.\*\* .*$", re.M)
MARK = '# %% jupyter={"source_hidden": true} tags=["colab", "hide-input"]\n'
INSTALL_CELL = re.compile(re.escape(MARK) + r".*?\n(?=# %%)", re.S)
FIRST_CODE = re.compile(r"^# %%(?! \[markdown\])", re.M)
ASK_FOR_WHEEL = """\
    from google.colab import files
    from IPython import get_ipython

    print("Choose the wheel of neurokd; in a clone of the repository, `pip wheel --no-deps .` makes it.")
    (wheel,) = files.upload()
    get_ipython().run_line_magic("pip", f"install --quiet ./{wheel}")
"""
FROM_REPOSITORY = """\
    from IPython import get_ipython

    get_ipython().run_line_magic("pip", "install --quiet git+ADDRESS")
"""


def sources(folder: Path = FOLDER) -> list[Path]:
    """Return the text files of a folder's notebooks."""
    return sorted(path for path in folder.glob("*.py") if path.name != "conftest.py")


def build(source: Path) -> nbformat.NotebookNode:
    """Return the notebook of a text file, with the ids of the notebook already beside it.

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
    """Return, one line each, what is wrong with the pairs of a folder."""
    texts, pairs = ({path.stem for path in paths} for paths in (sources(folder), folder.glob("*.ipynb")))
    found = [f"{name}.py has no {name}.ipynb" for name in sorted(texts - pairs)]
    found += [f"{name}.ipynb has no {name}.py" for name in sorted(pairs - texts)]
    for name in sorted(texts & pairs):
        wanted = nbformat.writes(build(folder / f"{name}.py")) + "\n"
        if (folder / f"{name}.ipynb").read_text(encoding="utf-8") != wanted:
            found.append(f"{name}.ipynb is not what this tool makes of {name}.py")
    return found


def write_text(notebook: Path) -> None:
    """Write the text file of a notebook, without a header: it would be the same for every notebook."""
    content = nbformat.read(notebook, as_version=4)
    content.metadata = {"jupytext": {"notebook_metadata_filter": "-all"}}
    jupytext.write(content, notebook.with_suffix(".py"), fmt="py:percent")


def repository() -> str | None:
    """Return the repository's address from ``pyproject.toml``, None while it has none."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    return project.get("urls", {}).get("Repository")


def install_cell(address: str | None) -> str:
    """Return the text of the install cell; without an address it asks for the wheel."""
    body = FROM_REPOSITORY.replace("ADDRESS", address.rstrip("/")) if address else ASK_FOR_WHEEL
    return f'{MARK}import sys\n\nif "google.colab" in sys.modules:  # anywhere else this cell does nothing\n{body}\n'


def measured() -> dict[str, dict[str, dict[str, float]]]:
    """Return what ``book/measured.json`` holds, by notebook and profile."""
    return json.loads(MEASURED.read_text(encoding="utf-8")) if MEASURED.exists() else {}


def takes(name: str, *, briefly: bool = False) -> str:
    """Return what a notebook takes as it was measured, for its box or, briefly, for a table."""
    runs = measured().get(name)
    if not runs:
        return "Not measured yet."
    full, short = (_duration(runs[profile]["seconds"]) if profile in runs else "?" for profile in ("full", "ci"))
    cores, memory, megabytes = (max(run[key] for run in runs.values()) for key in ("cores", "memory_gb", "download_mb"))
    if briefly:
        return f"{full} ({short}), {memory:.1f} GB" + (f", {megabytes:.0f} MB" if megabytes >= 1 else "")
    download = f"{megabytes:.0f} MB the first time" if megabytes >= 1 else "less than 1 MB"
    times = f"{full} on {cores} CPU cores, {short} in the short profile (`NEUROKD_PROFILE=ci`)"
    return f"{times}; {memory:.1f} GB of memory. Downloads {download}."


def _duration(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 90 else f"{seconds / 60:.0f} min"


def opened(text: str, *, line: str, cell: str) -> str:
    """Return a notebook's text with this line in its box and this cell before its other code.

    Raises
    ------
    ValueError
        The text does not have exactly one such line, or has no code cell.
    """
    if len(TAKES.findall(text)) != 1:
        raise ValueError(f"the box must have one line '# > **Takes.** ', got {len(TAKES.findall(text))}")
    text = INSTALL_CELL.sub("", TAKES.sub(lambda _: f"# > **Takes.** {line}", text))
    first = FIRST_CODE.search(text)
    if first is None:
        raise ValueError("there must be a code cell after the install cell, got none")
    return text[: first.start()] + cell + text[first.start() :]


def main(argv: list[str] | None = None) -> int:
    """Run the command line; return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--check", action="store_true", help="change nothing; exit with 1 where something would change")
    what.add_argument("--text", type=Path, metavar="NOTEBOOK", help="first write the .py of this notebook")
    arguments = parser.parse_args(argv)
    if arguments.text:
        write_text(arguments.text)
    found, cell = [], install_cell(repository())
    for source in sources():
        text = source.read_text(encoding="utf-8")
        wanted = opened(text, line=takes(source.stem), cell=cell)
        if wanted != text:
            found.append(f"{source.name}: its opening is not what this tool writes")
            if not arguments.check:
                source.write_text(wanted, encoding="utf-8")
    found += differences()
    for line in found:
        print(line)
    if arguments.check:
        if found:
            print("`make notebooks` mends this")
        return bool(found)
    for source in sources():
        nbformat.write(build(source), source.with_suffix(".ipynb"))
    return 0


if __name__ == "__main__":
    sys.exit(main())
