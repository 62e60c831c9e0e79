# SPDX-License-Identifier: Apache-2.0
"""What a pinned agent has to know again after it was killed, in a map of its own.

A record says that something is complete: that of a function is written when all of its pins are
there, that of a policy when it is in effect; and both are deleted before anything is undone. So
what no record speaks of is left from something half done, and is cleared away.
"""

from __future__ import annotations

import functools
import hashlib
import json
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any, Final

from refagent import objects
from refagent.errors import Refused
from refagent.libbpf._libbpf import lib
from refagent.libbpf.maps import Map, Shape
from refagent.policy import Policy

_SIZE: Final = 4096
SHAPE: Final = Shape(lib.BPF_MAP_TYPE_HASH, 8, _SIZE, 32768, lib.BPF_F_NO_PREALLOC)
_HEADER, _SITE, _POLICY = range(3)


@dataclass(frozen=True)
class SiteRecord:
    """A function or LSM hook with policies.

    Attributes:
        function: its name.
        id: its override's.
        path_argument: as its sensor was loaded with.
        by_kprobe: likewise.
    """

    function: str
    id: int
    path_argument: int | None
    by_kprobe: bool = False


@dataclass(frozen=True)
class PolicyRecord:
    """A loaded policy.

    Attributes:
        policy: as it was asked for.
        id: its own.
        place: where its calls are counted.
        binary: the id of its binary, or None.
        enabled: whether it is in effect.
    """

    policy: Policy
    id: int
    place: int
    binary: int | None
    enabled: bool


class State:
    """The records; for one thread at a time.

    Args:
        records: a map of `SHAPE`.
    """

    def __init__(self, records: Map) -> None:
        self._map = records

    def begin(self, next_policy: int, next_override: int, places: int) -> None:
        """Notes which ids have not been used yet, and the first place that never was.

        Raises:
            BpfError: the kernel failed.
        """
        ids = {"next": [next_policy, next_override], "places": places}
        self._put(_HEADER, 0, {"build": build(), **ids})

    def next_ids(self) -> tuple[int, int, int]:
        """The policy's and the override's id that have not been used yet, and the place.

        Raises:
            Refused: another version of the agent made the records.
        """
        raw = self._map.get(_key(_HEADER, 0))
        if raw is None and not self.sites() and not self.policies():
            return 1, 1, 0  # killed before anything was done
        header = {} if raw is None else _unpacked(raw)
        if header.get("build") != build():
            raise Refused(
                "the pins were made by another version of the agent: let that one unload them"
            )
        policy, override = header["next"]
        return policy, override, header["places"]

    def add_site(self, site: SiteRecord) -> None:
        """Notes a function that is complete.

        Raises:
            BpfError: the kernel failed.
        """
        self._put(_SITE, site.id, asdict(site))

    def drop_site(self, number: int) -> None:
        """Forgets it."""
        self._map.delete(_key(_SITE, number))

    def add_policy(self, record: PolicyRecord) -> None:
        """Notes a policy, or whether it is enabled now.

        Raises:
            Refused: it is too long to be noted.
            BpfError: the kernel failed.
        """
        self._put(_POLICY, record.id, vars(record) | {"policy": record.policy.to_json()})

    def drop_policy(self, number: int) -> None:
        """Forgets it."""
        self._map.delete(_key(_POLICY, number))

    def sites(self) -> list[SiteRecord]:
        """All functions."""
        return [SiteRecord(**raw) for raw in self._all(_SITE)]

    def policies(self) -> list[PolicyRecord]:
        """All policies, in the order in which they were loaded."""
        found = [
            PolicyRecord(**raw | {"policy": Policy.from_json(raw["policy"])})
            for raw in self._all(_POLICY)
        ]
        return sorted(found, key=lambda record: record.id)

    def _put(self, kind: int, number: int, record: dict[str, Any]) -> None:
        raw = json.dumps(record).encode()
        if len(raw) > _SIZE:
            raise Refused(f"the policy takes {len(raw)} bytes, at most {_SIZE} can be pinned")
        self._map.set(_key(kind, number), raw.ljust(_SIZE, b"\0"))

    def _all(self, kind: int) -> Iterator[dict[str, Any]]:
        for key, raw in self._map.items():
            if int.from_bytes(key, sys.byteorder) >> 32 == kind:
                yield _unpacked(raw)


@functools.cache  # it is noted with each new id
def build() -> str:
    """What the programs and their maps are, and so who can go on with them."""
    names = "override", "sensor", "sensor_fentry", "filter", "ima", "send"
    files = (objects.path(name).read_bytes() for name in names)
    return hashlib.sha256(b"".join(files)).hexdigest()[:16]


def _unpacked(raw: bytes) -> dict[str, Any]:
    record: dict[str, Any] = json.loads(raw.rstrip(b"\0"))
    return record


def _key(kind: int, number: int) -> bytes:
    return (kind << 32 | number).to_bytes(8, sys.byteorder)
