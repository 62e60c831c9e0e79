# SPDX-License-Identifier: Apache-2.0
"""The one place that runs helper programs to completion.

Arguments are lists, never a shell's text; every run has a deadline; a failure is a
`Problem` that shows the command as one can paste it and the last useful line of what
the program said.
"""

from __future__ import annotations

import contextlib
import os
import shlex
import shutil
import subprocess
import threading
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO

from vm.errors import HostProblem, Problem

#: Program → the package that brings it, as Debian and Ubuntu call it.
PACKAGES: dict[str, str] = {
    "apt-cache": "apt",
    "apt-config": "apt",
    "apt-get": "apt",
    "bc": "bc",
    "bison": "bison",
    "busybox": "busybox-static",
    "clang": "clang",
    "bpftool": "bpftool",
    "depmod": "kmod",
    "dpkg": "dpkg",
    "dpkg-deb": "dpkg",
    "flex": "flex",
    "gcc": "gcc",
    "ld": "binutils",
    "ldd": "libc-bin",
    "make": "make",
    "modprobe": "kmod",
    "pahole": "dwarves",
    "python3": "python3",
    "qemu-system-x86_64": "qemu-system-x86",
    "sshd": "openssh-server",
    "ssh-keygen": "openssh-client",
    "strip": "binutils",
    "tar": "tar",
    "udevadm": "udev",
    "xz": "xz-utils",
    "zstd": "zstd",
}


def run(
    argv: Sequence[str | Path],
    *,
    timeout: float,
    cwd: Path | None = None,
    env: Mapping[str, str] | None = None,
    problem: type[Problem] = HostProblem,
    what: str = "",
    hint: str = "",
    ok: tuple[int, ...] = (0,),
) -> subprocess.CompletedProcess[str]:
    """Runs a program to its end and returns what it said.

    Args:
        argv: the program (searched on PATH and in the sbin folders) and its arguments.
        timeout: seconds until it is killed.
        cwd: its working folder.
        env: variables set on top of this process's own; LC_ALL is always C, since what
            programs say is read by us and shown to people.
        problem: the type raised if it fails.
        what: what could not be done; the program's name if left out.
        hint: the next step; may be left out.
        ok: the exit statuses that are no failure.

    Raises:
        HostProblem: the program is not installed.
        Problem: of the given type: another exit status, a signal, or the deadline.
    """
    command = [find(str(argv[0])), *map(str, argv[1:])]
    shown = shlex.join(str(word) for word in argv)
    what = what or f"{argv[0]} failed"
    try:
        done = subprocess.run(
            _dying_with_us(command),
            cwd=cwd,
            env=environment(env),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            encoding="utf-8",
            errors="replace",
            timeout=timeout,
            check=False,
        )
    except subprocess.TimeoutExpired:
        late = f"{what}: no end after {timeout:.0f} s"
        raise problem(late, where=shown, hint=hint) from None
    if done.returncode not in ok:
        said = reason(done.stderr) or reason(done.stdout) or _status(done.returncode)
        raise problem(f"{what}: {said}", where=shown, hint=hint)
    return done


@contextlib.contextmanager
def reading(
    argv: Sequence[str | Path], *, timeout: float, problem: type[Problem] = HostProblem
) -> Iterator[IO[bytes]]:
    """Runs a program and gives its standard output to read while it works.

    The program is killed at the deadline and if the block is left early.

    Raises:
        HostProblem: the program is not installed.
        Problem: of the given type, at the end of the block: it failed or was too slow.
    """
    command = [find(str(argv[0])), *map(str, argv[1:])]
    shown = shlex.join(str(word) for word in argv)
    with subprocess.Popen(
        _dying_with_us(command),
        env=environment(),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as child:
        assert child.stdout is not None  # noqa: S101  for the type checker
        assert child.stderr is not None  # noqa: S101
        late = threading.Timer(timeout, child.kill)
        late.start()
        try:
            yield child.stdout
            # A reader may stop at the end of its format; let the program end its way.
            while child.stdout.read(1 << 16):
                pass
            said = reason(child.stderr.read().decode("utf-8", "replace"))
            status = child.wait()
        finally:
            late.cancel()
            child.kill()
            late.join()
    if status:
        raise problem(f"{argv[0]} failed: {said or _status(status)}", where=shown)


def find(program: str) -> str:
    """The path of a program: on PATH, or in the sbin folders users often lack there.

    Raises:
        HostProblem: it is not installed; names the package that brings it.
    """
    path = os.pathsep.join([os.environ.get("PATH", os.defpath), "/usr/sbin", "/sbin"])
    found = shutil.which(program, path=path)
    if found is None:
        package = PACKAGES.get(Path(program).name, Path(program).name)
        raise HostProblem(f"{program} is not installed", hint=f"install the package '{package}'")
    return found


def reason(text: str) -> str:
    """The line of a program's words that says what went wrong.

    apt marks errors with `E:`, the cause before what follows from it; of anything else
    the last line is taken.
    """
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    errors = [line.removeprefix("E: ") for line in lines if line.startswith("E: ")]
    return errors[0] if errors else (lines or [""])[-1]


def _dying_with_us(command: list[str]) -> list[str]:
    """Has the kernel kill the program if this process dies by SIGKILL.

    Otherwise a killed fetch would leave apt behind, writing into a folder that the
    next command removes.
    """
    setpriv = shutil.which("setpriv")
    return [setpriv, "--pdeathsig", "KILL", "--", *command] if setpriv else command


def environment(extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """The variables for a program: a copy of this process's own, others on top, LC_ALL=C.

    No program is started without one. Of the process's own list, which execve(2) reads
    twice, another thread can take a variable in between, and that is EFAULT; pytest sets
    and takes one at each phase of a test, while machines are made by threads. For the same
    reason a name that is listed may be gone when it is looked up.
    """
    own = {name: value for name in [*os.environ] if (value := os.environ.get(name)) is not None}
    return {**own, **(extra or {}), "LC_ALL": "C"}


def _status(code: int) -> str:
    return f"killed by signal {-code}" if code < 0 else f"exit status {code}"
