"""The words that settings offer, each set of words once.

A type checker reads the types below. Checks and error messages are made from the same words, so a new decoder
or reading is written here and in the module that computes it, and nowhere else.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Literal, get_args

__all__ = [
    "Attention",
    "Axis",
    "Decoder",
    "Inflation",
    "Initialisation",
    "Norm",
    "Reading",
    "Role",
    "check_choice",
]

Axis = Literal["z", "y", "x"]
Attention = Literal["volume", "slab"]
Decoder = Literal["plain", "hybrid"]
Norm = Literal["group", "renorm"]
Inflation = Literal["center", "average"]
Initialisation = Literal[Inflation, "scratch"]
Reading = Literal["literal", "patch", "lines", "grid"]
Role = Literal["beside", "instead"]


def check_choice(name: str, value: object, choices: Any) -> None:
    """Raise an error unless a setting has one of the allowed values.

    Parameters
    ----------
    name
        Name of the setting, for the message.
    value
        Its value.
    choices
        One of the types of this module, or the allowed values.

    Raises
    ------
    ValueError
        If the value is not allowed; the message lists those that are.
    """
    allowed = get_args(choices) or tuple(choices)
    if value not in allowed:
        raise ValueError(f"{name} must be {_either(allowed)}, got {value!r}")


def _either(words: Iterable[str]) -> str:
    """Return ``'a', 'b' or 'c'``."""
    *first, last = (repr(word) for word in words)
    return f"{', '.join(first)} or {last}" if first else last
