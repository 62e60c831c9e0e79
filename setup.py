# SPDX-License-Identifier: Apache-2.0
"""What pyproject.toml cannot say: two compilers run, and two files come from outside.

In a checkout the kernels' list lies at the top and the BPF programs are compiled from
bpf/; a wheel carries all three inside the packages.
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py

ROOT = Path(__file__).resolve().parent
# The build back end does not import from the project's folder by itself.
sys.path.insert(0, str(ROOT))


class BuildPy(build_py):
    """Copies the packages, with the BPF objects and the kernels' list in them."""

    def run(self) -> None:
        """Compiles the BPF programs first, so that they are found as package data."""
        if not self.editable_mode:
            from refagent import objects

            objects.refresh()
        super().run()
        if not self.editable_mode:
            for name in ("kernels.txt", "kernels.lock"):
                shutil.copy(ROOT / name, Path(self.build_lib) / "vm" / name)


setup(
    cmdclass={"build_py": BuildPy},
    cffi_modules=["refagent/libbpf/build.py:ffibuilder"],
)
