"""Makes a plain ``pytest --nbmake notebooks/`` short: the ``ci`` profile, with results in a temporary folder.

``NEUROKD_PROFILE=full pytest --nbmake notebooks/`` runs what a reader gets.
"""

import os
import tempfile


def pytest_configure(config):
    # Set before any kernel starts, since kernels inherit this process's environment.
    os.environ.setdefault("NEUROKD_PROFILE", "ci")
    if "NEUROKD_OUT" not in os.environ:
        scratch = tempfile.TemporaryDirectory(prefix="neurokd-notebooks-")
        os.environ["NEUROKD_OUT"] = os.path.join(scratch.name, "run")
        config.add_cleanup(scratch.cleanup)
