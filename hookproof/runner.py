# SPDX-License-Identifier: Apache-2.0
"""Runs one case after the other and says what each came to.

One machine serves all cases of a kernel and boot options for as long as they pass; it is
thrown away after anything else, so that no case inherits another's damage.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from types import TracebackType
from typing import Any, Final

from hookproof import bind, judge, logs
from hookproof.case import Case
from hookproof.names import FACTS
from hookproof.scenario import Call, Scenario
from hookproof.service import executor
from hookproof.settings import Settings
from hookproof.verdict import Outcome, StepRecord, Verdict
from vm import accel, images
from vm.accel import Calibration
from vm.errors import BootFailure, GuestHang, GuestPanic, LostMachine, Problem
from vm.kernel import Image, Kernel
from vm.machine import Machine, Plan, VirtmeMachine
from vm.watch import Watch

#: Deadlines in units of a payload's boot (vm/accel.py), with the least seconds.
_STEP: Final = (400.0, 60.0)
_PROBE: Final = (800.0, 120.0)
#: For the agent's end, and again for what the kernel frees after it.
_PATIENCE: Final = (100.0, 10.0)

Say = Callable[[str], None]


@dataclass(frozen=True)
class Answer:
    """What a probe said about a kernel.

    Attributes:
        name: of the probe.
        answer: `yes`, `no` or `broken`.
        words: its reason, in one line.
        value: a number or a word that it found, if it looks for one.
    """

    name: str
    answer: str
    words: str
    value: Any = None


class Unsupported(Exception):  # noqa: N818  not an error: a fact about a kernel
    """The probes say that this kernel can't."""


class Runner:
    """Boots machines as cases need them.

    Args:
        settings: of this session.
        say: takes lines of progress.
    """

    def __init__(self, settings: Settings, say: Say) -> None:
        self._settings = settings
        self._say = say
        self._calibration: Calibration | None = None
        self._images: dict[str, Image] = {}
        self._answers: dict[tuple[str, tuple[str, ...]], dict[str, Answer]] = {}
        self._session: Session | None = None
        self._began = 0.0

    def __enter__(self) -> Runner:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    @property
    def images(self) -> Mapping[str, Image]:
        """The images used so far, by the kernel's name."""
        return self._images

    @property
    def accel(self) -> str:
        """How machines run here: `kvm`, `tcg`, or empty before the first one."""
        return self._calibration.accel.value if self._calibration else ""

    @property
    def calibration(self) -> Calibration:
        """How guests run here."""
        if self._calibration is None:
            self._calibration = accel.choose(self._settings.accel)
        return self._calibration

    def close(self) -> None:
        """Stops the machine, if one runs."""
        session, self._session = self._session, None
        if session is not None:
            session.close()

    def run(self, case: Case) -> Verdict:
        """Runs a case to its verdict; whatever goes wrong becomes one.

        Raises:
            KeyboardInterrupt: the user's; the machine is stopped.
        """
        self._began = time.monotonic()
        try:
            verdict = self._run(case)
        except BaseException:
            self.close()
            raise
        if verdict.outcome not in (Outcome.PASS, Outcome.UNSUPPORTED):
            self.close()
        return replace(verdict, seconds=time.monotonic() - self._began)

    def probe(self, kernel: Kernel, names: Sequence[str]) -> dict[str, Answer]:
        """Answers of the named probes on a kernel as kernels.txt boots it.

        Raises:
            Problem: the kernel did not boot, or the machine was lost.
        """
        return self._known(self._boot(kernel, ()), names)

    def _run(self, case: Case) -> Verdict:
        scenario = case.scenario
        try:
            session = self._boot(case.kernel, scenario.boot)
        except BootFailure as error:
            return Verdict(Outcome.BOOT, str(error), console=error.console)
        except Problem as error:
            return Verdict(Outcome.INFRA, str(error))
        self._began = time.monotonic()  # a verdict's seconds are without the boot
        try:
            facts = self._facts(session, scenario)
            return session.play(bind.bind(scenario, case.params, facts))
        except Unsupported as why:
            return Verdict(Outcome.UNSUPPORTED, str(why), where=str(scenario.where))
        except Problem as error:
            return session.post_mortem(error)
        except (KeyError, TypeError) as error:
            return session.post_mortem(LostMachine(f"a reply is not understood: {error!r}"))

    def _boot(self, kernel: Kernel, words: tuple[str, ...]) -> Session:
        """The running session if it fits, else a new one."""
        if self._session is not None:
            if self._session.serves(kernel, words):
                return self._session
            self.close()
        image = self._images.get(kernel.name)
        if image is None:
            image = images.ensure(kernel, lock=self._settings.lock, say=self._say)
            self._images[kernel.name] = image
        plan = Plan(image, executor(), words)
        watch = Watch.load(image.release)
        machine = VirtmeMachine(plan, self.calibration, watch)
        self._session = Session(machine, self.calibration, watch, self._say)
        try:
            self._session.start()
        except BaseException:
            self.close()
            raise
        return self._session

    def _facts(self, session: Session, scenario: Scenario) -> dict[str, Any]:
        """The facts the scenario names, after its needs are met.

        Raises:
            Unsupported: a probe says no.
            LostMachine: a probe could not find out.
        """
        probes = [FACTS[fact][1] for fact in scenario.facts]
        answers = self._known(session, [*scenario.needs, *probes])
        for answer in answers.values():
            if answer.answer == "broken":
                raise LostMachine(f"the probe {answer.name} is broken: {answer.words}")
            if answer.answer == "no":
                raise Unsupported(f"{answer.name}: {answer.words}")
        return {fact: answers[FACTS[fact][1]].value for fact in scenario.facts}

    def _known(self, session: Session, names: Sequence[str]) -> dict[str, Answer]:
        known = self._answers.setdefault(session.key, {})
        unknown = [name for name in dict.fromkeys(names) if name not in known]
        if unknown:
            known.update(session.probe(unknown))
        return {name: known[name] for name in names}


