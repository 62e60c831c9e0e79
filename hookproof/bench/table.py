# SPDX-License-Identifier: Apache-2.0
"""What was measured, for people: a ratio, what it is about, ours, theirs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from hookproof.bench.peers import Lost
from hookproof.bench.spread import Costs, Spread

_HEAD = ("ratio", "what", "ours", "beside")


@dataclass(frozen=True)
class Row:
    """One comparison, or one number that nothing is compared with.

    Attributes:
        what: it is about.
        ours: the number with its extremes.
        beside: the same of what ours is compared with; may be empty.
        ratio: of the medians, ours to theirs.
    """

    what: str
    ours: str
    beside: str = ""
    ratio: float | None = None


def render(rows: Sequence[Row], lost: Sequence[Lost]) -> str:
    """The table, and below it what was not counted."""
    cells = [_HEAD, *((_ratio(row.ratio), row.what, row.ours, row.beside) for row in rows)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    lines = ["  ".join(map(str.ljust, line, widths)).rstrip() for line in cells]
    return "\n".join([*lines, *_footnote(lost)])


def seconds(spread: Spread) -> str:
    """`11.2 s (10.9-12.0)`, with as many digits as tell something."""
    digits = 1 if spread.median >= 10 else 2 if spread.median >= 0.5 else 3
    return f"{spread.median:.{digits}f} s ({spread.least:.{digits}f}-{spread.most:.{digits}f})"


def cost(costs: Costs) -> str:
    """Wall time with its extremes, and the processors' seconds."""
    return f"{seconds(costs.wall)}, CPU {costs.cpu.median:.1f} s"


def mebibytes(spread: Spread) -> str:
    """`412 MiB (401-430)`."""
    return f"{spread.median:.0f} MiB ({spread.least:.0f}-{spread.most:.0f})"


def _ratio(ratio: float | None) -> str:
    """Below a tenth as a fraction, which one can say."""
    if ratio is None:
        return ""
    return f"{ratio:.2f}" if ratio >= 0.1 else f"1/{1 / ratio:.0f}"


def _footnote(lost: Sequence[Lost]) -> list[str]:
    counts: dict[tuple[str, str], int] = {}
    for each in lost:
        counts[each.peer, each.kernel] = counts.get((each.peer, each.kernel), 0) + 1
    said = [f"{peer} on {kernel}: {count}" for (peer, kernel), count in counts.items()]
    if not said:
        return []
    return ["", f"Rounds repeated because the peer ended before its script: {', '.join(said)}."]
