# SPDX-License-Identifier: Apache-2.0
"""The keys and values of the agent's maps, as bpf/override.h, path.h and sensor.h have them."""

from __future__ import annotations

import struct
from collections.abc import Sequence

from refagent.errors import Refused

#: Bytes of a path's key, its final NUL included (PATH_SIZE).
PATH_SIZE = 256

OVERRIDE_KEY = struct.Struct("=QII")  # pid_tgid, override id, cpu
OVERRIDE_ENTRY = struct.Struct("=iIII")  # error, policy id, place, zero
POLICY_COUNT = struct.Struct("=QQQQ")  # matched, denied, outvoted, lost
POLICIES = 16384  # places in policy_counts, and after the last one:
TOTALS = struct.Struct("=QQQ")  # events lost, paths unread, calls unseen

BINARIES = 1024

#: policy id, place, error, signal, flags, which argument;
#: pid, uid and binary, each with its mask; the argument's value, its mask
RULE = struct.Struct("=IIiI 8I QQ")
DECIDES, POSTS, HASHES, LISTED, UNLISTED = 1, 2, 4, 8, 16  # flags
RULES_PER_PATH = 16
RULES_OF_PATH = struct.Struct(f"=II{RULES_PER_PATH * RULE.size}s")  # count, zero, the rules
#: time, pid_tgid, six arguments; the decision's policy, place, error, signal;
#: uid, the function's id, count, zero
EVENT = struct.Struct("=QQ 6Q IIiI IIII")
EVENT_POLICIES = struct.Struct(f"={RULES_PER_PATH}I")
EVENT_TEXTS = struct.Struct(f"=16s{PATH_SIZE}s")  # comm, path
#: Further, at LSM hooks: when the process was started, the digest's algorithm or a negative errno,
#: whether it was asked for, the digest, the process's binary; zero, size and text of its arguments
CHAIN_EVENT = struct.Struct(f"=QiI 64s {PATH_SIZE}s II256s")
CHAIN_SETTINGS = struct.Struct("=I")  # epoch
#: entered, left, hashing, each by epoch; calls of the agent's own; steps, algorithm, the digest
CHAIN = struct.Struct("=2Q 2Q 2Q Q Ii64s")
DIGEST_KEY = struct.Struct("=Ii64s")  # policy id, algorithm, the digest
PREFIX = struct.Struct(f"=I{PATH_SIZE}s")  # bits, the text


def path_text(path: str) -> bytes:
    """A whole path, as the beginning of no other one: with the NUL at its end.

    Raises:
        Refused: no path of the kernel's could ever equal it.
    """
    raw = _text(path)
    if raw != b"/":
        _check(path, raw[1:].split(b"/"))
    return raw + b"\0"


def path_key(path: str) -> bytes:
    """The same as a key of PATH_SIZE bytes.

    Raises:
        Refused: as above.
    """
    return path_text(path).ljust(PATH_SIZE, b"\0")


def prefix_text(beginning: str) -> bytes:
    """The beginning of a path as a sensor's table has it; the empty one is every path's.

    Raises:
        Refused: no path of the kernel's could ever begin with it.
    """
    raw = _text(beginning) if beginning else b""
    # What the last name goes on with is not known.
    _check(beginning, raw[1:].split(b"/")[:-1])
    return raw


def prefix(text: bytes) -> bytes:
    """A struct path_prefix."""
    return PREFIX.pack(8 * len(text), text)


def _text(path: str) -> bytes:
    try:
        raw = path.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        raise Refused(f"the path {path!r} is not valid text") from None
    if not raw.startswith(b"/"):
        raise Refused(f"the path {path!r} is not absolute")
    if b"\0" in raw:
        raise Refused(f"the path {path!r} holds a NUL")
    if len(raw) >= PATH_SIZE:
        raise Refused(f"the path is {len(raw)} bytes long, at most {PATH_SIZE - 1} are matched")
    return raw


def _check(path: str, names: Sequence[bytes]) -> None:
    if set(names) & {b"", b".", b".."}:
        raise Refused(
            f"the path {path!r} has an empty name, '.' or '..', which the kernel resolves"
        )
