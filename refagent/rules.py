# SPDX-License-Identifier: Apache-2.0
"""What a sensor knows of a policy, and the tables in which it looks that up by a call's path."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from refagent import layout
from refagent.errors import BpfError, Refused
from refagent.libbpf import ids
from refagent.libbpf._libbpf import lib
from refagent.libbpf.maps import Map, Shape

_SLOT: Final = bytes(4)
_ONE_MAP: Final = Shape(lib.BPF_MAP_TYPE_ARRAY_OF_MAPS, 4, 4, 1)
_FIRST_ROOM: Final = 64
_ALL_ONES: Final = 2**32 - 1


@dataclass(frozen=True, order=True)
class Rule:
    """What one policy asks of a call and for; ordered by when it was loaded.

    Attributes:
        policy: an id never used again.
        place: where its calls are counted.
        error: positive, or 0 for none.
        signal: or 0 for none.
        pid: the caller's, or None for any.
        uid: the caller's, or None for any.
        binary: the id of the caller's program, or None for any.
        monitor: whether it only counts.
    """

    policy: int
    place: int
    error: int = 0
    signal: int = 0
    pid: int | None = None
    uid: int | None = None
    binary: int | None = None
    monitor: bool = False

    @property
    def overrides(self) -> bool:
        """Whether the function's override program has work with it."""
        return bool(self.error) and not self.monitor

    def packed(self) -> bytes:
        """As a struct rule."""
        asked = []
        for wanted in (self.pid, self.uid, self.binary):
            asked += [0, 0] if wanted is None else [wanted, _ALL_ONES]
        return layout.RULE.pack(
            self.policy, self.place, -self.error, self.signal, self.monitor, *asked, 0
        )


def packed(rules: Sequence[Rule]) -> bytes:
    """A path's rules as a struct rules_of_path."""
    plain = b"".join(rule.packed() for rule in rules)
    return layout.RULES_OF_PATH.pack(len(rules), 0, plain)


def _checked(rules: Sequence[Rule]) -> Sequence[Rule]:
    if len(rules) > layout.RULES_PER_PATH:
        raise Refused(f"{layout.RULES_PER_PATH} policies of this function fit this path already")
    return rules


class ExactRules:
    """Rules by a whole path, in a table that grows.

    The table is in a map of maps, so that a larger one can take its place between two calls.

    Attributes:
        slot: that map of maps, for the program.

    Raises:
        BpfError: the kernel did not make them; nothing is left.
    """

    def __init__(self) -> None:
        self._rules: dict[bytes, list[Rule]] = {}
        self._room = _FIRST_ROOM
        with contextlib.ExitStack() as undo:
            self._table = undo.enter_context(_table(_FIRST_ROOM))
            self.slot = undo.enter_context(Map.create("policies", _ONE_MAP, self._table))
            self._put_in_place()
            undo.pop_all()

    def add(self, key: bytes, rule: Rule) -> None:
        """Adds a rule to a key.

        Raises:
            Refused: the key has as many as can be.
            BpfError: no memory.
            In both cases the rules are as before.
        """
        wanted = _checked(sorted([*self._rules.get(key, []), rule]))
        if key not in self._rules and len(self._rules) == self._room:
            self._grow()
        self._table.set(key, packed(wanted))
        self._rules[key] = list(wanted)

    def remove(self, key: bytes, policy: int) -> None:
        """Removes a policy's rule; a program that runs may still use it until `drain`."""
        left = [rule for rule in self._rules[key] if rule.policy != policy]
        if left:
            self._table.set(key, packed(left))
            self._rules[key] = left
        else:
            self._table.delete(key)
            del self._rules[key]

    def drain(self) -> None:
        """Returns when every (non-sleepable) program that runs now in the kernel has ended.

        Writing to a map of maps waits for that: maybe_wait_bpf_programs() in the kernel's
        kernel/bpf/syscall.c calls synchronize_rcu(), since 1ae80cf31938 (4.20).
        membarrier() would do the same, but not on a machine with one CPU.
        """
        self._put_in_place()

    def close(self) -> None:
        """Gives the maps back; returns when the kernel has freed them."""
        maps = (self._table, self.slot)
        numbers = [ids.map_id(each.fd) for each in maps]
        for each in maps:
            each.close()
        ids.wait_gone((), numbers)

    def _grow(self) -> None:
        """Puts a table of twice the room in the full one's place; no call sees less than all."""
        full, larger = self._table, _table(2 * self._room)
        try:
            for key, rules in self._rules.items():
                larger.set(key, packed(rules))
            self._table = larger
            self._put_in_place()
        except BaseException:
            self._table = full
            larger.close()
            raise
        self._room *= 2
        full.close()

    def _put_in_place(self) -> None:
        self.slot.set(_SLOT, self._table.fd.to_bytes(4, sys.byteorder))


def _table(room: int) -> Map:
    return Map.hash("rules", layout.PATH_SIZE, layout.RULES_OF_PATH.size, room)


class PrefixRules:
    """Rules by the beginning of a path.

    The kernel's trie finds the longest beginning that fits; so each has the rules of all
    shorter ones that are its own beginning.

    Args:
        trie: the program's map, empty.
    """

    def __init__(self, trie: Map) -> None:
        self._trie = trie
        self._rules: dict[bytes, list[Rule]] = {}

    def add(self, prefix: bytes, rule: Rule) -> None:
        """Adds a rule to a beginning.

        Raises:
            Refused: as many fit already; the rules are as before.
            BpfError: no memory; the rules are as before.
        """
        wanted = {**self._rules, prefix: [*self._rules.get(prefix, []), rule]}
        changed = {each: _checked(_all(wanted, each)) for each in _longer(wanted, prefix)}
        self._rules = wanted
        try:
            for each, rules in changed.items():
                self._trie.set(layout.prefix(each), packed(rules))
        except BpfError:
            self.remove(prefix, rule.policy)
            raise

    def remove(self, prefix: bytes, policy: int) -> None:
        """Removes a policy's rule; a program that runs may still use it."""
        left = [rule for rule in self._rules[prefix] if rule.policy != policy]
        wanted = {**self._rules, prefix: left}
        if not left:
            del wanted[prefix]
            self._trie.delete(layout.prefix(prefix))
        self._rules = wanted
        for each in _longer(wanted, prefix):
            self._trie.set(layout.prefix(each), packed(_all(wanted, each)))


def _longer(rules: Mapping[bytes, Sequence[Rule]], prefix: bytes) -> list[bytes]:
    """A prefix and those that begin with it."""
    return [each for each in rules if each.startswith(prefix)]


def _all(rules: Mapping[bytes, Sequence[Rule]], prefix: bytes) -> list[Rule]:
    """The rules of a prefix and of those that it begins with."""
    return sorted(rule for each, own in rules.items() if prefix.startswith(each) for rule in own)
