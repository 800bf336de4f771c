"""A Sphinx extension: type hints in the reference as they stand in the source.

autodoc shows what a hint evaluates to, and ``ArrayLike`` evaluates to a union of ten private names.
"""

import ast
import inspect
import textwrap
from types import FunctionType


def setup(app):
    """Register with Sphinx."""
    app.connect("autodoc-before-process-signature", keep_as_written)
    return {"parallel_read_safe": True}


def keep_as_written(app, thing, bound_method):
    """Replace each hint of a function by an empty class that is called what the source says.

    What is returned is left to the docstring, which says it under a heading of its own.
    """
    thing = inspect.unwrap(getattr(thing, "__func__", thing))
    if not isinstance(thing, FunctionType) or "<string>" in thing.__code__.co_filename:  # a dataclass's own __init__
        return
    written = ast.parse(textwrap.dedent(inspect.getsource(thing))).body[0]
    if not isinstance(written, ast.FunctionDef):
        return
    said = written.args
    hints = {argument.arg: argument.annotation for argument in (*said.posonlyargs, *said.args, *said.kwonlyargs)}
    # in place, since decorators such as torch.no_grad share the dictionary with what they wrap
    thing.__annotations__.clear()
    thing.__annotations__.update(
        {name: type(ast.unparse(hint), (), {"__module__": "builtins"}) for name, hint in hints.items() if hint}
        | {"return": inspect.Signature.empty}  # left out, autodoc would look it up in the source
    )
