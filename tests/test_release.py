"""The released model: found by its name, small, its card true; and the script that makes it."""

import json

import numpy as np
import pooch
import pytest
import torch
from safetensors.torch import load_file

import neurokd as nkd
import release
from neurokd.models import storage

SHIPPED = storage._RELEASED / "neurokd-tiny"


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


# --- the card


def test_a_teacher_whose_licence_nobody_looked_up_gets_no_card():
    assert "not stated" in release.known_licence(f"{nkd.DEFAULT_TEACHER} (wheel: somewhere; sha256 0)")
    with pytest.raises(SystemExit, match=r"'vit_huge\.private' into LICENCES"):
        release.known_licence("vit_huge.private (file: mine)")


# --- the script, in a setting so small that nothing is learnt


def arguments(folder, action, *more):
    places = {"from": "small", "out": "tiny", "results": "release.json", "runs": "runs"}
    named = [word for option, place in places.items() for word in (f"--{option}", str(folder / place))]
    return [action, *named, "--preset", "tiny", "--neurons", "1", "--steps", "1", *more]


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """The folder of a whole run: train, scores, card."""
    folder = tmp_path_factory.mktemp("release")
    small = segmenter()
    small.set_threshold(0.01)
    small.save_pretrained(folder / "small")
    release.main(arguments(folder, "train"))
    return folder


def test_its_neurons_are_in_no_part_of_the_study(made):
    data = json.loads((made / "release.json").read_text())["made_with"]["data"]
    assert release.PART not in release.PARTS.values() and max(release.PARTS.values()) < 10 > release.PART
    parts = [
        release.own_neurons(data, 1),
        *(release.neurons(data, part, 1) for part in ("train", "validation", "test")),
    ]
    assert len({sample.tree.xyz.tobytes() for (sample,) in parts}) == 4


def test_a_run_goes_all_the_way_to_a_model_and_its_card(made):
    results = json.loads((made / "release.json").read_text())
    stored = load_file(made / "tiny" / "model.safetensors")
    assert {value.dtype for value in stored.values()} == {torch.float16}
    assert results["tiny"]["parameters"] == sum(value.numel() for value in stored.values())
    assert nkd.NeuronSegmenter.from_pretrained(made / "tiny").config.threshold == results["tiny"]["threshold"]
    history = [json.loads(line) for line in (made / "runs" / "history.jsonl").read_text().splitlines()]
    assert history[0]["soft_targets"] > 0
    for method in ("threshold", "tiny", "small"):
        assert [len(results["scores"][method][row]) for row in ("test", "shifted")] == [2, 2]
    agrees(made / "tiny", results)


def test_nothing_is_replaced_unasked_and_scores_are_of_the_weights_that_are_there(made, tmp_path):
    for action in ("train", "card"):
        with pytest.raises(SystemExit, match=r"there already: .*--overwrite"):
            release.main(arguments(made, action))
    other = segmenter(seed=1).save_pretrained(tmp_path / "other")
    with pytest.raises(SystemExit, match="has weights"):
        release.main([*arguments(made, "card", "--overwrite"), "--from", str(other)])
    with pytest.raises(ValueError, match=r"made with other settings: \{'distillation\.weight': 1\.0\}"):
        release.main([*arguments(made, "train", "--overwrite"), "--weight", "2"])
    before = json.loads((made / "release.json").read_text())
    for action in ("train", "card"):  # the run is done, so it is only taken up
        release.main(arguments(made, action, "--overwrite"))
        after = json.loads((made / "release.json").read_text())
        assert before["tiny"] == after["tiny"]
        for method, rows in before["scores"].items():
            assert [v["dice"] for v in rows["test"]] == [v["dice"] for v in after["scores"][method]["test"]]


def agrees(folder, results):
    """The card in a folder tells the numbers that were measured, of the weights beside it."""
    card = (folder / "README.md").read_text()
    assert pooch.file_hash(str(folder / "model.safetensors")) == results["tiny"]["sha256"]
    assert results["tiny"]["sha256"] in card and results["small"]["sha256"] in card
    lines = [
        [cell.strip() for cell in line.strip("|").split("|")] for line in card.splitlines() if line.startswith("| ")
    ]
    head, told = lines[0], {(line[0], line[2]): line for line in lines[2:]}
    words = {"AP": "average_precision", "Dice": "dice", "clDice": "cldice", "HD95 µm": "hd95", "length F1": "length_f1"}
    for method, by_row in results["scores"].items():
        for row, volumes in by_row.items():
            line = told.pop((release.ROWS[row], method))
            assert line[1] == str(len(volumes))
            for word, key in words.items():
                mean = np.mean([volume[key] for volume in volumes])
                assert float(line[head.index(word)]) == pytest.approx(mean, abs=0.006 if key == "hd95" else 6e-4)
    assert not told  # the card has no line of which nothing is known
    assert f"{results['training']['validation_dice']:.3f}" in card
    assert f"{results['made_with']['neurons']} simulated fly neurons" in card


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
    results = json.loads((release.HERE / "results" / "release.json").read_text())
    agrees(SHIPPED, results)
    for row in ("test", "shifted"):
        dice = {method: np.mean([v["dice"] for v in rows[row]]) for method, rows in results["scores"].items()}
        assert dice["tiny"] > dice["threshold"]
