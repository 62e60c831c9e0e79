# SPDX-License-Identifier: Apache-2.0
"""Tests of tests/inside against a mutant: in a machine that is booted, on the host's root.

For bugs that no scenario can show, such as one that takes an entry written by hand.
"""

from __future__ import annotations

import contextlib
import re
import shutil
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final, Protocol

from hookproof.logs import Slice
from hookproof.mutants import build
from hookproof.mutants.matrix import CONTROL, Cell, Result
from hookproof.mutants.patch import Mutant
from hookproof.service import executor
from hookproof.settings import Settings
from vm import command, images, rundir
from vm.accel import Calibration
from vm.errors import GuestHang, GuestPanic, Problem
from vm.kernel import Kernel
from vm.machine import Plan, VirtmeMachine
from vm.watch import Watch

#: In units of a payload's boot (vm/accel.py), with the least seconds.
_DEADLINE: Final = (4000.0, 400.0)
#: How many random sequences, where a test asks.
_SEQUENCES: Final = 3
#: So that a thread's calls have the same places on its stack: what is taken for an older call's
#: must not be missed by chance (tests/inside/test_chain.py).
_WORDS: Final = ("randomize_kstack_offset=off",)
_ROOMS: Final = ("bpf", "refagent", "tests")
_LINE: Final = re.compile(
    r"^(tests/inside/\S+::\w+)(?:\[.*\])? (PASSED|FAILED|ERROR|SKIPPED)\b", re.MULTILINE
)
_WHY: Final = re.compile(r"^E +(.+)$", re.MULTILINE)


class Closable(Protocol):
    """A machine, as somebody sees it who may have to stop it."""

    def close(self) -> None: ...  # noqa: D102


class Keeper(Protocol):
    """Who stops the machines that still run when the session ends early."""

    def add(self, machine: Closable) -> None: ...  # noqa: D102
    def drop(self, machine: Closable) -> None: ...  # noqa: D102


@dataclass(frozen=True)
class Inside:
    """Runs such tests.

    Attributes:
        settings: of this session.
        calibration: how guests run here, and how fast.
        keeper: is told of the machines.
    """

    settings: Settings
    calibration: Calibration
    keeper: Keeper

    def run(
        self,
        kernel: Kernel,
        tests: Sequence[str],
        mutant: Mutant | None,
        files: Mapping[str, bytes],
    ) -> list[Cell]:
        """A cell for each test.

        Args:
            kernel: where.
            tests: pytest's node ids, without parameters.
            mutant: or None for the agent as it is.
            files: those of the agent that are others.
        """
        one: Cell | None = None
        begun, name = time.monotonic(), mutant.name if mutant else CONTROL
        cell = Cell(name, "", kernel.name, Result.ERROR, kernel.name)
        try:
            text, log = self._tested(kernel, tests, files)
        except GuestPanic as panic:
            one = replace(cell, result=Result.KILLED, outcome="panic", reason=str(panic))
        except Problem as problem:
            hung = isinstance(problem, GuestHang)
            meant = hung and mutant is not None and mutant.breaks == "hang"
            result = Result.KILLED if meant else Result.ERROR
            outcome = "hang" if hung else "infrastructure"
            one = replace(cell, result=result, outcome=outcome, reason=str(problem))
        found = [
            replace(one, scenario=test) if one else _judged(replace(cell, scenario=test), text, log)
            for test in tests
        ]
        seconds = (time.monotonic() - begun) / len(tests)
        return [replace(each, seconds=seconds) for each in found]

    def _tested(
        self, kernel: Kernel, tests: Sequence[str], files: Mapping[str, bytes]
    ) -> tuple[str, str]:
        """What pytest said in the guest, and what is wrong in the kernel's log."""
        image = images.ensure(kernel, lock=self.settings.lock, say=lambda _line: None)
        watch, service = Watch.load(image.release), executor()
        with rundir.create() as folder:  # which is seen in the guest, as /tmp is not
            for room in _ROOMS:
                ignored = shutil.ignore_patterns("__pycache__")
                shutil.copytree(build.checkout() / room, folder / room, ignore=ignored)
            for name, content in files.items():
                (folder / name).write_bytes(content)
            plan = Plan(image, replace(service, folders=(*service.folders, folder)), _WORDS)
            machine = VirtmeMachine(plan, self.calibration, watch)
            self.keeper.add(machine)
            with contextlib.ExitStack() as stack:
                stack.callback(self.keeper.drop, machine)
                stack.enter_context(machine)
                deadline = self.calibration.deadline(_DEADLINE[0], least=_DEADLINE[1])
                booted = Slice.of(machine.guest.request("log", deadline=deadline))
                said = command.run(machine, _command(folder, tests), folder, deadline=deadline)
                log = Slice.of(machine.guest.request("log", deadline=deadline))
        return said.text, log.wrong(watch, since=booted.taint)


def _command(folder: Path, tests: Sequence[str]) -> list[str]:
    variables = {
        "HOOKPROOF_INSIDE": _SEQUENCES,
        "HOOKPROOF_SEED": 1,
        "PYTHONPATH": folder,
        "PYTHONDONTWRITEBYTECODE": 1,
        "PYTEST_DISABLE_PLUGIN_AUTOLOAD": 1,
    }
    argv = ["env", *(f"{key}={value}" for key, value in variables.items()), sys.executable]
    # The folders above have the host's fixtures and plugins.
    argv += ["-m", "pytest", "-v", "-p", "no:cacheprovider", "--confcutdir=tests/inside"]
    return [*argv, "--rootdir=.", "--color=no", "--tb=short", *tests]


def _judged(cell: Cell, text: str, log: str) -> Cell:
    """A test's cell: each of its parameters has to pass, and nothing to be left after it."""
    words = {word for test, word in _LINE.findall(text) if test == cell.scenario}
    if "FAILED" in words or {"PASSED", "ERROR"} <= words:
        why = _WHY.search(text)
        reason = why[1] if why else "see the test"
        return replace(cell, result=Result.KILLED, outcome="fail", reason=reason)
    if not words or "ERROR" in words:
        last = text.rpartition("\n")[2]
        return replace(cell, outcome="infrastructure", reason=f"it did not run: {last}")
    if log:
        return replace(cell, result=Result.KILLED, outcome="splat", reason=log)
    skipped = words == {"SKIPPED"}
    return replace(
        cell,
        result=Result.SKIPPED if skipped else Result.PASSED,
        outcome="unsupported" if skipped else "pass",
        reason="the test says that this kernel can't" if skipped else "",
    )
