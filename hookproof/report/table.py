# SPDX-License-Identifier: Apache-2.0
"""The table at the end of a run: kernels across, scenarios down."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from os.path import commonpath

from hookproof.report.rows import Row, totals
from hookproof.verdict import Outcome

#: The word in a cell, and what it means; the order in which a cell names several.
WORDS: dict[Outcome, tuple[str, str]] = {
    Outcome.PANIC: ("PANIC", "the kernel died"),
    Outcome.SPLAT: ("SPLAT", "a report in the kernel's log"),
    Outcome.LEAK: ("LEAK", "something was left behind"),
    Outcome.FAIL: ("FAIL", "a step gave another result"),
    Outcome.HANG: ("HANG", "a step did not answer in time"),
    Outcome.BOOT: ("BOOT", "the machine did not boot"),
    Outcome.INFRA: ("INFRA", "the harness's own fault, or a lost machine"),
    Outcome.UNSUPPORTED: ("skip", "the kernel cannot do what the scenario needs"),
    Outcome.PASS: ("ok", "all as the scenario says"),
}
_NOT_RUN = "-"
_GAP = "  "


def table(rows: Sequence[Row], width: int = 100) -> str:
    """A text table, its legend and the totals.

    A cell stands for all choices of a scenario's parameters on one kernel: `ok`, `5 ok`,
    `1/5 FAIL` (one of five), `3 ok, 2 skip`. Kernels that do not fit into `width`
    columns follow in further blocks.
    """
    if not rows:
        return totals_line(rows)
    kernels = list(dict.fromkeys(row.kernel for row in rows))
    labels = _labels(rows)
    cells: dict[tuple[str, str], list[Outcome]] = {}
    for row in rows:
        cells.setdefault((labels[row.path.as_posix()], row.kernel), []).append(row.verdict.outcome)
    names = list(dict.fromkeys(labels.values()))
    text = {key: _cell(outcomes) for key, outcomes in cells.items()}
    first = max(map(len, names))
    columns = {
        kernel: max(len(kernel), *(len(text.get((name, kernel), _NOT_RUN)) for name in names))
        for kernel in kernels
    }
    blocks = [
        "\n".join(
            (first * " " if head else name.ljust(first))
            + "".join(
                _GAP
                + (kernel if head else text.get((name, kernel), _NOT_RUN)).ljust(columns[kernel])
                for kernel in some
            )
            for head, name in [(True, ""), *((False, name) for name in names)]
        )
        for some in _blocks(kernels, columns, width - first)
    ]
    lines = [line.rstrip() for line in "\n\n".join(blocks).split("\n")]
    return "\n".join([*lines, "", *_legend(rows), totals_line(rows)])


def totals_line(rows: Sequence[Row]) -> str:
    """`N passed, N failed, N errors, N skipped on K kernels`."""
    words = ", ".join(f"{count} {word}" for word, count in totals(rows).items())
    kernels = len({row.kernel for row in rows})
    return f"{words} on {kernels} kernel{'' if kernels == 1 else 's'}"


def _labels(rows: Sequence[Row]) -> dict[str, str]:
    """Each scenario's path → the path without what all have in common and without the ending."""
    paths = list(dict.fromkeys(row.path for row in rows))
    common = commonpath([path.parent for path in paths])
    return {path.as_posix(): path.relative_to(common).with_suffix("").as_posix() for path in paths}


def _cell(outcomes: Sequence[Outcome]) -> str:
    """What a cell says of all choices of the parameters."""
    total = len(outcomes)
    good = (Outcome.PASS, Outcome.UNSUPPORTED)
    bad = [
        word for outcome, (word, _) in WORDS.items() if outcome in outcomes if outcome not in good
    ]
    if bad:
        count = sum(outcome not in good for outcome in outcomes)
        return (f"{count}/{total} " if total > 1 else "") + ",".join(bad)
    if total == 1:
        return WORDS[outcomes[0]][0]
    return ", ".join(
        f"{outcomes.count(outcome)} {WORDS[outcome][0]}" for outcome in good if outcome in outcomes
    )


def _blocks(kernels: Sequence[str], columns: dict[str, int], room: int) -> list[Sequence[str]]:
    """Kernels cut into runs that fit; each run has at least one."""
    cuts, used = [0], 0
    for index, kernel in enumerate(kernels):
        needed = len(_GAP) + columns[kernel]
        if used and used + needed > room:
            cuts.append(index)
            used = 0
        used += needed
    return [kernels[start:end] for start, end in pairwise([*cuts, len(kernels)])]


def _legend(rows: Sequence[Row]) -> list[str]:
    """A line for each word that occurs, but for `ok`."""
    seen = {row.verdict.outcome for row in rows} - {Outcome.PASS}
    lines = [
        f"{word:5}  {meaning}" for outcome, (word, meaning) in WORDS.items() if outcome in seen
    ]
    return [*lines, ""] if lines else []
