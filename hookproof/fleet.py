# SPDX-License-Identifier: Apache-2.0
"""The machines of a session: of which kind, from which image, and what their kernels can do."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from typing import Any

from hookproof.answers import Answer, Answers
from hookproof.names import FACTS
from hookproof.scenario import Scenario
from hookproof.service import executor, resident
from hookproof.settings import Settings
from hookproof.stage import Stage
from vm import accel, images, virtme
from vm.accel import Accel, Calibration
from vm.errors import LostMachine
from vm.kernel import Image, Kernel
from vm.machine import Machine, Plan, VirtmeMachine
from vm.watch import Watch


class Unsupported(Exception):  # noqa: N818  not an error: a fact about a kernel
    """The probes say that this kernel can't."""


class Fleet:
    """Makes the machines; safe to use from several threads.

    Args:
        settings: of this session.
        say: takes lines of progress.
    """

    def __init__(self, settings: Settings, say: Callable[[str], None]) -> None:
        self._settings = settings
        self._say = say
        self._lock = threading.Lock()
        self._images: dict[str, Image] = {}
        self._answers: dict[object, Answers] = {}

    @property
    def images(self) -> Mapping[str, Image]:
        """The images used so far, by the kernel's name."""
        return self._images

    @cached_property
    def calibration(self) -> Calibration:
        """How guests run here, and how fast."""
        return accel.choose(self._settings.accel)

    @property
    def saves(self) -> bool:
        """Whether machines are restored from a saved state."""
        return self._settings.machine == "snapshot"

    @property
    def isolates(self) -> bool:
        """Whether each case gets a machine of its own.

        If not told otherwise, where a restored machine costs next to nothing. Under emulation
        it has to translate anew all code that it runs, which is most of a scenario's time.
        """
        if self._settings.isolate:
            return self._settings.isolate == "vm"
        return self.saves and self.calibration.accel is Accel.KVM

    def stage(self, kernel: Kernel, words: tuple[str, ...], *, once: bool = False) -> Stage:
        """A machine for a kernel with further words on its command line; not started yet.

        Args:
            kernel: the kernel.
            words: the words.
            once: whether this will be the session's only machine of its kind.

        Raises:
            Unsupported: machines of this kind can't boot it.
            Problem: the kernel can't be had.
        """
        with self._lock:
            image = self._images.get(kernel.name)
            if image is None:
                image = images.ensure(kernel, lock=self._settings.lock, say=self._say)
                self._images[kernel.name] = image
            calibration = self.calibration
        if not self.saves and (lack := virtme.lack(image)):
            raise Unsupported(f"no virtme machine: {lack}")
        watch = Watch.load(image.release)
        plan = Plan(image, executor(), words)
        machine: Machine = VirtmeMachine(plan, calibration, watch)
        if self.saves:
            from vm.snapshot import SnapshotMachine

            def prepare(booted: Machine) -> dict[str, Any]:
                return Stage(booted, calibration, watch, self._say).prepare()

            machine = SnapshotMachine(
                plan, resident(), calibration, watch, prepare, self._say, once=once
            )
        return Stage(machine, calibration, watch, self._say)

    def facts(self, stage: Stage, scenario: Scenario) -> dict[str, Any]:
        """The facts the scenario names, after its needs are met.

        Raises:
            Unsupported: a probe says no.
            LostMachine: a probe could not find out.
        """
        wanted = [*scenario.needs, *(FACTS[fact][1] for fact in scenario.facts)]
        answers = self.answers(stage, wanted)
        for name in wanted:
            answer = answers[name]
            if answer.answer == "no":
                raise Unsupported(f"{name}: {answer.words}")
            if answer.answer != "yes":
                raise LostMachine(f"the probe {name} is broken: {answer.words}")
        return {fact: answers[FACTS[fact][1]].value for fact in scenario.facts}

    def answers(self, stage: Stage, names: Sequence[str]) -> dict[str, Answer]:
        """What probes say about the kernel of a stage that was started.

        Raises:
            Problem: the machine was lost.
        """
        if not names:
            return {}
        machine = stage.machine
        with self._lock:
            key = (machine.plan.image.digest, machine.plan.cmdline)
            known = self._answers.setdefault(key, Answers(machine.state))

        def ask(unknown: Sequence[str]) -> dict[str, Answer]:
            if machine.booted:
                return stage.probe(unknown)
            # Probing leaves traces (ids, caches): a machine of its own keeps this one pristine.
            with self.stage(machine.plan.image.kernel, machine.plan.words) as other:
                return other.probe(unknown)

        return known.get(names, ask)
