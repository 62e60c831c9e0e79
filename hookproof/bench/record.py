# SPDX-License-Identifier: Apache-2.0
"""What was measured so far, in bench.json and as a table; docs/results.md has the fields."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any, Final, Protocol

from hookproof.bench import table
from hookproof.bench.peers import Lost
from hookproof.bench.table import Row
from vm import capacity, run
from vm.errors import HostProblem, Problem

FORMAT: Final = 2


class Result(Protocol):
    """What a part has measured so far."""

    def to_json(self) -> Any:
        """JSON values, ratios first."""

    def rows(self) -> list[Row]:
        """For people."""


class Record:
    """Keeps the results of all parts, and writes them whenever there is something new.

    Args:
        results: the folder; made with those above it.
        rounds: how often each thing is measured.
        accel: how machines run.
        lost: the peers' lost rounds, which grows.
    """

    def __init__(self, results: Path, rounds: int, accel: str, lost: Sequence[Lost]) -> None:
        self._place = results / "bench.json"
        self._lost = lost
        self._rows: dict[str, list[Row]] = {}
        self._parts: dict[str, Any] = {}
        self._errors: list[dict[str, str]] = []
        self._about = _about(rounds, accel)

    @property
    def whole(self) -> bool:
        """Whether nothing failed."""
        return not self._errors

    def keep(self, part: str, result: Result) -> None:
        """Puts a part's result in the place of what it had so far.

        Raises:
            HostProblem: the file system says no.
        """
        self._parts[part], self._rows[part] = result.to_json(), result.rows()
        self._write()

    def fail(self, part: str, problem: Problem) -> None:
        """Notes why a part could not be measured to its end.

        Raises:
            HostProblem: the file system says no.
        """
        self._errors.append({"part": part, "what": str(problem)})
        self._write()

    def table(self) -> str:
        """All parts' rows, and what was lost."""
        return table.render([row for rows in self._rows.values() for row in rows], self._lost)

    def _write(self) -> None:
        lost = [vars(each) for each in self._lost]
        facts = {**self._about, "lost": lost, "errors": self._errors, **self._parts}
        new = self._place.with_name(".bench.json.new")
        try:
            new.parent.mkdir(parents=True, exist_ok=True)
            new.write_text(json.dumps(facts, indent=2) + "\n", encoding="utf-8")
            new.replace(self._place)
        except OSError as error:
            where = str(self._place)
            raise HostProblem(f"cannot be written: {error.strerror}", where=where) from None


def _about(rounds: int, accel: str) -> dict[str, Any]:
    """What holds for all parts."""
    qemu = run.run(["qemu-system-x86_64", "--version"], timeout=60).stdout.splitlines()[0]
    return {
        "format": FORMAT,
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
        "host": {
            "cores": capacity.processors(),
            "memory": capacity.available(),
            "load": os.getloadavg()[0],
            "kernel": platform.release(),
            "accel": accel,
        },
        "versions": {"virtme-ng": metadata.version("virtme-ng"), "qemu": qemu.split()[3]},
        "rounds": rounds,
    }
