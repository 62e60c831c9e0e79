# SPDX-License-Identifier: Apache-2.0
"""What events say of a call is what the function returned, as the kernel's own tracing saw it."""

from __future__ import annotations

import errno
import os
import re
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from refagent.agent import Agent
from refagent.policy import Policy
from tests.inside.things import error_of

MKDIR = "security_path_mkdir"
EVENT = "tests/returned"


@contextmanager
def returned(function: str, place: Path) -> Iterator[Callable[[], list[int]]]:
    """What a function returned to this thread, by a return probe of ftrace, which is no BPF."""
    place.mkdir()
    subprocess.run(["mount", "-t", "tracefs", "tracefs", place], check=True)
    event, probes = place / "events" / EVENT, place / "kprobe_events"
    try:
        append(probes, f"r:{EVENT} {function} value=$retval:s32\n")
        try:
            (event / "filter").write_text(f"common_pid == {threading.get_native_id()}")
            (event / "enable").write_text("1")
            yield lambda: [
                int(each) for each in re.findall(r"value=(-?\d+)", (place / "trace").read_text())
            ]
        finally:
            (event / "enable").write_text("0")
            append(probes, f"-:{EVENT}\n")
            (place / "trace").write_text("")
    finally:
        subprocess.run(["umount", place], check=True)


def append(path: Path, line: str) -> None:
    """Without a seek to the end, which tracefs refuses, and `open` in Python does."""
    fd = os.open(path, os.O_WRONLY | os.O_APPEND)
    try:
        os.write(fd, line.encode())
    finally:
        os.close(fd)


def test_an_event_has_the_value_that_the_function_returned(tmp_path: Path) -> None:
    places = {name: tmp_path / name for name in ("a", "b", "watched", "none")}
    for each in places.values():
        each.mkdir()
    # The probe is there before the override's program, and once more after it.
    for number in range(2):
        with Agent() as agent:
            if number:
                load(agent, places)
            with returned(MKDIR, tmp_path / f"trace-{number}") as values:
                if not number:
                    load(agent, places)
                given = [error_of(os.mkdir, each / f"{number}") for each in places.values()]
                assert given == [errno.EXDEV, 4095, 0, 0]
                assert values() == [-each for each in given]
            events = {each.path: each.override or 0 for each in agent.events()}
            assert events == {
                str(places["a"]): errno.EXDEV,
                str(places["b"]): 4095,
                str(places["watched"]): 0,
            }


def load(agent: Agent, places: dict[str, Path]) -> None:
    for name, error in (("a", errno.EXDEV), ("b", 4095), ("watched", None)):
        agent.load(Policy(name, MKDIR, path=str(places[name]), override=error, post=True))
