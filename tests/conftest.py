"""What several test modules need: a folder of real data, a real teacher, no windows."""

import os
from pathlib import Path

import pytest

os.environ.setdefault("MPLBACKEND", "Agg")


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of real samples, ``NEUROKD_DATA``; tests that ask for it are skipped where there is none."""
    folder = os.environ.get("NEUROKD_DATA")
    if not folder or not Path(folder).is_dir():
        pytest.skip(f"no real data: NEUROKD_DATA is {folder!r}")
    return Path(folder)


@pytest.fixture(scope="session")
def real_stack(real_data: Path) -> Path:
    """The TIFF of the fly neuron, with its automatic trace (.swc) beside it."""
    path = real_data / "real" / "rivulet_fly_full.tif"
    if not path.is_file():
        pytest.skip(f"no real stack: {path} is not there")
    return path


@pytest.fixture(scope="session")
def real_teacher():
    """The demo's teacher with its real weights; tests that ask for it are skipped where it cannot be had."""
    from neurokd.models.teacher import load_teacher

    try:
        return load_teacher()
    except RuntimeError as error:
        pytest.skip(f"no real teacher: {error}")
