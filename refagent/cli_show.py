# SPDX-License-Identifier: Apache-2.0
"""A daemon's answers as tables for people."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

#: The keys of a policy that say which calls it acts on, and those that say what it does.
_MATCHES: Final = ("path", "prefix", "binary", "pid", "uid")
_DOES: Final = ("override", "signal", "post", "hash", "monitor")


def policy_row(policy: Mapping[str, Any], enabled: bool) -> list[str]:
    """Name, hook, which calls, what is done, whether it is in effect."""
    does = [
        key if policy[key] is True else f"{key} {policy[key]}" for key in _DOES if key in policy
    ]
    return [
        policy["name"],
        policy["hook"],
        ", ".join(_matches(policy)) or "every call",
        ", ".join(does),
        "yes" if enabled else "no",
    ]


def _matches(policy: Mapping[str, Any]) -> Iterator[str]:
    for key in _MATCHES:
        if key in policy:
            of = f" (argument {policy['path_argument']})" if "path_argument" in policy else ""
            yield f"{key} {policy[key]}" + (of if key in {"path", "prefix"} else "")
    if "argument" in policy:
        bits = f" in {policy['value_bits']} bits" if "value_bits" in policy else ""
        yield f"argument {policy['argument']} is {policy['value']}{bits}"
    for key, which in (("digest_in", "one"), ("digest_not_in", "none")):
        if key in policy:
            yield f"digest is {which} of {len(policy[key])}"


def details(status: Mapping[str, Any]) -> Iterator[list[str]]:
    """A line for each thing that `status` says."""
    yield ["policies", ", ".join(status["policies"]) or "-"]
    yield ["disabled", ", ".join(status["disabled"]) or "-"]
    for function, how in status["functions"].items():
        sensor = f"a sensor and {how}" if how else "a sensor"
        yield [f"on {function}", "filter, ima and send" if function.startswith("lsm/") else sensor]
    for function, times in status["skipped"].items():
        yield [f"skipped on {function}", str(times)]
    for function, twin in status["uncovered"].items():
        yield [f"not covered by {function}", f"32-bit programs: {twin}"]
    for key, value in (status["totals"] | status).items():
        if isinstance(value, int):
            yield [key.replace("_", " "), str(value)]


def columns(rows: Sequence[Sequence[str]]) -> Iterator[str]:
    """The rows as lines with their cells under each other; what cannot be shown is escaped."""
    shown = [[printable(cell) for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(*shown, strict=True)]
    for row in shown:
        padded = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        yield "  ".join(padded).rstrip()


def printable(text: str) -> str:
    """The text on one line, without what a terminal would take for a command."""
    return "".join(each if each.isprintable() else ascii(each)[1:-1] for each in text)
