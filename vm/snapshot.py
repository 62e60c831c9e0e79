# SPDX-License-Identifier: Apache-2.0
"""A machine that does not boot: it goes on where another one of its kind was stopped.

The first use of a kernel with certain options boots it once, on a root of our own, has its
service do what it can do beforehand, and saves it. From then on each machine is that one
again, within a tenth of a second, with its own clock and its own random numbers.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Final

from vm import devicestate, saved, store
from vm.accel import Calibration
from vm.coldboot import ColdBoot, Resident
from vm.console import Console
from vm.errors import BootFailure, GuestHang, HostProblem, LostMachine
from vm.guest import Guest
from vm.machine import Machine, Plan
from vm.portmachine import PORT, PortMachine
from vm.watch import Watch

__all__ = ["PORT", "Resident", "SnapshotMachine"]

#: Deadlines in units of a payload's boot (vm/accel.py), with the least seconds.
_BOOT: Final = (400.0, 30.0)
_SAVE: Final = (100.0, 15.0)
_ANSWER: Final = (100.0, 15.0)
_REST: Final = (20.0, 5.0)
_INCOMING: Final = ("-incoming", "defer")
#: Bytes of the host's random numbers that a restored guest is given.
_ENTROPY: Final = 64

Say = Callable[[str], None]
Prepare = Callable[[Machine], dict[str, Any]]


class SnapshotMachine:
    """A machine restored from a saved state, which is made first where there is none.

    Entering the block restores and wakes it; leaving it kills and removes everything but
    the saved state. It is a `vm.machine.Machine`.

    Args:
        plan: what to run.
        resident: what answers in the guest.
        calibration: how to run it, and this host's speed.
        watch: the patterns that tell a dying kernel.
        prepare: given the machine that is to be saved, once its service has answered;
            returns JSON values to be kept with the state. What it raises, `save` raises.
        say: takes lines of progress.
        once: whether a saved state would be used but this once. Where there is none, the machine
            is booted and is used itself: that takes half the time, and no room on the disk.
    """

    def __init__(  # noqa: PLR0917  each is a thing of its own kind
        self,
        plan: Plan,
        resident: Resident,
        calibration: Calibration,
        watch: Watch,
        prepare: Prepare,
        say: Say,
        *,
        once: bool = False,
    ) -> None:
        self.plan = plan
        self._boot = ColdBoot(plan, resident, calibration.accel)
        self._calibration = calibration
        self._watch = watch
        self._prepare = prepare
        self._say = say
        self._once = once
        self._booted = False
        self._stack = contextlib.ExitStack()
        self._changing = threading.Lock()
        self._closed = False
        self._machine: PortMachine | None = None
        self._facts: Mapping[str, Any] | None = None

    @property
    def guest(self) -> Guest:
        """The guest's service, connected."""
        return self._running.guest

    @property
    def console(self) -> Console:
        """What the guest's serial line said since it was restored."""
        return self._machine.console if self._machine else Console(self._watch)

    @property
    def state(self) -> str:
        """The saved state's key, also while there is none yet.

        Raises:
            HostProblem: something is not installed, or the guest's root cannot be made.
        """
        return self._place.name

    @property
    def booted(self) -> bool:
        """Whether it was booted for this use, and is no restored one."""
        return self._booted

    @property
    def facts(self) -> Mapping[str, Any]:
        """What `prepare` returned when the state was made."""
        if self._facts is None:
            raise LostMachine("the machine has not been started")
        return self._facts

    def __enter__(self) -> SnapshotMachine:
        try:
            self._start()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def save(self) -> None:
        """Makes sure that there is a saved state.

        Raises:
            BootFailure: the machine to be saved did not come up.
            Problem: it could not be saved, or `prepare` raised it.
        """
        with contextlib.ExitStack() as unused:
            self._find_or_make(unused)

    def close(self) -> None:
        """Kills and removes everything; another thread may call it at any time."""
        with self._changing:
            self._closed = True
            machine, stack = self._machine, self._stack.pop_all()
        if machine is not None:
            machine.close()
        stack.close()

    @property
    def _running(self) -> PortMachine:
        if self._machine is None:
            raise LostMachine("the machine has not been started")
        return self._machine

    @cached_property
    def _ingredients(self) -> dict[str, Any]:
        return self._boot.ingredients(self._say)

    @cached_property
    def _place(self) -> Path:
        return saved.place(self.plan.image.release, self._ingredients)

    def _start(self) -> None:
        for last in (False, True):
            with contextlib.ExitStack() as held:
                try:
                    state = self._find(held) if self._once else self._find_or_make(held)
                except saved.Unusable:
                    self._boot_for_once()
                    return
                machine = self._new(state.ram, private=True, start=lambda _: _INCOMING)
                machine.__enter__()
                try:
                    devicestate.load(machine.qmp, state.device_state, deadline=self._seconds(_SAVE))
                    self._wake(machine)
                except (BootFailure, HostProblem, LostMachine) as error:
                    failure = machine.explained(error)
                    machine.close()
                    if last or self._closed:
                        raise failure from None
                else:
                    self._facts = state.facts
                    self._keep(held.pop_all())
                    return
            self._say(f"{failure.what}; its saved state is made again")
            saved.discard(state.place)

    def _boot_for_once(self) -> None:
        name, start = self.plan.image.kernel.name, time.monotonic()
        machine = self._new(None, private=True, start=self._booting)
        machine.__enter__()  # `close` ends it, as it ends a restored one
        self._facts = self._first_answers(machine)
        self._booted = True
        words = " ".join(self.plan.words)
        self._say(f"{name}: answered after {time.monotonic() - start:.1f} s ({words})")

    def _booting(self, folder: Path) -> list[str]:
        return self._boot.start(folder, self._say)

    def _wake(self, machine: PortMachine) -> None:
        """Sets a machine's clock and random numbers."""
        seconds = self._seconds(_ANSWER)
        try:
            machine.guest.wake(time.time_ns(), os.urandom(_ENTROPY), deadline=seconds)
        except (GuestHang, HostProblem, LostMachine) as error:
            raise machine.explained(error) from None

    def _find_or_make(self, stack: contextlib.ExitStack) -> saved.State:
        """The state, in use until the stack is closed."""
        name, place = self.plan.image.kernel.name, self._place
        with contextlib.suppress(saved.Unusable):
            return self._find(stack)
        with store.locked(store.lock_of(place), f"{name}: saved state", self._say):
            try:
                # Another process may have made it while we waited.
                return self._find(stack)
            except saved.Unusable as why:
                if str(why):
                    self._say(f"{name}: the saved state is damaged ({why}), making it again")
            self._make(place)
            return self._find(stack)

    def _find(self, stack: contextlib.ExitStack) -> saved.State:
        """The state if there is one, in use until the stack is closed."""
        return stack.enter_context(saved.using(self._place))

    def _make(self, place: Path) -> None:
        name, start = self.plan.image.kernel.name, time.monotonic()
        saved.limit()  # a mistake in it is better told before the boot
        free, memory = shutil.disk_usage(place.parent).free >> 20, self.plan.size.memory
        if free < memory:  # or QEMU would die without a word when the disk is full
            what = f"{name}: the machine's memory may take {memory} MiB, and {free} are free"
            raise HostProblem(what, where=str(place.parent), hint="set HOOKPROOF_CACHE")
        try:
            with store.replacing(place) as new:
                with self._new(new / "ram", private=False, start=self._booting) as machine:
                    facts = self._first_answers(machine)
                    machine.rest(deadline=self._seconds(_REST))
                    devicestate.save(machine.qmp, new / "state", deadline=self._seconds(_SAVE))
                    made_of = {**self._ingredients, "qemu's version": machine.version}
                saved.describe(new, made_of, facts)
        except OSError as error:
            what = f"{name}: the machine cannot be saved: {error.strerror}"
            raise HostProblem(what, where=str(place), hint="set HOOKPROOF_CACHE") from None
        size = saved.size(place) >> 20
        self._say(f"{name}: saved after {time.monotonic() - start:.1f} s ({size} MiB)")
        saved.trim(place, self._say)

    def _first_answers(self, machine: PortMachine) -> dict[str, Any]:
        try:
            machine.guest.request("hello", deadline=self._seconds(_BOOT))
        except (GuestHang, LostMachine) as error:
            raise machine.explained(error) from None
        facts = self._prepare(machine)
        # What is loaded or found for the first time now is there in each restored machine.
        self._wake(machine)
        return facts

    def _new(
        self, ram: Path | None, *, private: bool, start: Callable[[Path], Sequence[str]]
    ) -> PortMachine:
        """The next machine, which `close` ends, from another thread too."""
        machine = PortMachine(
            self.plan, self._calibration, self._watch, ram=ram, private=private, start=start
        )
        with self._changing:
            if self._closed:
                raise LostMachine("the machine was closed while it started")
            self._machine = machine
        return machine

    def _keep(self, held: contextlib.ExitStack) -> None:
        with self._changing:
            self._stack.push(held)
        if self._closed:
            self.close()

    def _seconds(self, deadline: tuple[float, float]) -> float:
        return self._calibration.deadline(deadline[0], least=deadline[1])
