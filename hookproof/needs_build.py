# SPDX-License-Identifier: Apache-2.0
"""What a host must have to build kernels (vm/toolchain.py), beside the compiler.

The set-up installs it with the rest, as it is little: 4 MB to fetch, 11 MB installed.
"""

from __future__ import annotations

from functools import partial

from hookproof.needs import INCLUDE, Need, file, program

_VERSION = ("--version",)

BUILD_NEEDS: tuple[Need, ...] = (
    Need(
        "make",
        "builds kernels",
        partial(program, "make"),
        debian="make",
        fedora="make",
        arch="make",
        version=_VERSION,
        runs=False,
    ),
    Need(
        "flex",
        "makes the reader of a kernel's options while one is built",
        partial(program, "flex"),
        debian="flex",
        fedora="flex",
        arch="flex",
        version=_VERSION,
        runs=False,
    ),
    Need(
        "bison",
        "the same",
        partial(program, "bison"),
        debian="bison",
        fedora="bison",
        arch="bison",
        version=_VERSION,
        runs=False,
    ),
    Need(
        "bc",
        "makes constants of time while a kernel is built",
        partial(program, "bc"),
        debian="bc",
        fedora="bc",
        arch="bc",
        version=_VERSION,
        runs=False,
    ),
    Need(
        "libelf",
        "tools that a kernel's build needs include it",
        partial(file, INCLUDE / "gelf.h"),
        debian="libelf-dev",
        fedora="elfutils-libelf-devel",
        arch="libelf",
        runs=False,
    ),
    Need(
        "pahole",
        "writes a kernel's types, which BPF programs go by",
        partial(program, "pahole"),
        debian="dwarves",
        fedora="dwarves",
        arch="pahole",
        version=_VERSION,
        runs=False,
    ),
    Need(
        "xz",
        "unpacks the source of a kernel",
        partial(program, "xz"),
        debian="xz-utils",
        fedora="xz",
        arch="xz",
        version=_VERSION,
        runs=False,
    ),
)
