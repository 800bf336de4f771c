"""What the book is made of agrees with the code: names, messages, boxes, the cell for Colab; and its tools."""

import ast
import hashlib
import importlib
import inspect
import io
import json
import re
import subprocess
import sys
import tarfile
from pathlib import Path

import nbformat
import pytest

import book
import execute
import neurokd
import notebooks
import reference
import vendor
from neurokd.models.storage import released_models

ROOT = Path(__file__).resolve().parents[1]
RUN = {"seconds": 400.0, "cpu_seconds": 700.0, "cores": 2, "memory_gb": 2.96, "download_mb": 90.2, "others": 0.01}
TEXT = """\
# %% [markdown]
# # A title
#
# > **Question.** Why?
# >
# > **Takes.** Ages.

# %%
x = 1
"""


# --- pages and code


def test_every_public_name_is_in_the_reference():
    rooms = {name for name in neurokd.__all__ if name in reference.ROOMS}
    pages = "\n".join(reference.room_page(room) for room in reference.ROOMS)
    listed = re.findall(r"^\.\. (?:autoclass|autofunction|py:data):: (\w+)$", pages, re.M)
    assert sorted(listed) == sorted(set(neurokd.__all__) - rooms)
    assert rooms == set(reference.ROOMS)


def test_a_page_of_the_reference_begins_with_its_names_and_their_notebooks():
    overview = reference.room_page("inference").split("neurokd.inference.sliding\n---")[0]
    assert re.findall(r"   \* - `(\w+)`", overview) == ["predict", "Soma", "find_soma", "trace"]
    source = next(path for path in notebooks.sources() if "nkd.trace(" in path.read_text(encoding="utf-8"))
    line = overview.split("`trace`")[1]
    assert f"`{source.stem[:2]} </notebooks/{source.stem}>`" in line


def test_constants_bring_their_words():
    page = reference.room_page("models")
    assert re.search(r"py:data:: PRESETS\n\n   ``tiny``", page)


def test_pictures_in_characters_stay_as_they_are():
    doc = "A thing.\n\n    a --> b\n\nSo::\n\n    code\n\n(seed, i) --> a sample"
    said = "A thing.\n\nTEXT\n\n    a --> b\n\nSo::\n\n    code\n\nTEXT\n\n    (seed, i) --> a sample\n"
    assert reference.prose(doc) == said.replace("TEXT", ".. code-block:: text")


def said_by_the_code() -> list[str]:
    """Every string of the package, what is filled in as ``...``."""

    def text(node) -> str:
        if isinstance(node, ast.JoinedStr):
            return "".join(part.value if isinstance(part, ast.Constant) else "..." for part in node.values)
        return node.value if isinstance(node, ast.Constant) and isinstance(node.value, str) else ""

    trees = [ast.parse(path.read_text(encoding="utf-8")) for path in sorted((ROOT / "neurokd").rglob("*.py"))]
    return [said for tree in trees for node in ast.walk(tree) if (said := text(node))]


def test_every_message_under_troubleshooting_is_still_in_the_code():
    page = (ROOT / "book" / "background" / "troubleshooting.md").read_text(encoding="utf-8")
    messages = re.findall(r"^### `(.+)`$", page, re.M)
    assert len(messages) > 20
    messages.remove("CUDA out of memory")  # PyTorch's own, as the page says
    said = "\n".join(said_by_the_code())
    # a message may be told only to its first full stop or question
    gone = [message for message in messages if message.removesuffix(" ...") not in said]
    assert not gone


def test_what_the_contributing_page_names_is_where_it_says():
    page = (ROOT / "book" / "background" / "contributing.md").read_text(encoding="utf-8")
    assert all((ROOT / path).exists() for path in re.findall(r"`(neurokd/[^`]*)`", page))
    places = re.findall(r"((?:`\w+`(?:, | and ))*`\w+`) in `(neurokd/[^`]*\.py)`", page)
    assert {"`grey_fold`", "`DECODERS`", "`cosine_loss`, `mse_loss` and `gram_loss`"} <= {names for names, _ in places}
    for names, path in places:
        for name in re.findall(r"\w+", names.replace(" and ", " ")):
            defined = rf"^ *(?:(?:def|class) )?{name}\b(?:\(|:| = )"
            assert re.search(defined, (ROOT / path).read_text(encoding="utf-8"), re.M), (name, path)


def test_the_presets_table_is_that_of_the_package():
    rows = re.findall(r"^\| `(\w+)` \| (\d+) \| (\d+) \|", reference.presets_page(), re.M)
    assert {name: {"depth": int(depth), "width": int(width)} for name, depth, width in rows} == neurokd.PRESETS


