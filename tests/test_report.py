"""Rows of scores and what is said of a set: counted by hand, and against scipy's bootstrap."""

import json
import math
from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

from neurokd.data.datasets import Sample
from neurokd.data.tree import Tree
from neurokd.evaluation.evaluate import compare_trees, evaluate_masks, evaluate_samples
from neurokd.evaluation.report import Report
from neurokd.evaluation.scores import SCORES, Score

SHAPE = (6, 7, 8)
SPACING = (2.0, 1.0, 0.5)
DIAGONAL = math.sqrt(12**2 + 7**2 + 4**2)


def boxed(*slices: slice) -> np.ndarray:
    mask = np.zeros(SHAPE, dtype=bool)
    mask[slices] = True
    return mask


EMPTY, SOME = boxed(slice(0, 0)), boxed(slice(2, 3), slice(2, 3), slice(2, 3))
WORST = {"dice": 0, "precision": 0, "recall": 0, "cldice": 0}
BEST = {"dice": 1, "precision": 1, "recall": 1, "cldice": 1}


@pytest.mark.filterwarnings("error")
def test_empty_masks_count() -> None:
    missed = evaluate_masks(EMPTY, SOME, spacing=SPACING)
    assert missed == {
        **WORST,
        "hd95": pytest.approx(DIAGONAL),
        "betti0_error": 1,
        "betti1_error": 0,
        "failed": True,
    }
    assert evaluate_masks(SOME, EMPTY, spacing=SPACING) == missed
    fine = {**BEST, "hd95": 0, "betti0_error": 0, "betti1_error": 0, "failed": False}
    assert evaluate_masks(EMPTY, EMPTY, spacing=SPACING) == fine
    assert evaluate_masks(SOME, SOME, spacing=SPACING) == fine
    assert json.dumps(missed)


def test_bad_masks() -> None:
    with pytest.raises(ValueError, match=r"\(6, 7, 8\) and \(6, 7, 9\)"):
        evaluate_masks(SOME, np.ones((6, 7, 9), bool), spacing=SPACING)
    with pytest.raises(ValueError, match="spacing"):
        evaluate_masks(SOME, SOME, spacing=(1, 1))


def samples() -> list[Sample]:
    tube = boxed(slice(3, 4), slice(3, 4))
    return [Sample(name, mask.astype(float), mask, spacing=SPACING) for name, mask in {"a": tube, "b": SOME}.items()]


