"""The colours of all that is drawn over a stack, the same in figures and in viewers."""

from __future__ import annotations

__all__ = ["COLOURS"]

# Okabe and Ito's colours (jfly.uni-koeln.de/color): people with any colour vision can tell them apart.
ORANGE, SKY, GREEN, BLUE, WHITE = "#E69F00", "#56B4E9", "#009E73", "#0072B2", "#F2F2F2"
PURPLE, YELLOW = "#CC79A7", "#F0E442"

# Found cannot be white, since the stack below is grey.
COLOURS = {
    "mask": ORANGE, "found": GREEN, "missed": ORANGE, "invented": SKY, "tree": PURPLE, "root": ORANGE, "cursor": YELLOW,
}  # fmt: skip
"""Colours by meaning: of a ``mask``; of what a prediction ``found``, ``missed`` and ``invented``; of a ``tree``, its
``root`` and a ``cursor``."""
