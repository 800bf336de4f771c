"""Viewers to click and drag in a notebook: ``view_...`` return a widget, the last line of a cell shows it."""
