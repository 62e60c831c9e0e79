# SPDX-License-Identifier: Apache-2.0
"""What this host has and lacks for running scenarios, one finding for each thing needed."""

from __future__ import annotations

import os
import platform
import re
import shutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from enum import Enum
from importlib import metadata
from pathlib import Path

from hookproof.needs import NEEDS, Need
from hookproof.needs_build import BUILD_NEEDS
from vm import store
from vm.errors import Problem
from vm.run import run

GIB = 1 << 30
#: An unpacked kernel with its modules, rounded up.
KERNEL_BYTES = GIB // 2
#: A guest's default memory, QEMU's own, and the harness.
MEMORY_BYTES = 3 * GIB // 2


#: `14.0.6`, `9.2p1`; a bare number only at a line's start (udevadm) or behind "version".
_VERSION = re.compile(r"\d+(?:\.\d+)+(?:p\d+)?|^\d+$|(?<=version )\d+", re.MULTILINE)


class State(Enum):
    """How a finding bears on a run."""

    OK = "ok"
    NOTE = "note"  # a run works; slower, or after a download, or tests do not
    MISSING = "MISSING"  # a run would not work


@dataclass(frozen=True)
class Finding:
    """What was found out about one thing.

    Attributes:
        name: the thing.
        state: whether a run would work.
        found: what is there, in a few words: a version, a size.
        why: what it is needed for, or more about what was found.
        fix: the next step, if there is one; for a missing package it is in `need`.
        path: where it lies, if it is a file.
        need: the entry of `NEEDS` that it is about.
    """

    name: str
    state: State
    found: str
    why: str
    fix: str = ""
    path: str = ""
    need: Need | None = None


def version(need: Need, found: str) -> str:
    """The version that a program prints, or an empty string."""
    if not need.version:
        return ""
    try:
        # sshd of Debian 12 prints its version as part of a complaint.
        said = run([found, *need.version], timeout=20, ok=(0, 1))
    except Problem:
        return ""
    number = _VERSION.search(said.stdout + said.stderr)
    return number[0] if number else ""


def system() -> Iterator[Finding]:
    """Everything of `NEEDS` and `BUILD_NEEDS`."""
    for need in (*NEEDS, *BUILD_NEEDS):
        path = need.found()
        lost = State.MISSING if need.runs else State.NOTE
        state = State.OK if path else lost
        words = version(need, path) if path else ""
        yield Finding(need.name, state, words, need.why, path=path, need=need)


def built() -> Iterator[Finding]:
    """What the set-up installs or compiles in .venv and in the packages."""
    from refagent import objects
    from vm import virtme

    mend = "run `make setup`"
    yield Finding("Python", State.OK, platform.python_version(), "runs the harness")
    why = "gives the command line and the initramfs of a boot"
    try:
        path = str(virtme.program())
        yield Finding("virtme-ng", State.OK, metadata.version("virtme-ng"), why, path=path)
    except Problem as problem:
        yield Finding("virtme-ng", State.MISSING, "", why, problem.hint)
    why = "the reference agent talks to the kernel through it"
    try:
        from refagent.libbpf import _libbpf

        yield Finding("binding to libbpf", State.OK, "", why, path=str(_libbpf.__file__))
    except ImportError as error:
        yield Finding("binding to libbpf", State.MISSING, "", f"{why}; {error}", mend)
    count = len(list(objects.DIRECTORY.glob("*.bpf.o")))
    state = State.OK if count else State.MISSING
    why = "the reference agent's sensors and overrides"
    yield Finding("BPF programs", state, str(count), why, "" if count else mend)


def acceleration() -> Iterator[Finding]:
    """How virtual machines run here: a boot of a tiny payload tells, not the device node."""
    from vm import accel

    verdict = accel.calibrate()
    state = State.OK if verdict.accel is accel.Accel.KVM else State.NOTE
    yield Finding("acceleration", state, verdict.accel.value, verdict.words)


def size() -> Iterator[Finding]:
    """The host's processors and memory."""
    yield Finding("processors", State.OK, str(os.cpu_count()), "a guest has two")
    free = available_memory(Path("/proc/meminfo").read_text(encoding="ascii"))
    yield _room("memory", free, MEMORY_BYTES, why="free for guests", fix="end other programs")


def cache() -> Iterator[Finding]:
    """The folder of fetched kernels: which are there, and whether the others have room."""
    from vm import catalog, images
    from vm.default import default_catalog, default_lock
    from vm.kernel import BuildSource

    folder = store.folder()
    writable = os.access(folder, os.W_OK | os.X_OK)
    state, fix = (State.OK, "") if writable else (State.MISSING, "set HOOKPROOF_CACHE")
    yield Finding("cache", state, "", "fetched kernels lie there", fix, path=str(folder))

    kernels = catalog.read(default_catalog())
    found = {kernel: images.find(kernel, default_lock())[0] for kernel in kernels}
    made = {one.name: found.pop(one) for one in kernels if isinstance(one.source, BuildSource)}
    here = {kernel.name: image for kernel, image in found.items()}
    absent = [name for name, image in here.items() if image is None]
    words = f"{len(here) - len(absent)} of {len(here)}"
    if absent:
        why = f"not cached: {', '.join(absent)}"
        fix = "they are fetched when needed; now with `hookproof kernels fetch`"
        yield Finding("kernels", State.NOTE, words, why, fix)
    else:
        yield Finding("kernels", State.OK, words, f"cached: {', '.join(here)}")
    if made:
        unmade = [name for name, image in made.items() if image is None]
        words = f"{len(made) - len(unmade)} of {len(made)}"
        state = State.NOTE if unmade else State.OK
        fix = f"build them with `hookproof kernels fetch {' '.join(unmade)}`" if unmade else ""
        yield Finding("built kernels", state, words, f"built here: {', '.join(made)}", fix)

    free = shutil.disk_usage(folder).free
    why = f"free for kernels; {len(absent)} are to be fetched"
    fix = "set HOOKPROOF_CACHE to a folder on a larger disk"
    yield _room("disk", free, KERNEL_BYTES * len(absent), why=why, fix=fix)


def _room(name: str, free: int, needed: int, *, why: str, fix: str) -> Finding:
    words = f"{free / GIB:.1f} GiB"
    if free >= needed:
        return Finding(name, State.OK, words, why)
    return Finding(name, State.MISSING, words, f"{why}; {needed / GIB:.1f} GiB are needed", fix)


def available_memory(meminfo: str) -> int:
    """Bytes that new programs can have, from the text of /proc/meminfo.

    `MemAvailable` is there since Linux 3.14; without it, 0.
    """
    line = re.search(r"^MemAvailable:\s+(\d+) kB$", meminfo, re.MULTILINE)
    return int(line[1]) * 1024 if line else 0


#: Title → what is looked at below it, by name.
CHECKS: dict[str, dict[str, Callable[[], Iterator[Finding]]]] = {
    "programs and libraries": {"system": system},
    "built by the set-up": {"project": built},
    "this machine": {"acceleration": acceleration, "size": size},
    "kernels": {"cache": cache},
}


def examine(checks: Mapping[str, Callable[[], Iterator[Finding]]]) -> Iterator[Finding]:
    """The findings of some checks; a check that cannot go on is a finding itself."""
    for name, check in checks.items():
        try:
            yield from check()
        except Problem as problem:
            why = f"{problem.where}: {problem.what}" if problem.where else problem.what
            yield Finding(name, State.MISSING, "", why, problem.hint)
        except OSError as error:
            yield Finding(name, State.MISSING, "", str(error))
