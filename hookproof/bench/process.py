# SPDX-License-Identifier: Apache-2.0
"""Runs a command to its end and says what it took."""

from __future__ import annotations

import contextlib
import os
import resource
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from hookproof.bench.spread import Cost
from vm.run import environment

#: Seconds between two looks at a command that runs.
_LOOK: Final = 0.1


@dataclass(frozen=True)
class Finished:
    """A command that came to its end.

    Attributes:
        status: its exit status; below 0 the signal that killed it; None if it was too late.
        out: its standard output.
        err: its standard error.
        cost: what it took.
    """

    status: int | None
    out: str
    err: str
    cost: Cost

    @property
    def words(self) -> str:
        """The last line that it said, or how it ended."""
        said = (self.err.strip() or self.out.strip()).splitlines()
        how = "it was too late" if self.status is None else f"exit status {self.status}"
        return said[-1].strip() if said else how


def run(
    argv: Sequence[str],
    *,
    cwd: Path,
    deadline: float,
    env: Mapping[str, str] | None = None,
    look: Callable[[int], None] | None = None,
) -> Finished:
    """Runs a command in a process group of its own, of which nothing is left if it is too late.

    Args:
        argv: the program and its arguments.
        cwd: its working folder.
        deadline: seconds until its group is killed.
        env: variables set on top of this process's own.
        look: is given its process id again and again while it runs.
    """
    spent, start = _spent(), time.monotonic()
    with subprocess.Popen(
        argv,
        cwd=cwd,
        env=environment(env),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,  # QEMU truncates a file that is given to it as standard output
        stderr=subprocess.PIPE,
        start_new_session=True,
    ) as child:
        try:
            out, err = _communicate(child, start + deadline, look)
        except BaseException as error:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(child.pid, signal.SIGKILL)
            if not isinstance(error, subprocess.TimeoutExpired):
                raise
            out, err = child.communicate()
            late = True
        else:
            late = False
    return Finished(
        status=None if late else child.returncode,
        out=out.decode(errors="replace"),
        err=err.decode(errors="replace"),
        cost=Cost(time.monotonic() - start, _spent() - spent),
    )


def _communicate(
    child: subprocess.Popen[bytes], until: float, look: Callable[[int], None] | None
) -> tuple[bytes, bytes]:
    while True:
        left = max(0.0, until - time.monotonic())
        try:
            return child.communicate(timeout=min(_LOOK, left) if look else left)
        except subprocess.TimeoutExpired:
            if time.monotonic() >= until:
                raise
            if look is not None:
                look(child.pid)


def _spent() -> float:
    """Seconds of processors of all children that have been waited for."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime
