# SPDX-License-Identifier: Apache-2.0
"""What is given back is waited for: at once, or together at the end."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator

import pytest

from refagent.errors import AgentError
from refagent.libbpf import ids
from refagent.libbpf._libbpf import lib
from refagent.libbpf.maps import Map, Shape

_SHAPE = Shape(lib.BPF_MAP_TYPE_ARRAY, 4, 4, 1)


class Held:
    """A map that somebody else still holds."""

    def __init__(self) -> None:
        with Map.create("held", _SHAPE) as made:
            self.id, self._fd = ids.map_id(made.fd), os.dup(made.fd)

    def let_go(self) -> None:
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)


@pytest.fixture
def held() -> Iterator[Held]:
    found = Held()
    yield found
    found.let_go()
    ids.wait_gone((), [found.id])


def test_one_that_stays_is_named(held: Held) -> None:
    with pytest.raises(AgentError, match=f"map {held.id} is still in the kernel after 0 s"):
        ids.wait_gone((), [held.id], deadline=0.05)


def test_together_it_is_waited_for_at_the_end(held: Held) -> None:
    with ids.together():
        ids.wait_gone((), [held.id], deadline=0)
        held.let_go()


def test_one_that_stays_is_named_at_the_end(held: Held) -> None:
    with pytest.raises(AgentError, match=f"map {held.id}"), ids.together(deadline=0.05):
        ids.wait_gone((), [held.id])


def test_who_waits_within_waits_at_once(held: Held) -> None:
    with ids.together():
        with pytest.raises(AgentError, match=f"map {held.id}"), ids.together(deadline=0.05):
            ids.wait_gone((), [held.id])
        held.let_go()


def test_another_thread_waits_for_itself(held: Held) -> None:
    failed: list[str] = []

    def wait() -> None:
        try:
            ids.wait_gone((), [held.id], deadline=0.05)
        except AgentError as error:
            failed.append(str(error))

    with ids.together():
        thread = threading.Thread(target=wait)
        thread.start()
        thread.join(30)
    assert [str(held.id) in each for each in failed] == [True]


def test_what_fails_meanwhile_is_said_and_all_is_waited_for(held: Held) -> None:
    def give_back() -> None:
        with ids.together(deadline=0.05):
            ids.wait_gone((), [held.id])
            raise OSError("no")

    with pytest.raises(AgentError, match=f"map {held.id}") as found:
        give_back()
    assert isinstance(found.value.__context__, OSError)
