"""Write what every notebook opens with: what it takes, as measured, and the cell that installs neurokd in Colab.

    python tools/openings.py                  update notebooks/*.py and their pairs
    python tools/openings.py 00_quickstart    only this one
    python tools/openings.py --check          only say which would change, and exit with 1 if any would

The line ``> **Takes.** ...`` of a notebook's box comes from ``book/measured.json``, which only a measured run
writes (``tools/execute.py --measure``). The cell comes from the repository's address under ``[project.urls]`` in
``pyproject.toml``; while there is none, it asks for the wheel.
"""

import argparse
import json
import re
import sys
from pathlib import Path

import nbformat

import notebooks

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).resolve().parents[1]
MEASURED = ROOT / "book" / "measured.json"
TAKES = re.compile(r"^# > \*\*Takes\.\*\* .*$", re.M)
MARK = '# %% jupyter={"source_hidden": true} tags=["colab", "hide-input"]\n'
CELL = re.compile(re.escape(MARK) + r".*?\n(?=# %%)", re.S)
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


def repository() -> str | None:
    """Return the repository's address from ``pyproject.toml``, None while it has none."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    return project.get("urls", {}).get("Repository")


def install_cell(address: str | None) -> str:
    """Return the text of the install cell, with the line that opens it."""
    body = FROM_REPOSITORY.replace("ADDRESS", address.rstrip("/")) if address else ASK_FOR_WHEEL
    return f'{MARK}import sys\n\nif "google.colab" in sys.modules:  # anywhere else this cell does nothing\n{body}\n'


def takes(runs: dict[str, dict[str, float]]) -> str:
    """Say in one line what a notebook takes.

    Parameters
    ----------
    runs
        By profile, what its last measured run took: ``seconds``, ``cores``, ``memory_gb`` and ``download_mb``.
    """
    if not runs:
        return "Not measured yet."
    said = []
    if "full" in runs:
        said.append(f"{_duration(runs['full']['seconds'])} on {runs['full']['cores']} CPU cores")
    if "ci" in runs:
        short = _duration(runs["ci"]["seconds"])
        cores = "" if said else f" on {runs['ci']['cores']} CPU cores"
        said.append(f"{short}{cores} in the short profile (`NEUROKD_PROFILE=ci`)")
    most = max(run["memory_gb"] for run in runs.values())
    megabytes = max(run["download_mb"] for run in runs.values())
    download = f"Downloads {megabytes:.0f} MB the first time" if megabytes >= 1 else "Downloads less than 1 MB"
    return f"{', '.join(said)}; {most:.1f} GB of memory. {download}."


def takes_briefly(runs: dict[str, dict[str, float]]) -> str:
    """Say the same for a table: the full profile's time (the short one's), memory, download."""
    if not runs:
        return "not measured yet"
    times = [_duration(runs[profile]["seconds"]) if profile in runs else "?" for profile in ("full", "ci")]
    most = max(run["memory_gb"] for run in runs.values())
    megabytes = max(run["download_mb"] for run in runs.values())
    return f"{times[0]} ({times[1]}), {most:.1f} GB" + (f", {megabytes:.0f} MB" if megabytes >= 1 else "")


def _duration(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 90 else f"{seconds / 60:.0f} min"


def measured() -> dict[str, dict[str, dict[str, float]]]:
    """Return what ``book/measured.json`` holds: by notebook, by profile."""
    return json.loads(MEASURED.read_text(encoding="utf-8")) if MEASURED.exists() else {}


def opened(text: str, *, line: str, cell: str) -> str:
    """Return a notebook's text with this line in its box and this cell before its other code.

    Raises
    ------
    ValueError
        There is not exactly one line to replace, or no code cell.
    """
    if len(TAKES.findall(text)) != 1:
        raise ValueError(f"{len(TAKES.findall(text))} lines begin with '# > **Takes.** '; the box needs exactly one")
    text = CELL.sub("", TAKES.sub(lambda _: f"# > **Takes.** {line}", text))
    first = FIRST_CODE.search(text)
    if first is None:
        raise ValueError("there is no code cell that the install cell could stand before")
    return text[: first.start()] + cell + text[first.start() :]


def main(argv: list[str] | None = None) -> int:
    """Run the command line; return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", help="notebooks without suffix; all where none is named")
    parser.add_argument("--check", action="store_true", help="change nothing, exit with 1 where something would change")
    arguments = parser.parse_args(argv)
    known = {path.stem: path for path in notebooks.sources()}
    if unknown := set(arguments.names) - set(known):
        parser.error(f"no such notebook: {', '.join(sorted(unknown))}; there are {', '.join(known)}")
    cell, table, stale = install_cell(repository()), measured(), []
    for name in arguments.names or known:
        text = known[name].read_text(encoding="utf-8")
        try:
            wanted = opened(text, line=takes(table.get(name, {})), cell=cell)
        except ValueError as error:
            print(f"{known[name].name}: {error}", file=sys.stderr)
            return 1
        if wanted != text:
            stale.append(name)
            print(f"{name}: {'would change' if arguments.check else 'changed'}")
            if not arguments.check:
                known[name].write_text(wanted, encoding="utf-8")
                nbformat.write(notebooks.build(known[name]), known[name].with_suffix(".ipynb"))
    return bool(stale and arguments.check)


if __name__ == "__main__":
    sys.exit(main())
