# SPDX-License-Identifier: Apache-2.0
"""What the bits of /proc/sys/kernel/tainted mean, and which of them are findings."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from vm.errors import UsageProblem


@dataclass(frozen=True)
class Taint:
    """One bit; `harmless` says why it is no finding, or is empty."""

    bit: int
    letter: str
    meaning: str
    harmless: str = ""

    def __str__(self) -> str:
        return f"{self.letter} ({self.meaning})"


_TABLE = Path(__file__).with_name("taints.toml")


@cache
def table(path: Path = _TABLE) -> tuple[Taint, ...]:
    """The bits that are known, in ascending order.

    Raises:
        UsageProblem: taints.toml is missing or wrong.
    """
    try:
        raw = tomllib.loads(path.read_text(encoding="utf-8"))
        return tuple(sorted((Taint(**entry) for entry in raw["taint"]), key=lambda one: one.bit))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UsageProblem(f"cannot be read: {error}", where=str(path)) from error


def taints(value: int) -> tuple[str, ...]:
    """Letter and meaning of each bit that is set, such as `W (kernel issued warning)`.

    A bit that the table does not know is named by its number.
    """
    return tuple(str(taint) for taint in _decode(value))


def new_taints(before: int, after: int) -> tuple[str, ...]:
    """As `taints`, for bits that came between two readings and are findings.

    A bit that the table does not know counts as one.
    """
    return tuple(str(taint) for taint in _decode(after & ~before) if not taint.harmless)


def _decode(value: int) -> list[Taint]:
    if value < 0:
        raise ValueError(f"a taint value is not negative: {value}")
    known = {taint.bit: taint for taint in table()}
    bits = [bit for bit in range(value.bit_length()) if value >> bit & 1]
    return [known.get(bit) or Taint(bit, f"bit {bit}", "unknown") for bit in bits]
