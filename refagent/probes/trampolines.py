# SPDX-License-Identifier: Apache-2.0
"""Probes of the trampoline: how many programs fit, and in which order they run."""

from __future__ import annotations

import errno
import os
from contextlib import ExitStack

from refagent import trampoline
from refagent.errors import AgentError, BpfError
from refagent.libbpf import btf, census, ids
from refagent.libbpf._libbpf import lib
from refagent.libbpf.btf import Function
from refagent.libbpf.programs import Program
from refagent.probes.answers import Finding, kernel_says
from refagent.probes.trying import SECURITY, call, slots, trying

#: Functions that nothing calls while a probe runs.
_QUIET = ("security_sb_pivotroot", "security_quotactl", "security_path_chroot")

#: More than any kernel has room for: the probe ends here at the latest.
_TOO_MANY = 64


def limit() -> Finding:
    """Attaches fentry programs to a quiet function until the kernel gives E2BIG.

    Only fentry programs, and only where nothing else is attached: they were always counted,
    so this is safe on a kernel without a2aa95b71c9b too.

    Raises:
        AgentError: another number than this kernel is documented to have, or no E2BIG.
    """
    function = _quiet_function()
    documented = trampoline.documented_limit(trampoline.running())
    with ExitStack() as stack:
        programs: list[int] = []
        stack.callback(ids.wait_gone, programs, ())
        while _one_more(stack, function, programs):
            if len(programs) == _TOO_MANY:
                raise AgentError(f"{_TOO_MANY} programs are on one function, and no E2BIG")
        fit = len(programs) - 1
    if fit != documented:
        raise AgentError(f"{fit} programs fit where {documented} are documented")
    return Finding(f"{fit} programs fit, one more gives E2BIG", fit)


def _quiet_function() -> Function:
    busy = {link.function for link in census.links() if link.type == "tracing"}
    for name in _QUIET:
        found = btf.vmlinux().function(name)
        if found and name not in busy:
            return found
    raise AgentError(f"none of {', '.join(_QUIET)} is in this kernel and free")


def _one_more(stack: ExitStack, function: Function, programs: list[int]) -> bool:
    with kernel_says():
        program = Program.returning_zero(lib.BPF_TRACE_FENTRY, function.btf_id, "probe_limit")
    stack.callback(os.close, program.fd)
    programs.append(ids.program_id(program.fd))
    try:
        with kernel_says():
            stack.enter_context(program.attach())
    except BpfError as failure:
        if failure.errno == errno.E2BIG:
            return False
        raise
    return True


def order() -> Finding:
    """Attaches two programs to one function, and compares as which of them each one runs."""
    with trying("probe_trace", {"order_first": SECURITY, "order_second": SECURITY}) as canary:
        call()
        ran, first, second = slots(canary.map("seen"), 3)
    if ran != 2 or {first, second} != {1, 2}:
        raise AgentError(f"two programs ran {ran} times in one call, as {first} and {second}")
    value = "last-attached-first" if second < first else "first-attached-first"
    return Finding(f"of two programs in one call, {value.replace('-', ' ', 1)}", value)
