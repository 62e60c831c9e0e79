# SPDX-License-Identifier: Apache-2.0
"""The line in which jobs wait: which comes next, and for whom."""

from __future__ import annotations

import threading
from dataclasses import replace

from hookproof.crew import Job, Line
from vm.kernel import Kernel, LocalSource

A, B = (Kernel(name, LocalSource(__file__)) for name in "ab")  # type: ignore[arg-type]
CASE = object()


def job(kernel: Kernel, *words: str) -> Job:
    return Job(kernel, words, (CASE,))  # type: ignore[arg-type]


def test_a_state_is_made_once_and_others_go_on_with_what_is_ready() -> None:
    line = Line()
    line.add([job(A), job(A), job(B), job(B)])
    assert line.take_ready() is None
    assert line.take() == Job(A, (), ())
    assert line.take() == Job(B, (), ()), "a second thread makes the same state"
    line.made(B.name, ())
    assert line.take() == job(B)
    line.made(A.name, ())
    assert [line.take_ready() for _ in range(4)] == [job(A), job(A), job(B), None]


def test_words_of_the_command_line_need_a_state_of_their_own() -> None:
    line = Line()
    line.add([job(A), job(A, "quiet")])
    assert line.take() == Job(A, (), ())
    line.made(A.name, ())
    assert line.take() == job(A)
    assert line.take() == Job(A, ("quiet",), ())


def test_a_machine_for_once_is_taken_without_a_state_after_what_is_ready() -> None:
    line = Line()
    once = replace(job(A, "quiet"), once=True)
    line.add([once, job(B)])
    line.made(B.name, ())
    assert line.take() == job(B)
    assert line.take_ready() is None, "it has no state that could be restored"
    assert line.take() == once


def test_whoever_waits_is_woken_by_a_state_by_more_jobs_and_by_the_end() -> None:
    line = Line()
    taken: list[Job | None] = []
    done = threading.Semaphore(0)

    def take() -> None:
        while True:
            taken.append(line.take())
            done.release()
            if taken[-1] is None:
                return

    thread = threading.Thread(target=take)
    thread.start()
    line.add([job(A)])
    assert done.acquire(timeout=10)
    line.made(A.name, ())
    assert done.acquire(timeout=10)
    line.close()
    assert done.acquire(timeout=10)
    thread.join(timeout=10)
    assert taken == [Job(A, (), ()), job(A), None]
    line.add([job(A)])
    assert line.take() is None
