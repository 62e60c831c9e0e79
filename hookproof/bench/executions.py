# SPDX-License-Identifier: Apache-2.0
"""What an LSM hook's chain costs those who execute programs, measured in the guest.

It runs there, alone, and prints what it measured. The ways to execute take turns within each
round, so that what disturbs one disturbs all alike.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from hookproof.bench.tiny import program
from refagent.agent import Agent
from refagent.libbpf import census
from refagent.policy import Policy

#: Before the one line that counts.
RESULTS: Final = "hookproof-bench-executions "
#: Executions in a batch; their events fit into the buffer.
CALLS: Final = 200
_BATCHES: Final = 3
#: Bytes of the file that is hashed.
_SIZE: Final = 16 << 20

_HOOK: Final = "lsm/bprm_check_security"
_STATISTICS: Final = Path("/proc/sys/kernel/bpf_stats_enabled")


def measured(rounds: int) -> dict[str, list[float]]:
    """Name → nanoseconds, one of each batch or round; docs/results.md has the names.

    Raises:
        AgentError: the agent failed, or this kernel has no chain.
        RuntimeError: an execution did not give its event and its digest.
    """
    found: dict[str, list[float]] = {"none": [], "filter": [], "chain": []}
    hashes: dict[str, list[float]] = {"hash_chain": [], "hash_user": []}
    with tempfile.TemporaryDirectory(dir="/run") as name:
        folder = Path(name).resolve()
        tiny, large = program(folder / "tiny"), folder / "large"
        large.write_bytes(os.urandom(1 << 20) * (_SIZE >> 20))
        large.chmod(0o755)
        for number in range(rounds):
            place = number % len(found)
            for way in [*list(found)[place:], *list(found)[:place]]:
                found[way] += _executions(way, tiny)
            for way in sorted(hashes, reverse=bool(number % 2)):
                hashes[way] += _HASHES[way](large)
    return found | hashes


def _executions(way: str, tiny: Path) -> list[float]:
    """Nanoseconds of an execution, of each batch."""
    with _watched(way, tiny) as agent:
        times = []
        for _ in range(1 + _BATCHES):
            begun = time.monotonic_ns()
            for _ in range(CALLS):
                os.waitpid(os.posix_spawn(tiny, ["tiny"], {}), 0)
            times.append((time.monotonic_ns() - begun) / CALLS)
            count = len(agent.events()) if agent else 0
            if count != CALLS * (way == "chain"):
                raise RuntimeError(f"{CALLS} executions gave {count} events")
        return times[1:]  # the first warms up


@contextlib.contextmanager
def _watched(way: str, path: Path) -> Iterator[Agent | None]:
    """Nobody watches; or the filter finds that no policy is about the path; or one is."""
    if way == "none":
        yield None
        return
    with Agent() as agent:
        about = path if way == "chain" else path.with_name("none")
        agent.load(Policy(way, _HOOK, path=str(about), post=True, hash=True))
        yield agent


def _hash_chain(large: Path) -> list[float]:
    """By the kernel's own account of the program that may sleep, for each MiB."""
    with _watched("chain", large) as agent:
        (numbered,) = (each.id for each in census.programs() if each.name == "hpi_bprm_check")
        spent = [_spent(numbered)]
        _STATISTICS.write_text("1", encoding="ascii")
        try:
            with contextlib.suppress(OSError):  # it is no program, as the kernel finds out later
                os.posix_spawn(large, ["large"], {})
        finally:
            _STATISTICS.write_text("0", encoding="ascii")
        spent.append(_spent(numbered))
        digests = [each.hash for each in agent.events()] if agent else []
    if digests != [f"sha256:{_digest(large)}"]:
        raise RuntimeError(f"of one execution of a large file the digests are {digests}")
    return [(spent[1] - spent[0]) / (_SIZE >> 20)]


def _hash_user(large: Path) -> list[float]:
    """By this process, which reads the file as the kernel does, for each MiB."""
    begun = time.monotonic_ns()
    _digest(large)
    return [(time.monotonic_ns() - begun) / (_SIZE >> 20)]


_HASHES: Final = {"hash_chain": _hash_chain, "hash_user": _hash_user}


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _spent(number: int) -> int:
    """Nanoseconds that a program has run so far."""
    (found,) = (each for each in census.programs() if each.id == number)
    return found.run_time


def main() -> None:
    """In the guest: as many rounds as the first argument says."""
    print(RESULTS + json.dumps(measured(int(sys.argv[1]))), flush=True)
