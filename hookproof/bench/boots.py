# SPDX-License-Identifier: Apache-2.0
"""Boots, per kernel: theirs to the end of `true`, ours to the guest's first answer."""

from __future__ import annotations

import contextlib
import os
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from hookproof import bind
from hookproof.bench.peers import VIRTME_RUN, VNG
from hookproof.bench.setup import Setup
from hookproof.bench.spread import Spread
from hookproof.bench.table import Row, seconds
from hookproof.decode import read_scenario
from hookproof.service import executor, resident
from hookproof.stage import Stage
from hookproof.verdict import Outcome
from vm import store, virtme
from vm.accel import Calibration
from vm.errors import HostProblem
from vm.kernel import Image
from vm.machine import Machine, Plan, VirtmeMachine
from vm.snapshot import SnapshotMachine
from vm.watch import Watch

#: Restores in a round; each takes a hundredth of a boot.
_RESTORES: Final = 5
_PEERS: Final = {"virtme_run": VIRTME_RUN, "vng": VNG}
#: Folders of the cache: guest roots, and kernels that were unpacked.
_SHARED: Final = ("roots", "vmlinux")
#: The ways to boot that `virtme.lack` speaks about.
_VIRTME: Final = ("virtme_run", "vng", "virtme", "one_more", "bare")
#: Scenarios in a machine that runs, in a round, after a first one.
_MORE: Final = 3
#: What the harness itself takes for a scenario: this one is nothing but two system calls.
_BARE: Final = """\
about: A folder is made and removed.
origin: https://man7.org/linux/man-pages/man2/mkdir.2.html
steps:
  - mkdir: /run/t/x
  - rmdir: /run/t/x
"""


@dataclass(frozen=True)
class KernelBoots:
    """One kernel's boots, in seconds; None where it can't.

    Attributes:
        kernel: its name.
        lack: way of booting → why it can't be had with this kernel.
        virtme_run: `virtme-run … --script-sh true`, start to end.
        vng: `vng --run … --exec true`, start to end.
        virtme: the virtme machine, start to first answer.
        one_more: one more scenario in it, agent and census included.
        bare: the same of a scenario without an agent.
        cold: the snapshot machine from nothing, start to first answer of a waiting executor.
        saved: the same, to a state that is ready.
        restore: the snapshot machine from its state, start to first answer.
    """

    kernel: str
    lack: Mapping[str, str]
    virtme_run: Spread | None
    vng: Spread | None
    virtme: Spread | None
    one_more: Spread | None
    bare: Spread | None
    cold: Spread
    saved: Spread
    restore: Spread

    @property
    def ratios(self) -> dict[str, float]:
        """Ours to theirs, by what is compared."""
        pairs = {
            "virtme_to_virtme_run": (self.virtme, self.virtme_run),
            "virtme_to_vng": (self.virtme, self.vng),
            "one_more_to_virtme": (self.one_more, self.virtme),
            "bare_to_virtme": (self.bare, self.virtme),
            "cold_to_virtme_run": (self.cold, self.virtme_run),
            "cold_to_vng": (self.cold, self.vng),
            "restore_to_virtme_run": (self.restore, self.virtme_run),
            "restore_to_vng": (self.restore, self.vng),
        }
        return {name: ours.to(peer) for name, (ours, peer) in pairs.items() if ours and peer}


@dataclass(frozen=True)
class Boots:
    """All kernels measured so far."""

    kernels: tuple[KernelBoots, ...]

    def to_json(self) -> Any:
        """As docs/results.md has it."""
        return [
            {"kernel": each.kernel, "ratios": each.ratios, **asdict(each)} for each in self.kernels
        ]

    def rows(self) -> list[Row]:
        """Each of ours beside the faster one of theirs."""
        return [row for each in self.kernels for row in _rows(each)]


def measure(setup: Setup) -> Iterator[Boots]:
    """Measures each kernel; one result after each.

    Raises:
        Problem: a boot failed.
    """
    done: tuple[KernelBoots, ...] = ()
    for kernel in setup.kernels:
        done += (_kernel(setup, setup.image(kernel)),)
        yield Boots(done)


def _kernel(setup: Setup, image: Image) -> KernelBoots:
    name, why = image.kernel.name, virtme.lack(image)
    lack = dict.fromkeys(_VIRTME, why) if why else {}
    if why:
        setup.say(f"{name}: without virtme-ng: {why}")
    setup.say(f"{name}: each boot once for nothing, so that the host has read all files")
    _round(setup, image, lack)
    rounds = []
    for number in range(1, setup.rounds + 1):
        last = _round(setup, image, lack)
        rounds.append(last)
        said = [f"{way} {seconds[-1]:.2f} s" for way, seconds in last.items()]
        setup.say(f"{name}: round {number} of {setup.rounds}: {', '.join(said)}")
    spreads: dict[str, Any] = dict.fromkeys(_VIRTME)
    for way in last:
        spreads[way] = Spread.of([single for each in rounds for single in each[way]])
    return KernelBoots(name, lack, **spreads)


