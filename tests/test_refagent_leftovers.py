# SPDX-License-Identifier: Apache-2.0
"""When an agent looks for entries of threads that have ended, and whose they are."""

from __future__ import annotations

import errno
import os
import threading
from typing import cast

import pytest

from refagent import layout, namespaces
from refagent.errors import BpfError
from refagent.leftovers import Leftovers
from refagent.libbpf.maps import Map
from refagent.shared import Counts


class Tasks:
    """Stands in for the map: a kernel's is in tests/inside."""

    def __init__(self, *threads: tuple[int, int, int]) -> None:
        keys = (layout.OVERRIDE_KEY.pack(pid << 32 | tid, 7, cpu) for pid, tid, cpu in threads)
        self.entries = dict.fromkeys(keys, b"")

    def items(self) -> list[tuple[bytes, bytes]]:
        return list(self.entries.items())

    def delete(self, key: bytes) -> bool:
        return self.entries.pop(key, None) is not None


def policies(*counts: Counts | None) -> dict[int, Counts]:
    return {policy: each for policy, each in enumerate(counts) if each is not None}


def denied_by_strangers(*calls: int) -> dict[int, Counts]:
    return policies(*(Counts(each + 9, 4, 5, 0) for each in calls))


def swept(tasks: Tasks, looks: Leftovers, counts: dict[int, Counts]) -> int:
    return looks.sweep(cast("Map", tasks), counts)


def test_it_looks_again_after_each_thousand_calls_that_strangers_deny() -> None:
    looks = Leftovers()
    assert not looks.due({})
    assert not looks.due(denied_by_strangers(1000, 23))
    assert looks.due(denied_by_strangers(1000, 24))
    swept(Tasks(), looks, denied_by_strangers(1000, 24))
    assert not looks.due(denied_by_strangers(1000, 24))
    assert not looks.due(denied_by_strangers(1500, 547))
    assert looks.due(denied_by_strangers(1500, 548))


def test_it_looks_when_a_call_was_lost() -> None:
    looks = Leftovers()
    assert not looks.due(policies(Counts(9, 9, 0, 0)))
    assert looks.due(policies(Counts(9, 8, 0, 1)))
    swept(Tasks(), looks, policies(Counts(9, 8, 0, 1)))
    assert not looks.due(policies(Counts(9, 8, 0, 1)))
    assert looks.due(policies(Counts(9, 7, 0, 2)))


def test_what_a_policy_counted_that_is_gone_hides_nothing_of_the_others() -> None:
    looks = Leftovers()
    swept(Tasks(), looks, policies(Counts(5000, 0, 0, 9), Counts(10, 0, 0, 0)))
    assert not looks.due(policies(None, Counts(10, 0, 0, 0)))
    assert looks.due(policies(None, Counts(10 + 1024, 0, 0, 0)))
    assert looks.due(policies(None, Counts(10, 0, 0, 1)))
    assert looks.due(policies(None, Counts(10, 0, 0, 0), Counts(1, 0, 0, 1)))


def test_a_moments_numbers_that_do_not_add_up_are_no_calls() -> None:
    assert Counts(5, 6, 0, 0).untaken == 0


def test_threads_that_live_and_processors_keep_theirs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(namespaces, "sees_all_tasks", lambda: True)
    me, nobody = os.getpid(), (1 << 22) + 1
    mine = me, threading.get_native_id(), 0
    tasks = Tasks(mine, (me, nobody, 0), (nobody, nobody, 0), (0, 0, 2))
    assert swept(tasks, Leftovers(), {}) == 2
    assert tasks.entries.keys() == Tasks(mine, (0, 0, 2)).entries.keys()


def test_elsewhere_than_in_the_first_pid_namespace_nobody_is_known_to_have_ended(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(namespaces, "sees_all_tasks", lambda: False)
    tasks = Tasks(((1 << 22) + 1, 1, 0))
    assert swept(tasks, Leftovers(), {}) == 0
    assert tasks.entries


def test_a_look_that_fails_is_due_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(namespaces, "sees_all_tasks", lambda: True)

    class Failing(Tasks):
        def items(self) -> list[tuple[bytes, bytes]]:
            raise BpfError("list map", errno.ENOMEM, "no memory")

    looks, counts = Leftovers(), policies(Counts(9, 8, 0, 1))
    with pytest.raises(BpfError):
        swept(Failing(), looks, counts)
    assert looks.due(counts)


def test_who_may_not_be_asked_about_lives(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(namespaces, "sees_all_tasks", lambda: True)

    def denied(_which: int, _who: int) -> int:
        raise PermissionError(errno.EPERM, "denied")

    monkeypatch.setattr(os, "getpriority", denied)
    assert swept(Tasks((7, 7, 0)), Leftovers(), {}) == 0
