# SPDX-License-Identifier: Apache-2.0
"""How many programs the kernel can run at one function, and whether it counts them rightly.

fentry, fexit, fmod_ret and LSM programs of one function share one trampoline.
One program more gives E2BIG, except on kernels without commit a2aa95b71c9b: they
did not count fmod_ret programs and wrote past the end of an array.
"""

from __future__ import annotations

import errno
from dataclasses import dataclass
from typing import Final

from refagent.errors import BpfError, Refused
from refagent.libbpf import btf, census
from refagent.libbpf._libbpf import lib
from refagent.libbpf.links import Link
from refagent.libbpf.programs import Program

#: BPF_MAX_TRAMP_PROGS before it became an enumerator, by the first version that has the value.
#: 38 came with e21aa341785c in 5.12. From 6.12 on the kernel's BTF tells.
_BEFORE_BTF: tuple[tuple[tuple[int, int], int], ...] = (((5, 12), 38), ((5, 5), 40))

#: Stable releases that carry a2aa95b71c9b; 5.18 and later have it.
_FIXED_IN: dict[tuple[int, int], int] = {(5, 10): 119, (5, 15): 44, (5, 17): 12}


@dataclass(frozen=True)
class Version:
    """A kernel's version, as it was built with; a stable release above 255 reads 255."""

    major: int
    minor: int
    patch: int

    def __str__(self) -> str:
        return f"{self.major}.{self.minor}.{self.patch}"


def running() -> Version:
    """The running kernel's version. `uname -r` of a distribution hides the stable release."""
    code = lib.hp_kernel_version()
    return Version(code >> 16, code >> 8 & 255, code & 255)


def counts_fmod_ret(version: Version) -> bool:
    """Whether this kernel refuses one fmod_ret program too many instead of overflowing."""
    line = (version.major, version.minor)
    return line >= (5, 18) or version.patch >= _FIXED_IN.get(line, 256)


def documented_limit(version: Version) -> int:
    """Programs per function: from the kernel's BTF (6.12+), else from its version.

    Raises:
        BpfError: this kernel has no BTF.
    """
    told = btf.vmlinux().enumerator("BPF_MAX_TRAMP_LINKS")
    line = (version.major, version.minor)
    return told or next((limit for since, limit in _BEFORE_BTF if line >= since), 0)


#: What the kernel says by these errnos. 524 is ENOTSUPP, which has no name outside the kernel. Seen
#: on 5.10, at a function of seven arguments: it takes six (arch/x86/net/bpf_jit_comp.c,
#: arch_prepare_bpf_trampoline).
_WHY_NOT: Final = {
    errno.E2BIG: "no further program fits on {} (E2BIG): others hold all the places",
    524: "this kernel lets no program on {}: its arguments are more than a trampoline passes on "
    "(ENOTSUPP)",
}


def attach(program: Program, function: str) -> Link:
    """Attaches a program to the function that it was loaded for.

    Raises:
        Refused: no further one fits, or might not on a kernel that does not look.
        BpfError: anything else.
    """
    check_room(function)
    try:
        return program.attach()
    except BpfError as failure:
        why = _WHY_NOT.get(failure.errno)
        if why is None:
            raise
        raise Refused(why.format(function)) from failure


def check_room(function: str) -> None:
    """Makes sure that one more program does not overflow an unfixed kernel's array.

    Raises:
        Refused: this kernel lacks the fix and the function's trampoline may be full.
    """
    version = running()
    if counts_fmod_ret(version):
        return
    # Such a kernel does not say which function a link is on: each might be on this one.
    there = sum(
        link.type == "tracing" and link.function in {"", function} for link in census.links()
    )
    if there >= documented_limit(version):
        raise Refused(
            f"{there} programs may be on {function} already, and kernel {version} overflows "
            "there instead of refusing (it lacks commit a2aa95b71c9b)"
        )
