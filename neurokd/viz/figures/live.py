"""Curves that grow while a training run goes on, in a notebook."""

from __future__ import annotations

from typing import Any

from neurokd.viz.figures.history import plot_history

__all__ = ["LivePlot"]


class LivePlot:
    """Redraw the loss and the validation Dice as the records of a run come in.

    Give it to :func:`neurokd.training.loop.train` as ``callback``. The figure is replaced in place, and a
    saved notebook holds its last state.

    Parameters
    ----------
    every
        Redraw after this many records, and after every validation.

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
        """Take one record of the history."""
        self.records.append(record)
        if len(self.records) % self.every == 0 or "val_dice" in record:
            self.draw()

    def draw(self) -> None:
        """Draw all records, in the place of the figure drawn before."""
        import matplotlib.pyplot as plt
        from IPython.display import display

        figure = plot_history(self.records)
        if self._display is None:
            self._display = display(figure, display_id=True)
        else:
            self._display.update(figure)
        plt.close(figure)  # or the notebook would show it once more at the end of the cell
