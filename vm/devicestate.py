# SPDX-License-Identifier: Apache-2.0
"""A machine's device state, out of QEMU into a file and back; its RAM stays where it is.

The RAM is a file that QEMU maps (vm/portmachine.py). With the capability x-ignore-shared
QEMU leaves such memory out of its migration stream, which is then some hundred KiB long.
"""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

from vm.errors import HostProblem
from vm.qmp import Qmp

_LINE: Final = "state"
#: `events` has QEMU tell of the end, so that nobody has to ask for it again and again.
_CAPABILITIES: Final = ("x-ignore-shared", "events")


def save(qmp: Qmp, path: Path, *, deadline: float) -> None:
    """Stops a machine and writes its device state.

    Args:
        qmp: of a machine whose RAM is a file mapped shared.
        path: the file to write.
        deadline: seconds for each step.

    Raises:
        HostProblem: QEMU refused or was too slow, or the file cannot be written.
        LostMachine: QEMU ended.
    """

    def read(line: socket.socket) -> None:
        with path.open("wb") as file:
            while chunk := line.recv(1 << 16):
                file.write(chunk)

    qmp.execute("stop", deadline=deadline)
    _migrate(qmp, "migrate", read, deadline)


def load(qmp: Qmp, path: Path, *, deadline: float) -> None:
    """Reads a device state into a machine that was started with `-incoming defer`; it runs then.

    Args:
        qmp: of a machine with the hardware of the saved one, and its RAM.
        path: the file.
        deadline: seconds for each step.

    Raises:
        HostProblem: QEMU refused or was too slow, or the file cannot be read.
        LostMachine: QEMU ended, which it does with a state that does not fit.
    """
    state = path.read_bytes()
    _migrate(qmp, "migrate-incoming", lambda line: line.sendall(state), deadline)
    qmp.execute("cont", deadline=deadline)


def _migrate(
    qmp: Qmp, command: str, work: Callable[[socket.socket], None], deadline: float
) -> None:
    capabilities = [{"capability": name, "state": True} for name in _CAPABILITIES]
    qmp.execute("migrate-set-capabilities", deadline=deadline, capabilities=capabilities)
    ours, theirs = socket.socketpair()
    ours.settimeout(deadline)
    with ours:
        with theirs:
            qmp.execute("getfd", deadline=deadline, fd=theirs.fileno(), fdname=_LINE)
        with _beside(work, ours):
            qmp.execute(command, deadline=deadline, uri=f"fd:{_LINE}")
            data = qmp.wait_for(
                "MIGRATION", deadline=deadline, status=("completed", "failed"), after=command
            )
    if data["status"] == "failed":
        raise HostProblem(f"QEMU failed at '{command}'")


@contextlib.contextmanager
def _beside(work: Callable[[socket.socket], None], line: socket.socket) -> Iterator[None]:
    """Does something with a line while the block runs, to its end if the block has none."""
    errors: list[OSError] = []

    def run() -> None:
        try:
            work(line)
            line.shutdown(socket.SHUT_WR)
        except OSError as error:
            errors.append(error)

    thread = threading.Thread(target=run, name="device-state", daemon=True)
    thread.start()
    try:
        yield
    except BaseException:
        with contextlib.suppress(OSError):
            line.shutdown(socket.SHUT_RDWR)  # which wakes it
        raise
    finally:
        thread.join()
    if errors:
        raise HostProblem(f"the device state cannot be moved: {errors[0].strerror}")
