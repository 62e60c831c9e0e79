# SPDX-License-Identifier: Apache-2.0
"""Probes of the three ways to change what a kernel function returns."""

from __future__ import annotations

from refagent.probes.answers import Finding
from refagent.probes.trying import ERRNO, SECURITY, SYSCALL, denied, trying


def fmod_ret() -> Finding:
    """Has fmod_ret change a security function's result."""
    return _fmod_ret(SECURITY)


def fmod_ret_syscall() -> Finding:
    """Has fmod_ret change a system call's result; before 7.1 that takes error injection."""
    return _fmod_ret(SYSCALL)


def _fmod_ret(function: str) -> Finding:
    with trying("probe_trace", {"deny": function}, error=-ERRNO):
        return Finding(denied(f"fmod_ret on {function}"))


def override_return() -> Finding:
    """Has a kprobe call bpf_override_return."""
    with trying(
        "probe_trace",
        {"override_return": ""},
        lambda program: program.attach_kprobe(SYSCALL),
        error=-ERRNO,
    ):
        return Finding(denied(f"bpf_override_return at {SYSCALL}"))
