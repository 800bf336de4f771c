"""What a notebook's kernel does before the first cell when a tool runs it: plain progress bars, figures with words.

Run in the kernel by ``tools/run_notebook.py``; nothing here is imported. With ``NEUROKD_STUB_COLAB`` set to a wheel,
it also pretends to be Colab, whose reader chooses that wheel when a cell asks for one.
"""

import os
import shutil
import sys
import types

from IPython import get_ipython

# tqdm.auto would draw widgets, which neither a terminal nor an HTML file without a kernel can show. Where its
# notebook flavour cannot be imported it falls back to plain text, and None in sys.modules makes it so.
sys.modules["tqdm.notebook"] = None


def _words(figure):
    """Return what a figure's own titles and labels say, for those who cannot see it."""

    def plain(text):
        return " ".join(text.replace("$", "").split())

    panels = []
    for axes in figure.axes:
        across = " against ".join(filter(None, (plain(axes.get_ylabel()), plain(axes.get_xlabel()))))
        panels.append(": ".join(filter(None, (plain(axes.get_title()), across))))
    panels = "; ".join(filter(None, dict.fromkeys(panels)))
    return ". ".join(filter(None, (plain(figure.get_suptitle()), panels))) or "A figure"


def _with_words(format_plainly):
    def format_with_words(thing, *arguments, **options):
        data, metadata = format_plainly(thing, *arguments, **options)
        if "image/png" in data and type(thing).__module__.startswith("matplotlib"):
            metadata.setdefault("image/png", {})["alt"] = _words(thing)
        return data, metadata

    return format_with_words


_formatter = get_ipython().display_formatter
_formatter.format = _with_words(_formatter.format)

if _wheel := os.environ.get("NEUROKD_STUB_COLAB"):
    import google  # a namespace that protobuf, which onnx brings, lives in too

    def _upload():
        """Put the chosen file into the working directory, and return its name and content, as Colab does."""
        shutil.copy(_wheel, ".")
        with open(_wheel, "rb") as file:
            return {os.path.basename(_wheel): file.read()}

    google.colab = types.ModuleType("google.colab")
    google.colab.files = types.ModuleType("google.colab.files")
    google.colab.files.upload = _upload
    sys.modules |= {"google.colab": google.colab, "google.colab.files": google.colab.files}
