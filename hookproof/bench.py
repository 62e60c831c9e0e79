# SPDX-License-Identifier: Apache-2.0
"""Measures boots and scenarios beside plain virtme-run, all in one run on one machine.

Single times mean nothing on a shared machine, so ours and theirs alternate, and what is
compared are medians.
"""

from __future__ import annotations

import shlex
import statistics
import subprocess
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from hookproof import bind
from hookproof.decode import read_scenario
from hookproof.runner import Session
from hookproof.service import executor
from hookproof.verdict import Outcome
from vm import accel, images, virtme
from vm.accel import Accel, Calibration
from vm.errors import HostProblem
from vm.kernel import Image, Kernel
from vm.machine import Plan, VirtmeMachine
from vm.virtme import Size
from vm.watch import Watch

#: Seconds after which a plain virtme-run is taken for dead.
_DEAD: Final = 600.0
_DONE: Final = "hookproof-bench-done"


@dataclass(frozen=True)
class Times:
    """Seconds of one thing, measured several times."""

    median: float
    least: float
    most: float

    @classmethod
    def of(cls, seconds: Sequence[float]) -> Times:
        """From the single times."""
        return cls(statistics.median(seconds), min(seconds), max(seconds))


@dataclass(frozen=True)
class Measured:
    """One kernel's numbers.

    Attributes:
        kernel: its name.
        virtme_run: `virtme-run --script-sh true`, start to end.
        first_answer: ours, from the start to the guest's first answer.
        scenario: one more scenario in a machine that runs.
        rounds: how often each was measured.
    """

    kernel: str
    virtme_run: Times
    first_answer: Times
    scenario: Times
    rounds: int

    @property
    def boot_ratio(self) -> float:
        """Ours to theirs."""
        return self.first_answer.median / self.virtme_run.median

    @property
    def scenario_ratio(self) -> float:
        """One more scenario to one more boot."""
        return self.scenario.median / self.first_answer.median

    def to_json(self) -> dict[str, Any]:
        """All of it, ratios first."""
        ratios = {"boot_ratio": self.boot_ratio, "scenario_ratio": self.scenario_ratio}
        return {"kernel": self.kernel, **ratios, **asdict(self)}


def measure(
    kernel: Kernel, lock: Path, scenario: Path, rounds: int, say: Callable[[str], None]
) -> Measured:
    """Measures a kernel.

    Args:
        kernel: which.
        lock: kernels.lock.
        scenario: a file without parameters that passes on this kernel.
        rounds: how often.
        say: takes lines of progress.

    Raises:
        HostProblem: plain virtme-run did not come to its end.
        Problem: a boot failed, or the scenario did not pass.
    """
    image = images.ensure(kernel, lock, say)
    calibration = accel.choose("auto")
    _plain(image, calibration)  # each once for nothing: the host's page cache is warm after it
    _ours(image, calibration, scenario, 1)
    theirs, ours, scenarios = [], [], []
    for number in range(rounds):
        theirs.append(_plain(image, calibration))
        boot, single = _ours(image, calibration, scenario, 3)
        ours.append(boot)
        scenarios.append(statistics.median(single))
        say(
            f"{kernel.name}: round {number + 1} of {rounds}: virtme-run {theirs[-1]:.1f} s, "
            f"first answer {boot:.1f} s, one more scenario {scenarios[-1]:.2f} s"
        )
    return Measured(kernel.name, Times.of(theirs), Times.of(ours), Times.of(scenarios), rounds)


def _plain(image: Image, calibration: Calibration) -> float:
    """Seconds of virtme-run with a script that does nothing."""
    size = Size()
    argv = [
        str(virtme.program()), "--kimg", str(image.vmlinuz), "--mods", "auto",
        *(["--disable-kvm"] if calibration.accel is Accel.TCG else []),
        "--disable-microvm", "--force-9p", "--memory", f"{size.memory}M",
        "--cpus", str(size.cpus), "--script-sh", f"echo {_DONE}",
        # The same processor as ours; with the one it takes by itself 5.10 may hang.
        "--qemu-opts", "-cpu", virtme.CPU[calibration.accel],
    ]  # fmt: skip
    start = time.monotonic()
    try:
        done = subprocess.run(
            argv, stdin=subprocess.DEVNULL, capture_output=True, timeout=_DEAD, check=False
        )
    except subprocess.TimeoutExpired:
        late = f"virtme-run with {image.release} did not end within {_DEAD:.0f} s"
        raise HostProblem(late, where=shlex.join(argv)) from None
    if _DONE.encode() not in done.stdout:
        raise HostProblem(f"virtme-run did not run its script (exit status {done.returncode})")
    return time.monotonic() - start


def _ours(
    image: Image, calibration: Calibration, scenario: Path, times: int
) -> tuple[float, list[float]]:
    """Seconds to the guest's first answer, and of each of some scenarios after it."""
    calls = bind.bind(read_scenario(scenario), {}, {})
    watch = Watch.load(image.release)
    start = time.monotonic()
    with VirtmeMachine(Plan(image, executor()), calibration, watch) as machine:
        answered = time.monotonic() - start
        session = Session(machine, calibration, watch, lambda _line: None)
        seconds = []
        for number in range(times + 1):
            begun = time.monotonic()
            verdict = session.play(calls)
            if verdict.outcome is not Outcome.PASS:
                raise HostProblem(f"{scenario}: {verdict.outcome.value}: {verdict.reason}")
            if number:  # the first one loads libbpf
                seconds.append(time.monotonic() - begun)
    return answered, seconds


def table(rows: Sequence[Measured]) -> str:
    """The numbers for people: ratios first, then median seconds with their extremes."""
    cells = [
        [
            "kernel",
            "ours/theirs",
            "scenario/boot",
            "virtme-run",
            "first answer",
            "one more scenario",
        ]
    ]
    cells += [
        [
            row.kernel,
            f"{row.boot_ratio:.2f}",
            f"1/{1 / row.scenario_ratio:.0f}",
            *map(_said, (row.virtme_run, row.first_answer, row.scenario)),
        ]
        for row in rows
    ]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    return "\n".join("  ".join(map(str.ljust, line, widths)).rstrip() for line in cells)


def _said(times: Times) -> str:
    return f"{times.median:.2f} s ({times.least:.2f}-{times.most:.2f})"