def test_the_formats_table_is_that_of_the_package():
    rows = re.findall(r"^\| (`\..+`) \| .+ \| (.+) \| (.+) \|$", reference.formats_page(), re.M)
    assert [suffixes for suffixes, *_ in rows] == [
        ", ".join(f"`{suffix}`" for suffix in kind.suffixes) for kind in neurokd.FORMATS
    ]
    assert rows[0][1:] == ("as ImageJ's calibrated stack", "read and written")  # TIFF
    assert rows[-1][1:] == ("no", "no place for it")  # v3dpbd


def test_the_scores_table_is_that_of_the_package():
    rows = re.findall(r"^\| (.+) \| `(\w+)` \| (\w+) \| (\w*) \| (\w*) \| (.+) \|$", reference.notation_page(), re.M)
    assert [key for _, key, *_ in rows] == list(neurokd.SCORES)
    assert ("HD95", "hd95", "masks", "length", "low") in [row[:5] for row in rows]


def test_both_papers_are_in_the_bibliography_and_nothing_unknown_is_cited():
    known = set(re.findall(r"^@\w+\{(\w+),", (ROOT / "book" / "references.bib").read_text(encoding="utf-8"), re.M))
    assert {"cheng2024boosting", "cheng2024dineuro"} <= known
    pages = "\n".join(
        path.read_text(encoding="utf-8") for path in (ROOT / "book").rglob("[a-z]*.md") if "_build" not in path.parts
    )
    cited = {key for keys in re.findall(r"\{cite:\w+\}`([^`]+)`", pages) for key in keys.split(",")}
    assert cited <= known


def test_every_page_is_in_the_table_of_contents():
    toc = (ROOT / "book" / "_toc.yml").read_text(encoding="utf-8")
    generated = {f"reference/{name}" for name in (*reference.ROOMS, "profile", *released_models())}
    written = {
        str(path.relative_to(ROOT / "book").with_suffix(""))
        for path in (ROOT / "book").rglob("*.md")
        if "_build" not in path.parts
    }
    assert set(re.findall(r"(?:file|root): (\S+)", toc)) == written | generated


# --- what every notebook opens with


def test_every_notebook_opens_as_the_tool_writes_it():
    cell = notebooks.install_cell(notebooks.repository())
    for source in notebooks.sources():
        text = source.read_text(encoding="utf-8")
        assert notebooks.opened(text, line=notebooks.takes(source.stem), cell=cell) == text, source.name


def test_opening_twice_is_opening_once():
    once = notebooks.opened(TEXT, line="A minute.", cell=notebooks.install_cell(None))
    assert notebooks.opened(once, line="A minute.", cell=notebooks.install_cell(None)) == once
    again = notebooks.opened(once, line="Two.", cell=notebooks.install_cell("https://example.org/neurokd"))
    assert again == notebooks.opened(TEXT, line="Two.", cell=notebooks.install_cell("https://example.org/neurokd"))
    assert "**Takes.** Two.\n" in again
    assert again.index("google.colab") < again.index("x = 1")


@pytest.mark.parametrize("text", [TEXT.replace("Takes", "Costs"), TEXT + TEXT, TEXT.split("\n# %%\n")[0]])
def test_a_notebook_without_box_or_code_is_refused(text):
    with pytest.raises(ValueError, match=r"Takes|code cell"):
        notebooks.opened(text, line="A minute.", cell=notebooks.install_cell(None))


@pytest.mark.parametrize("address", [None, "https://example.org/neurokd/"])
def test_outside_colab_the_install_cell_does_nothing(address):
    code = notebooks.install_cell(address).removeprefix(notebooks.MARK)
    names = {}
    exec(code, names)
    assert set(names) == {"__builtins__", "sys"}


@pytest.mark.parametrize(
    ("address", "line"),
    [
        (None, "install --quiet ./neurokd-0.1.0-py3-none-any.whl"),
        ("https://example.org/neurokd/", "install --quiet git+https://example.org/neurokd"),
    ],
)
def test_in_colab_the_install_cell_installs(monkeypatch, address, line):
    from types import ModuleType, SimpleNamespace

    calls, colab = [], ModuleType("google.colab")
    colab.files = SimpleNamespace(upload=lambda: {"neurokd-0.1.0-py3-none-any.whl": b""})
    monkeypatch.setitem(sys.modules, "google.colab", colab)
    shell = SimpleNamespace(run_line_magic=lambda *call: calls.append(call))
    monkeypatch.setattr("IPython.get_ipython", lambda: shell)
    exec(notebooks.install_cell(address).removeprefix(notebooks.MARK), {})
    assert calls == [("pip", line)]


