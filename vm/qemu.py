# SPDX-License-Identifier: Apache-2.0
"""One QEMU, owned: whatever happens to us, it does not outlive us.

QEMU is the child of a guardian, a shell of four lines that waits for the end of its
standard input. We hold the other end: closing it, raising, exiting, or dying by
SIGKILL all end in the same way, the guardian kills QEMU's process group and removes
the run's folder.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import select
import shlex
import signal
import socket
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Final

from vm import run
from vm.console import Console
from vm.errors import HostProblem

#: QEMU's first descriptor for a line to us. A shell can name, and so close, 3 to 9.
FIRST_LINE: Final = 3
_LINES: Final = 7

#: $1 is the run's folder, the rest QEMU's command. setsid, because a shell without a
#: terminal gives its children no process group of their own. The guardian keeps none of
#: QEMU's descriptors, so that their other ends see QEMU's end.
_GUARDIAN: Final = """
folder=$1; shift
setsid "$@" </dev/null &
qemu=$!
exec >/dev/null 2>&1 3>&- 4>&- 5>&- 6>&- 7>&- 8>&- 9>&-
echo "$qemu" >"$folder/qemu.pid"
cat
# Before setsid has run there is no group yet, only the process.
kill -KILL "-$qemu" "$qemu"; wait "$qemu"
rm -rf -- "$folder"
"""
_FAREWELL: Final = 30.0
#: glibc's malloc asks for huge pages: QEMU is up 6 ms earlier, with half of the page faults.
_TUNABLES: Final = ("GLIBC_TUNABLES", "glibc.malloc.hugetlb=1")


class Qemu:
    """A running QEMU process group and its console.

    Args:
        argv: the command; its fd 1 is read as the console, its fd 2 as QEMU's words.
        folder: the run's folder, which the guardian removes at the end.
        console: takes what is read.
        lines: ends of pairs of sockets for QEMU, where they become the descriptors
            `FIRST_LINE` and up; closed here.
    """

    def __init__(
        self,
        argv: Sequence[str],
        folder: Path,
        console: Console,
        lines: Sequence[socket.socket] = (),
    ) -> None:
        self.argv = tuple(argv)
        self._console = console
        self._words: list[bytes] = []
        guardian = ["/bin/sh", "-c", _GUARDIAN, "hookproof-guardian", str(folder), *argv]
        self._closing = threading.Lock()
        try:
            self._pid, self._stdin, self._pipes = _spawn(guardian, lines)
        except OSError as error:
            raise HostProblem(f"cannot start QEMU: {error.strerror}", where=argv[0]) from None
        self._readers = [
            threading.Thread(target=self._read_console, name="console", daemon=True),
            threading.Thread(target=self._read_words, name="qemu-stderr", daemon=True),
        ]
        for reader in self._readers:
            reader.start()

    def __enter__(self) -> Qemu:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    @property
    def words(self) -> str:
        """What QEMU itself wrote to its standard error so far."""
        return b"".join(self._words).decode(errors="replace").strip()

    @property
    def pasteable(self) -> str:
        """The command as one can paste it into a shell."""
        return shlex.join(self.argv)

    def close(self) -> None:
        """Kills the process group, removes the run's folder, reads the pipes to their end."""
        with self._closing:
            if self._stdin is None:
                return
            os.close(self._stdin)
            self._stdin = None
            if not _ends(self._pid, _FAREWELL):
                os.kill(self._pid, signal.SIGKILL)
                raise HostProblem(f"QEMU did not end within {_FAREWELL:.0f} s")
            os.waitpid(self._pid, 0)
            for reader in self._readers:
                reader.join(timeout=_FAREWELL)
            for pipe in self._pipes:
                os.close(pipe)

    def _read_console(self) -> None:
        for chunk in _chunks(self._pipes[0]):
            self._console.feed(chunk)
        self._console.end()

    def _read_words(self) -> None:
        for chunk in _chunks(self._pipes[1]):
            if sum(map(len, self._words)) < 1 << 16:
                self._words.append(chunk)


def _spawn(
    argv: list[str], lines: Sequence[socket.socket]
) -> tuple[int, int | None, tuple[int, int]]:
    """A child with given descriptors and no others, which subprocess cannot give.

    Returns:
        Its process id, our end of its standard input, ours of its output and errors.

    Raises:
        OSError: it could not be started.
    """
    if len(lines) > _LINES:
        raise ValueError(f"{len(lines)} lines, where a guardian closes {_LINES}")
    with contextlib.ExitStack() as theirs, contextlib.ExitStack() as ours:
        ends = [_pipe(theirs, ours, write=True), *(_pipe(theirs, ours) for _ in range(2))]
        sources = [*(their for their, _ in ends), *(line.fileno() for line in lines)]
        actions = []
        for number, source in enumerate(sources):
            # A copy above all the numbers, so that giving one does not overwrite a source.
            copy = fcntl.fcntl(source, fcntl.F_DUPFD_CLOEXEC, FIRST_LINE + _LINES)
            theirs.callback(os.close, copy)
            actions.append((os.POSIX_SPAWN_DUP2, copy, number))
        for line in lines:
            theirs.callback(line.close)
        pid = os.posix_spawn(
            argv[0],
            argv,
            run.environment(_tuned()),
            file_actions=actions,
            setsid=True,  # a Ctrl-C in the terminal is ours to handle
            setsigdef=(signal.SIGPIPE, signal.SIGXFSZ),  # which Python ignores
        )
        ours.pop_all()
    (_, stdin), (_, stdout), (_, stderr) = ends
    return pid, stdin, (stdout, stderr)


def _tuned() -> dict[str, str]:
    name, wish = _TUNABLES
    theirs = os.environ.get(name)
    return {name: f"{theirs}:{wish}" if theirs else wish}


def _pipe(
    theirs: contextlib.ExitStack, ours: contextlib.ExitStack, *, write: bool = False
) -> tuple[int, int]:
    """Their end and ours of a new pipe, of which we write or read."""
    reading, writing = os.pipe()
    their, our = (reading, writing) if write else (writing, reading)
    theirs.callback(os.close, their)
    ours.callback(os.close, our)
    return their, our


def _ends(pid: int, seconds: float) -> bool:
    """Waits for a child's end; False if the time passed first. The child is not reaped."""
    handle = os.pidfd_open(pid)
    try:
        poll = select.poll()
        poll.register(handle, select.POLLIN)
        return bool(poll.poll(seconds * 1000))
    finally:
        os.close(handle)


def _chunks(pipe: int) -> Iterator[bytes]:
    """What arrives at a pipe, as it arrives, until its end."""
    while chunk := os.read(pipe, 1 << 16):
        yield chunk
