"""Run the notebooks as a reader in Colab does: the wheel alone, each notebook alone in an empty folder.

    python tools/execute.py                          every notebook that is not done yet, in the ci profile
    python tools/execute.py 00_quickstart            only this one
    python tools/execute.py --profile full --measure write what it takes to book/measured.json and the boxes

Each notebook gets a new virtual environment with all packages of this one but neurokd. That comes from a wheel built
here, which the notebook's own install cell asks for (``google.colab`` is a stub). The executed notebook is kept under
``book/_build/executed/PROFILE`` and run again only when its code, the package or these tools change.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import time
import venv
from pathlib import Path

import psutil

import notebooks

ROOT = Path(__file__).resolve().parents[1]
BUILD = ROOT / "book" / "_build"
TOOLS = ("run_notebook.py", "kernel_startup.py", "execute.py")
STUCK = 1800  # seconds of one cell; the longest training takes a fraction of it
BUSY = 0.1  # share of all cores used by others, above which measured minutes are not the notebook's own


def kept(source: Path, profile: str) -> Path:
    """Return the path at which the executed notebook of a profile is kept."""
    return BUILD / "executed" / profile / f"{source.stem}.ipynb"


def fingerprint(source: Path, profile: str) -> str:
    """Hash what decides a notebook's outputs: code, package, released weights, profile, Python, these tools.

    The text is left out: an executed notebook is shown with the text as it is now.
    """
    code = [cell.source for cell in notebooks.build(source).cells if cell.cell_type == "code"]
    digest = hashlib.sha256(json.dumps([profile, sys.version, code]).encode())
    files = [ROOT / "pyproject.toml", *(ROOT / "tools" / name for name in TOOLS)]
    kinds = (".py", ".pyi", ".json", ".safetensors")
    files += [path for path in sorted((ROOT / "neurokd").rglob("*")) if path.suffix in kinds]
    for path in files:
        digest.update(path.read_bytes())
    return digest.hexdigest()


def is_done(source: Path, profile: str) -> bool:
    """Tell whether the executed notebook that is kept is the one that would be made now."""
    key = kept(source, profile).with_suffix(".key")
    return key.is_file() and key.read_text() == fingerprint(source, profile)


def build_wheel(folder: Path) -> Path:
    """Build neurokd's wheel into a folder."""
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", str(folder), str(ROOT)]
    subprocess.run(command, check=True)
    (wheel,) = folder.glob("neurokd-*.whl")
    return wheel


def clean_environment(folder: Path) -> Path:
    """Make a virtual environment with all that this one has but neurokd; return its interpreter.

    Its packages are links to those here, so that it costs a second and no disk. Path files are left out too, since
    by them an editable install would come back.
    """
    venv.create(folder / "venv", with_pip=False)
    packages = folder / "packages"
    packages.mkdir()
    for place in {sysconfig.get_path("purelib"), sysconfig.get_path("platlib")}:
        for entry in Path(place).iterdir():
            ours = entry.name.lower().lstrip("_").startswith(("neurokd", "editable__"))
            if not ours and entry.suffix != ".pth":
                (packages / entry.name).symlink_to(entry)
    site = next((folder / "venv").rglob("site-packages"))
    (site / "packages.pth").write_text(f"{packages}\n")
    return folder / "venv" / "bin" / "python"


