# SPDX-License-Identifier: Apache-2.0
"""What the tests of LSM chains share: whether there are any, their events, who sleeps in one."""

from __future__ import annotations

import ctypes
import functools
import hashlib
import mmap
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

import pytest

from refagent import inside, layout, probes
from refagent.agent import Agent
from refagent.events import Event
from refagent.libbpf import template
from refagent.libbpf.maps import Map
from refagent.policy import Policy

CHECK: Final = "lsm/bprm_check_security"
MAPPED: Final = "lsm/mmap_file"
NEEDS: Final = ("task_storage", "lsm_sleepable", "ima_file_hash")


def require_chains() -> None:
    """Skips where the kernel has no such chain, in the probes' words."""
    if why := no_chains():
        pytest.skip(why)


@functools.cache
def no_chains() -> str:
    """Why the kernel has none, or ''; what they leave open in this process is there then."""
    for answer in probes.run(NEEDS):
        if answer.answer != "yes":
            return f"{answer.name}: {answer.words}"
    with Agent() as agent:  # what stays: the programs, as they are prepared
        agent.load(Policy("warm", CHECK, path="/warm", post=True))
    template.prepare(inside.PROGRAM)
    return ""


def sha256(path: Path) -> str:
    return f"sha256:{hashlib.sha256(path.read_bytes()).hexdigest()}"


def until(agent: Agent, count: int) -> list[Event]:
    """That many events, or as many as came within a minute; and no further one."""
    found: list[Event] = []
    end = time.monotonic() + 60
    while len(found) < count and time.monotonic() < end:
        found += agent.events(0.2)
    return found + agent.events()


def wait(condition: Callable[[], bool], what: str) -> None:
    end = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < end, f"waited a minute in vain until {what}"
        time.sleep(0.005)


def asleep(chains: Map, count: int) -> bool:
    raw = chains.get(bytes(4))
    assert raw is not None
    hashing: int = sum(layout.CHAIN.unpack(raw)[4:6])
    return hashing == count


def map_it(path: Path) -> None:
    """By ctypes, which lets other threads run meanwhile; the module mmap does not."""
    libc = ctypes.CDLL(None)
    libc.mmap.restype = ctypes.c_void_p
    with path.open("rb") as file:
        size, private = mmap.PAGESIZE, mmap.MAP_PRIVATE
        place = libc.mmap(None, size, mmap.PROT_READ, private, file.fileno(), 0)
        libc.munmap(ctypes.c_void_p(place), size)
