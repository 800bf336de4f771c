"""The released model: found by its name, small, its card true; and the script that makes it."""

from __future__ import annotations

import argparse
import json

import pooch
import pytest
import torch
from safetensors.torch import load_file

import neurokd as nkd
import release
from neurokd.models import storage

SHIPPED = storage.RELEASED / "neurokd-tiny"


def segmenter(seed=0, **options):
    options = {"dim": 48, "depth": 2, "width": 8, "window": (8, 32, 32)} | options
    return nkd.NeuronSegmenter.from_scratch(generator=torch.Generator().manual_seed(seed), **options)


# --- names and files


@pytest.fixture
def package(tmp_path, monkeypatch):
    """A package with one released model, seen from a folder with nothing in it."""
    monkeypatch.setattr(storage, "RELEASED", tmp_path / "package")
    segmenter().save_pretrained(tmp_path / "package" / "neurokd-tiny")
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    return tmp_path


def first_weight(model):
    return model.vit.blocks[0].attn.qkv.weight


def test_a_name_is_the_released_model_and_a_path_is_a_folder(package):
    released, other = segmenter(), segmenter(seed=1)
    assert torch.equal(first_weight(nkd.NeuronSegmenter.from_pretrained("neurokd-tiny")), first_weight(released))
    folder = other.save_pretrained("neurokd-tiny")  # in the current directory
    for place in (folder, "./neurokd-tiny", folder.resolve()):
        assert torch.equal(first_weight(nkd.NeuronSegmenter.from_pretrained(place)), first_weight(other))
    with pytest.raises(ValueError, match=r"name_or_folder .*'neurokd-tiny' and .*here.neurokd-tiny"):
        nkd.NeuronSegmenter.from_pretrained("neurokd-tiny")
    other.save_pretrained("mine")
    assert torch.equal(first_weight(nkd.NeuronSegmenter.from_pretrained("mine")), first_weight(other))


def test_an_unknown_name_is_told_which_there_are(package):
    with pytest.raises(FileNotFoundError, match=r"neurokd-tiny.*neurokd-huge.* config\.json$"):
        nkd.NeuronSegmenter.from_pretrained("neurokd-huge")


def test_float16_is_stored_and_float32_is_read(tmp_path):
    model = segmenter()
    exact = {key: value.clone() for key, value in model.state_dict().items()}
    whole, half = model.save_pretrained(tmp_path / "whole"), model.half().save_pretrained(tmp_path / "half")
    assert {value.dtype for value in load_file(half / "model.safetensors").values()} == {torch.float16}
    assert [path.stat().st_mode & 0o044 for path in sorted(half.iterdir())] == [0o044, 0o044]  # others may read it
    for folder, expected in ((whole, exact), (half, {key: value.half().float() for key, value in exact.items()})):
        loaded = nkd.NeuronSegmenter.from_pretrained(folder).state_dict()
        assert {value.dtype for value in loaded.values()} == {torch.float32}
        assert all(torch.equal(value, expected[key]) for key, value in loaded.items())
    assert any((exact[key] != exact[key].half()).any() for key in exact)  # so that the second case says something


# --- the script, in a setting so small that nothing is learnt

TINY = """
mine:
  student: {dim: 48, depth: 2, heads: 2, width: 8, ridges: [1.0], gamma: 0.5}
  training: {steps: 2, batch_size: 1, crop: [16, 48, 48], validate_every: 1, seed: 0}
  scenes: {n: 2, seed: 5, shape: [24, 64, 64]}
  validation: {n: 2, seed: 6, shape: [24, 64, 64]}
"""


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """The folder of a run: a model, and how it was made."""
    folder = tmp_path_factory.mktemp("release")
    (folder / "released.yaml").write_text(TINY)
    run(folder, "train")
    return folder


def run(folder, action):
    places = {"out": folder, "results": folder, "runs": folder / "runs", "config": folder / "released.yaml"}
    release.main([action, "mine", *(word for option, place in places.items() for word in (f"--{option}", str(place)))])


def test_a_model_is_trained_stored_and_described(made):
    noted = json.loads((made / "release_mine.json").read_text())
    stored = load_file(made / "mine" / "model.safetensors")
    assert {value.dtype for value in stored.values()} == {torch.float16}
    assert noted["parameters"] == sum(value.numel() for value in stored.values())
    assert noted["sha256"] == pooch.file_hash(str(made / "mine" / "model.safetensors"))
    assert nkd.NeuronSegmenter.from_pretrained(made / "mine").config.threshold == noted["threshold"]
    before = noted["sha256"]
    run(made, "train")  # the run is done, so it is only taken up
    assert json.loads((made / "release_mine.json").read_text())["sha256"] == before


def test_a_model_that_is_not_in_the_settings_is_named():
    with pytest.raises(SystemExit, match=r"NAME must be one of \['neurokd-tiny'\], got 'neurokd-huge'"):
        release.main(["train", "neurokd-huge"])


# --- the card


def test_a_teacher_whose_licence_nobody_looked_up_gets_no_card():
    assert "not stated" in release.known_licence(f"{nkd.DEFAULT_TEACHER} (wheel: somewhere; sha256 0)")
    with pytest.raises(ValueError, match=r"one of LICENCES, got 'vit_huge\.private'"):
        release.known_licence("vit_huge.private (file: mine)")


def test_a_card_of_other_weights_is_refused(made, tmp_path):
    for name in ("real.json", "phantoms.json"):
        scores = json.loads((release.HERE / "results" / name).read_text())
        entries = scores["methods"] if name == "real.json" else scores["models"]
        entries["mine"] = entries["neurokd-tiny"]
        (made / name).write_text(json.dumps(scores))
    with pytest.raises(ValueError, match=r"real\.json must hold scores of"):
        run(made, "card")


# --- what is shipped


def test_the_released_model_is_small_and_there_by_its_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert storage.released_models() == ["neurokd-tiny"]
    model = nkd.NeuronSegmenter.from_pretrained("neurokd-tiny")
    assert not model.training and {p.dtype for p in model.parameters()} == {torch.float32}
    assert sum(p.numel() for p in model.parameters()) <= 5e6
    assert {path.name for path in SHIPPED.iterdir()} == {"README.md", "config.json", "model.safetensors"}
    assert (SHIPPED / "model.safetensors").stat().st_size <= 12e6


def test_the_card_of_the_released_model_tells_what_was_measured():
    options = argparse.Namespace(results=release.HERE / "results")
    assert (SHIPPED / "README.md").read_text() == release.text_of_card("neurokd-tiny", options)
    noted = json.loads((release.HERE / "results" / "release_neurokd-tiny.json").read_text())
    assert pooch.file_hash(str(SHIPPED / "model.safetensors")) == noted["sha256"]
    assert nkd.NeuronSegmenter.from_pretrained("neurokd-tiny").config.threshold == noted["threshold"]