def test_what_a_notebook_takes_is_told_from_what_was_measured(monkeypatch):
    table = {"both": {"full": RUN, "ci": RUN | {"seconds": 42.4}}, "light": {"ci": RUN | {"download_mb": 0.1}}}
    monkeypatch.setattr(notebooks, "measured", lambda: table)
    for part in ("7 min on 2 CPU cores", "42 s in the short profile", "3.0 GB", "90 MB"):
        assert part in notebooks.takes("both")
    assert notebooks.takes("both", briefly=True) == "7 min (42 s), 3.0 GB, 90 MB"
    assert notebooks.takes("light", briefly=True) == "? (7 min), 3.0 GB"
    assert not re.search(r"\d", notebooks.takes("another"))


def test_measured_json_holds_runs_of_notebooks_that_there_are():
    for name, runs in notebooks.measured().items():
        assert (ROOT / "notebooks" / f"{name}.py").is_file()
        for profile, run in runs.items():
            assert profile in ("ci", "full")
            assert run.keys() == RUN.keys() and run["others"] <= execute.BUSY


def test_a_run_on_a_busy_machine_is_not_recorded(monkeypatch, tmp_path):
    monkeypatch.setattr(notebooks, "MEASURED", tmp_path / "measured.json")
    execute.record("00_quickstart", "ci", RUN)
    assert json.loads((tmp_path / "measured.json").read_text()) == {"00_quickstart": {"ci": RUN}}
    with pytest.raises(RuntimeError, match="50%"):
        execute.record("00_quickstart", "full", RUN | {"others": 0.5})
    assert "full" not in notebooks.measured()["00_quickstart"]


# --- running as in Colab


@pytest.fixture
def story(tmp_path, monkeypatch):
    """A notebook of its own, that imports neurokd and draws; executed ones go to a temporary folder."""
    text = TEXT.replace(
        "x = 1",
        "from pathlib import Path\n\nimport matplotlib.pyplot as plt\n\nimport neurokd\n\n"
        "print(neurokd.__file__, sorted(path.suffix for path in Path().iterdir()))\n"
        "figure, axes = plt.subplots()\naxes.plot([1, 2])\n"
        "_ = axes.set(title='A line', xlabel='step', ylabel='loss')\n",
    )
    (tmp_path / "story.py").write_text(notebooks.opened(text, line="-", cell=notebooks.install_cell(None)))
    nbformat.write(notebooks.build(tmp_path / "story.py"), tmp_path / "story.ipynb")
    monkeypatch.setattr(execute, "BUILD", tmp_path / "build")
    return tmp_path / "story.py"


@pytest.mark.slow
def test_a_notebook_runs_alone_with_the_wheel_and_is_shown_with_words(story, tmp_path):
    assert not execute.is_done(story, "ci")
    took = execute.run(story, execute.build_wheel(tmp_path), profile="ci")
    assert took.keys() == RUN.keys() and took["seconds"] > 0 and took["cpu_seconds"] > 0
    assert 0.01 < took["memory_gb"] < 64
    executed = nbformat.read(execute.kept(story, "ci"), as_version=4)
    (said,) = [output.text for output in executed.cells[2].outputs if output.output_type == "stream"]
    assert str(ROOT) not in said  # not the checkout
    assert said.endswith("/neurokd/__init__.py ['.ipynb', '.whl']\n")  # alone in its folder, but for what was uploaded
    assert execute.is_done(story, "ci")

    shown = book.shown(story, "ci")
    assert shown.cells[0].source.startswith("# A title\n\n> **Question.** Why?\n>\n> **Takes.** -\n\n:::{note}")
    assert shown.cells[1].outputs == [] and "remove-cell" in shown.cells[1].metadata["tags"]
    assert shown.cells[2].metadata["mystnb"] == {"image": {"alt": "A line: loss against step"}}

    story.write_text(story.read_text().replace("# A title", "# Another title"))
    assert execute.is_done(story, "ci")  # its text is not executed
    assert book.shown(story, "ci").cells[0].source.startswith("# Another title")
    story.write_text(story.read_text().replace("[1, 2]", "[1, 3]"))
    assert not execute.is_done(story, "ci")


