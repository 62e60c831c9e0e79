# SPDX-License-Identifier: Apache-2.0
"""Builds `refagent.libbpf._libbpf`: for setuptools, or in place when run as a program."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

from cffi import FFI

HERE = Path(__file__).resolve().parent

ffibuilder = FFI()
ffibuilder.cdef((HERE / "api.cdef.h").read_text("utf-8"))
ffibuilder.set_source(
    "refagent.libbpf._libbpf", (HERE / "shim.c").read_text("utf-8"), libraries=["bpf"]
)


def build_in_place() -> Path:
    """Compiles the module in a temporary directory and moves it beside this file."""
    with tempfile.TemporaryDirectory() as scratch:
        built = Path(ffibuilder.compile(tmpdir=scratch))
        ready = HERE / f".{built.name}"
        shutil.copyfile(built, ready)
        return ready.replace(HERE / built.name)


if __name__ == "__main__":
    print(build_in_place())
