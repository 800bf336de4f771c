"""The study's runner in a setting so small that nothing is learnt: every arm goes all the way to its test scores."""

import importlib.util
import json
from pathlib import Path

import pytest
import yaml

BENCHMARKS = Path(__file__).resolve().parents[1] / "benchmarks"


@pytest.fixture(scope="module")
def study():
    spec = importlib.util.spec_from_file_location("study", BENCHMARKS / "study.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def settings(study):
    settings = yaml.safe_load((BENCHMARKS / "study.yaml").read_text())
    return study.merged(settings, settings.pop("presets")["tiny"])


def test_settings_over_settings(study):
    base = {"a": {"b": 1, "c": 2}, "d": 3}
    assert study.merged(base, {"a": {"c": 4}, "e": 5}) == {"a": {"b": 1, "c": 4}, "d": 3, "e": 5}
    assert base == {"a": {"b": 1, "c": 2}, "d": 3}


def test_parts_share_no_neuron_and_do_not_depend_on_their_size(study, settings):
    data = settings["data"] | {"train": 2, "validation": 2, "test": 2}
    parts = {part: study.neurons(data, part) for part in ("train", "validation", "test", "shifted")}
    trees = [sample.tree.xyz.tobytes() for part in ("train", "validation", "test") for sample in parts[part]]
    assert len(set(trees)) == 6
    (first,) = study.neurons(data, "train", 1)
    assert (first.volume == parts["train"][0].volume).all()
    for usual, shifted in zip(parts["test"], parts["shifted"], strict=True):  # the same neuron, another microscope
        assert (usual.mask == shifted.mask).all()
        assert (usual.volume != shifted.volume).any()


def test_every_arm_goes_all_the_way(study, settings, tmp_path, real_teacher):
    for arm in settings["arms"]:
        cell = {"table": "explore", "arm": arm, "volumes": 1, "seed": 0}
        said = study.work(cell, settings, tmp_path / "out", tmp_path / "runs", 1, testing=False)
        assert arm in said
        assert study.state_of(cell, settings, tmp_path / "out") == "trained"
        study.work(cell, settings, tmp_path / "out", tmp_path / "runs", 1, testing=True)
        assert study.state_of(cell, settings, tmp_path / "out") == "tested"
        tested = json.loads((tmp_path / "out" / "explore" / f"{arm}-v1-s0.test.json").read_text())
        assert len(tested["rows"]["test"]) == settings["data"]["test"]
        assert 0 <= tested["rows"]["test"][0]["dice"] <= 1
        with pytest.raises(FileExistsError):
            study.work(cell, settings, tmp_path / "out", tmp_path / "runs", 1, testing=False)
    changed = study.merged(settings, {"data": {"seed": 1}})
    with pytest.raises(SystemExit, match="other settings"):
        study.state_of(cell, changed, tmp_path / "out")
