# SPDX-License-Identifier: Apache-2.0
"""The table of rules in the kernel: what a sensor finds is what was said, after each change."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import replace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import seed as seeded
from hypothesis import strategies as st
from hypothesis.internal.conjecture import providers

from refagent import layout, tables
from refagent.errors import BpfError, Refused
from refagent.policy import Policy
from refagent.rules import Rule, Rules, key_of
from refagent.tables import Table
from tests.inside.things import policies_found, trie_in

NAMES = ("/", "/a", "/ab", "/a/b", "/a/b/c", "/b", "/" + "x" * 254)
PATHS = (*NAMES, "/a/", "/abc", None)
#: Beginnings of paths, whole ones, and the one of all calls.
KEYS = (
    *(Policy("", "", path=each) for each in NAMES),
    *(Policy("", "", prefix=each) for each in (*NAMES[:-1], "/a/", "/a/b/")),
    Policy("", ""),
)


def fits(policy: Policy, path: str | None) -> bool:
    """What docs/agent.md says of `path` and `prefix`."""
    if policy.path is None and policy.prefix is None:
        return True
    if path is None:
        return False
    return path == policy.path or (policy.prefix is not None and path.startswith(policy.prefix))


@contextlib.contextmanager
def no_rules() -> Iterator[Rules]:
    with contextlib.closing(Rules(Table())) as made:
        yield made


def test_what_fits_a_path_is_found_in_the_order_of_loading(
    sequences: int, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Else it reads all of our sources for their numbers: ten seconds under emulation.
    monkeypatch.setattr(providers, "is_local_module_file", lambda _path: False, raising=False)

    @seeded(seed)
    @settings(
        max_examples=max(10, sequences // 8),
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(st.lists(st.tuples(st.sampled_from(KEYS), st.booleans()), min_size=1, max_size=12))
    def check(changes: list[tuple[Policy, bool]]) -> None:
        there: dict[int, Policy] = {}
        with no_rules() as rules:
            for number, (policy, removes) in enumerate(changes, 1):
                old = next((each for each, had in there.items() if had == policy), None)
                if removes and old is not None:
                    rules.remove(key_of(policy), old)
                    del there[old]
                else:
                    rules.add(key_of(policy), Rule(number, 0))
                    there[number] = policy
                for path in PATHS:
                    wanted = [each for each, had in there.items() if fits(had, path)]
                    assert policies_found(rules.slot, path) == wanted

    check()


def test_a_prefix_reaches_all_of_many_paths_and_leaves_them_again() -> None:
    count = 200
    with no_rules() as rules:
        for number in range(1, count + 1):
            rules.add(key_of(Policy("", "", path=f"/a/{number}")), Rule(number, 0))
        over = key_of(Policy("", "", prefix="/a/"))
        for own in ([count + 1], []):
            if own:
                rules.add(over, Rule(count + 1, 0))
            else:
                rules.remove(over, count + 1)
            for number in range(1, count + 1):
                assert policies_found(rules.slot, f"/a/{number}") == [number, *own]
            assert policies_found(rules.slot, "/a/none") == own


def test_no_path_has_more_rules_than_a_sensor_looks_at() -> None:
    most = layout.RULES_PER_PATH
    whole, every = key_of(Policy("", "", path="/a")), key_of(Policy("", ""))
    with no_rules() as rules:
        for number in range(1, most):
            rules.add(whole, Rule(number, 0))
        rules.add(every, Rule(most, 0))
        for key in (whole, every):
            with pytest.raises(Refused, match="16 policies"):
                rules.add(key, Rule(most + 1, 0))
            assert policies_found(rules.slot, "/a") == list(range(1, most + 1))
            assert policies_found(rules.slot, "/b") == [most]
        rules.remove(whole, 1)
        rules.add(every, Rule(most + 1, 0))
        assert policies_found(rules.slot, "/a") == list(range(2, most + 2))


def test_a_change_that_the_kernel_has_no_room_for_changes_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(tables, "_TRIE", replace(tables._TRIE, max_entries=4))
    every = Policy("", "")
    with no_rules() as rules:
        for number in range(1, 5):
            rules.add(key_of(Policy("", "", path=f"/{number}")), Rule(number, 0))
        # One entry in place, and another table with one more.
        for policy in (Policy("", "", path="/5"), every):
            with pytest.raises(BpfError):
                rules.add(key_of(policy), Rule(5, 0))
            for number in range(1, 5):
                assert policies_found(rules.slot, f"/{number}") == [number]
            assert policies_found(rules.slot, "/5") == []
        rules.remove(key_of(Policy("", "", path="/1")), 1)
        rules.add(key_of(every), Rule(5, 0))
        assert policies_found(rules.slot, "/1") == [5]
        assert policies_found(rules.slot, "/2") == [2, 5]


@pytest.mark.parametrize("value", [bytes(layout.RULES_OF_PATH.size), None])
def test_what_cannot_be_waited_for_is_as_before(
    value: bytes | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The slot has no descriptor meanwhile: what is written to it is an error of the kernel's."""
    key, before = b"/a\0", b"\1".ljust(layout.RULES_OF_PATH.size, b"\0")
    with Table() as table, trie_in(table.slot) as trie:
        table.change({key: before})
        with monkeypatch.context() as lost:
            lost.setattr(table.slot, "fd", -1)
            with pytest.raises(BpfError):
                table.change({key: value})
        assert table.get(key) == trie.get(layout.prefix(key)) == before


def test_several_entries_change_at_once() -> None:
    """Another table takes the place of the old one, which a program may be reading still."""
    value = bytes(layout.RULES_OF_PATH.size)
    with Table() as table:
        table.change({b"/a\0": value})
        with trie_in(table.slot) as old:
            table.change({b"/a\0": None, b"/b\0": value, b"/c\0": value})
            assert old.get(layout.prefix(b"/a\0")) == value
            assert old.get(layout.prefix(b"/b\0")) is None
        with trie_in(table.slot) as new:
            assert new.get(layout.prefix(b"/a\0")) is None
            assert new.get(layout.prefix(b"/b\0")) == new.get(layout.prefix(b"/c\0")) == value
