"""Check the rules of the package's dialect that ruff does not know: one line for each finding.

    python tools/dialect.py                  check neurokd/
    python tools/dialect.py FILE [FILE ...]  check these files

- A function's docstring opens with one of `VERBS`; a dataclass describes its fields under "Parameters".
- No description of a parameter or a result begins with "Of" or "As of".
- A ``ValueError`` whose text begins with the name of a parameter says "NAME must be X, got Y".
- No name is a preposition; the logger is called `logger`.
"""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
VERBS = """
Add Apply Attend Blend Blur Bring Build Call Carry Cast Change Check Choose Close Colour Compare Compute
Convert Convolve Copy Count Cut Describe Divide Do Download Draw Drop Enlarge Estimate Evaluate Expand Fill
Find Fit Fold Freeze Give Grow Hide Image Inflate Initialise Interpolate Join Keep Label Lay Learn Leave Let
List Load Lose Make Map Mark Mask Measure Mend Merge Mirror Move Name Normalise Open Pad Pair Permute Pick
Place Plot Predict Print Put Quantise Raise Read Record Redraw Reduce Refuse Remove Rename Render Repeat
Replace Resample Resize Restore Return Rotate Round Run Sample Save Say Scale Score Segment Select Set Shift
Show Shuffle Simulate Skip Smooth Sort Space Split Start Step Stop Store Stretch Sum Take Tell Test Trace
Train Turn Unpack Update Use View Wait Walk Write Yield
""".split()  # noqa: SIM905
PREPOSITIONS = """
of to at by on onto into over above below under behind beyond before after until since along across around
about within between beside beneath was now
""".split()  # noqa: SIM905


def findings(path: Path) -> Iterator[str]:
    """Yield what is not in the dialect in one file."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        for problem in (*_docstring(node), *_errors(node), *_names(node)):
            yield f"{path}:{getattr(node, 'lineno', 1)}: {problem}"


def _docstring(node: ast.AST) -> Iterator[str]:
    """Yield what is wrong with a docstring."""
    if not isinstance(node, ast.FunctionDef | ast.ClassDef) or not (doc := ast.get_docstring(node)):
        return
    if isinstance(node, ast.FunctionDef):
        is_property = any("property" in ast.unparse(decorator) for decorator in node.decorator_list)
        first = re.match(r"\w*", doc)[0]
        if not is_property and first not in VERBS:
            yield f"docstring of {node.name} opens with {first!r}, not with a verb"
    elif "Attributes\n---" in doc and "dataclass" in "".join(map(ast.unparse, node.decorator_list)):
        yield f"fields of {node.name} are described under Attributes, not under Parameters"
    for opening in re.findall(r"^\S.*\n +(Of|As of) ", doc, re.M):
        yield f"docstring of {node.name} has a description that begins with {opening!r}"


def _errors(node: ast.AST) -> Iterator[str]:
    """Yield the errors of a function that name one of its parameters and say something else than the rule."""
    if not isinstance(node, ast.FunctionDef):
        return
    arguments = node.args
    names = {argument.arg for argument in (*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs)}
    for inner in ast.walk(node):
        if isinstance(inner, ast.Raise) and isinstance(inner.exc, ast.Call) and inner.exc.args:
            text = _text(inner.exc.args[0])
            is_named = ast.unparse(inner.exc.func) == "ValueError" and text.split(" ")[0] in names
            if is_named and not re.search(r" must .*, got ", text, re.S):
                yield f"error in line {inner.lineno} says {text!r}, not 'NAME must be X, got Y'"


def _text(message: ast.expr) -> str:
    """Return a message with the code of its placeholders in braces; nothing if it is no literal."""
    if isinstance(message, ast.Constant):
        return str(message.value)
    parts = message.values if isinstance(message, ast.JoinedStr) else []
    return "".join(
        str(part.value) if isinstance(part, ast.Constant) else f"{{{ast.unparse(part.value)}}}" for part in parts
    )


def _names(node: ast.AST) -> Iterator[str]:
    """Yield what is wrong with the name that a node defines."""
    if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
        name = node.id
    elif isinstance(node, ast.arg):
        name = node.arg
    elif isinstance(node, ast.FunctionDef) and "classmethod" not in map(ast.unparse, node.decorator_list):
        name = node.name
    else:
        name = ""
    if name.strip("_") in PREPOSITIONS:
        yield f"{name!r} is a preposition"
    if isinstance(node, ast.Assign) and re.match(r"(?!logger )\w+ = logging\.getLogger", ast.unparse(node)):
        yield f"the logger is called {ast.unparse(node.targets[0])}"


def main(files: list[str]) -> int:
    """Print all findings; return 1 if there are any."""
    paths = [Path(file) for file in files] or sorted((ROOT / "neurokd").rglob("*.py"))
    found = [line for path in paths for line in findings(path)]
    print("\n".join(found), end="\n" if found else "")
    return int(bool(found))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
