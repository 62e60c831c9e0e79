# SPDX-License-Identifier: Apache-2.0
"""What a sensor finds for a path, against all rules that fit it."""

from __future__ import annotations

from typing import cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from refagent import layout
from refagent.errors import BpfError, Refused
from refagent.rules import Rule, Rules
from refagent.tables import Changes, Table


class Sensor:
    """Takes what is written to a table, and looks rules up in it as sensor.h does."""

    def __init__(self) -> None:
        self.raw: dict[bytes, bytes] = {}
        self.full = False
        self.rules = Rules(cast("Table", self))

    def change(self, changes: Changes) -> None:
        if self.full:
            raise BpfError("update map", 12, "no memory")
        after = {**self.raw, **changes}
        self.raw = {key: value for key, value in after.items() if value is not None}

    def finds(self, path: bytes) -> list[int]:
        """The policies of a path; of a call without one, of the empty one."""
        longest = max((each for each in self.raw if (path + b"\0").startswith(each)), default=None)
        if longest is None:
            return []
        count, _, plain = layout.RULES_OF_PATH.unpack(self.raw[longest])
        return [layout.RULE.unpack_from(plain, at * layout.RULE.size)[0] for at in range(count)]


def rule(policy: int) -> Rule:
    return Rule(policy, place=policy)


TEXTS = st.text("ab/", max_size=4).map(lambda text: f"/{text}".encode())
WHOLE = TEXTS.map(lambda text: text + b"\0")
KEYS = st.one_of(WHOLE, TEXTS, st.just(b""))


@given(st.lists(KEYS, max_size=15), st.lists(TEXTS, min_size=1))
def test_a_path_finds_all_rules_that_fit_it(keys: list[bytes], paths: list[bytes]) -> None:
    sensor = Sensor()
    there: dict[int, bytes] = {}

    def check() -> None:
        for path in [*paths, *(key.rstrip(b"\0") for key in there.values()), b""]:
            expected = [number for number, key in there.items() if (path + b"\0").startswith(key)]
            assert sensor.finds(path) == expected

    for number, key in enumerate(keys, 1):
        sensor.rules.add(key, rule(number))
        there[number] = key
        check()
    for number in sorted(there, key=lambda each: each % 3):
        sensor.rules.remove(there.pop(number), number)
        check()
    assert not sensor.raw


def test_too_many_that_fit_one_path_are_refused_and_change_nothing() -> None:
    sensor = Sensor()
    for number in range(1, 17):
        sensor.rules.add(b"/" + number * b"a", rule(number))
    before = dict(sensor.raw)
    for key in (
        b"",
        b"/aaa",
        b"/" + 17 * b"a",
        b"/" + 17 * b"a" + b"\0",
    ):
        with pytest.raises(Refused, match="16 policies"):
            sensor.rules.add(key, rule(17))
        assert sensor.raw == before
    sensor.rules.add(b"/aaa\0", rule(17))
    assert sensor.finds(b"/aaa") == [1, 2, 3, 17]


def test_what_the_kernel_has_no_memory_for_changes_nothing() -> None:
    sensor = Sensor()
    sensor.rules.add(b"/a\0", rule(1))
    sensor.full = True
    with pytest.raises(BpfError):
        sensor.rules.add(b"/", rule(2))
    assert sensor.finds(b"/a") == [1]
    sensor.full = False
    sensor.rules.add(b"/", rule(3))
    assert sensor.finds(b"/a") == [1, 3]
