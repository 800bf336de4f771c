"""What a notebook's kernel does before the first cell when a tool runs it: plain progress bars, figures with words.

Run in the kernel by ``tools/run_notebook.py``; nothing here is imported. With ``NEUROKD_STUB_COLAB`` set to a wheel,
it also pretends to be Colab, whose reader chooses that wheel when a cell asks for one.
"""

import os
import shutil
import sys
import types

from IPython import get_ipython

# tqdm.auto would draw widgets, which neither a terminal nor an HTML file without a kernel can show.
# Where its notebook flavour cannot be imported it falls back to plain text, and None in sys.modules
# is Python's own way to say so.
sys.modules["tqdm.notebook"] = None


def _words(figure):
    """What a figure's own titles and labels say, for those who cannot see it."""

    def said(text):
        return " ".join(text.replace("$", "").split())

    heading = said(figure.get_suptitle())
    panels = []
    for axes in figure.axes:
        title, labels = said(axes.get_title()), [said(axes.get_xlabel()), said(axes.get_ylabel())]
        across = " against ".join(label for label in reversed(labels) if label)
        if panel := ": ".join(part for part in (title, across) if part):
            panels.append(panel)
    return ". ".join(part for part in (heading, "; ".join(dict.fromkeys(panels))) if part) or "A figure"


def _describing(show):
    def format_with_words(thing, *arguments, **options):
        data, metadata = show(thing, *arguments, **options)
        if "image/png" in data and type(thing).__module__.startswith("matplotlib"):
            metadata.setdefault("image/png", {})["alt"] = _words(thing)
        return data, metadata

    return format_with_words


_formatter = get_ipython().display_formatter
_formatter.format = _describing(_formatter.format)


def _pretend_colab(wheel):
    import google  # a namespace that protobuf, which onnx brings, lives in too

    colab = types.ModuleType("google.colab")
    colab.files = types.ModuleType("google.colab.files")

    def upload():
        """As Colab: the chosen file is put into the working directory, and named with its content."""
        shutil.copy(wheel, ".")
        with open(wheel, "rb") as file:
            return {os.path.basename(wheel): file.read()}

    colab.files.upload = upload
    google.colab = colab
    sys.modules |= {"google.colab": colab, "google.colab.files": colab.files}


if os.environ.get("NEUROKD_STUB_COLAB"):
    _pretend_colab(os.environ["NEUROKD_STUB_COLAB"])
