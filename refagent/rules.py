# SPDX-License-Identifier: Apache-2.0
"""What a sensor knows of its policies: which rules fit a call's path."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from refagent import layout
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

    @property
    def overrides(self) -> bool:
        """Whether the function's override has work with it."""
        return bool(self.error) and not self.monitor

    def packed(self) -> bytes:
        """As a struct rule."""
        decides = bool(self.error or self.signal) and not self.monitor
        flags = layout.DECIDES * decides + layout.POSTS * self.post
        asked = []
        for wanted in (self.pid, self.uid, self.binary):
            asked += [0, 0] if wanted is None else [wanted, _ALL_ONES]
        return layout.RULE.pack(
            *(self.policy, self.place, -self.error, self.signal),
            *(flags, self.argument, *asked, self.value, self.value_mask),
        )


@dataclass(frozen=True)
class Key:
    """What a policy says about the path.

    Attributes:
        text: as the table of its kind has it.
        whole: whether it is a whole path, or the beginning of one.
    """

    text: bytes
    whole: bool

    @classmethod
    def of(cls, policy: Policy) -> Key:
        """A policy's key; without a path, it is the beginning of every one.

        Raises:
            Refused: no path of the kernel's could ever fit.
        """
        if policy.path is not None:
            return cls(layout.path_key(policy.path), whole=True)
        return cls(layout.prefix_text(policy.prefix or ""), whole=False)

    def covers(self, other: Key) -> bool:
        """Whether each path that fits the other fits this one."""
        return self == other or (not self.whole and other.text.startswith(self.text))


class Rules:
    """The rules of one function, in the two tables in which its sensor looks.

    It looks for the whole path first, then for the longest beginning, and takes what it
    finds: so each entry has all rules that fit, those of shorter beginnings too.

    Args:
        exact: an empty table, of whole paths; it and the next one belong to this object then.
        prefixes: an empty table, of beginnings.
    """

    def __init__(self, exact: Table, prefixes: Table) -> None:
        self._exact, self._prefixes = exact, prefixes
        self._own: dict[Key, tuple[Rule, ...]] = {}
        self._beginnings: set[Key] = set()  # those of them that are no whole paths

    @classmethod
    def empty(cls) -> Rules:
        """With tables in the kernel.

        Raises:
            BpfError: it did not make them; nothing is left.
        """
        with contextlib.ExitStack() as undo:
            exact = undo.enter_context(Table.exact())
            prefixes = undo.enter_context(Table.prefixes())
            undo.pop_all()
        return cls(exact, prefixes)

    @property
    def maps(self) -> Mapping[str, Map]:
        """The tables as the program knows them."""
        return {"exact": self._exact.slot, "prefixes": self._prefixes.slot}

    def add(self, key: Key, rule: Rule) -> None:
        """Adds a rule to a key.

        Raises:
            Refused: some path would have more rules than can be.
            BpfError: no memory.
            In both cases the rules are as before.
        """
        self._put(key, (*self._own.get(key, ()), rule))

    def remove(self, key: Key, policy: int) -> None:
        """Removes a policy's rule; returns when no program uses it any more."""
        self._put(key, tuple(rule for rule in self._own[key] if rule.policy != policy))

    def drain(self) -> None:
        """Returns when every (non-sleepable) program that runs now in the kernel has ended."""
        self._exact.drain()

    def close(self) -> None:
        """Gives the tables back; returns when the kernel has freed them."""
        try:
            self._exact.close()
        finally:
            self._prefixes.close()

    def _put(self, key: Key, rules: tuple[Rule, ...]) -> None:
        before = self._own.get(key, ())
        self._remember(key, rules)
        try:
            self._write(key)
        except BaseException:
            self._remember(key, before)
            raise

    def _remember(self, key: Key, rules: tuple[Rule, ...]) -> None:
        if rules:
            self._own[key] = rules
        else:
            self._own.pop(key, None)
        if not key.whole:
            (self._beginnings.add if rules else self._beginnings.discard)(key)

    def _write(self, changed: Key) -> None:
        keys = {changed, *(() if changed.whole else filter(changed.covers, self._own))}
        entries = {key: self._entry(key) for key in keys}
        for rules in entries.values():
            if len(rules) > layout.RULES_PER_PATH:
                raise Refused(
                    f"{layout.RULES_PER_PATH} policies of this function fit one path already"
                )
        exact, prefixes = (
            {key.text: _packed(rules) for key, rules in entries.items() if key.whole is whole}
            for whole in (True, False)
        )
        undo = self._exact.change(exact)
        try:
            self._prefixes.change(prefixes)
        except BaseException:
            self._exact.change(undo)
            raise

    def _entry(self, key: Key) -> list[Rule]:
        """All rules that fit; none where the key has none of its own, and needs no entry."""
        if key not in self._own:
            return []
        keys = {key, *(each for each in self._beginnings if each.covers(key))}
        return sorted(rule for each in keys for rule in self._own[each])


def _packed(rules: Sequence[Rule]) -> bytes | None:
    """A struct rules_of_path; None where there is nothing to be found."""
    plain = b"".join(rule.packed() for rule in rules)
    return layout.RULES_OF_PATH.pack(len(rules), 0, plain) if rules else None
