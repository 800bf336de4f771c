"""The colours that figures and viewers draw over a stack."""

from __future__ import annotations

__all__ = ["COLOURS"]

# Okabe and Ito's colours (jfly.uni-koeln.de/color): people with any colour vision can tell them apart.
ORANGE, SKY, GREEN, BLUE = "#E69F00", "#56B4E9", "#009E73", "#0072B2"
PURPLE, YELLOW, WHITE = "#CC79A7", "#F0E442", "#F2F2F2"

# A pixel of a prediction gets one of these if the truth is known.
VERDICTS = ("found", "missed", "invented")

# The stack itself is grey, so white is not used here.
COLOURS = {
    "found": GREEN, "missed": ORANGE, "invented": SKY, "mask": ORANGE, "tree": PURPLE, "root": ORANGE,
    "cursor": YELLOW,
}  # fmt: skip
"""Colours by meaning: ``found``, ``missed`` and ``invented`` for a prediction whose truth is known, ``mask``
for any other mask, ``tree``, ``root`` and ``cursor``."""
