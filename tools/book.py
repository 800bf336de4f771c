"""Build the book: pages from book/, reference from the package, tutorial from the executed notebooks.

    python tools/book.py            execute what changed (ci profile), build book/_build/html; a warning is an error
    python tools/book.py --draft    build only; a notebook that is not executed yet is shown without outputs

Everything is put together in ``book/_build/source``. Only files whose content changed are written there, so that
Sphinx makes only those pages again. ``NEUROKD_PROFILE=full`` shows what a reader gets instead of the short profile.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
from importlib import resources
from pathlib import Path

import nbformat
import yaml

import execute
import neurokd
import notebooks
import reference
import vendor
from neurokd.models.storage import model_folder, released_models

ROOT = Path(__file__).resolve().parents[1]
BOOK = ROOT / "book"
BUILD = BOOK / "_build"
SOURCE = BUILD / "source"
SHORT = """\
:::{note}
What is shown below was made in the short profile, which tests this book: fewer steps and smaller volumes, so the
pictures and numbers are worse than those you get when you run the notebook yourself.
:::"""


def shown(source: Path, profile: str) -> nbformat.NotebookNode:
    """Return a notebook as the book shows it: its present text, the outputs of its last run, figures with words.

    Raises
    ------
    ValueError
        A figure has no words.
    """
    notebook = notebooks.build(source)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    if execute.is_done(source, profile):
        executed = nbformat.read(execute.kept(source, profile), as_version=4)
        notebook.metadata["widgets"] = executed.metadata.get("widgets", {})
        outputs = [cell.outputs for cell in executed.cells if cell.cell_type == "code"]
        for cell, output in zip(code, outputs, strict=True):
            cell.outputs = [each for each in output if each.get("name") != "stderr"]  # progress bars
            if "mystnb" not in cell.metadata and (words := _words(cell, source)):
                cell.metadata["mystnb"] = {"image": {"alt": words}}
        if profile == "ci":
            box = re.compile(r"(\n>[^\n]*)(\n(?!>)|$)")  # its last line; the note stands below
            notebook.cells[0].source = box.sub(rf"\1\n\n{SHORT}\n\2", notebook.cells[0].source, count=1)
    for cell in code:
        if "colab" in cell.metadata.get("tags", []):
            cell.outputs, cell.metadata["tags"] = [], [*cell.metadata["tags"], "remove-cell"]
    return notebook


def _words(cell: nbformat.NotebookNode, source: Path) -> str:
    """Return the alternative text of a cell's figures, which the run took from their titles and labels.

    A widget that brings a picture for pages without widgets is shown as the widget.
    """
    words = []
    for output in cell.outputs:
        data = output.get("data", {})
        if "image/png" in data and "application/vnd.jupyter.widget-view+json" not in data:
            words.append(output.metadata.get("image/png", {}).get("alt"))
    if None in words:
        raise ValueError(f"{source.stem}: a figure of the cell below has no words\n{cell.source}")
    return " / ".join(words)


def configuration(address: str | None) -> dict:
    """Return Jupyter Book's settings: those of ``book/_config.yml``, and the buttons that need an address."""
    settings = yaml.safe_load((BOOK / "_config.yml").read_text(encoding="utf-8"))
    if address:
        settings["sphinx"]["config"]["html_theme_options"] |= {
            "repository_url": address.rstrip("/"),
            "repository_branch": "main",
            "use_repository_button": True,
            "use_issues_button": True,
            "launch_buttons": {"colab_url": "https://colab.research.google.com"},
        }
    return settings


def with_address(text: str, address: str | None) -> str:
    """Fill in ``<!-- address -->A<!-- else -->B<!-- end -->``: A with the address for ADDRESS, or B without one."""
    either = re.compile("<!-- address -->(.*?)<!-- else -->(.*?)<!-- end -->", re.S)
    return either.sub(lambda found: found[1].replace("ADDRESS", address) if address else found[2], text)


def pages(profile: str) -> dict[str, str | bytes]:
    """Return every file that the book is made of, by its path in the source folder."""
    address = notebooks.repository()
    files: dict[str, str | bytes] = {}
    for path in sorted(BOOK.rglob("*")):
        place = path.relative_to(BOOK)
        if path.is_file() and place.parts[0] != "_build" and path.name != "measured.json":
            files[str(place)] = path.read_bytes()
    files["_config.yml"] = yaml.safe_dump(configuration(address), sort_keys=False)
    files["_reference.py"] = Path(reference.__file__).read_bytes()  # an extension of Sphinx too: to notice changes
    files["install.md"] = with_address(files["install.md"].decode(), address)
    files["background/citing.md"] = files["background/citing.md"].replace(b"VERSION", neurokd.__version__.encode())
    files["tutorial.md"] = reference.tutorial_page()
    for source in notebooks.sources():
        files[f"notebooks/{source.stem}.ipynb"] = nbformat.writes(shown(source, profile)) + "\n"
    for room in reference.ROOMS:
        files[f"reference/{room}.rst"] = reference.room_page(room)
    files["reference/profile.rst"] = reference.notebooks_page()
    files["reference/presets.md"] = reference.presets_page()
    files["reference/formats.md"] = reference.formats_page()
    files["background/notation.md"] = reference.notation_page()
    for name in released_models():
        files[f"reference/{name}.md"] = model_folder(name).joinpath("README.md").read_bytes()
    for name in ("mathjax.js", "require.js", "widgets.js"):
        files[f"assets/vendor/{name}"] = vendor.script(name).read_bytes()
    # The viewers' mouse is an anywidget; its script comes with the package.
    files["assets/vendor/anywidget.js"] = resources.files("anywidget").joinpath("nbextension", "index.js").read_bytes()
    font = Path(vendor.SCRIPTS["widgets.woff2"].member).name
    for folder in ("", "html-manager/dist/"):  # both of its parts ask for the font beside themselves
        files[f"assets/vendor/@jupyter-widgets/{folder}{font}"] = vendor.script("widgets.woff2").read_bytes()
    return files


def put(files: dict[str, str | bytes]) -> list[str]:
    """Write the files that differ into the source folder, remove all others there, and return what was written."""
    written = []
    for name, content in files.items():
        path, data = SOURCE / name, content.encode() if isinstance(content, str) else content
        if not path.is_file() or path.read_bytes() != data:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
            written.append(name)
    for path in sorted(SOURCE.rglob("*")):
        if path.is_file() and str(path.relative_to(SOURCE)) not in files:
            path.unlink()
    return written


def main(argv: list[str] | None = None) -> int:
    """Run the command line; return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--draft", action="store_true", help="execute nothing")
    profile = os.environ.get("NEUROKD_PROFILE") or "ci"
    if not parser.parse_args(argv).draft and (status := execute.main(["--profile", profile])):
        return status
    written = put(pages(profile))
    failed = BUILD / "failed"  # what was written for a build that failed must still be made
    # Scripts, styles and settings stand on all pages, so all are made again.
    everything = failed.exists() or any(name.startswith(("assets/", "_")) for name in written)
    failed.touch()
    program = Path(sys.executable).with_name("jupyter-book")
    options = ["--path-output", BOOK, "-W", "--keep-going", "-q", *(["--all"] if everything else [])]
    # where Sphinx finds the package, and the extension in this folder
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "tools")])}
    if status := subprocess.run([program, "build", SOURCE, *options], env=environment).returncode:
        return status
    failed.unlink()
    print(f"the book: {BUILD / 'html' / 'index.html'}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