def test_a_clean_environment_has_everything_but_neurokd(tmp_path):
    python = execute.clean_environment(tmp_path)
    code = "import numpy, importlib.util; print(importlib.util.find_spec('neurokd'))"
    ran = subprocess.run([python, "-c", code], capture_output=True, text=True, cwd=tmp_path, env={})
    assert (ran.returncode, ran.stdout.strip()) == (0, "None"), ran.stderr


# --- putting the book together


def test_text_for_those_with_and_without_an_address():
    text = "a<!-- address -->git ADDRESS<!-- else -->wheel<!-- end -->b<!-- address -->c<!-- else --><!-- end -->"
    assert book.with_address(text, "https://example.org") == "agit https://example.orgbc"
    assert book.with_address(text, None) == "awheelb"


def test_buttons_that_need_an_address_are_there_only_with_one():
    without, there = (
        book.configuration(address)["sphinx"]["config"]["html_theme_options"]
        for address in (None, "https://example.org/neurokd/")
    )
    assert not {"launch_buttons", "repository_url"} & set(without)
    assert there["launch_buttons"]["colab_url"] and there["repository_url"] == "https://example.org/neurokd"


def test_only_what_changed_is_written(tmp_path, monkeypatch):
    monkeypatch.setattr(book, "SOURCE", tmp_path)
    assert book.put({"a.md": "a", "b/c.md": "c"}) == ["a.md", "b/c.md"]
    before = (tmp_path / "a.md").stat().st_mtime_ns
    assert book.put({"a.md": "a", "d.md": "d"}) == ["d.md"]
    assert (tmp_path / "a.md").stat().st_mtime_ns == before
    assert not (tmp_path / "b" / "c.md").exists() and (tmp_path / "d.md").read_text() == "d"


def test_hints_are_shown_by_name_and_not_by_what_they_are_made_of():
    from sphinx.util.inspect import signature, stringify_signature

    aliases = book.configuration(None)["sphinx"]["config"]["autodoc_type_aliases"]
    shown = {}
    for module, names in reference.public_names().items():
        # Where `from __future__ import annotations` stands hints are text; others are evaluated too early.
        functions = [name for name in names if inspect.isroutine(getattr(neurokd, name))]
        if hasattr(importlib.import_module(module), "annotations"):
            things = {name: signature(getattr(neurokd, name), type_aliases=aliases) for name in functions}
            shown |= {name: stringify_signature(thing) for name, thing in things.items()}
    assert "volume: ArrayLike" in shown["plot_comparison"] and "spacing: Spacing | None" in shown["plot_comparison"]
    assert [name for name, text in shown.items() if "dtype[" in text or "_Array" in text] == []


def test_links_by_module_lead_to_public_names():
    text = "See :func:`neurokd.models.vit.ViT3D.forward`, :func:`neurokd.viz.figures.maps.plot_maps`, `neurokd.data`."
    links = "`ViT3D.forward <neurokd.ViT3D.forward>`", "`plot_maps <neurokd.plot_maps>`", "`neurokd.data`"
    assert reference.public_links(text) == "See :func:{}, :func:{}, {}.".format(*links)


@pytest.fixture
def package(tmp_path, monkeypatch):
    """An npm package of one file, and an npm that packs it."""
    content = b"// a script"
    with tarfile.open(tmp_path / "package.tgz", "w:gz") as archive:
        entry = tarfile.TarInfo("package/dist/script.js")
        entry.size = len(content)
        archive.addfile(entry, io.BytesIO(content))
    npm = tmp_path / "npm"
    npm.write_text(f"#!/bin/sh\ncp {tmp_path}/package.tgz made.tgz\n")
    npm.chmod(0o755)
    monkeypatch.setenv("NEUROKD_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(vendor.shutil, "which", lambda name: str(npm))
    script = vendor.Script("some@1.0.0", "dist/script.js", hashlib.sha256(content).hexdigest())
    monkeypatch.setitem(vendor.SCRIPTS, "script.js", script)
    return content


def test_a_script_is_fetched_once_and_checked(package, monkeypatch):
    assert vendor.script("script.js").read_bytes() == package
    monkeypatch.setattr(vendor.shutil, "which", lambda name: None)
    assert vendor.script("script.js").read_bytes() == package  # from the cache
    vendor.script("script.js").write_bytes(b"changed")
    with pytest.raises(RuntimeError, match="npm"):
        vendor.script("script.js")


def test_a_script_that_is_not_the_one_expected_is_refused(package, monkeypatch):
    other = vendor.Script("some@1.0.0", "dist/script.js", "0" * 64)
    monkeypatch.setitem(vendor.SCRIPTS, "script.js", other)
    with pytest.raises(ValueError, match="0000"):
        vendor.script("script.js")
