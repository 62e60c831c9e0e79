# SPDX-License-Identifier: Apache-2.0
"""Programs of somebody else's beside the agent's: they take places on functions, and may deny."""

from __future__ import annotations

import contextlib
import errno
import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from refagent.libbpf.programs import Program

#: Function → what ends those that are on it.
_THERE: dict[str, contextlib.ExitStack] = {}


def attach(function: str, kind: str, denies: str = "") -> None:
    """Attaches one more program, which returns 0 or an error, until `detach`.

    Args:
        function: a kernel function.
        kind: fentry, fexit, fmod_ret or lsm.
        denies: the errno of a program that denies: one of kind lsm every call, of kind fmod_ret
            those of this process; the others can't.

    Raises:
        OSError: with the kernel's errno, such as E2BIG; ENOENT if there is no such function,
            ENOTSUP if the kernel takes no such program there that denies.
        Refused: one fmod_ret program more can overflow this kernel's memory.
    """
    from refagent import trampoline
    from refagent.errors import BpfError
    from refagent.libbpf import btf
    from refagent.probes.answers import Unsupported

    error = getattr(errno, denies) if denies else 0
    found = btf.vmlinux().function(function)
    if found is None:
        raise OSError(errno.ENOENT, f"{function} is no function of this kernel")
    if kind in {"fmod_ret", "lsm"}:
        trampoline.check_room(function)
    with contextlib.ExitStack() as undo:
        try:
            if kind == "lsm":
                undo.enter_context(_lsm(found.btf_id, error, undo).attach())
            elif error:
                undo.enter_context(_denying(function, error))
            else:
                undo.enter_context(_returning_zero(kind, found.btf_id, undo).attach())
        except Unsupported as why:
            raise OSError(errno.ENOTSUP, str(why)) from why
        except BpfError as failure:
            raise OSError(failure.errno, str(failure)) from failure
        _THERE.setdefault(function, contextlib.ExitStack()).push(undo.pop_all())


def _lsm(target: int, error: int, undo: contextlib.ExitStack) -> Program:
    from refagent.libbpf import template

    program = template.prepare("foreign").load({}, target=target, error=-error)
    undo.callback(program.close)
    return program


def _returning_zero(kind: str, target: int, undo: contextlib.ExitStack) -> Program:
    from refagent.libbpf import census
    from refagent.libbpf.programs import Program

    number = {name: number for number, name in census.KINDS.items()}[kind]
    program = Program.returning_zero(number, target, "foreign")
    undo.callback(os.close, program.fd)
    return program


def _denying(function: str, error: int) -> AbstractContextManager[object]:
    """An fmod_ret program that denies the calls of this process."""
    from refagent.probes.trying import trying

    return trying("probe_trace", {"deny": function}, error=-error)


def detach(function: str) -> None:
    """Detaches all that `attach` has put on a function.

    Raises:
        OSError: ENOENT, that is nothing.
    """
    if function not in _THERE:
        raise OSError(errno.ENOENT, f"nothing is attached to {function}")
    _THERE.pop(function).close()


def detach_all() -> None:
    """Detaches all there are."""
    for function in list(_THERE):
        detach(function)
