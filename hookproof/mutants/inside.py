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
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final, Protocol

from hookproof.logs import Slice
from hookproof.mutants import build
from hookproof.mutants.matrix import CONTROL, NO_MACHINE, Cell, Result, result_of_test
from hookproof.mutants.patch import Mutant
from hookproof.service import executor
from hookproof.settings import Settings
from vm import command, images, rundir, virtme
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
#: A test's line while they run.
_LINE: Final = re.compile(
    r"^(tests/inside/\S+::\w+)(\[.*\])? (PASSED|FAILED|ERROR|SKIPPED)\b", re.MULTILINE
)
#: What begins the account of one that failed (a long name leaves room for one underscore on each
#: side); in it, errors that led to others; and of an error where it came by and what it was.
_ACCOUNT: Final = re.compile(
    r"^_+ (?:ERROR at \w+ of )?(\w+)(?:\[.*\])? _+$|^=+ .* =+$", re.MULTILINE
)
_LED_TO: Final = re.compile(
    r"^(?:The above exception was the direct cause|During handling of the above)", re.MULTILINE
)
_PLACE: Final = re.compile(r"^(\S+\.py):\d+: in ", re.MULTILINE)
_WHY: Final = re.compile(r"^E +(.+)$", re.MULTILINE)


class _NoMachine(Exception):  # noqa: N818  not an error: a fact about a kernel
    """This kernel can't have the host's root, in which the tests are."""


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
        """A cell for each test; each has a machine of its own if one takes the machine down.

        Args:
            kernel: where.
            tests: pytest's node ids, without parameters.
            mutant: or None for the agent as it is.
            files: those of the agent that are others.
        """
        begun, name = time.monotonic(), mutant.name if mutant else CONTROL
        cell = Cell(name, "", kernel.name, Result.ERROR, kernel.name)
        try:
            text, log = self._tested(kernel, tests, files)
        except _NoMachine as why:
            cell = replace(cell, result=Result.SKIPPED, outcome=NO_MACHINE, reason=str(why))
            return [replace(cell, scenario=test) for test in tests]
        except Problem as problem:
            if len(tests) > 1:
                return [one for test in tests for one in self.run(kernel, [test], mutant, files)]
            found = [replace(_lost(cell, problem, mutant), scenario=tests[0])]
        else:
            found = [judged(replace(cell, scenario=test), text, log, mutant) for test in tests]
        seconds = (time.monotonic() - begun) / len(tests)
        return [replace(each, seconds=seconds) for each in found]

    def _tested(
        self, kernel: Kernel, tests: Sequence[str], files: Mapping[str, bytes]
    ) -> tuple[str, str]:
        """What pytest said in the guest, and what is wrong in the kernel's log."""
        image = images.ensure(kernel, lock=self.settings.lock, say=lambda _line: None)
        if lack := virtme.lack(image):
            raise _NoMachine(f"no virtme machine: {lack}")
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


def _lost(cell: Cell, problem: Problem, mutant: Mutant | None) -> Cell:
    """The cell of a test that took its machine down."""
    if isinstance(problem, GuestPanic):
        return replace(cell, result=Result.KILLED, outcome="panic", reason=str(problem))
    hung = isinstance(problem, GuestHang)
    meant = hung and mutant is not None and "hang" in mutant.breaks
    result = Result.KILLED if meant else Result.ERROR
    outcome = "hang" if hung else "infrastructure"
    return replace(cell, result=result, outcome=outcome, reason=str(problem))


def judged(cell: Cell, text: str, log: str, mutant: Mutant | None) -> Cell:
    """A test's cell: each of its parameters has to pass, and nothing to be left after it.

    Args:
        cell: with the test's name in it.
        text: what pytest said of this test, and of others.
        log: what is wrong in the kernel's log; empty if nothing is.
        mutant: what it ran against; None: the agent as it is.
    """
    words: dict[str, set[str]] = {}
    for test, parameter, word in _LINE.findall(text):
        if test == cell.scenario:
            words.setdefault(parameter, set()).add(word)
    said = set().union(*words.values())
    # Who passes and then has an error has left something behind; one alone has not begun.
    began = all(each != {"ERROR"} for each in words.values())
    if "FAILED" in said or (began and "ERROR" in said):
        results = [result_of_test(*each, mutant) for each in _raised(text, cell.scenario)]
        results.sort(key=lambda each: each[0] is not Result.KILLED)
        result, reason = results[0] if results else (Result.ERROR, "pytest does not say why")
        outcome = "fail" if result is Result.KILLED else "infrastructure"
        return replace(cell, result=result, outcome=outcome, reason=reason)
    if not began or not words:
        last = text.rstrip().rpartition("\n")[2]
        return replace(cell, outcome="infrastructure", reason=f"it did not run: {last}")
    if log:
        return replace(cell, result=Result.KILLED, outcome="splat", reason=log)
    skipped = said == {"SKIPPED"}
    return replace(
        cell,
        result=Result.SKIPPED if skipped else Result.PASSED,
        outcome="unsupported" if skipped else "pass",
        reason="the test says that this kernel can't" if skipped else "",
    )


def _raised(text: str, test: str) -> Iterator[tuple[str, str]]:
    """Of each account of a test: the first line of its error, and the file where it was raised."""
    _before, *parts = _ACCOUNT.split(text)
    for name, account in zip(parts[::2], parts[1::2], strict=True):
        if name == test.rpartition("::")[2]:
            last = _LED_TO.split(account)[-1]
            why = _WHY.search(last)
            places = _PLACE.findall(last, 0, why.start()) if why else []
            yield (why[1] if why else "see the test"), (places[-1] if places else "")
