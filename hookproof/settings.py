# SPDX-License-Identifier: Apache-2.0
"""What a session was asked to do."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from vm.kernel import Kernel

#: Values of `--accel`: try KVM and fall back, insist on it, or never use it.
ACCELS = ("auto", "kvm", "tcg")
#: Values of `--machine`: restored from a saved state, or booted by virtme-ng on the host's root.
MACHINES = ("snapshot", "virtme")
#: Values of `--isolate`: a machine for each case, or one for as many as pass.
ISOLATES = ("vm", "none")


@dataclass(frozen=True)
class Settings:
    """Options and ini values of one session, resolved.

    Attributes:
        accel: one of `ACCELS`.
        results: the folder for reports and evidence.
        catalog: every kernel of kernels.txt.
        kernels: those of them that this session runs on.
        lock: kernels.lock, beside kernels.txt.
        machine: one of `MACHINES`.
        isolate: one of `ISOLATES`, or empty: whatever costs less with these machines here.
        parallel: machines at a time; 0: as many as this host has room for.
        repeat: how often each case runs.
    """

    accel: str
    results: Path
    catalog: tuple[Kernel, ...]
    kernels: tuple[Kernel, ...]
    lock: Path
    machine: str = MACHINES[0]
    isolate: str = ""
    parallel: int = 0
    repeat: int = 1
