# SPDX-License-Identifier: Apache-2.0
"""One QEMU, owned: whatever happens to us, it does not outlive us.

QEMU is the child of a guardian, a shell of four lines that waits for the end of its
standard input. We hold the other end: closing it, raising, exiting, or dying by
SIGKILL all end in the same way, the guardian kills QEMU's process group and removes
the run's folder.
"""

from __future__ import annotations

import os
import shlex
import subprocess
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import IO, Final

from vm.console import Console
from vm.errors import HostProblem

#: $1 is the run's folder, the rest QEMU's command. setsid, because a shell without a
#: terminal gives its children no process group of their own.
_GUARDIAN: Final = """
folder=$1; shift
setsid "$@" </dev/null &
qemu=$!
exec >/dev/null 2>&1
echo "$qemu" >"$folder/qemu.pid"
cat
# Before setsid has run there is no group yet, only the process.
kill -KILL "-$qemu" "$qemu"; wait "$qemu"
rm -rf -- "$folder"
"""
_FAREWELL: Final = 30.0


class Qemu:
    """A running QEMU process group and its console.

    Args:
        argv: the command; its fd 1 is read as the console, its fd 2 as QEMU's words.
        folder: the run's folder, which the guardian removes at the end.
        console: takes what is read.
    """

    def __init__(
        self,
        argv: Sequence[str],
        folder: Path,
        console: Console,
    ) -> None:
        self.argv = tuple(argv)
        self._console = console
        self._words: list[bytes] = []
        try:
            self._guardian = subprocess.Popen(
                ["/bin/sh", "-c", _GUARDIAN, "hookproof-guardian", str(folder), *argv],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                start_new_session=True,  # a Ctrl-C in the terminal is ours to handle
            )
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
        stdin = self._guardian.stdin
        if stdin is None or stdin.closed:
            return
        stdin.close()
        try:
            self._guardian.wait(timeout=_FAREWELL)
        except subprocess.TimeoutExpired:
            self._guardian.kill()
            raise HostProblem(f"QEMU did not end within {_FAREWELL:.0f} s") from None
        for reader in self._readers:
            reader.join(timeout=_FAREWELL)
        for pipe in (self._guardian.stdout, self._guardian.stderr):
            if pipe is not None:
                pipe.close()

    def _read_console(self) -> None:
        for chunk in _chunks(self._guardian.stdout):
            self._console.feed(chunk)
        self._console.end()

    def _read_words(self) -> None:
        for chunk in _chunks(self._guardian.stderr):
            if sum(map(len, self._words)) < 1 << 16:
                self._words.append(chunk)


def _chunks(pipe: IO[bytes] | None) -> Iterator[bytes]:
    """What arrives at a pipe, as it arrives, until its end."""
    if pipe is not None:
        while chunk := os.read(pipe.fileno(), 1 << 16):
            yield chunk
