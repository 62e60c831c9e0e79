# SPDX-License-Identifier: Apache-2.0
"""One folder per result with all that was seen, for a person who asks why."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from hookproof.report.rows import Row
from hookproof.report.text import safe_name, to_bytes, to_json

_OWN = frozenset({"verdict", "kernel", "console", "steps"})


def folders(rows: Sequence[Row]) -> list[PurePosixPath]:
    """Where each row's evidence goes: `evidence/KERNEL/SCENARIO[PARAMS]`, all different.

    The same row gets the same folder in every run with the same rows. Scenarios of one
    name in two places, and rows that ran more than once, are told apart by a suffix.
    """
    wanted = [(row.kernel, _title(row)) for row in rows]
    asked = Counter(_folded(*pair) for pair in wanted)
    used: set[tuple[str, str]] = set()
    found = []
    for row, (kernel, title) in zip(rows, wanted, strict=True):
        key = f"{row.kernel}\0{row.path}\0{row.id}"
        shared = asked[_folded(kernel, title)] > 1
        parent, base = safe_name(kernel, kernel), safe_name(title, key, taken=shared)
        name, turn = base, 1
        while _folded(parent, name) in used:
            turn += 1
            name = f"{base}.{turn}"
        used.add(_folded(parent, name))
        found.append(PurePosixPath("evidence", parent, name))
    return found


def write(folder: Path, row: Row) -> None:
    """Fills one row's folder; makes it and those above it."""
    folder.mkdir(parents=True)
    verdict = row.verdict
    (folder / "verdict.json").write_text(to_json(facts(row)), encoding="utf-8")
    (folder / "steps.txt").write_bytes(to_bytes(steps(row)))
    (folder / "kernel.log").write_bytes(to_bytes(verdict.kernel_log))
    if verdict.console:
        (folder / "console.log").write_bytes(to_bytes(verdict.console))
    taken = Counter(safe_name(name, name).casefold() for name in verdict.evidence)
    for name, value in verdict.evidence.items():
        plain = safe_name(name, name)
        shared = plain in _OWN or taken[plain.casefold()] > 1
        stem = safe_name(name, name, taken=shared)
        if isinstance(value, str):
            (folder / f"{stem}.txt").write_bytes(to_bytes(value))
        else:
            (folder / f"{stem}.json").write_text(to_json(value), encoding="utf-8")


def facts(row: Row) -> dict[str, Any]:
    """A row as results.json and verdict.json say it; see docs/results.md."""
    verdict = row.verdict
    return {
        "kernel": row.kernel,
        "scenario": row.scenario,
        "path": row.path.as_posix(),
        "params": dict(row.params),
        "id": row.id,
        "outcome": verdict.outcome.value,
        "mark": row.mark,
        "reason": verdict.reason,
        "where": verdict.where,
        "seconds": round(verdict.seconds, 3),
        "steps": [
            {
                "where": step.where,
                "text": step.text,
                "seconds": round(step.seconds, 3),
                "wrong": step.wrong,
            }
            for step in verdict.steps
        ],
    }


def steps(row: Row) -> str:
    """The steps that ran, a line each, and the reason at the end."""
    lines = [
        f"{'WRONG' if step.wrong else 'ok':5}  {step.seconds:8.3f} s  {step.where}  {step.text}"
        + (f"\n       {step.wrong}" if step.wrong else "")
        for step in row.verdict.steps
    ]
    reason = f": {row.verdict.reason}" if row.verdict.reason else ""
    return "\n".join([*lines, f"{row.verdict.outcome.value}{reason}", ""])


def _title(row: Row) -> str:
    params = "-".join(str(value) for value in row.params.values())
    return f"{row.scenario}[{params}]" if params else row.scenario


def _folded(kernel: str, title: str) -> tuple[str, str]:
    """Names that only differ in case would be one folder when unpacked on some systems."""
    return kernel.casefold(), title.casefold()
