"""The notebooks' settings: the profile variable, and results that never overwrite an earlier run."""

from pathlib import Path

import pytest

from neurokd.profile import profile, run_folder


@pytest.mark.parametrize(("value", "expected"), [(None, "full"), ("", "full"), ("full", "full"), ("ci", "ci")])
def test_profile_is_full_unless_ci_is_asked_for(monkeypatch, value, expected):
    monkeypatch.delenv("NEUROKD_PROFILE", raising=False)
    if value is not None:
        monkeypatch.setenv("NEUROKD_PROFILE", value)
    assert profile() == expected


@pytest.mark.parametrize("value", ["CI", "short", " ci"])
def test_any_other_profile_is_an_error_that_names_it(monkeypatch, value):
    monkeypatch.setenv("NEUROKD_PROFILE", value)
    with pytest.raises(ValueError, match=f"NEUROKD_PROFILE must be .*, got {value!r}"):
        profile()


def test_runs_are_numbered_and_nothing_is_lost(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("NEUROKD_OUT", raising=False)
    for text in "one", "two", "three":
        folder = run_folder("demo")
        assert folder == tmp_path / "runs" / "demo"
        assert list(folder.iterdir()) == []
        (folder / "result.txt").write_text(text)
    kept = {path.parent.name: path.read_text() for path in tmp_path.glob("runs/*/result.txt")}
    assert kept == {"demo-1": "one", "demo-2": "two", "demo": "three"}


def test_an_empty_folder_is_used_as_it_is(monkeypatch, tmp_path):
    monkeypatch.setenv("NEUROKD_OUT", str(tmp_path / "out"))
    assert run_folder("demo") == run_folder("demo") == tmp_path / "out"
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_the_working_directory_is_never_moved(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    for folder in ".", "..", str(Path(tmp_path.anchor)):
        monkeypatch.setenv("NEUROKD_OUT", folder)
        with pytest.raises(ValueError, match="holds the working directory"):
            run_folder("demo")
