# SPDX-License-Identifier: Apache-2.0
"""Programs of somebody else's beside the agent's: they do nothing, and take places on functions."""

from __future__ import annotations

import contextlib
import errno
import os

#: Function → what ends those that are on it.
_THERE: dict[str, contextlib.ExitStack] = {}


def attach(function: str, kind: str) -> None:
    """Attaches one more program, which returns 0, until `detach`.

    Args:
        function: a kernel function.
        kind: fentry, fexit or fmod_ret.

    Raises:
        OSError: with the kernel's errno, such as E2BIG; ENOENT if there is no such function.
        Refused: one fmod_ret program more can overflow this kernel's memory.
    """
    from refagent import trampoline
    from refagent.errors import BpfError
    from refagent.libbpf import btf, census
    from refagent.libbpf.programs import Program

    number = {name: number for number, name in census.KINDS.items()}[kind]
    found = btf.vmlinux().function(function)
    if found is None:
        raise OSError(errno.ENOENT, f"{function} is no function of this kernel")
    if kind == "fmod_ret":
        trampoline.check_room(function)
    with contextlib.ExitStack() as undo:
        try:
            program = Program.returning_zero(number, found.btf_id, "foreign")
            undo.callback(os.close, program.fd)
            undo.enter_context(program.attach())
        except BpfError as failure:
            raise OSError(failure.errno, str(failure)) from failure
        _THERE.setdefault(function, contextlib.ExitStack()).push(undo.pop_all())


def deny(function: str, error: int) -> None:
    """Attaches a program that denies each call of this process's, until `detach`.

    Args:
        function: a kernel function that may be overridden.
        error: the errno.

    Raises:
        OSError: ENOTSUP, the kernel takes no such program there.
    """
    from refagent.probes.answers import Unsupported
    from refagent.probes.trying import trying

    with contextlib.ExitStack() as undo:
        try:
            undo.enter_context(trying("probe_trace", {"deny": function}, error=-error))
        except Unsupported as why:
            raise OSError(errno.ENOTSUP, str(why)) from why
        _THERE.setdefault(function, contextlib.ExitStack()).push(undo.pop_all())


def detach(function: str) -> None:
    """Detaches all that `attach` has put on a function."""
    _THERE.pop(function, contextlib.ExitStack()).close()


def detach_all() -> None:
    """Detaches all there are; in a forked child, lets go of them."""
    for function in list(_THERE):
        detach(function)
