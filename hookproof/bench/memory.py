# SPDX-License-Identifier: Apache-2.0
"""Peak memory of a virtual machine and of the harness, and what the caches take on the disk."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final

from hookproof.bench import ours
from hookproof.bench.ours import Way
from hookproof.bench.scenarios import theirs
from hookproof.bench.setup import Setup
from hookproof.bench.spread import Spread
from hookproof.bench.table import Row, mebibytes
from vm import store

_COUNT: Final = 10
_WAYS: Final = (Way(), Way(machine="virtme", isolate="none"))
_QEMU: Final = "qemu-system-"


class Peaks:
    """Looks at a command's QEMUs, and at itself, while it runs; MiB."""

    def __init__(self) -> None:
        #: Resident: all that is in memory, with what others have mapped as well.
        self.machine_rss = 0.0
        #: What goes away with one machine, as nobody else has mapped it.
        self.machine_private = 0.0
        #: What it has written to, which is all that one more machine of a saved state costs.
        self.machine_written = 0.0
        self.command_rss = 0.0

    def look(self, command: int) -> None:
        """Reads the kernel's high-water marks, and what it can say about now."""
        self.command_rss = max(self.command_rss, sizes(command, "status").get("VmHWM", 0))
        for pid in below(command):
            if _name(pid).startswith(_QEMU):
                self._machine(sizes(pid, "status"), sizes(pid, "smaps_rollup"))

    def _machine(self, ever: dict[str, float], now: dict[str, float]) -> None:
        private = now.get("Private_Clean", 0) + now.get("Private_Dirty", 0)
        self.machine_rss = max(self.machine_rss, ever.get("VmHWM", 0))
        self.machine_private = max(self.machine_private, private)
        self.machine_written = max(self.machine_written, now.get("Anonymous", 0))


@dataclass(frozen=True)
class Held:
    """Peaks in MiB.

    Attributes:
        name: whose.
        machine_rss: of its largest QEMU.
        machine_private: of that what is mapped by nobody else.
        machine_written: of that what is no copy of a file, which it has written to.
        command_rss: of the command that ran it, without its children.
    """

    name: str
    machine_rss: Spread
    machine_private: Spread
    machine_written: Spread
    command_rss: Spread


@dataclass(frozen=True)
class Memory:
    """What is held in memory and on the disk.

    Attributes:
        kernel: its name.
        held: by each kind of machine of ours, and last by vng.
        disk: folder of the cache → MiB.
    """

    kernel: str
    held: tuple[Held, ...]
    disk: dict[str, float]

    def to_json(self) -> Any:
        """As docs/results.md has it, ratios first."""
        *mine, vng = self.held
        return {
            "kernel": self.kernel,
            "ratios": {
                f"{each.name}_to_vng": each.machine_rss.to(vng.machine_rss) for each in mine
            },
            "machines": [asdict(each) for each in self.held],
            "disk": self.disk,
        }

    def rows(self) -> list[Row]:
        """Machines beside vng's, the harness, the disk."""
        *mine, vng = self.held
        rows = []
        for each in mine:
            what = f"{self.kernel}: peak memory of a machine ({each.name})"
            said = f"{mebibytes(each.machine_rss)}, private {each.machine_private.median:.0f}"
            beside = f"vng {mebibytes(vng.machine_rss)}, private {vng.machine_private.median:.0f}"
            rows.append(Row(what, said, beside, each.machine_rss.to(vng.machine_rss)))
        rows += [
            Row(f"peak memory of the harness ({each.name})", mebibytes(each.command_rss))
            for each in mine
        ]
        return rows + [Row(f"disk: {name}", f"{size:.0f} MiB") for name, size in self.disk.items()]


def measure(setup: Setup) -> Iterator[Memory]:
    """Measures; one result.

    Raises:
        Problem: something did not pass.
    """
    image, name = setup.image(setup.one), setup.one.name
    place = ours.copies(setup.scenario, _COUNT, setup.folder / "memory")
    tries: dict[str, Callable[[Callable[[int], None]], object]] = {
        way.machine: partial(ours.run, [place], [name], way, place.parent) for way in _WAYS
    }
    tries["vng"] = partial(theirs, setup, image, _COUNT)
    setup.say(f"memory: {_COUNT} scenarios for nothing, so that there is a saved state")
    ours.run([place], [name], _WAYS[0], place.parent)
    peaks: dict[str, list[Peaks]] = {kind: [] for kind in tries}
    for number in range(1, setup.rounds + 1):
        for kind, attempt in tries.items():
            seen = Peaks()
            attempt(seen.look)
            peaks[kind].append(seen)
            setup.say(
                f"memory: round {number} of {setup.rounds}: {kind}: "
                f"{seen.machine_rss:.0f} MiB, private {seen.machine_private:.0f} MiB"
            )
    yield Memory(name, tuple(_held(kind, each) for kind, each in peaks.items()), disk(store.root()))


def disk(root: Path) -> dict[str, float]:
    """What each folder below one takes, in MiB of blocks; a file with two names counts once."""
    return {path.name: _blocks(path) / 2048 for path in sorted(root.iterdir()) if path.is_dir()}


def _held(name: str, peaks: list[Peaks]) -> Held:
    return Held(
        name,
        machine_rss=Spread.of([each.machine_rss for each in peaks]),
        machine_private=Spread.of([each.machine_private for each in peaks]),
        machine_written=Spread.of([each.machine_written for each in peaks]),
        command_rss=Spread.of([each.command_rss for each in peaks]),
    )


def _blocks(folder: Path) -> int:
    """Blocks of 512 bytes, by stat(2)."""
    found: dict[tuple[int, int], int] = {}
    for path in [folder, *folder.rglob("*")]:
        with contextlib.suppress(OSError):  # gone meanwhile
            stat = path.lstat()
            found[stat.st_dev, stat.st_ino] = stat.st_blocks
    return sum(found.values())


def below(command: int) -> list[int]:
    """The processes that a process has started, and those that these have."""
    children: dict[int, list[int]] = {}
    for path in Path("/proc").iterdir():
        if path.name.isdecimal():
            with contextlib.suppress(OSError):
                parent = int(
                    (path / "stat").read_text("utf-8", "replace").rpartition(") ")[2].split()[1]
                )
                children.setdefault(parent, []).append(int(path.name))
    found, at = [command], 0
    while at < len(found):
        found += children.get(found[at], [])
        at += 1
    return found[1:]


def _name(pid: int) -> str:
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/comm").read_text("utf-8", "replace").strip()
    return ""


def sizes(pid: int, file: str) -> dict[str, float]:
    """The sizes in a file of a process in /proc, in MiB; none if it has ended."""
    found = {}
    with contextlib.suppress(OSError):
        for line in Path(f"/proc/{pid}/{file}").read_text("utf-8", "replace").splitlines():
            name, _, value = line.partition(":")
            if value.endswith(" kB"):
                found[name] = int(value.removesuffix(" kB")) / 1024
    return found
