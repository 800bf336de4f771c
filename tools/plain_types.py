"""A Sphinx extension that makes the reference say what the source says, and no more often.

- Type hints stand as they are written; autodoc shows what they evaluate to (``ArrayLike``: ten private names).
- Links by a name's module (``neurokd.models.vit.ViT3D``) lead to where it is described (``neurokd.ViT3D``).
- Parameters that are described together are shown together; napoleon repeats their words for each.
"""

import ast
import inspect
import re
import sys
import textwrap
from itertools import groupby
from types import FunctionType

from docutils import nodes
from sphinx import addnodes
from sphinx.util.nodes import make_refnode

import reference

MODULE = re.compile(r"neurokd\.(\w+)(?:\.figures|\.viewers)?\.\w+")
DASHES = (" -- ", " – ")  # between a parameter and its words, before and after Sphinx makes it pretty


def setup(app):
    """Register with Sphinx."""
    app.connect("autodoc-before-process-signature", keep_as_written)
    app.connect("missing-reference", find_public)
    app.connect("doctree-read", shorten)
    app.connect("doctree-read", join_parameters)
    return {"parallel_read_safe": True}


def keep_as_written(app, thing, bound_method):
    """Replace each hint of a function, or of a dataclass's fields, by an empty class called what the source says.

    What is returned is left to the docstring, which says it under a heading of its own.
    """
    thing = inspect.unwrap(getattr(thing, "__func__", thing))
    if not isinstance(thing, FunctionType):
        return
    if "<string>" in thing.__code__.co_filename:  # a dataclass's own __init__
        owner = getattr(sys.modules[thing.__globals__["__name__"]], thing.__qualname__.split(".")[0], None)
        if owner is None:
            return
        fields = ast.parse(textwrap.dedent(inspect.getsource(owner))).body[0].body
        hints = {field.target.id: field.annotation for field in fields if isinstance(field, ast.AnnAssign)}
        owner.__annotations__.update(_named(hints))
        thing.__annotations__.update(_named(hints))
        return
    written = ast.parse(textwrap.dedent(inspect.getsource(thing))).body[0]
    if not isinstance(written, ast.FunctionDef):
        return
    said = written.args
    hints = {argument.arg: argument.annotation for argument in (*said.posonlyargs, *said.args, *said.kwonlyargs)}
    # in place, since decorators such as torch.no_grad share the dictionary with what they wrap
    thing.__annotations__.clear()
    thing.__annotations__.update(
        _named(hints) | {"return": inspect.Signature.empty}  # left out, autodoc would look it up in the source
    )


def _named(hints: dict[str, ast.expr | None]) -> dict[str, type]:
    return {name: type(ast.unparse(hint), (), {"__module__": "builtins"}) for name, hint in hints.items() if hint}


def find_public(app, env, node, content):
    """Return the link that ``neurokd.room.module`` or ``neurokd.room.module.NAME`` stands for, if there is one."""
    target = node.get("reftarget", "")
    module = MODULE.match(target)
    if node.get("refdomain") != "py" or module is None:
        return None
    name = target[module.end() :].lstrip(".")
    page, place = f"reference/{module[1]}", nodes.make_id(module[0])
    if name:
        found = env.get_domain("py").objects.get(f"neurokd.{name}")
        if found is None:
            return None
        page, place = found.docname, found.node_id
    elif module[0] not in reference.public_names():
        return None
    return make_refnode(app.builder, node["refdoc"], page, place, content, target)


def shorten(app, doctree):
    """Show ``neurokd.room.module.NAME`` as ``NAME``: that is what one writes after ``neurokd.``."""
    for link in doctree.findall(addnodes.pending_xref):
        module = MODULE.match(link["reftarget"])
        if link["refdomain"] == "py" and module:
            for text in list(link.findall(nodes.Text)):
                text.parent.replace(text, nodes.Text(text.removeprefix(f"{module[0]}.")))


def join_parameters(app, doctree):
    """Give neighbours in a list of parameters that have the same words one item: ``a, b (float) -- ...``."""
    for field in doctree.findall(nodes.field_list):
        if not isinstance(field.parent, addnodes.desc_content):
            continue
        for items in field.findall(nodes.bullet_list):
            for words, same in groupby(list(items), _words):
                first, *others = same
                if words and others:
                    _join(first, others)


def _parts(item: nodes.list_item) -> tuple[list[nodes.Node], list[nodes.Node]]:
    """Return what stands before and after the dash."""
    parts = item[0].children
    dash = next((i for i, part in enumerate(parts) if isinstance(part, nodes.Text) and part in DASHES), len(parts))
    return parts[:dash], parts[dash + 1 :]


def _words(item: nodes.list_item) -> str:
    if len(item) != 1 or not isinstance(item[0], nodes.paragraph):
        return ""
    return "".join(part.astext() for part in _parts(item)[1])


def _join(first: nodes.list_item, others: list[nodes.list_item]) -> None:
    """Put the names of some items before those words that are the same in all; their type once if it is one."""
    heads = [_parts(item)[0] for item in (first, *others)]
    words = _parts(first)[1]
    once = len({"".join(part.astext() for part in head[1:]) for head in heads}) == 1
    joined: list[nodes.Node] = []
    for i, head in enumerate(heads):
        joined += [nodes.Text(", ")] if i else []
        joined += head[:1] if once and i < len(heads) - 1 else head
    first[0].children = []
    first[0].extend([*joined, nodes.Text(DASHES[1]), *words])
    for item in others:
        item.parent.remove(item)
