# SPDX-License-Identifier: Apache-2.0
"""A program with all that it starts: read line by line, and ended together with us.

make has children of its own, so its end alone is not enough. As with QEMU (vm/qemu.py) a
guardian holds one end of a pipe and we the other: an exception, an exit and a SIGKILL of
ours all close it, and the guardian kills the whole process group.
"""

from __future__ import annotations

import subprocess
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Final

from vm import run

#: setsid, because a shell without a terminal gives its children no process group of their
#: own. Once the program has ended, its number may be another's: the watcher goes first.
_GUARDIAN: Final = """
exec 3<&0
setsid "$@" </dev/null 3<&- &
child=$!
# Before setsid has run there is no group yet, only the process.
{ cat; kill -KILL "-$child" "$child"; } <&3 >/dev/null 2>&1 &
watcher=$!
exec 3<&-
wait "$child"; status=$?
kill -KILL "$watcher" 2>/dev/null
exit "$status"
"""


def output(
    argv: Sequence[str | Path],
    tell: Callable[[str], None],
    *,
    env: Mapping[str, str],
    timeout: float,
) -> int:
    """Runs a program to its end.

    Args:
        argv: the program (searched as by `run.find`) and its arguments.
        tell: is given each line of what it says on both outputs, as it comes.
        env: all the variables that it sees.
        timeout: seconds until it is killed.

    Returns:
        Its exit status; 128 and the signal's number if one killed it, so 137 at the deadline.

    Raises:
        HostProblem: it is not installed.
    """
    command = [run.find(str(argv[0])), *map(str, argv[1:])]
    with subprocess.Popen(
        ["/bin/sh", "-c", _GUARDIAN, "hookproof-guardian", *command],
        env=dict(env),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        # Ctrl-C goes to all of the terminal's group; the guardian has to live through it.
        start_new_session=True,
        text=True,
        encoding="utf-8",
        errors="replace",
    ) as guardian:
        assert guardian.stdin is not None  # noqa: S101  for the type checker
        assert guardian.stdout is not None  # noqa: S101
        late = threading.Timer(timeout, guardian.stdin.close)
        late.start()
        try:
            for line in guardian.stdout:
                tell(line.rstrip("\n"))
            return guardian.wait()
        finally:
            late.cancel()
            late.join()
            guardian.stdin.close()