def run(source: Path, wheel: Path, *, profile: str, cold: bool = False) -> dict[str, float]:
    """Execute one notebook and keep it; with ``cold``, everything is downloaded again.

    Returns
    -------
    dict
        What it took: ``seconds`` from start to end, installation included, ``cpu_seconds`` of all ``cores`` together,
        ``memory_gb``, the most that one process held, ``download_mb``, and ``others``, the share of all cores that
        other programs used meanwhile.

    Raises
    ------
    RuntimeError
        A cell failed; its traceback was printed.
    """
    target = kept(source, profile)
    with tempfile.TemporaryDirectory(prefix="neurokd-") as name:
        outside = Path(name)
        python = clean_environment(outside)
        alone = outside / "notebook"
        alone.mkdir()
        notebook = shutil.copy(source.with_suffix(".ipynb"), alone)
        environment = {key: value for key, value in os.environ.items() if not key.startswith(("PYTHON", "NEUROKD_OUT"))}
        environment |= {
            "NEUROKD_PROFILE": profile,
            "NEUROKD_STUB_COLAB": str(wheel),
            "PYTHONNOUSERSITE": "1",
            "JUPYTER_PATH": str(Path(sys.prefix, "share", "jupyter")),
            "MPLBACKEND": "module://matplotlib_inline.backend_inline",
        }
        if cold:
            environment |= {"NEUROKD_CACHE": str(outside / "cache"), "PIP_NO_CACHE_DIR": "1"}
        runner = [str(python), str(ROOT / "tools" / "run_notebook.py"), notebook, str(target)]
        before, begin = _counters(), time.perf_counter()
        process = subprocess.Popen([*runner, "--timeout", str(STUCK)], cwd=alone, env=environment)
        _, status, usage = os.wait4(process.pid, 0)  # unlike wait(), with the memory and time it used
        process.returncode = os.waitstatus_to_exitcode(status)
        seconds = time.perf_counter() - begin
        if process.returncode:
            raise RuntimeError(f"{source.stem} failed in the {profile} profile (exit status {process.returncode})")
        busy, received = (now - then for now, then in zip(_counters(), before, strict=True))
        target.with_suffix(".key").write_text(fingerprint(source, profile))
    cores, cpu = os.cpu_count() or 1, usage.ru_utime + usage.ru_stime
    unit = 1 if sys.platform == "darwin" else 1024  # macOS counts bytes, others kibibytes
    return {
        "seconds": round(seconds, 1),
        "cpu_seconds": round(cpu, 1),
        "cores": cores,
        "memory_gb": round(usage.ru_maxrss * unit / 1e9, 2),
        "download_mb": round(received / 1e6, 1),
        "others": round(max(0.0, busy - cpu) / (seconds * cores), 3),
    }


def _counters() -> tuple[float, float]:
    """Return CPU seconds used on this machine, and bytes that came over its networks, both since it started."""
    cpu = psutil.cpu_times()
    received = sum(card.bytes_recv for name, card in psutil.net_io_counters(pernic=True).items() if name != "lo")
    return cpu.user + cpu.system + getattr(cpu, "nice", 0.0), received


def record(name: str, profile: str, took: dict[str, float]) -> None:
    """Write what a run took into ``book/measured.json``; RuntimeError if other programs used much of the machine."""
    if took["others"] > BUSY:
        raise RuntimeError(
            f"{name} is not recorded: other programs used {took['others']:.0%} of the cores (most: {BUSY:.0%})"
        )
    table = notebooks.measured()
    table.setdefault(name, {})[profile] = took
    notebooks.MEASURED.write_text(json.dumps(table, indent=1, sort_keys=True) + "\n", encoding="utf-8")


def main(argv: list[str] | None = None) -> int:
    """Run the command line; return the exit status."""
    known = {path.stem: path for path in notebooks.sources()}
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", help=f"notebooks, of {', '.join(known)}; all where none is named")
    parser.add_argument("--profile", choices=("ci", "full"), default="ci")
    parser.add_argument("--measure", action="store_true", help="run each, from empty caches, and write what it took")
    arguments = parser.parse_args(argv)
    if unknown := set(arguments.names) - set(known):
        parser.error(f"no such notebook: {', '.join(sorted(unknown))}")
    wanted = [known[name] for name in arguments.names or known]
    if not arguments.measure:
        wanted = [source for source in wanted if not is_done(source, arguments.profile)]
    with tempfile.TemporaryDirectory(prefix="neurokd-wheel-") as folder:
        wheel = build_wheel(Path(folder)) if wanted else None
        for source in wanted:
            print(f"\n=== {source.stem}, {arguments.profile} profile", flush=True)
            try:
                took = run(source, wheel, profile=arguments.profile, cold=arguments.measure)
                print(took)
                if arguments.measure:
                    record(source.stem, arguments.profile, took)
            except RuntimeError as error:
                print(error, file=sys.stderr)
                return 1
    return notebooks.main([]) if arguments.measure else 0


if __name__ == "__main__":
    sys.exit(main())
