# SPDX-License-Identifier: Apache-2.0
"""What a sensor finds for a path, against all rules that fit it."""

from __future__ import annotations

from typing import cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from refagent import layout
from refagent.errors import BpfError, Refused
from refagent.rules import Key, Rule, Rules
from refagent.tables import Changes, Table


class Content:
    """Takes what is written to a table; the policies of each entry, in their order."""

    def __init__(self) -> None:
        self.raw: dict[bytes, bytes] = {}
        self.full = False

    def change(self, changes: Changes) -> Changes:
        if self.full and changes:
            raise BpfError("update map", 12, "no memory")
        before = {key: self.raw.get(key) for key in changes}
        after = {**self.raw, **changes}
        self.raw = {key: value for key, value in after.items() if value is not None}
        return before

    def policies(self, key: bytes) -> list[int]:
        count, _, plain = layout.RULES_OF_PATH.unpack(self.raw[key])
        return [layout.RULE.unpack_from(plain, at * layout.RULE.size)[0] for at in range(count)]


class Sensor:
    """Looks rules up as sensor.bpf.c does."""

    def __init__(self) -> None:
        self.exact, self.prefixes = Content(), Content()
        self.rules = Rules(cast("Table", self.exact), cast("Table", self.prefixes))

    def finds(self, path: bytes) -> list[int]:
        padded = path.ljust(layout.PATH_SIZE, b"\0")
        if padded in self.exact.raw:
            return self.exact.policies(padded)
        longest = max((each for each in self.prefixes.raw if path.startswith(each)), default=None)
        return [] if longest is None else self.prefixes.policies(longest)


def rule(policy: int) -> Rule:
    return Rule(policy, place=policy)


def whole(path: bytes) -> Key:
    return Key(path.ljust(layout.PATH_SIZE, b"\0"), whole=True)


def beginning(text: bytes) -> Key:
    return Key(text, whole=False)


def fits(key: Key, path: bytes) -> bool:
    return path == key.text.rstrip(b"\0") if key.whole else path.startswith(key.text)


TEXTS = st.text("ab/", max_size=4).map(lambda text: f"/{text}".encode())
KEYS = st.one_of(TEXTS.map(whole), TEXTS.map(beginning), st.just(beginning(b"")))


@given(st.lists(KEYS, max_size=15), st.lists(TEXTS, min_size=1))
def test_a_path_finds_all_rules_that_fit_it(keys: list[Key], paths: list[bytes]) -> None:
    sensor = Sensor()
    there: dict[int, Key] = {}

    def check() -> None:
        for path in [*paths, *(key.text.rstrip(b"\0") for key in there.values()), b""]:
            expected = [number for number, key in there.items() if fits(key, path)]
            assert sensor.finds(path) == expected

    for number, key in enumerate(keys, 1):
        sensor.rules.add(key, rule(number))
        there[number] = key
        check()
    for number in sorted(there, key=lambda each: each % 3):
        sensor.rules.remove(there.pop(number), number)
        check()
    assert not sensor.exact.raw
    assert not sensor.prefixes.raw


def test_too_many_that_fit_one_path_are_refused_and_change_nothing() -> None:
    sensor = Sensor()
    for number in range(1, 17):
        sensor.rules.add(beginning(b"/" + number * b"a"), rule(number))
    before = dict(sensor.prefixes.raw)
    for key in (
        beginning(b""),
        beginning(b"/aaa"),
        beginning(b"/" + 17 * b"a"),
        whole(b"/" + 17 * b"a"),
    ):
        with pytest.raises(Refused, match="16 policies"):
            sensor.rules.add(key, rule(17))
        assert sensor.prefixes.raw == before
        assert not sensor.exact.raw
    sensor.rules.add(whole(b"/aaa"), rule(17))
    assert sensor.finds(b"/aaa") == [1, 2, 3, 17]


def test_what_the_kernel_has_no_memory_for_changes_nothing() -> None:
    sensor = Sensor()
    sensor.rules.add(whole(b"/a"), rule(1))
    sensor.prefixes.full = True
    with pytest.raises(BpfError):
        sensor.rules.add(beginning(b"/"), rule(2))
    assert sensor.finds(b"/a") == [1]
    sensor.prefixes.full = False
    sensor.rules.add(beginning(b"/"), rule(3))
    assert sensor.finds(b"/a") == [1, 3]
