# SPDX-License-Identifier: Apache-2.0
"""What the chain on an LSM hook costs executions on one kernel, and what its digests cost."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

from hookproof.bench import inguest
from hookproof.bench.setup import Setup
from hookproof.bench.spread import Spread
from hookproof.bench.table import Row


@dataclass(frozen=True)
class Chain:
    """Nanoseconds.

    Attributes:
        kernel: its name.
        none: of an execution without agent.
        filter: with an agent whose policies are about other files.
        chain: with one that gives the event and the digest.
        hash_chain: of the chain's program that has a file hashed, for each MiB.
        hash_user: of a process that reads and hashes it with OpenSSL's SHA-256, for each MiB.
    """

    kernel: str
    none: Spread
    filter: Spread
    chain: Spread
    hash_chain: Spread
    hash_user: Spread

    @property
    def ratios(self) -> dict[str, float]:
        """As docs/results.md has them."""
        return {
            "filter": self.filter.to(self.none),
            "chain": self.chain.to(self.none),
            "hash": self.hash_chain.to(self.hash_user),
        }

    def to_json(self) -> Any:
        """As docs/results.md has it, ratios first."""
        plain = asdict(self)
        return {"kernel": plain.pop("kernel"), "ratios": self.ratios, **plain}

    def rows(self) -> list[Row]:
        """Each number beside the one it is compared with."""
        alone = f"no agent {_microseconds(self.none)}"
        user = f"user space {_microseconds(self.hash_user)}"
        about = {
            "filter": ("an execution that no LSM policy is about", self.filter, alone),
            "chain": ("an execution with event and digest", self.chain, alone),
            "hash": ("the chain's digest of a file, per MiB", self.hash_chain, user),
        }
        return [
            Row(f"{self.kernel}: {what}", _microseconds(ours), beside, self.ratios[name])
            for name, (what, ours, beside) in about.items()
        ]


def measure(setup: Setup) -> Iterator[Chain]:
    """Measures in one machine; one result.

    Raises:
        Problem: the boot failed, or what runs in the guest did.
    """
    setup.say(f"{setup.one.name}: executions without an agent, with a filter, with all of a chain")
    raw = inguest.measured(setup, "executions")
    yield Chain(setup.one.name, **{name: Spread.of(values) for name, values in raw.items()})


def _microseconds(spread: Spread) -> str:
    found = spread.times(0.001)
    return f"{found.median:.0f} us ({found.least:.0f}-{found.most:.0f})"
