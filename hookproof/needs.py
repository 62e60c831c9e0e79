# SPDX-License-Identifier: Apache-2.0
"""What a host must have besides Python packages, why, and in which package it comes.

The set-up installs what is missing and `hookproof doctor` shows it, both from the one
table here. Everything is looked for by what it can do (a program on PATH, a header), not
by a package's name, so that a Python or a clang from elsewhere is as good as the
distribution's. Only the standard library is imported: the set-up runs before .venv is there.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import sys
import sysconfig
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

#: An ordinary user's PATH often lacks the folders where sshd, depmod and udevd lie.
SEARCH_PATH = os.pathsep.join([os.environ.get("PATH", os.defpath), "/usr/sbin", "/sbin"])
KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")
INCLUDE = Path("/usr/include")


def program(*names: str) -> str:
    """The path of the first of these programs that is there, or an empty string."""
    return next(filter(None, (shutil.which(name, path=SEARCH_PATH) for name in names)), "")


def file(path: Path) -> str:
    """The path if this user can read such a file, or an empty string."""
    return str(path) if os.access(path, os.R_OK) else ""


def static_busybox() -> str:
    """The path of a busybox that needs no shared library, or an empty string.

    A dynamic program names its loader, `…/ld-linux…` or `…/ld-musl…`, in its first page.
    """
    for name in ("busybox-static", "busybox.static", "busybox"):
        found = program(name)
        if found:
            with Path(found).open("rb") as binary:
                if b"/ld-" not in binary.read(4096):
                    return found
    return ""


def python_header() -> str:
    """The path of this Python's Python.h, or an empty string."""
    return file(Path(sysconfig.get_path("include")) / "Python.h")


def python_venv() -> str:
    """Where this Python can make a virtual environment with pip: its prefix, or nothing.

    Debian moves ensurepip out of its Python into the package python3-venv.
    """
    return sys.base_prefix if importlib.util.find_spec("ensurepip") else ""


@dataclass(frozen=True)
class Need:
    """One thing the host must have.

    Attributes:
        name: as people call it.
        why: what stops working without it.
        found: gives the path of what was found, or an empty string.
        debian: the package of Debian and Ubuntu that has it.
        fedora: the package of Fedora.
        arch: the package of Arch Linux.
        version: arguments that make the found program print its version; may be empty.
        runs: whether scenarios cannot run without it; else only tests or the benchmark.
    """

    name: str
    why: str
    found: Callable[[], str]
    debian: str
    fedora: str
    arch: str
    version: tuple[str, ...] = ()
    runs: bool = True


#: In the order in which they are used. With apt's recommended packages left out, what is
#: only recommended (libc6-dev by gcc) must stand here itself.
NEEDS: tuple[Need, ...] = (
    Need(
        "python venv",
        "keeps everything Python in .venv",
        python_venv,
        debian="python3-venv",
        fedora="python3",
        arch="python",
    ),
    Need(
        "Python.h",
        "the binding to libbpf is a C extension",
        python_header,
        debian="python3-dev",
        fedora="python3-devel",
        arch="python",
    ),
    Need(
        "gcc",
        "compiles the binding to libbpf",
        partial(program, "gcc"),
        debian="gcc",
        fedora="gcc",
        arch="gcc",
        version=("--version",),
    ),
    Need(
        "C headers",
        "the binding and the BPF programs include them",
        partial(file, INCLUDE / "stdio.h"),
        debian="libc6-dev",
        fedora="glibc-devel",
        arch="glibc",
    ),
    Need(
        "libbpf",
        "the reference agent loads its BPF programs with it",
        partial(file, INCLUDE / "bpf" / "libbpf.h"),
        debian="libbpf-dev",
        fedora="libbpf-devel",
        arch="libbpf",
    ),
    Need(
        "clang",
        "compiles the BPF programs",
        partial(program, "clang", *(f"clang-{number}" for number in range(22, 13, -1))),
        debian="clang",
        fedora="clang",
        arch="clang",
        version=("--version",),
    ),
    Need(
        "QEMU",
        "runs the virtual machines",
        partial(program, "qemu-system-x86_64"),
        debian="qemu-system-x86",
        fedora="qemu-system-x86-core",
        arch="qemu-system-x86",
        version=("--version",),
    ),
    Need(
        "static busybox",
        "the guest's initramfs and its init run with it",
        static_busybox,
        debian="busybox-static",
        fedora="busybox",
        arch="busybox",
        version=("--help",),
    ),
    Need(
        "depmod",
        "finds which of a kernel's modules need which",
        partial(program, "depmod"),
        debian="kmod",
        fedora="kmod",
        arch="kmod",
        version=("--version",),
    ),
    Need(
        "udev",
        "virtme-run's own init needs it, which `make bench` compares ours with",
        partial(program, "udevadm"),
        debian="udev",
        fedora="systemd-udev",
        arch="systemd",
        version=("--version",),
        runs=False,
    ),
    Need(
        "sshd",
        "the guest runs this host's program, as it sees the host's files",
        partial(program, "sshd"),
        debian="openssh-server",
        fedora="openssh-server",
        arch="openssh",
        version=("-V",),
    ),
    Need(
        "file",
        "virtme-ng looks with it whether busybox is static, and cannot do without",
        partial(program, "file"),
        debian="file",
        fedora="file",
        arch="file",
        version=("--version",),
    ),
    Need(
        "apt-get",
        "fetches kernels from Debian's archive, in folders of its own",
        partial(program, "apt-get"),
        debian="apt",
        fedora="apt",
        arch="apt",
        version=("--version",),
    ),
    Need(
        "dpkg-deb",
        "unpacks kernel packages",
        partial(program, "dpkg-deb"),
        debian="dpkg",
        fedora="dpkg",
        arch="dpkg",
        version=("--version",),
    ),
    Need(
        "zstd",
        "unpacks kernels, which a guest would do in a third of its boot",
        partial(program, "zstd"),
        debian="zstd",
        fedora="zstd",
        arch="zstd",
        version=("--version",),
    ),
    Need(
        "Debian's archive keys",
        "every fetched kernel's signature is verified with them",
        partial(file, KEYRING),
        debian="debian-archive-keyring",
        fedora="debian-keyring",
        arch="debian-archive-keyring",
    ),
    Need(
        "gpg",
        "the tests sign archives of their own with it",
        partial(program, "gpg"),
        debian="gnupg",
        fedora="gnupg2",
        arch="gnupg",
        version=("--version",),
        runs=False,
    ),
)


def missing(needs: tuple[Need, ...] = NEEDS) -> tuple[Need, ...]:
    """Those of the needs that this host does not meet, in the table's order."""
    return tuple(need for need in needs if not need.found())