class Session:
    """One machine and the cases it serves.

    Args:
        machine: not started yet.
        calibration: for the deadlines.
        watch: for the kernel's log.
        say: takes lines of progress.
    """

    def __init__(self, machine: Machine, calibration: Calibration, watch: Watch, say: Say) -> None:
        self._machine = machine
        self._calibration = calibration
        self._watch = watch
        self._say = say
        self._stack = contextlib.ExitStack()
        self._steps: list[StepRecord] = []
        self._taint = 0

    @property
    def key(self) -> tuple[str, tuple[str, ...]]:
        """What probes' answers hold for: the image and the command line."""
        plan = self._machine.plan
        return plan.image.digest, plan.cmdline

    def serves(self, kernel: Kernel, words: tuple[str, ...]) -> bool:
        """Whether this machine is what such a case needs."""
        plan = self._machine.plan
        return plan.image.kernel == kernel and plan.words == words

    def start(self) -> None:
        """Boots.

        Raises:
            BootFailure: it did not come up, or the kernel's log of the boot has a splat.
        """
        name = self._machine.plan.image.kernel.name
        self._say(
            f"{name}: booting {self._machine.plan.image.release} ({self._calibration.accel.value})"
        )
        start = time.monotonic()
        self._stack.enter_context(self._machine)
        self._say(f"{name}: answered after {time.monotonic() - start:.1f} s")
        try:
            log = logs.Slice.of(self._ask("log", _STEP))
        except Problem as error:
            lost = self.post_mortem(error)
            what = f"{name}: while booting: {lost.reason}"
            raise BootFailure(what, console=lost.console) from None
        self._taint = log.taint
        wrong = log.wrong(self._watch, since=0)
        if wrong:
            raise BootFailure(f"{name}: while booting: {wrong}", console=self._machine.console.text)

    def close(self) -> None:
        """Stops the machine."""
        self._stack.close()

    def probe(self, names: Sequence[str]) -> dict[str, Answer]:
        """Has the guest try.

        Raises:
            LostMachine: the guest failed at it, or the kernel's log has a splat from it.
        """
        said = self._ask("probe", _PROBE, names=list(names))
        log = logs.Slice.of(self._ask("log", _STEP))
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
        late = logs.Slice.of(self._ask("log", _STEP)).wrong(self._watch, since=self._taint)
        if late:
            raise LostMachine(f"after the case before this one: {late}")
        self._ask("begin", _STEP, agent=True)
        failed = ""
        where = ""
        for call in bound:
            wrong = self._do(call)
            if wrong:
                failed, where = wrong, str(call.where)
                break
        patience = self._calibration.deadline(_PATIENCE[0], least=_PATIENCE[1])
        said = self._ask("end", _STEP, patience=patience)
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
        console = self._machine.console
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
        said = self._ask("step", _STEP, verb=call.verb, calls=list(call.calls))
        wrong = judge.judge(call, said["results"])
        record = StepRecord(str(call.where), call.text, time.monotonic() - start, wrong)
        self._steps.append(record)
        return wrong

    def _ask(self, op: str, deadline: tuple[float, float], **fields: Any) -> dict[str, Any]:
        """A request whose failure in the guest is the harness's.

        Raises:
            LostMachine: the executor could not do it.
        """
        seconds = self._calibration.deadline(deadline[0], least=deadline[1])
        said = self._machine.guest.request(op, deadline=seconds, **fields)
        if "error" in said:
            raise LostMachine(f"the executor failed at '{op}': {said['error']}")
        return said
