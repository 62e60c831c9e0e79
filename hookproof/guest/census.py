# SPDX-License-Identifier: Apache-2.0
"""What there is in a guest that a scenario could leave behind.

Counted before and after: BPF programs, maps, links and pins, mounts, processes.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import Final

_BPFFS: Final = Path("/sys/fs/bpf")

Census = dict[str, dict[str, str]]
"""Kind of thing → its id → a line that describes it."""


def take() -> Census:
    """Counts everything."""
    from refagent.libbpf import census

    processes = _processes()
    return {
        "program": {str(p.id): f"{p.type} {p.name}" for p in census.programs()},
        "map": {str(m.id): f"{m.type} {m.name}" for m in census.maps()},
        "link": {
            f"{link.id or 'perf event'} of program {link.program}": f"{link.kind} {link.function}"
            for link in census.links(among=processes)
        },
        "pin": {str(path): "pin" for path in _BPFFS.rglob("*")},
        "mount": _mounts(),
        "process": processes,
    }


def difference(before: Census, after: Census) -> list[str]:
    """What is left, and what of others' is gone, one line each; processes may end."""
    lines = []
    for kind, things in after.items():
        was = before[kind]
        lines += [f"{kind} {i} ({t}) is left" for i, t in things.items() if i not in was]
        if kind != "process":
            lines += [f"{kind} {i} ({t}) is gone" for i, t in was.items() if i not in things]
    return lines


def _mounts() -> dict[str, str]:
    lines = Path("/proc/self/mountinfo").read_text(encoding="utf-8").splitlines()
    return {(words := line.split())[0]: words[4] for line in lines}


def _processes() -> dict[str, str]:
    """Processes with a program; kernel threads come and go as they like.

    One that is a zombie has no program any more, but is left all the same.
    """
    found = {}
    for name in os.listdir("/proc"):  # noqa: PTH208  thousands of Paths for a few names
        if not name.isdigit():
            continue
        with contextlib.suppress(OSError):  # gone meanwhile
            status = _read(f"/proc/{name}/stat").partition(b"(")[2]
            comm, _, rest = status.rpartition(b") ")  # comm may hold both
            state, parent = rest.split(b" ", 2)[:2]
            if parent != b"2" and name != "2":  # 2 is kthreadd
                found[name] = f"{comm.decode(errors='replace')}, state {state.decode()}"
    return found


def _read(path: str) -> bytes:
    """A small file, with as few steps as there can be: there are a hundred of them."""
    fd = os.open(path, os.O_RDONLY)
    try:
        return os.read(fd, 1 << 12)
    finally:
        os.close(fd)
