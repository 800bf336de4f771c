"""The colours of everything that is drawn over a stack, the same in figures and in viewers."""

from __future__ import annotations

__all__ = ["COLOURS"]

# Okabe and Ito's colours (jfly.uni-koeln.de/color): people with any colour vision can tell them apart.
ORANGE, SKY, GREEN, BLUE = "#E69F00", "#56B4E9", "#009E73", "#0072B2"
PURPLE, YELLOW, WHITE = "#CC79A7", "#F0E442", "#F2F2F2"

VERDICTS = ("found", "missed", "invented")  # on each pixel of a prediction, where the truth is known

# White is free for the stack itself, which is grey.
COLOURS = {
    "found": GREEN, "missed": ORANGE, "invented": SKY, "mask": ORANGE, "tree": PURPLE, "root": ORANGE,
    "cursor": YELLOW,
}  # fmt: skip
"""Colours by what they mean: ``found``, ``missed`` and ``invented`` for a prediction whose truth is known,
``mask`` for any other mask, ``tree``, ``root`` and ``cursor``."""
