"""Fetch the few files without which a page needs the network: maths, stored widgets, the fault finder.

    python tools/vendor.py     fetch what is not in the cache yet, and say where it is

Each comes from its package on the npm registry that this machine is set up for (``npm pack``: nothing is installed,
no script is run), is checked by SHA-256 and kept in the user's cache folder. Where there is no npm, copy the cache of
a machine that has it. Nothing of it is committed.
"""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import tarfile
import tempfile
from pathlib import Path
from typing import NamedTuple

from neurokd.data.files import cache_folder, writing_to


class Script(NamedTuple):
    """One file of one npm package: what npm is asked for, the file's path inside, and the SHA-256 of the file."""

    package: str
    member: str
    sha256: str


SCRIPTS = {
    "mathjax.js": Script(  # with SVG for output: needs no font files. Apache-2.0
        "mathjax@3.2.2", "es5/tex-svg.js", "d4295dc33744836935c1399feece5159577b34c5c8ffb9f1c6324cd82e03a882"
    ),
    "require.js": Script(  # MIT
        "requirejs@2.3.8", "require.js", "c1fc6b1d53af7522f78d664922abb32acac64ed0ecccb8f907f1e6fc7262563a"
    ),
    "widgets.js": Script(  # BSD-3-Clause
        "@jupyter-widgets/html-manager@1.0.15",
        "dist/embed-amd.js",
        "ca87dff57c70ffb2658794fde0eab0e27e5f5472a1f5df7ab2b08e1039fc4b72",
    ),
    "widgets.woff2": Script(  # its pictures (Font Awesome 4: SIL OFL 1.1)
        "@jupyter-widgets/html-manager@1.0.15",
        "dist/1551f4f60c37af51121f.woff2",
        "9834b82ad26e2a37583d22676a12dd2eb0fe7c80356a2114d0db1aa8b3899537",
    ),
    "axe.js": Script(  # for the tests only. MPL-2.0
        "axe-core@4.14.1", "axe.min.js", "29348999450cdf2849a8e70b7912fc2da85a849da39c0d0d5394f51d4a9ed95c"
    ),
}


def script(name: str) -> Path:
    """Return the path of the script of this name in ``SCRIPTS``, fetched if it is not in the cache.

    Raises
    ------
    RuntimeError
        There is no npm, or it cannot get the package.
    ValueError
        The file that came has another SHA-256.
    """
    wanted, path = SCRIPTS[name], cache_folder() / "scripts" / name
    if path.is_file() and hashlib.sha256(path.read_bytes()).hexdigest() == wanted.sha256:
        return path
    npm = shutil.which("npm")
    if npm is None:
        raise RuntimeError(
            f"there is no npm here to fetch {wanted.package} (Debian/Ubuntu: sudo apt-get install npm); "
            f"or copy {path} from a machine that has it"
        )
    with tempfile.TemporaryDirectory() as folder:
        command = [npm, "pack", "--silent", "--ignore-scripts", wanted.package]
        result = subprocess.run(command, cwd=folder, capture_output=True, text=True)
        if result.returncode:
            raise RuntimeError(f"npm could not get {wanted.package}: {result.stderr or result.stdout}")
        (archive,) = Path(folder).glob("*.tgz")
        with tarfile.open(archive) as package:
            content = package.extractfile(f"package/{wanted.member}").read()
    found = hashlib.sha256(content).hexdigest()
    if found != wanted.sha256:
        raise ValueError(f"{wanted.member} of {wanted.package} must have SHA-256 {wanted.sha256}, got {found}")
    with writing_to(path, overwrite=True) as part:
        part.write_bytes(content)
    return path


if __name__ == "__main__":
    for each in SCRIPTS:
        print(script(each))
