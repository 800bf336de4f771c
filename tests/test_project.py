"""The repository keeps its own rules: light import, house order, docstrings, pairs, one list of packages."""

import ast
import importlib
import inspect
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

import neurokd
import notebooks

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib  # pytest brings it there

ROOT = Path(__file__).resolve().parents[1]
HOUSE = ["data", "models", "inference", "evaluation", "training", "viz"]  # in the order in which data flow
MODULES = {
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): ast.parse(path.read_text())
    for path in sorted((ROOT / "neurokd").rglob("*.py"))
}
PUBLIC = [name for name in neurokd.__all__ if name not in HOUSE]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


# --- importing


def test_importing_neurokd_loads_nothing_heavy():
    heavy = {"torch", "timm", "monai", "matplotlib", "lightning_fabric", "scipy", "skimage", "onnx", "numpy"}
    for code in "import neurokd", "import neurokd; dir(neurokd)":
        probe = [sys.executable, "-c", f"{code}; import sys; print(*sys.modules)"]
        loaded = subprocess.run(probe, capture_output=True, text=True, check=True).stdout.split()
        assert "neurokd" in loaded
        assert not heavy & set(loaded)


def test_public_names_are_those_of_their_modules():
    table: dict[str, list[str]] = {}
    for node in ast.parse((ROOT / "neurokd" / "__init__.pyi").read_text()).body:
        if isinstance(node, ast.ImportFrom) and node.module:
            table.setdefault(f"neurokd.{node.module}", []).extend(alias.name for alias in node.names)
    for module, names in table.items():
        assert sorted(names) == sorted(importlib.import_module(module).__all__), module
    assert sorted(PUBLIC) == sorted(name for names in table.values() for name in names)  # no name twice


def test_a_name_that_is_not_there_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no_such_name"):
        neurokd.no_such_name


@pytest.mark.parametrize("module", MODULES)
def test_modules_import_from_their_own_folder_or_those_above(module):
    tree, parts = MODULES[module], module.split(".")
    allowed = HOUSE[: HOUSE.index(parts[1]) + 1] if len(parts) > 1 and parts[1] in HOUSE else []
    for node in ast.walk(tree):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module} line {node.lineno}: write the import in full"
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        for name in names:
            if name.split(".")[0] == "neurokd":
                fine = name == "neurokd.__version__" or (name + ".").split(".")[1] in allowed
                assert fine, f"{module} line {node.lineno} imports {name}"


# --- docstrings and type hints


def section(doc: str, title: str) -> str | None:
    """The text under a numpydoc heading, None where there is no such heading."""
    found = re.search(rf"^{title}\n-{{3,}}\n(.*?)(?=^\w[\w ]*\n-{{3,}}\n|\Z)", doc, re.M | re.S)
    return found and found[1]


def described(doc: str) -> set[str]:
    """The names described under Parameters and Attributes: ``a``, ``a : int`` or ``a, b``."""
    text = "".join(section(doc, title) or "" for title in ("Parameters", "Other Parameters", "Attributes"))
    heads = re.findall(r"^([\w*`][^:\n]*)", text, re.M)
    return {name.strip(" *`") for head in heads for name in head.split(",")}


@pytest.mark.parametrize("module", MODULES)
def test_every_module_says_what_it_is_for(module):
    assert ast.get_docstring(MODULES[module])


@pytest.mark.parametrize("name", PUBLIC)
def test_public_names_are_documented_and_typed(name):
    thing = getattr(neurokd, name)
    if not callable(thing) or not hasattr(thing, "__module__") or not thing.__module__.startswith("neurokd"):
        return  # a constant or a type alias
    doc = inspect.cleandoc(thing.__doc__ or "")  # its own: inspect.getdoc would take that of a parent class
    assert doc, f"{name} has no docstring"
    signature = inspect.signature(thing)
    assert not set(signature.parameters) - described(doc), f"{name} does not describe all it takes"
    untyped = [p.name for p in signature.parameters.values() if p.annotation is p.empty]
    assert not untyped, f"{name} has no type hints on {untyped}"
    if inspect.isclass(thing):
        own = {key: value for key, value in vars(thing).items() if not key.startswith("_")}
        bare = [
            key
            for key, value in own.items()
            if (callable(value) or isinstance(value, property | classmethod)) and not value.__doc__
        ]
        assert not bare, f"{name} has members without docstring: {bare}"
    else:
        assert signature.return_annotation is not signature.empty, f"{name} does not say what type it returns"
        if signature.return_annotation not in (None, "None"):
            assert section(doc, "Returns") or section(doc, "Yields"), f"{name} does not say what it returns"


# --- files that must agree


def test_every_notebook_equals_its_text_file_and_holds_no_outputs():
    assert notebooks.differences() == []


def packages(requirements: list[str]) -> dict[str, str]:
    """``["torch>=2.4"]`` -> ``{"torch": "2.4"}``; lower bounds only, so that no release is locked out.

    But for the program that makes the book, whose next version is another program.
    """
    split = {}
    for requirement in requirements:
        match = re.fullmatch(r"([A-Za-z0-9-]+)>=([0-9.]+)(,<2)?", requirement)
        assert match, f"{requirement!r} is not of the form 'name>=version'"
        assert match[3] is None or match[1] == "jupyter-book"
        split[match[1]] = match[2]
    return split


def test_environment_yml_lists_what_pyproject_lists():
    extras = {name: group for name, group in PROJECT["optional-dependencies"].items() if name != "browser"}
    groups = [PROJECT["dependencies"], *extras.values()]
    everywhere = [r for group in groups for r in group if ";" not in r]  # what only some machines get is not there
    wanted = packages([r for r in everywhere if not r.startswith("neurokd[")])
    environment = yaml.safe_load((ROOT / "environment.yml").read_text())
    assert environment["channels"][0] == "conda-forge"
    listed = packages([r for r in environment["dependencies"] if r != "pip"])
    assert ">=" + listed.pop("python") == PROJECT["requires-python"]
    pypi_name = {"pytorch": "torch", "pytorch-lightning": "lightning-fabric"}
    assert {pypi_name.get(name, name): version for name, version in listed.items()} == wanted


def test_the_version_is_the_same_everywhere():
    assert yaml.safe_load((ROOT / "CITATION.cff").read_text())["version"] == neurokd.__version__
    assert re.search(rf"^## {re.escape(neurokd.__version__)}\b", (ROOT / "CHANGELOG.md").read_text(), re.M)


def test_both_papers_are_cited():
    papers = yaml.safe_load((ROOT / "CITATION.cff").read_text())["references"]
    assert [paper["identifiers"][0]["value"] for paper in papers] == ["arXiv:2405.02686", "arXiv:2410.22078"]


def test_the_readme_names_only_targets_that_make_has():
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.M))
    named = set(re.findall(r"^(?:    |\$ )?make ([a-z]+)|`make ([a-z]+)", (ROOT / "README.md").read_text(), re.M))
    assert {a or b for a, b in named} <= targets
    assert {"demo", "test", "lab"} <= targets


@pytest.mark.parametrize("results", sorted((ROOT / "benchmarks" / "results").glob("*.md")), ids=lambda path: path.stem)
def test_the_page_of_benchmarks_holds_the_measured_tables(results):
    page = (ROOT / "benchmarks" / "README.md").read_text()
    for table in results.read_text().strip().split("\n\n"):
        assert table in page
