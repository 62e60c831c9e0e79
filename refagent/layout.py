# SPDX-License-Identifier: Apache-2.0
"""The keys and values of the agent's maps, as bpf/override.h, path.h and sensor.bpf.c have them."""

from __future__ import annotations

import struct

from refagent.errors import Refused

#: Bytes of a path's key, its final NUL included (PATH_SIZE).
PATH_SIZE = 256
#: Names that the walk in the kernel follows for certain; the rest of PATH_STEPS is for mounts.
PATH_NAMES = 64

OVERRIDE_KEY = struct.Struct("=QII")  # pid_tgid, override id, zero
OVERRIDE_ENTRY = struct.Struct("=iIII")  # error, policy id, place, zero
OVERRIDE_TASKS_ENTRIES = 16384
POLICY_COUNT = struct.Struct("=QQQQ")  # matched, denied, outvoted, lost
POLICIES = 16384  # places in policy_counts

RULE = struct.Struct("=iIII")  # error, policy id, place, zero
RULES_PER_PATH = 16
RULES_OF_PATH = struct.Struct(f"=II{RULES_PER_PATH * RULE.size}s")  # count, zero, the rules


def path_key(path: str | None) -> bytes:
    """A path as a sensor looks it up; None, every call, is the empty path.

    Raises:
        Refused: no path of the kernel's could ever equal it.
    """
    if path is None:
        return bytes(PATH_SIZE)
    try:
        raw = path.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        raise Refused(f"the path {path!r} is not valid text") from None
    if not raw.startswith(b"/"):
        raise Refused(f"the path {path!r} is not absolute")
    if b"\0" in raw:
        raise Refused(f"the path {path!r} holds a NUL")
    names = raw[1:].split(b"/")
    if raw != b"/" and (set(names) & {b"", b".", b".."}):
        raise Refused(
            f"the path {path!r} has an empty name, '.' or '..', which the kernel resolves"
        )
    if len(raw) >= PATH_SIZE:
        raise Refused(f"the path is {len(raw)} bytes long, at most {PATH_SIZE - 1} are matched")
    if len(names) > PATH_NAMES:
        raise Refused(f"the path is {len(names)} names deep, at most {PATH_NAMES} are matched")
    return raw.ljust(PATH_SIZE, b"\0")