def test_a_missed_neuron_makes_the_mean_worse() -> None:
    good = {sample.name: sample.mask for sample in samples()}
    report = evaluate_samples(samples(), good)
    assert report.failures == [] and report.summary["hd95"]["mean"] == 0
    report = evaluate_samples(samples(), {**good, "b": EMPTY}, title="threshold")
    assert report.failures == ["b"]
    assert report.summary["hd95"]["mean"] == pytest.approx(DIAGONAL / 2)
    assert report.summary["dice"]["mean"] == 0.5
    assert [row["name"] for row in report.rows] == ["a", "b"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s, p: (s, {"a": SOME}), r"got none of \['b'\]"),
        (lambda s, p: (s[:1], p), r"surplus \['b'\]"),
        (lambda s, p: ([s[0], replace(s[1], mask=None)], p), "'b'.*mask"),
        (lambda s, p: ([s[0], replace(s[1], spacing=None)], p), "'b'.*spacing"),
        (lambda s, p: ([*s, s[0]], p), "unique name"),
        (lambda s, p: ([], {}), "at least one"),
    ],
)
def test_bad_sets(change, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        evaluate_samples(*change(samples(), {"a": SOME, "b": SOME}))


def random_rows(n: int = 12) -> list[dict]:
    rng = np.random.default_rng(4)
    return [{"name": f"v{i}", "dice": float(rng.random()), "hd95": float(rng.gamma(2.0))} for i in range(n)]


def test_summary_against_scipy() -> None:
    rows = random_rows()
    report = Report(rows, n_bootstrap=20_000)
    for key in ("dice", "hd95"):
        values = [row[key] for row in rows]
        summary = report.summary[key]
        assert summary["mean"] == pytest.approx(np.mean(values))
        assert summary["std"] == pytest.approx(np.std(values, ddof=1))
        expected = stats.bootstrap((values,), np.mean, n_resamples=20_000, method="percentile").confidence_interval
        width = expected.high - expected.low
        assert (summary["low"], summary["high"]) == pytest.approx(tuple(expected), abs=0.03 * width)
    assert Report(rows).summary == Report(rows).summary
    assert Report(rows, seed=1).summary["dice"]["low"] != Report(rows).summary["dice"]["low"]
    wide, narrow = (Report(rows, confidence=share).summary["dice"] for share in (0.99, 0.5))
    assert wide["low"] < narrow["low"] < narrow["high"] < wide["high"]


def test_one_row_has_no_spread() -> None:
    report = Report([{"name": "only", "dice": 0.5}])
    assert report.summary == {"dice": {"mean": 0.5, "std": None, "low": None, "high": None}}
    assert "| **mean ± standard deviation** | 0.500 | 0 of 1 |" in report.to_markdown()
    assert "NaN" not in report.to_json()


def test_table_by_hand() -> None:
    rows = [
        {"name": "a", "dice": 0.5, "hd95": 1.0, "betti0_error": 2, "failed": False},
        {"name": "b", "dice": 0.0, "hd95": 20.0, "betti0_error": 1, "failed": True},
    ]
    lines = Report(rows, title="student").to_markdown().splitlines()
    assert lines[:5] == [
        "| student | Dice | HD95 (µm) | Betti-0 error | failed |",
        "| --- | ---: | ---: | ---: | --- |",
        "| a | 0.500 | 1.00 | 2 |  |",
        "| b | 0.000 | 20.00 | 1 | yes |",
        "| **mean ± standard deviation** | 0.250 ± 0.354 | 10.50 ± 13.44 | 1.5 ± 0.7 | 1 of 2 |",
    ]
    assert lines[5].startswith("| 95% interval of the mean | 0.000 to 0.500 | 1.00 to 20.00 |")
    assert any(line.startswith("- HD95 (µm): max of the two directed 95th percentiles") for line in lines)
    assert len({line.count("|") for line in lines[:6]}) == 1
    short = Report(rows).to_markdown(["hd95"])
    assert "Dice" not in short and "| a | 1.00 |  |" in short


def test_json_holds_all_of_it(tmp_path) -> None:
    report = evaluate_samples(samples(), {"a": SOME, "b": SOME}, title="x")
    text = report.to_json(tmp_path / "report.json")
    read = json.loads((tmp_path / "report.json").read_text(encoding="utf-8"))
    assert read == json.loads(text) == report.to_dict()
    assert read["rows"][0]["name"] == "a" and read["n"] == 2
    assert "max of the two directed" in read["definitions"]["hd95"]
    numpy_row = Report([{"name": "a", "dice": np.float32(0.5), "failed": np.bool_(False)}])
    assert json.loads(numpy_row.to_json())["rows"] == [{"name": "a", "dice": 0.5, "failed": False}]


def test_worst() -> None:
    rows = [{"name": name, "dice": d, "hd95": h} for name, d, h in (("a", 0.9, 9), ("b", 0.1, 5), ("c", 0.5, 7))]
    report = Report(rows)
    assert report.worst("dice", 2) == ["b", "c"]
    assert report.worst("hd95") == ["a", "c", "b"]
    with pytest.raises(ValueError, match=r"'dice', 'hd95'.*nsd"):
        report.worst("nsd")


def test_worst_of_a_score_that_is_not_ours() -> None:
    report = Report([{"name": "a", "nsd": 0.9}, {"name": "b", "nsd": 0.1}])
    with pytest.raises(ValueError, match="better must be 'high' or 'low' for the score 'nsd', got None"):
        report.worst("nsd")
    assert report.worst("nsd", 1, better="high") == ["b"]
    assert report.worst("nsd", 1, better="low") == ["a"]


def test_a_new_score_is_one_entry(monkeypatch) -> None:
    """Its value is in every row, its heading and definition in every table, its better end known."""
    extra = Score(
        "extra voxels", "masks", lambda pair: int((pair.prediction & ~pair.truth).sum()), "spill", "low", digits=0
    )
    monkeypatch.setitem(SCORES, "extra", extra)
    both = SOME.copy()
    both[0, 0, :2] = True
    report = evaluate_samples(samples(), {"a": samples()[0].mask, "b": both})
    assert [row["extra"] for row in report.rows] == [0, 2]
    assert report.worst("extra", 1) == ["b"]
    table = report.to_markdown(["extra"])
    assert table.startswith("| name | extra voxels | failed |\n") and "- extra voxels: spill." in table


def test_trees_in_a_report() -> None:
    tree = Tree(np.array([[0, 0, 0], [30, 40, 0]]), np.ones(2), np.array([-1, 0]), np.zeros(2))
    rows = [{"name": name, **compare_trees(one, tree)} for name, one in (("found", tree), ("missed", None))]
    report = Report(rows)
    assert report.failures == ["missed"]
    assert report.summary["esa"]["mean"] == 25
    table = report.to_markdown(["esa", "length_f1"])
    assert table.startswith("| name | ESA (voxels) | length F1 | failed |")
    assert "Tolerance: 2 voxels; convention: length" in table
    mixed = [rows[0], {"name": "um", **compare_trees(tree, tree, spacing=(1, 1, 1))}]
    with pytest.raises(ValueError, match=r"agree in unit.*voxels.*µm|agree in unit.*µm.*voxels"):
        Report(mixed)


@pytest.mark.parametrize(
    ("rows", "settings", "message"),
    [
        ([], {}, "at least one row"),
        ([{"dice": 1.0}], {}, "unique name"),
        ([{"name": "a", "dice": 1.0}, {"name": "a", "dice": 0.0}], {}, "unique name"),
        ([{"name": "a", "dice": 1.0}, {"name": "b"}], {}, r"'b' differ in \['dice'\]"),
        ([{"name": "a", "hd95": math.nan}], {}, "'a' must be finite.*nan"),
        ([{"name": "a", "hd95": math.inf}], {}, "'a' must be finite.*inf"),
        ([{"name": "a", "dice": 1.0}], {"confidence": 1.0}, "confidence"),
        ([{"name": "a", "dice": 1.0}], {"n_bootstrap": 0}, "n_bootstrap"),
    ],
)
def test_bad_reports(rows, settings, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Report(rows, **settings)
