# SPDX-License-Identifier: Apache-2.0
"""A machine with the cases that it serves, one after the other."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, Final

from hookproof import judge, logs
from hookproof.answers import Answer
from hookproof.scenario import Call
from hookproof.verdict import Outcome, StepRecord, Verdict
from vm.accel import Calibration
from vm.errors import BootFailure, GuestHang, GuestPanic, LostMachine, Problem
from vm.machine import Machine
from vm.watch import Watch

#: Deadlines in units of a payload's boot (vm/accel.py), with the least seconds.
_STEP: Final = (400.0, 60.0)
#: What is asked beside the steps.
_OWN: Final = (400.0, 60.0)
_PROBE: Final = (800.0, 120.0)
#: For the agent's end, and again for what the kernel frees after it.
_PATIENCE: Final = (100.0, 10.0)


class Stage:
    """One machine and what happens on it.

    Args:
        machine: started when the block is entered, gone at its end.
        calibration: for the deadlines.
        watch: for the kernel's log.
        say: takes lines of progress.
    """

    def __init__(
        self,
        machine: Machine,
        calibration: Calibration,
        watch: Watch,
        say: Callable[[str], None],
    ) -> None:
        self.machine = machine
        self._say = say
        self._calibration = calibration
        self._watch = watch
        self._steps: list[StepRecord] = []
        self._taint = 0

    def __enter__(self) -> Stage:
        """Boots or restores.

        Raises:
            BootFailure: it did not come up, or the kernel's log of the boot has a splat.
        """
        plan, start = self.machine.plan, time.monotonic()
        if not self.machine.state:
            how = self._calibration.accel.value
            self._say(f"{plan.image.kernel.name}: booting {plan.image.release} ({how})")
        self.machine.__enter__()
        try:
            if self.machine.state:
                self._taint = int(self.machine.facts["taint"])
            else:
                seconds = time.monotonic() - start
                self._say(f"{plan.image.kernel.name}: answered after {seconds:.1f} s")
                self.settle()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def close(self) -> None:
        """Stops the machine; from another thread also while it starts."""
        self.machine.close()

    def settle(self) -> None:
        """Reads what the kernel logged while it booted.

        Raises:
            BootFailure: it has a splat, or can't be read.
        """
        name = self.machine.plan.image.kernel.name
        try:
            log = logs.Slice.of(self._ask("log", _OWN))
        except Problem as error:
            lost = self.post_mortem(error)
            what = f"{name}: while booting: {lost.reason}"
            raise BootFailure(what, console=lost.console) from None
        self._taint = log.taint
        wrong = log.wrong(self._watch, since=0)
        if wrong:
            raise BootFailure(f"{name}: while booting: {wrong}", console=self.machine.console.text)

    def prepare(self) -> dict[str, Any]:
        """Brings a machine that was just booted to where its state can be saved.

        Returns:
            The facts that a stage on a machine restored from it begins with.

        Raises:
            Problem: as `settle`, or the agent can't be loaded.
        """
        self._ask("warm", _OWN, agent=True)
        self.settle()
        return {"taint": self._taint}

    def probe(self, names: Sequence[str]) -> dict[str, Answer]:
        """Has the guest try.

        Raises:
            LostMachine: the guest failed at it, or the kernel's log has a splat from it.
        """
        said = self._ask("probe", _PROBE, names=list(names))
        log = logs.Slice.of(self._ask("log", _OWN))
        wrong = log.wrong(self._watch, since=self._taint)
        if wrong:
            raise LostMachine(f"probing {', '.join(names)}: {wrong}")
        return {raw["name"]: Answer(**raw) for raw in said["answers"]}

    def play(self, bound: Sequence[Call]) -> Verdict:
        """Runs a scenario's calls.

        Raises:
            Problem: the machine was lost on the way; see `post_mortem`.
        """
        self._steps = []
        late = logs.Slice.of(self._ask("log", _OWN)).wrong(self._watch, since=self._taint)
        if late:
            raise LostMachine(f"after the case before this one: {late}")
        self._ask("begin", _OWN, agent=True)
        failed = ""
        where = ""
        for call in bound:
            wrong = self._do(call)
            if wrong:
                failed, where = wrong, str(call.where)
                break
        patience = self._calibration.deadline(_PATIENCE[0], least=_PATIENCE[1])
        said = self._ask("end", _OWN, patience=patience)
        log = logs.Slice.of(said)
        splat = log.wrong(self._watch, since=self._taint)
        verdict = Verdict(
            Outcome.PASS,
            steps=tuple(self._steps),
            kernel_log=log.text,
            evidence={"agent_log": said["agent_log"], "leaks": said["leaks"]},
        )
        self._steps = []
        if splat:
            also = f" (and: {failed})" if failed else ""
            return replace(verdict, outcome=Outcome.SPLAT, reason=splat + also, where=where)
        if failed:
            return replace(verdict, outcome=Outcome.FAIL, reason=failed, where=where)
        if said["leaks"]:
            return replace(verdict, outcome=Outcome.LEAK, reason="; ".join(said["leaks"]))
        return verdict

    def post_mortem(self, error: Problem) -> Verdict:
        """What a case comes to whose machine broke under it."""
        console = self.machine.console
        if isinstance(error, (LostMachine, GuestPanic)):
            # The connection may break a moment before the last of the console arrives.
            console.wait_ended(self._calibration.deadline(10, least=2.0))
        fatal = console.fatal
        if fatal is not None:
            outcome, reason = Outcome.PANIC, fatal.line
        elif isinstance(error, GuestHang):
            outcome, reason = Outcome.HANG, str(error)
        else:
            outcome, reason = Outcome.INFRA, str(error)
        return Verdict(outcome, reason, steps=tuple(self._steps), console=console.text)

    def _do(self, call: Call) -> str:
        """One step; '' or one line saying what is wrong."""
        start = time.monotonic()
        meant = max((each.get("seconds", 0) for each in call.calls), default=0)  # to take so long
        said = self._ask("step", _STEP, meant, verb=call.verb, calls=list(call.calls))
        wrong = judge.judge(call, said["results"])
        record = StepRecord(str(call.where), call.text, time.monotonic() - start, wrong)
        self._steps.append(record)
        return wrong

    def _ask(
        self, op: str, deadline: tuple[float, float], meant: float = 0, **fields: Any
    ) -> dict[str, Any]:
        """A request whose failure in the guest is the harness's.

        Args:
            op: its name.
            deadline: as for `Calibration.deadline`.
            meant: seconds that it is to take beside.
            fields: the rest of it.

        Raises:
            GuestHang: something in the guest does not come back, and the executor says so.
            LostMachine: the executor could not do it.
        """
        seconds = self._calibration.deadline(deadline[0], least=deadline[1]) + meant
        said = self.machine.guest.request(op, deadline=seconds, **fields)
        if "hang" in said:
            raise GuestHang(f"{said['hang']} (at '{op}')")
        if "error" in said:
            raise LostMachine(f"the executor failed at '{op}': {said['error']}")
        return said