def _round(setup: Setup, image: Image, lack: dict[str, str]) -> dict[str, list[float]]:
    """Theirs and ours, one after the other: way → seconds.

    Args:
        setup: with what.
        image: the kernel.
        lack: ways that are left out; gets those of peers that die each time.
    """
    found: dict[str, list[float]] = {}
    for way, peer in _PEERS.items():
        if way in lack:
            continue
        try:
            found[way] = [setup.peers.run(peer, image).cost.wall]
        except HostProblem as problem:
            lack[way] = problem.what
    if "virtme" not in lack:
        found |= _boot_and_more(setup, image)
    with _own_cache(setup.folder / "cache"):
        cold, ready = _from_nothing(setup, image)
        found |= {"cold": [cold], "saved": [ready]}
        found["restore"] = [_start(snapshot(setup, image)) for _ in range(_RESTORES)]
    return found


def _what(setup: Setup, image: Image) -> tuple[Plan, Calibration, Watch]:
    return Plan(image, executor()), setup.calibration, Watch.load(image.release)


def _boot_and_more(setup: Setup, image: Image) -> dict[str, list[float]]:
    """A virtme machine's boot, and what scenarios cost in it after the first.

    Raises:
        HostProblem: the scenario does not pass.
    """
    plan, calibration, watch = _what(setup, image)
    bare = setup.folder / "bare.yaml"
    bare.write_text(_BARE, encoding="ascii")
    times: dict[str, list[float]] = {"one_more": [], "bare": []}
    begun = time.monotonic()
    with VirtmeMachine(plan, calibration, watch) as machine:
        booted = time.monotonic() - begun
        stage = Stage(machine, calibration, watch, _quietly)
        stage.prepare()
        for way, path in (("one_more", setup.scenario), ("bare", bare)):
            calls = bind.bind(read_scenario(path), {}, {})
            for _ in range(1 + _MORE):
                begun = time.monotonic()
                verdict = stage.play(calls)
                times[way].append(time.monotonic() - begun)
                if verdict.outcome is not Outcome.PASS:
                    raise HostProblem(f"on {image.kernel.name}: {verdict.reason}", where=str(path))
    return {"virtme": [booted]} | {way: seconds[1:] for way, seconds in times.items()}


def _start(machine: Machine) -> float:
    """Seconds to the first answer."""
    begun = time.monotonic()
    with machine:
        return time.monotonic() - begun


@contextlib.contextmanager
def _own_cache(place: Path) -> Iterator[None]:
    """A cache without saved states while the block runs, and without others who make some.

    What does not belong to a saved state is shared with the user's: it is made once for many.
    """
    shared = {name: store.folder(name) for name in _SHARED}
    before = os.environ.get("HOOKPROOF_CACHE")
    place.mkdir()
    for name, folder in shared.items():
        (place / name).symlink_to(folder)
    os.environ["HOOKPROOF_CACHE"] = str(place)
    try:
        yield
    finally:
        if before is None:
            del os.environ["HOOKPROOF_CACHE"]
        else:
            os.environ["HOOKPROOF_CACHE"] = before
        shutil.rmtree(place)  # not what the links lead to


def _from_nothing(setup: Setup, image: Image) -> tuple[float, float]:
    """Seconds to the first answer, and to a saved state that is ready."""
    answered: list[float] = []
    machine = snapshot(setup, image, lambda: answered.append(time.monotonic()))
    begun = time.monotonic()
    machine.save()
    return answered[0] - begun, time.monotonic() - begun


def snapshot(
    setup: Setup, image: Image, answered: Callable[[], None] = lambda: None
) -> SnapshotMachine:
    """A snapshot machine with the executor.

    Args:
        setup: with what.
        image: the kernel.
        answered: is called when the boot for a saved state came to its first answer.
    """
    plan, calibration, watch = _what(setup, image)

    def prepare(booted: Machine) -> dict[str, Any]:
        answered()
        return Stage(booted, calibration, watch, setup.say).prepare()

    return SnapshotMachine(plan, resident(), calibration, watch, prepare, _quietly)


def _quietly(_line: str) -> None:
    """Progress is told once a round."""


def _rows(boots: KernelBoots) -> list[Row]:
    peers = {"virtme-run": boots.virtme_run, "vng": boots.vng}
    theirs = [(spread, name) for name, spread in peers.items() if spread]
    ours = {
        "restore to first answer": boots.restore,
        "cold boot to a waiting executor": boots.cold,
        "virtme machine to first answer": boots.virtme,
    }
    rows = []
    for what, spread in ours.items():
        if spread is None:
            continue
        label = f"{boots.kernel}: {what}"
        if theirs:
            peer, name = min(theirs, key=lambda pair: pair[0].median)
            rows.append(Row(label, seconds(spread), f"{name} {seconds(peer)}", spread.to(peer)))
        else:
            rows.append(Row(label, seconds(spread), "virtme-ng can't boot it"))
    more = {"one more scenario in it": boots.one_more, "one without an agent": boots.bare}
    for what, spread in more.items():
        if spread and boots.virtme:
            beside = f"one more boot {seconds(boots.virtme)}"
            ratio = spread.to(boots.virtme)
            rows.append(Row(f"{boots.kernel}: {what}", seconds(spread), beside, ratio))
    return rows
