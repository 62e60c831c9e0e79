# SPDX-License-Identifier: Apache-2.0
"""One command in a guest with the host's root, as ssh runs it."""

from __future__ import annotations

import shlex
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from vm.errors import GuestHang, GuestPanic, LostMachine

if TYPE_CHECKING:
    from vm.machine import VirtmeMachine

_OPEN: Final = 15.0
#: Seconds between looks at the console while the command says nothing.
_LOOK: Final = 1.0
#: A guest may not fill our memory.
_LONGEST: Final = 16 << 20


@dataclass(frozen=True)
class Said:
    """What came of a command.

    Attributes:
        status: its exit status, 128 + n for signal n.
        text: what it wrote to either output.
    """

    status: int
    text: str


def run(machine: VirtmeMachine, argv: Sequence[str], folder: Path, *, deadline: float) -> Said:
    """Runs a command to its end.

    Args:
        machine: started.
        argv: the command; found on PATH unless it is a path.
        folder: where it starts.
        deadline: seconds.

    Raises:
        GuestHang: it has not ended in time.
        GuestPanic: the kernel died under it.
        LostMachine: the connection ended before it.
    """
    until = time.monotonic() + deadline
    text = bytearray()
    with machine.transport.open_session(timeout=_OPEN) as session:
        session.set_combine_stderr(True)
        session.settimeout(_LOOK)
        # With more to do after it the shell stays, and makes 128 + n of a signal.
        session.exec_command(f"cd {shlex.quote(str(folder))} && {shlex.join(argv)}; exit $?")
        while True:
            try:
                data = session.recv(1 << 15)
            except TimeoutError:
                data = None
            if data == b"":
                break
            text += data or b""
            if fatal := machine.console.fatal:
                raise GuestPanic(fatal.line)
            if time.monotonic() > until or len(text) > _LONGEST:
                last = _words(text).rpartition("\n")[2]
                raise GuestHang(f"no end of {argv[0]} within {deadline:.0f} s; it said: {last}")
        session.status_event.wait(_OPEN)
        status = session.exit_status
    if status < 0:
        machine.console.wait_ended(_OPEN)
        fatal = machine.console.fatal
        if fatal is not None:
            raise GuestPanic(fatal.line)
        raise LostMachine(f"the machine ended under {argv[0]}")
    return Said(status, _words(text))


def _words(text: bytearray) -> str:
    return text.decode("utf-8", "replace").strip()
