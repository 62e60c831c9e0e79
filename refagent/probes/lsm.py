# SPDX-License-Identifier: Apache-2.0
"""Probes of LSM programs: that they fire, not only load, and that IMA answers them."""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Iterator
from pathlib import Path

from refagent.errors import AgentError
from refagent.libbpf import btf
from refagent.probes.answers import ConfiguredOut, Finding, Unsupported
from refagent.probes.trying import ERRNO, denied, slots, trying

_LSM_LIST = Path("/sys/kernel/security/lsm")

#: What the probes of IMA execute.
SCRIPT = b"#!/bin/true\n# run by a probe of IMA\n"

#: Its digests, at most the 32 bytes the programs report, by enum hash_algo of the kernel's
#: include/uapi/linux/hash_info.h. Literals: in a guest, loading OpenSSL takes seconds.
DIGESTS = {
    1: ("md5", "4f1b58e84de31a88a3d141d09c8faaaf"),
    2: ("sha1", "c8d6151e70a0f04a8dfb706254b2c794e46b04b6"),
    4: ("sha256", "b35502ff7c66723de0575c38c1006d32d287c89a61d12a4aca24fbac89c54f46"),
    5: ("sha384", "84f0a378af5d6933dfb369fa386e868af14848b111371dcda5ae3743373c4f2b"),
    6: ("sha512", "757cae652d2f0f6744cd2bf243b4233c4f63524a9d3669e92b10208abf597c08"),
}


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


def _hash(program: str) -> tuple[int, bytes]:
    """The algorithm or a negative errno, and the first 32 bytes of the digest."""
    _check_build("bpf_lsm_bprm_check_security", "CONFIG_BPF_LSM")
    _check_build("ima_file_hash", "CONFIG_IMA")
    with _script() as script:
        inode = script.stat().st_ino
        with _told_why_not(), trying("probe_lsm", {program: ""}, inode_number=inode) as canary:
            _execute(script)
            ran, algorithm, *words = slots(canary.map("seen"), 6)
            if not ran:
                raise Unsupported("an LSM program at bprm_check_security does not run")
    signed = algorithm - 2**64 if algorithm >= 2**63 else algorithm
    return signed, b"".join(word.to_bytes(8, "little") for word in words)


def _compare(helper: str, algorithm: int, digest: bytes) -> Finding:
    if algorithm not in DIGESTS:
        return Finding(f"{helper} gives a digest of algorithm {algorithm}, not compared", algorithm)
    name, right = DIGESTS[algorithm]
    if not digest.hex().startswith(right):
        raise AgentError(f"{helper} gives {digest.hex()} where the file's {name} is {right}")
    return Finding(f"{helper} gives the file's {name}", name)


@contextlib.contextmanager
def _script() -> Iterator[Path]:
    """A new executable file; tempfile would import half the library for it."""
    script = Path("/tmp", f"hookproof-probe-{os.getpid()}-{os.urandom(4).hex()}")  # noqa: S108
    descriptor = os.open(script, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o700)
    try:
        with open(descriptor, "wb") as file:  # noqa: PTH123  a descriptor, no path
            file.write(SCRIPT)
        yield script
    finally:
        script.unlink()


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
