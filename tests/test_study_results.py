"""The results that come with the package: read, and the same as the files they were gathered from."""

import json
from pathlib import Path

import numpy as np
import pytest
import yaml

import neurokd as nkd
import study_tables

ROOT = Path(__file__).resolve().parents[1]


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


def test_the_package_holds_what_the_result_files_hold():
    study, settings = nkd.load_study(), yaml.safe_load((ROOT / "benchmarks" / "study.yaml").read_text())
    assert study["data"] == settings["data"] and study["arms"] == settings["arms"]
    there = {(c["arm"], c["volumes"], c["seed"]): c for c in study["cells"]}
    files = [f for f in (ROOT / "benchmarks/results/study").glob("*.json") if not f.name.endswith(".test.json")]
    assert len(files) == len(there) > 0
    for file in files:
        cell = json.loads(file.read_text())
        ours = there[tuple(cell[k] for k in study_tables.NAMED)]
        assert ours["validation_dice"] == cell["validation_dice"]
        tested = file.with_suffix(".test.json")
        if tested.exists():
            dice = [r["dice"] for r in json.loads(tested.read_text())["rows"]["test"]]
            np.testing.assert_allclose([r["dice"] for r in ours["rows"]["test"]], dice, atol=5e-5)


def test_the_headline_table_is_whole():
    study = nkd.load_study()
    table = study["tables"]["headline"]
    for arm in table["arms"]:
        expected = (1 if arm == "threshold" else len(table["seeds"]), study["data"]["test"])
        assert nkd.study_scores(study["cells"], arm).shape == expected
