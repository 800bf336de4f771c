"""The results that come with the package: each cell is what its two files hold, made with the settings of the study."""

import json
from pathlib import Path

import pytest
import yaml

import neurokd as nkd
import study

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "neurokd" / "results" / "study"
SETTINGS = yaml.safe_load((ROOT / "benchmarks" / "study.yaml").read_text())


def test_scores_are_seeds_by_neurons_in_the_order_of_the_seeds():
    def cell(seed, dice, **more):
        return {"arm": "a", "volumes": 4, "seed": seed, "rows": {"test": [{"dice": d} for d in dice]}} | more

    trained = [cell(1, (0.3, 0.4), validations=[]), cell(0, (0.1, 0.2), validations=[])]
    assert nkd.study_scores(trained, "a").tolist() == [[0.1, 0.2], [0.3, 0.4]]
    assert nkd.study_scores([cell(0, (0.5,))], "a", volumes=16).tolist() == [[0.5]]  # one that is not trained
    with pytest.raises(ValueError, match="'a' with 16 volumes"):
        nkd.study_scores(trained, "a", volumes=16)
    with pytest.raises(ValueError, match="'shifted'"):
        nkd.study_scores(trained, "a", row="shifted")


def test_a_cell_holds_what_was_written_when_it_was_trained_and_when_it_was_tested(tmp_path):
    (tmp_path / "a-v4-s0.json").write_text(json.dumps({"arm": "a", "validation_dice": 0.5}))
    (tmp_path / "b-v4-s0.json").write_text(json.dumps({"arm": "b", "validation_dice": 0.25}))
    scored = {"arm": "a", "rows": {"test": []}, "skipped": {"real": "?"}}
    (tmp_path / "a-v4-s0.test.json").write_text(json.dumps(scored))
    first = {"arm": "a", "validation_dice": 0.5, "rows": {"test": []}, "skipped": {"real": "?"}}
    assert nkd.load_study(tmp_path) == [first, {"arm": "b", "validation_dice": 0.25, "rows": {}, "skipped": {}}]
    with pytest.raises(FileNotFoundError, match="no such folder"):
        nkd.load_study(tmp_path / "absent")


@pytest.mark.parametrize("table", SETTINGS["tables"])
def test_every_cell_was_made_with_the_settings_of_the_study(table):
    cells = {(cell["arm"], cell["volumes"], cell["seed"]) for cell in nkd.load_study()}
    for cell in study.cells(SETTINGS, table):
        assert (cell["arm"], cell["volumes"], cell["seed"]) in cells
        assert study.state_of(cell, SETTINGS, RESULTS) in ("trained", "tested")  # an error where settings differ


def test_the_headline_table_is_whole():
    table, data = SETTINGS["tables"]["headline"], SETTINGS["data"]
    for arm in table["arms"]:
        expected = (1 if arm == "threshold" else len(table["seeds"]), data["test"])
        assert nkd.study_scores(nkd.load_study(), arm).shape == expected
