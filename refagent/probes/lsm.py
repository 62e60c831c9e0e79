# SPDX-License-Identifier: Apache-2.0
"""Probes of LSM programs: that they fire, not only load, and that IMA answers them."""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Iterator
from pathlib import Path

from refagent import selftest
from refagent.errors import AgentError
from refagent.libbpf import btf
from refagent.probes.answers import ConfiguredOut, Finding, Unsupported
from refagent.probes.trying import ERRNO, denied, slots, trying

_LSM_LIST = Path("/sys/kernel/security/lsm")
_CMDLINE = Path("/proc/cmdline")


def fires() -> Finding:
    """Has an LSM program deny a call."""
    _check_build("bpf_lsm_task_getpgid", "CONFIG_BPF_LSM")
    with _told_why_not(), trying("probe_lsm", {"deny": ""}, error=-ERRNO):
        return Finding(denied("an LSM program at task_getpgid"))


def sleepable() -> Finding:
    """Has a sleepable LSM program run when a program is executed."""
    _check_build("bpf_lsm_bprm_committed_creds", "CONFIG_BPF_LSM")
    with _told_why_not(), trying("probe_lsm", {"sleepable": ""}) as canary:
        _execute(Path("/bin/true"))
        (ran,) = slots(canary.map("seen"), 1)
        if not ran:
            raise Unsupported("a sleepable LSM program is attached and does not run")
    return Finding("a sleepable LSM program ran at bprm_committed_creds")


def ima_file_hash() -> Finding:
    """Compares IMA's digest of an executed file with the file's own."""
    algorithm, digest = _hash("file_hash")
    if algorithm < 0:
        raise Unsupported(f"bpf_ima_file_hash gives {_name(-algorithm)} at bprm_check_security")
    return _compare("bpf_ima_file_hash", algorithm, digest)


def ima_inode_hash() -> Finding:
    """Sees bpf_ima_inode_hash answer at an execution.

    It only hands out what IMA collected before. Without an IMA policy that is nothing, and
    EOPNOTSUPP is the right answer: the helper is there, which is what this probe asks.
    To have digests, boot with a policy (`ima_policy=tcb`).
    """
    algorithm, digest = _hash("inode_hash")
    if algorithm == -errno.EOPNOTSUPP:
        return Finding("EOPNOTSUPP: the helper works, and no IMA policy has had a hash collected")
    if algorithm < 0:
        raise Unsupported(f"bpf_ima_inode_hash gives {_name(-algorithm)} at bprm_check_security")
    return _compare("bpf_ima_inode_hash", algorithm, digest)


def ima_hash() -> Finding:
    """Sees IMA use the algorithm that the kernel's command line names, if it names one.

    At boot IMA looks for it among what is built in, and takes another one if it is a module
    (6.1 of Debian has SHA-512 as one).
    """
    asked = dict(word.partition("=")[::2] for word in _CMDLINE.read_text("ascii").split())
    if "ima_hash" not in asked:
        return Finding("the command line names none")
    found = ima_file_hash()
    if found.value != asked["ima_hash"]:
        raise Unsupported(f"ima_hash={asked['ima_hash']} on the command line, and {found.words}")
    return found


def _hash(program: str) -> tuple[int, bytes]:
    """The algorithm or a negative errno, and the first 32 bytes of the digest."""
    _check_build("bpf_lsm_bprm_check_security", "CONFIG_BPF_LSM")
    _check_build("ima_file_hash", "CONFIG_IMA")
    with selftest.file() as script:
        inode = script.stat().st_ino
        with _told_why_not(), trying("probe_lsm", {program: ""}, inode_number=inode) as canary:
            _execute(script)
            ran, algorithm, *words = slots(canary.map("seen"), 6)
            if not ran:
                raise Unsupported("an LSM program at bprm_check_security does not run")
    signed = algorithm - 2**64 if algorithm >= 2**63 else algorithm
    return signed, b"".join(word.to_bytes(8, "little") for word in words)


def _compare(helper: str, algorithm: int, digest: bytes) -> Finding:
    if algorithm not in selftest.DIGESTS:
        return Finding(f"{helper} gives a digest of algorithm {algorithm}, not compared", algorithm)
    name, right = selftest.DIGESTS[algorithm]
    if not digest.hex().startswith(right):
        raise AgentError(f"{helper} gives {digest.hex()} where the file's {name} is {right}")
    return Finding(f"{helper} gives the file's {name}", name)


def _execute(program: Path) -> None:
    child = os.posix_spawn(program, [str(program)], {})
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if status != 0:
        raise AgentError(f"{program} ended with {status}")


def _check_build(function: str, option: str) -> None:
    if btf.vmlinux().function(function) is None:
        raise ConfiguredOut(f"{function} is not in this kernel: it is built without {option}")


@contextlib.contextmanager
def _told_why_not() -> Iterator[None]:
    """Adds to the kernel's no what its list of security modules says."""
    try:
        yield
    except Unsupported as no:
        modules = "bpf"  # unless told otherwise: securityfs may not be mounted
        with contextlib.suppress(OSError):
            modules = _LSM_LIST.read_text("ascii")
        if "bpf" in modules.split(","):
            raise
        raise ConfiguredOut(f"bpf is not in {_LSM_LIST} ({modules}): {no}") from no


def _name(number: int) -> str:
    return errno.errorcode.get(number, str(number))
