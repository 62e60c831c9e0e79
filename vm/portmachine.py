# SPDX-License-Identifier: Apache-2.0
"""A machine with no disk, no network and no shared files: a console, QMP, and one port.

It can be saved and restored (vm/snapshot.py), which one with 9p can't. Its RAM is a file:
mapped shared while a state is made, so that it stays there, and privately by each machine
that is restored from it, so that none can change it.
"""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from vm import rundir, virtme
from vm.accel import Accel, Calibration
from vm.console import Console
from vm.errors import BootFailure, HostProblem, LostMachine
from vm.guest import Guest
from vm.machine import Plan
from vm.qemu import FIRST_LINE, Qemu
from vm.qmp import Qmp
from vm.virtme import Size
from vm.watch import Watch
from vm.witness import boot_failure

#: The port's device in the guest: the first of the first virtio-serial bus.
PORT: Final = "/dev/vport0p1"
PROGRAM: Final = "qemu-system-x86_64"

#: Seconds for QEMU's own answers, in units of a payload's boot, and the least.
_QMP: Final = (100.0, 15.0)
#: A guest rests when its processors take less than that part of the time, in a look (seconds).
_RESTING: Final = 0.05
_LOOK: Final = 0.2

#: Properties of the board that differ from QEMU's, each a device that no guest of ours uses:
#: QEMU is up 5 ms earlier without them, and a kernel has less to probe.
_BOARD: Final = {
    "memory-backend": "ram",
    "graphics": "off",
    "hpet": "off",
    "i8042": "off",
    "sata": "off",
    "smbus": "off",
    "usb": "off",
    "vmport": "off",
}


def hardware(size: Size, accel: Accel) -> list[str]:
    """QEMU's arguments for all that a saved state depends on, but for the RAM's file."""
    board = ",".join(f"{name}={value}" for name, value in _BOARD.items())
    return [
        "-machine", f"q35,{board}", "-accel", virtme.ACCEL[accel],
        "-cpu", virtme.CPU[accel], "-smp", str(size.cpus), "-m", f"{size.memory}M",
        "-nodefaults", "-no-user-config", "-display", "none", "-no-reboot",
        # fd 1 is the pipe of the console (vm/qemu.py).
        "-chardev", "file,id=console,path=/proc/self/fd/1", "-serial", "chardev:console",
        "-chardev", f"socket,id=qmp,fd={FIRST_LINE}", "-mon", "chardev=qmp,mode=control",
        "-chardev", f"socket,id=port,fd={FIRST_LINE + 1}",
        "-device", "virtio-serial-pci", "-device", "virtserialport,chardev=port,name=hookproof",
    ]  # fmt: skip


class PortMachine:
    """A QEMU with such hardware: booting, or waiting for a device state.

    Entering the block starts it and takes QMP's greeting; leaving it kills and removes
    everything. It is a `vm.machine.Machine`.

    Args:
        plan: what to run.
        calibration: how to run it, and this host's speed.
        watch: the patterns that tell a dying kernel.
        ram: the file of its RAM; None: one of its own, which goes with the machine.
        private: whether the file is left as it is.
        start: takes the run's folder, returns the rest of QEMU's arguments.
    """

    state = ""
    booted = True

    def __init__(
        self,
        plan: Plan,
        calibration: Calibration,
        watch: Watch,
        *,
        ram: Path | None,
        private: bool,
        start: Callable[[Path], Sequence[str]],
    ) -> None:
        self.plan = plan
        self.console = Console(watch)
        self.facts: Mapping[str, Any] = {}
        self._calibration = calibration
        self._ram = ram
        self._private = private
        self._arguments = start
        self._stack = contextlib.ExitStack()
        self._changing = threading.RLock()
        self._closed = False
        self._qemu: Qemu | None = None
        self._qmp: Qmp | None = None
        self._guest: Guest | None = None
        #: QEMU's version, once the block is entered.
        self.version = ""

    @property
    def guest(self) -> Guest:
        """The guest's service."""
        if self._guest is None:
            raise LostMachine("the machine has not been started")
        return self._guest

    @property
    def qmp(self) -> Qmp:
        """QEMU's control."""
        if self._qmp is None:
            raise LostMachine("the machine has not been started")
        return self._qmp

    def __enter__(self) -> PortMachine:
        try:
            self._start()
        except OSError as error:
            self.close()
            what = f"cannot prepare a machine: {error.strerror}"
            where = str(error.filename or "")
            raise HostProblem(what, where=where, hint="set HOOKPROOF_CACHE") from None
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def save(self) -> None:
        """Nothing: see vm/snapshot.py."""

    def close(self) -> None:
        """Kills and removes everything; another thread may call it at any time.

        Of two that do, each returns when nothing is left.
        """
        with self._changing:
            self._closed = True
            self._stack.close()

    def rest(self, *, deadline: float) -> None:
        """Waits until the guest has finished what it does by itself, or the deadline passes.

        What it still has to do when it is saved, such as freeing the memory of processes that
        have ended, each restored one does again.

        Args:
            deadline: seconds from now.
        """
        until = time.monotonic() + deadline
        cpus = self.qmp.execute("query-cpus-fast", deadline=deadline)
        threads = {f"/proc/{int(cpu['thread-id'])}/schedstat" for cpu in cpus}
        used = _used(threads)
        while time.monotonic() < until:
            time.sleep(_LOOK)
            before, used = used, _used(threads)
            if used - before < _RESTING * _LOOK:
                break

    def explained(self, error: Exception) -> BootFailure:
        """Why it did not come up, if that is not said yet."""
        if isinstance(error, BootFailure):
            return error
        # QEMU's end may be seen a moment before its last words are.
        if isinstance(error, LostMachine):
            self.console.wait_ended(self._calibration.deadline(10, least=2.0))
        words = self._qemu.words if self._qemu else ""
        return boot_failure(self.plan.image.kernel.name, error, self.console, words)

    def _start(self) -> None:
        with self._changing:
            if self._closed:
                raise LostMachine("the machine was closed while it started")
            folder = self._stack.enter_context(rundir.create())
            control, theirs = socket.socketpair()
            port, theirs_too = socket.socketpair()
            for end in (control, port, theirs, theirs_too):
                self._stack.callback(end.close)
            argv = [PROGRAM, *hardware(self.plan.size, self._calibration.accel)]
            argv += ram(self._ram or folder / "ram", self.plan.size, private=self._private)
            argv += self._arguments(folder)
            lines = (theirs, theirs_too)
            self._qemu = self._stack.enter_context(Qemu(argv, folder, self.console, lines))
            self._qmp = Qmp(control)
            self._guest = Guest(port)
        try:
            self.version = self._qmp.greet(
                deadline=self._calibration.deadline(_QMP[0], least=_QMP[1])
            )
        except (HostProblem, LostMachine) as error:
            raise self.explained(error) from None


def _used(threads: Iterable[str]) -> float:
    """Processor seconds that threads have used (Documentation/scheduler/sched-stats.rst)."""
    return sum(int(Path(each).read_text(encoding="ascii").split()[0]) for each in threads) / 1e9


def ram(file: Path, size: Size, *, private: bool) -> list[str]:
    """QEMU's arguments for RAM in a file, mapped privately or for all to see."""
    share = "off" if private else "on"
    path = str(file).replace(",", ",,")
    return [
        "-object",
        f"memory-backend-file,id=ram,size={size.memory}M,mem-path={path},share={share}",
    ]
