"""What several test modules need: a folder of real data, a real teacher and a stand-in for one, no windows."""

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


def stand_in(vit):
    """A teacher around any timm vision transformer; that it is not a real one is written on it."""
    from neurokd.models.teacher import Teacher, TeacherSource

    source = TeacherSource(name="stand-in", kind="file", detail="random, for tests", sha256="0" * 64)
    return Teacher(vit, mean=(0.5,) * 3, std=(0.5,) * 3, source=source)


def stand_in_teacher():
    """A small random teacher of real structure, 192 wide and 6 blocks deep, where its knowledge plays no part."""
    import timm
    import torch

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        vit = timm.create_model("vit_tiny_patch16_224", num_classes=0, depth=6, dynamic_img_size=True)
    return stand_in(vit)


@pytest.fixture(scope="session")
def teacher():
    """The one of :func:`stand_in_teacher`; nobody changes it, for it is frozen."""
    return stand_in_teacher()
