"""Curves that grow in a notebook while a training run goes on."""

from __future__ import annotations

from typing import Any

from neurokd.viz.figures.history import plot_history

__all__ = ["LivePlot"]


class LivePlot:
    """Redraw the loss and the validation Dice during a training run.

    Pass it to :func:`neurokd.training.loop.train` as ``callback``. Each new figure replaces the old one in
    the notebook, and a saved notebook keeps the last one.

    Parameters
    ----------
    every
        Number of records between two drawings. Every validation also redraws.

    Raises
    ------
    ValueError
        `every` is below 1.
    """

    def __init__(self, *, every: int = 10) -> None:
        if every < 1:
            raise ValueError(f"every must be at least 1, got {every}")
        self.every = every
        self.records: list[dict[str, float]] = []
        self._display: Any = None

    def __call__(self, record: dict[str, float]) -> None:
        """Add one record, and redraw if it is time."""
        self.records.append(record)
        if len(self.records) % self.every == 0 or "val_dice" in record:
            self.draw()

    def draw(self) -> None:
        """Draw all records and replace the figure drawn before."""
        import matplotlib.pyplot as plt
        from IPython.display import display

        figure = plot_history(self.records)
        if self._display is None:
            self._display = display(figure, display_id=True)
        else:
            self._display.update(figure)
        plt.close(figure)  # otherwise the notebook would show it again at the end of the cell
