"""The live plot draws what it was told, in one place."""

import matplotlib.pyplot as plt
import numpy as np
import pytest

from neurokd.viz.figures.live import LivePlot


@pytest.fixture
def shown(monkeypatch):
    """Figures in the order in which they were shown, with the place they were shown in."""
    figures = []

    class Place:
        def update(self, figure):
            figures.append((self, figure))

    def display(figure, display_id):
        place = Place()
        figures.append((place, figure))
        return place

    monkeypatch.setattr("IPython.display.display", display)
    return figures


def test_draws_all_records_in_one_place_and_leaves_no_figure_open(shown):
    live = LivePlot(every=2)
    records = [{"step": i, "loss": 1 / i} for i in range(1, 6)]
    for record in [*records, {"step": 5, "val_dice": 0.4}]:
        live(record)
    assert [len(figure.axes) for _, figure in shown] == [1, 1, 2]  # after 2 and 4 records, and after the validation
    assert len({id(place) for place, _ in shown}) == 1
    np.testing.assert_allclose(shown[-1][1].axes[0].lines[0].get_ydata(), [r["loss"] for r in records])
    assert not plt.get_fignums()


def test_bad_interval_is_named():
    with pytest.raises(ValueError, match="every"):
        LivePlot(every=0)
