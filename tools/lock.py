# SPDX-License-Identifier: Apache-2.0
"""Resolves the dependencies of pyproject.toml into requirements.lock: `make lock`.

The resolver gets a virtual environment of its own for the occasion; the lock it writes
holds for every Python from 3.11 on, with the hashes of all files of each release.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

from tools.setup import LOCK
from tools.system import ROOT

HEADER = """\
# SPDX-License-Identifier: Apache-2.0
# Made by `make lock` from pyproject.toml, for Python 3.11 and newer.
"""
RESOLVE = (
    *("uv", "pip", "compile", "--quiet", "--no-config", "--no-header", "--no-annotate"),
    *("--universal", "--python-version=3.11", "--generate-hashes", "--upgrade"),
    *("--extra=dev", "pyproject.toml"),
)


def main() -> int:
    """Writes the lock; what goes wrong on the way is said by the program that fails."""
    with tempfile.TemporaryDirectory(prefix="hookproof-lock-") as folder:
        venv, made = Path(folder, "venv"), Path(folder, LOCK)
        env = {**os.environ, "PATH": f"{venv / 'bin'}{os.pathsep}{os.environ['PATH']}"}
        for command in (
            (sys.executable, "-m", "venv", str(venv)),
            (str(venv / "bin/pip"), "install", "--quiet", "uv"),
            (str(venv / "bin" / RESOLVE[0]), *RESOLVE[1:], "--output-file", str(made)),
        ):
            code = subprocess.run(command, cwd=ROOT, env=env, check=False).returncode
            if code:
                return code
        new = ROOT / f"{LOCK}.new"
        new.write_text(HEADER + made.read_text())
        new.replace(ROOT / LOCK)
    return 0


if __name__ == "__main__":
    sys.exit(main())
