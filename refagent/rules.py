# SPDX-License-Identifier: Apache-2.0
"""What a sensor knows of its policies: which rules fit a call's path."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from refagent import layout
from refagent.digests import Digest
from refagent.errors import Refused
from refagent.libbpf.maps import Map
from refagent.policy import Policy
from refagent.tables import Table

_ALL_ONES = 2**32 - 1


@dataclass(frozen=True, order=True)
class Rule:
    """What one policy asks of a call and for; ordered by when it was loaded.

    Attributes:
        policy: an id never used again.
        place: where its calls are counted.
        error: positive, or 0 for none.
        signal: or 0 for none.
        post: whether a call gives an event.
        pid: the caller's, or None for any.
        uid: the caller's, or None for any.
        binary: the id of the caller's program, or None for any.
        argument: which argument `value` is about, from 0.
        value: as the register has it, 64 bits without a sign.
        value_mask: the bits of it that count.
        monitor: whether nothing is done about the calls.
        hash: whether its events are to have the file's digest.
        digests: of files; the call's is one of them.
        listed: or, if False, it is none of them.
    """

    policy: int
    place: int
    error: int = 0
    signal: int = 0
    post: bool = False
    pid: int | None = None
    uid: int | None = None
    binary: int | None = None
    argument: int = 0
    value: int = 0
    value_mask: int = 0
    monitor: bool = False
    hash: bool = False
    digests: tuple[Digest, ...] = ()
    listed: bool = True

    @property
    def overrides(self) -> bool:
        """Whether the function's override has work with it."""
        return bool(self.error) and not self.monitor

    def packed(self) -> bytes:
        """As a struct rule."""
        decides = bool(self.error or self.signal) and not self.monitor
        flags = layout.DECIDES * decides + layout.POSTS * self.post + layout.HASHES * self.hash
        if self.digests:
            flags += layout.LISTED if self.listed else layout.UNLISTED
        asked = []
        for wanted in (self.pid, self.uid, self.binary):
            asked += [0, 0] if wanted is None else [wanted, _ALL_ONES]
        return layout.RULE.pack(
            *(self.policy, self.place, -self.error, self.signal),
            *(flags, self.argument, *asked, self.value, self.value_mask),
        )


def key_of(policy: Policy) -> bytes:
    """The beginning of the paths that a policy is about; the empty one: of all, and of none.

    Raises:
        Refused: no path of the kernel's could ever begin so.
    """
    if policy.path is not None:
        return layout.path_text(policy.path)
    return layout.prefix_text(policy.prefix or "")


class Rules:
    """The rules of one function, in the table in which its sensor looks.

    The kernel finds the longest beginning that fits a path; so each entry has the rules of all
    shorter ones that are its own beginning.

    Args:
        table: empty; it belongs to this object then.
    """

    def __init__(self, table: Table) -> None:
        self._table = table
        self._own: dict[bytes, tuple[Rule, ...]] = {}
        self._open: set[bytes] = set()  # those keys that are no whole paths

    def restore(self, rules: Iterable[tuple[bytes, Rule]]) -> None:
        """Puts these in the place of what there was, between two calls.

        Raises:
            BpfError: no memory.
        """
        for key, rule in rules:
            self._remember(key, (*self._own.get(key, ()), rule))
        self._table.restore({key: _packed(self._entry(key)) for key in self._own})

    @property
    def slot(self) -> Map:
        """The table as the program knows it."""
        return self._table.slot

    def add(self, key: bytes, rule: Rule) -> None:
        """Adds a rule to a key.

        Raises:
            Refused: some path would have more rules than can be.
            BpfError: no memory.
            In both cases the rules are as before.
        """
        self._put(key, (*self._own.get(key, ()), rule))

    def remove(self, key: bytes, policy: int) -> None:
        """Removes a policy's rule; returns when no program uses it any more."""
        self._put(key, tuple(rule for rule in self._own[key] if rule.policy != policy))

    def clear(self) -> None:
        """Removes all; returns when no program uses one any more.

        Raises:
            BpfError: no memory or descriptor for another table; the rules are as before.
        """
        self._table.restore({})
        self._own.clear()
        self._open.clear()

    @contextlib.contextmanager
    def only(self, path: bytes, *rules: Rule) -> Iterator[None]:
        """While this lasts, of all rules these alone are about a path, which no policy names.

        Raises:
            BpfError: no memory.
        """
        before = self._table.get(path)
        self._table.change({path: _packed(rules)})
        try:
            yield
        finally:
            self._table.change({path: before})

    def drain(self) -> None:
        """Returns when every (non-sleepable) program that runs now in the kernel has ended."""
        self._table.drain()

    def leave(self) -> None:
        """Closes the table's descriptors and nothing else."""
        self._table.leave()

    def close(self) -> None:
        """Gives the table back; returns when the kernel has freed it."""
        self._table.close()

    def _put(self, key: bytes, rules: tuple[Rule, ...]) -> None:
        before = self._own.get(key, ())
        self._remember(key, rules)
        try:
            self._write(key)
        except BaseException:
            self._remember(key, before)
            raise

    def _remember(self, key: bytes, rules: tuple[Rule, ...]) -> None:
        if rules:
            self._own[key] = rules
        else:
            self._own.pop(key, None)
        if not key.endswith(b"\0"):
            (self._open.add if rules else self._open.discard)(key)

    def _write(self, changed: bytes) -> None:
        whole = changed.endswith(b"\0")
        longer = () if whole else (each for each in self._own if each.startswith(changed))
        entries = {key: self._entry(key) for key in {changed, *longer}}
        if max(map(len, entries.values())) > layout.RULES_PER_PATH:
            raise Refused(f"{layout.RULES_PER_PATH} policies of this function fit one path already")
        self._table.change(
            {key: _packed(rules) if rules else None for key, rules in entries.items()}
        )

    def _entry(self, key: bytes) -> list[Rule]:
        """All rules that fit; none where the key has none of its own, and needs no entry."""
        if key not in self._own:
            return []
        keys = {key, *filter(key.startswith, self._open)}
        return sorted(rule for each in keys for rule in self._own[each])


def _packed(rules: Sequence[Rule]) -> bytes:
    """A struct rules_of_path."""
    plain = b"".join(rule.packed() for rule in rules)
    return layout.RULES_OF_PATH.pack(len(rules), 0, plain)
