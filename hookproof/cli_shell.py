# SPDX-License-Identifier: Apache-2.0
"""`hookproof shell KERNEL [-- COMMAND…]`: a kernel to try something on."""

from __future__ import annotations

import argparse
import contextlib
import os
import select
import shlex
import shutil
import signal
import sys
import termios
import tty
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Final

from hookproof.progress import say
from hookproof.service import executor
from vm import accel, catalog, images
from vm.default import default_catalog, default_lock
from vm.errors import LostMachine, UsageProblem
from vm.machine import Plan, VirtmeMachine
from vm.watch import Watch

if TYPE_CHECKING:
    import paramiko

_OPEN: Final = 15.0
_CHUNK: Final = 1 << 15


def add_parser(commands: Any) -> None:
    """Adds the sub-command to argparse's sub-parsers."""
    parser = commands.add_parser(
        "shell",
        help="a shell, or one command, on a kernel in a virtual machine",
        description="Boots a kernel with this host's files (read-only; /tmp, /run and /var/tmp "
        "are the guest's own), this folder and a mounted bpffs, and gives you a root shell, "
        "or runs one command and returns its exit status.",
    )
    parser.add_argument("kernel", help="a name of kernels.txt")
    parser.add_argument("--accel", choices=("auto", "kvm", "tcg"), default="auto")
    parser.add_argument("command", nargs="*", metavar="-- COMMAND", help="instead of a shell")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Boots, connects, and returns the shell's or the command's exit status.

    Raises:
        Problem: no such kernel, no boot, or the machine died under the shell.
    """
    kernels = catalog.select(catalog.read(default_catalog()), [args.kernel])
    if len(kernels) != 1:
        names = ", ".join(kernel.name for kernel in kernels)
        raise UsageProblem(f"a shell runs on one kernel, not on {names}", where=args.kernel)
    image = images.ensure(kernels[0], lock=default_lock(), say=say)
    service = executor()
    plan = Plan(image, replace(service, folders=(*service.folders, Path.cwd())))
    with VirtmeMachine(plan, accel.choose(args.accel), Watch.load(image.release)) as machine:
        session = machine.transport.open_session(timeout=_OPEN)
        with session:
            status = _attach(session, args.command)
        if status < 0:  # ssh says that no exit status came
            machine.console.wait_ended(_OPEN)
            fatal = machine.console.fatal
            raise LostMachine(fatal.line if fatal else "the machine ended under the shell")
        return status


def _attach(session: paramiko.Channel, command: list[str]) -> int:
    """Connects the terminal (or the pipes) to a command in the guest until it ends."""
    interactive = sys.stdin.isatty() and sys.stdout.isatty()
    if interactive:
        columns, lines = shutil.get_terminal_size()
        session.get_pty(os.environ.get("TERM", "dumb"), columns, lines)
    path = f"{Path(sys.prefix) / 'bin'}:/usr/sbin:/usr/bin:/sbin:/bin"
    # With more to do after it the shell stays, and makes 128 + n of a signal.
    what = f"{shlex.join(command)}; exit $?" if command else "exec ${SHELL:-/bin/sh} -i"
    here = shlex.quote(str(Path.cwd()))
    session.exec_command(f"cd {here} || exit; export PATH={shlex.quote(path)}; {what}")
    with _raw_terminal(session) if interactive else contextlib.nullcontext():
        _pump(session)
    return session.recv_exit_status()


def _pump(session: paramiko.Channel) -> None:
    """Carries bytes both ways until the command has ended and all it said is out."""
    listening = True
    while not (session.closed or session.eof_received) or _ready(session):
        wanted: list[Any] = [session, *([sys.stdin] if listening else [])]
        # A closed channel is readable at once, so this wait ends with the command.
        readable, _, _ = select.select(wanted, [], [])
        while session.recv_ready():
            _write(sys.stdout.buffer, session.recv(_CHUNK))
        while session.recv_stderr_ready():
            _write(sys.stderr.buffer, session.recv_stderr(_CHUNK))
        if sys.stdin in readable:
            typed = os.read(sys.stdin.fileno(), _CHUNK)
            listening = bool(typed)
            with contextlib.suppress(OSError):  # the command ended meanwhile
                session.sendall(typed) if typed else session.shutdown_write()


def _ready(session: paramiko.Channel) -> bool:
    return session.recv_ready() or session.recv_stderr_ready()


def _write(sink: IO[bytes], data: bytes) -> None:
    sink.write(data)
    sink.flush()


@contextlib.contextmanager
def _raw_terminal(session: paramiko.Channel) -> Iterator[None]:
    """The terminal passes every key on, and the guest is told when its size changes."""

    def resized(_signal: int, _frame: object) -> None:
        columns, lines = shutil.get_terminal_size()
        session.resize_pty(columns, lines)

    before = termios.tcgetattr(sys.stdin)
    previous = signal.signal(signal.SIGWINCH, resized)
    try:
        tty.setraw(sys.stdin)
        yield
    finally:
        signal.signal(signal.SIGWINCH, previous)
        termios.tcsetattr(sys.stdin, termios.TCSADRAIN, before)
