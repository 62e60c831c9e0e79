# SPDX-License-Identifier: Apache-2.0
"""Probes of LSM programs: that they fire, not only load, and that IMA answers them."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

from refagent.errors import AgentError
from refagent.libbpf import btf
from refagent.probes.answers import ConfiguredOut, Finding, Unsupported
from refagent.probes.trying import ERRNO, denied, slots, trying

_LSM_LIST = Path("/sys/kernel/security/lsm")

#: enum hash_algo of the kernel's include/uapi/linux/hash_info.h, as far as hashlib knows them.
_ALGORITHMS = {1: "md5", 2: "sha1", 4: "sha256", 5: "sha384", 6: "sha512"}

#: As much of a digest as the programs report.
_REPORTED = 32


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
    algorithm, digest, body = _hash("file_hash")
    if algorithm < 0:
        raise Unsupported(f"bpf_ima_file_hash gives {_name(-algorithm)} at bprm_check_security")
    return _compare("bpf_ima_file_hash", algorithm, digest, body)


def ima_inode_hash() -> Finding:
    """Sees bpf_ima_inode_hash answer at an execution.

    It only hands out what IMA collected before. Without an IMA policy that is nothing, and
    EOPNOTSUPP is the right answer: the helper is there, which is what this probe asks.
    To have digests, boot with a policy (`ima_policy=tcb`).
    """
    algorithm, digest, body = _hash("inode_hash")
    if algorithm == -errno.EOPNOTSUPP:
        return Finding("EOPNOTSUPP: the helper works, and no IMA policy has had a hash collected")
    if algorithm < 0:
        raise Unsupported(f"bpf_ima_inode_hash gives {_name(-algorithm)} at bprm_check_security")
    return _compare("bpf_ima_inode_hash", algorithm, digest, body)


def _hash(program: str) -> tuple[int, bytes, bytes]:
    """The algorithm or negative errno, the digest's beginning, and the file's content."""
    _check_build("bpf_lsm_bprm_check_security", "CONFIG_BPF_LSM")
    _check_build("ima_file_hash", "CONFIG_IMA")
    with tempfile.TemporaryDirectory(prefix="hookproof-") as directory:
        script = Path(directory, "script")
        body = b"#!/bin/true\n" + os.urandom(16).hex().encode()
        script.write_bytes(body)
        script.chmod(0o755)
        inode = script.stat().st_ino
        with _told_why_not(), trying("probe_lsm", {program: ""}, inode_number=inode) as canary:
            _execute(script)
            ran, algorithm, *words = slots(canary.map("seen"), 6)
            if not ran:
                raise Unsupported("an LSM program at bprm_check_security does not run")
    signed = algorithm - 2**64 if algorithm >= 2**63 else algorithm
    return signed, b"".join(word.to_bytes(8, "little") for word in words), body


def _compare(helper: str, algorithm: int, digest: bytes, body: bytes) -> Finding:
    name = _ALGORITHMS.get(algorithm)
    if name is None:
        return Finding(f"{helper} gives a digest of algorithm {algorithm}, not compared", algorithm)
    right = hashlib.new(name, body, usedforsecurity=False).digest()[:_REPORTED]
    if digest[: len(right)] != right:
        raise AgentError(f"{helper} gives {digest.hex()} where the file's {name} is {right.hex()}")
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
