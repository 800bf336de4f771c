"""Execute a notebook, show its text and progress bars while it runs, and keep the result.

    python tools/run_notebook.py notebooks/00_quickstart.ipynb runs/demo/quickstart.html    a page
    python tools/run_notebook.py notebooks/00_quickstart.ipynb executed.ipynb               a notebook with outputs

``jupyter nbconvert --execute`` says nothing until the last cell is done; a demo of several minutes should not. The
kernel runs in the current folder. The result is written when every cell has run. After an error in one, its traceback
is printed instead and the exit status is 1.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError, CellTimeoutError, DeadKernelError
from nbconvert import HTMLExporter

STARTUP = Path(__file__).with_name("kernel_startup.py")  # plain progress bars, figures with words


class EchoingClient(NotebookClient):
    """A notebook client that repeats headings and text output on the terminal as they come."""

    def output(self, outs, msg, display_id, cell_index):
        """Echo one message of the running cell, then let nbclient store it."""
        content = msg["content"]
        if msg["msg_type"] == "stream":
            print(content["text"], end="", file=getattr(sys, content["name"]), flush=True)
        elif msg["msg_type"] in ("display_data", "execute_result"):
            data = content["data"]
            if not any(kind.startswith("image/") for kind in data):
                print(data.get("text/markdown") or data.get("text/plain", ""), flush=True)
        return super().output(outs, msg, display_id, cell_index)


def print_heading(cell, cell_index):
    """Print the headings of a Markdown cell, so that the terminal tells where the story is."""
    if cell.cell_type == "markdown":
        for line in cell.source.splitlines():
            if line.startswith("#"):
                print(f"\n{line}", flush=True)


def main(argv: list[str] | None = None) -> int:
    """Run the command line; return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("notebook", type=Path)
    parser.add_argument("result", type=Path, help="file for the executed notebook, .html or .ipynb")
    parser.add_argument("--timeout", type=int, help="seconds after which a cell counts as stuck; never by default")
    arguments = parser.parse_args(argv)
    if arguments.result.suffix not in (".html", ".ipynb"):
        parser.error(f"result must end in .html or .ipynb, got {arguments.result}")
    notebook = nbformat.read(arguments.notebook, as_version=4)
    client = EchoingClient(
        notebook,
        timeout=arguments.timeout,
        coalesce_streams=True,  # keep the last state of each progress bar, not every step of it
        on_cell_start=print_heading,
        # ERROR, since ipykernel otherwise warns at every start that its local sockets are not encrypted
        extra_arguments=[f"--IPKernelApp.exec_files={STARTUP}", "--IPKernelApp.log_level=ERROR"],
    )
    try:
        client.execute()
    except (CellExecutionError, CellTimeoutError, DeadKernelError) as error:
        print(f"\n{arguments.notebook} failed:\n{error}", file=sys.stderr)
        return 1
    if arguments.result.suffix == ".ipynb":
        text = nbformat.writes(notebook)
    else:
        text, _ = HTMLExporter().from_notebook_node(notebook, {"metadata": {"name": arguments.notebook.stem}})
    arguments.result.parent.mkdir(parents=True, exist_ok=True)
    arguments.result.write_text(text, encoding="utf-8")
    print(f"\nexecuted notebook: {arguments.result}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
