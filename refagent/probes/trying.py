# SPDX-License-Identifier: Apache-2.0
"""What the probes have in common: a harmless call, and a program that waits for it."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

from refagent import objects
from refagent.libbpf.links import Link
from refagent.libbpf.maps import Map
from refagent.libbpf.objectfile import Object, OpenObject
from refagent.libbpf.programs import Program
from refagent.probes.answers import Unsupported, kernel_says

#: getpgid(2) changes nothing and nobody else calls it in a quiet guest. It passes through a
#: system call's function, a security function and an LSM hook.
SYSCALL = "__x64_sys_getpgid"
SECURITY = "security_task_getpgid"

#: What the denying programs return: an errno that getpgid(2) never gives.
ERRNO = errno.EXDEV


@contextmanager
def trying(
    file: str,
    programs: dict[str, str],
    attach: Callable[[Program], Link] = Program.attach,
    **knobs: int,
) -> Iterator[Object]:
    """Loads these programs of an object and attaches them in order.

    Args:
        file: the object's name.
        programs: program → the kernel function it is loaded for, or empty.
        attach: how each is attached.
        knobs: further `const volatile` integers beside `tgid`.

    Raises:
        Unsupported: the kernel refused one.
        BpfError: it failed otherwise.
    """
    with ExitStack() as stack:
        with OpenObject(objects.path(file)) as opened, kernel_says():
            opened.only(*programs)
            for name, target in programs.items():
                if target:
                    opened.target(name, target)
            for knob, value in {"tgid": os.getpid(), **knobs}.items():
                opened.knob(knob, value)
            loaded = stack.enter_context(opened.load())
        for name in programs:
            with kernel_says():
                stack.enter_context(attach(loaded.program(name)))
        yield loaded


def slots(seen: Map, count: int) -> list[int]:
    """The first `count` numbers that the programs put down."""
    found = [seen.get(slot.to_bytes(4, "little")) or bytes(8) for slot in range(count)]
    return [int.from_bytes(raw, "little") for raw in found]


def call() -> int:
    """Makes the harmless call; returns 0 or the errno it gave."""
    try:
        os.getpgid(os.getpid())  # 0 would skip the security function
    except OSError as error:
        return error.errno or 0
    return 0


def denied(by: str) -> str:
    """Checks that the harmless call is denied while a program hangs on it; the finding's words.

    Raises:
        Unsupported: the call still succeeds.
    """
    given = call()
    if given != ERRNO:
        raise Unsupported(f"{by} is attached and getpgid(2) still gives {given}")
    return f"{by} made getpgid(2) give {errno.errorcode[ERRNO]}"
