# SPDX-License-Identifier: Apache-2.0
"""Finds the kernel's own reports of trouble in the text of its log, each one once.

A report begins with its head line (and the `cut here` or `=====` line right above it).
Oopses and warnings end with their end trace, sanitizers with another `=====`; the others
print no end and are over where nothing more looks like a trace, a register or a detail.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from vm.watch.lines import texts
from vm.watch.rules import FATAL, Allowance, Pattern, read_allowances, read_patterns

EXCERPT_LINES = 60

_HERE = Path(__file__).parent
_RULE = re.compile(r"={20,}\s*$")
_CUT = re.compile(r"-+\[ cut here \]-+")
_ENDS = re.compile(r"-+\[ end (?:trace|Kernel panic)\b")
#: What the inside of a report looks like, where it prints no end.
_INSIDE = re.compile(
    r"\s|\[<|$|[\w.]+\+0x|={20}|-{8}"
    r"|(?:R[A-Z0-9]{1,2}|EFLAGS|[CDEFGS]S|CR\d|DR\d|PKRU|Code|CPU|PGD|#PF|Oops|Modules linked in)\b"
    r"|(?:Hardware name|Call Trace|Workqueue|Tainted|Sending NMI|NMI backtrace|task:|rcu:|note:)"
    r"|(?:Kernel Offset|Rebooting in|Mem-Info|Node \d|DMA|Normal|Preemption disabled|[\d.]+-\S+ )"
    r"|(?:stack backtrace|other info|\w+ locks? held|but task|and this task|\S+/\d+ is)"
    r"|(?:irq event stamp|hardirqs last|softirqs last|Showing all locks)"
    r"|(?:Allocated by|Freed by|The buggy|Memory state|page|flags|raw|page dumped|\(t=|[<>]?ffff)"
)
_PAUSE = 3  # lines in a row that do not look like the inside: a report without end is over
_LOST = 40  # the same for one whose end trace should have come


@dataclass(frozen=True)
class Splat:
    """One report of the kernel's.

    Attributes:
        kind: as in `vm.watch.rules.KINDS`.
        name: of the pattern in patterns.toml.
        line_number: of the head line in the text, from 1.
        line: the head line's text, without time and id.
        excerpt: the report as printed, at most `EXCERPT_LINES` lines.
    """

    kind: str
    name: str
    line_number: int
    line: str
    excerpt: str

    def __str__(self) -> str:
        return f"{self.kind} ({self.name}): {self.line}"


@dataclass
class _Report:
    """A report while it is being read.

    Lines count from 0; `last` is included. `traced` says that an end trace will come.
    """

    pattern: Pattern
    rank: int
    start: int
    head: int
    text: str
    last: int
    traced: bool
    heads: list[tuple[Pattern, str]] = field(default_factory=list)
    ended: bool = False

    @property
    def kind(self) -> str:
        """The pattern's, but an oops stays an oops whatever names it (list corruption)."""
        kinds = (pattern.kind for pattern, _ in self.heads)
        return next((kind for kind in kinds if kind in FATAL), self.pattern.kind)


@dataclass(frozen=True)
class Watch:
    """The patterns and the allow list, compiled, for kernels of one release."""

    patterns: tuple[Pattern, ...]
    allowances: tuple[Allowance, ...]
    release: str
    _any: re.Pattern[str]

    @classmethod
    def load(
        cls,
        release: str = "",
        *,
        patterns: Path = _HERE / "patterns.toml",
        allow: Path = _HERE / "allow.toml",
    ) -> Watch:
        """Reads and checks the data files.

        Args:
            release: what `uname -r` says; without it only what is allowed on every
                kernel is allowed.
            patterns: another patterns.toml.
            allow: another allow.toml.

        Raises:
            UsageProblem: a data file is missing or wrong. A watch never works with less.
        """
        known = read_patterns(patterns)
        anything = re.compile("|".join(f"(?:{one.regex.pattern})" for one in known))
        return cls(known, read_allowances(allow, known), release, anything)

    def match(self, text: str) -> tuple[int, Pattern] | None:
        """The first pattern that one message (see `lines.texts`) is a head line of."""
        if not self._any.match(text):
            return None
        return next((i, one) for i, one in enumerate(self.patterns) if one.regex.match(text))

    def scan(self, text: str) -> tuple[Splat, ...]:
        """Every report in `text` that nothing allows, in the order of their head lines."""
        lines = text.split("\n")
        return tuple(
            Splat(
                report.kind,
                report.pattern.name,
                report.head + 1,
                report.text,
                _excerpt(lines[report.start : report.last + 1]),
            )
            for report in self._reports(lines)
            if not self._allowed(report)
        )

    def panicked(self, text: str) -> Splat | None:
        """The first panic or oops, after which a machine is not to be waited for."""
        return next((splat for splat in self.scan(text) if splat.kind in FATAL), None)

    def _allowed(self, report: _Report) -> bool:
        return report.kind not in FATAL and any(
            allowance.covers(pattern.name, text, self.release)
            for allowance in self.allowances
            for pattern, text in report.heads
        )

    def _reports(self, lines: list[str]) -> list[_Report]:
        """All reports, allowed or not."""
        found: list[_Report] = []
        opener, cut = -_PAUSE - 1, False  # where a report yet without a head line began
        idle = 0
        for number, text in _numbered(lines):
            still_open = [one for one in found[-4:] if not one.ended]
            hit = self.match(text)
            if hit:
                host = _host(still_open, hit[1])
                if host:
                    _fold(host, hit, number, text)
                else:
                    for one in still_open:
                        one.ended = one.ended or not one.traced or hit[1].kind == "panic"
                    fresh = number - opener <= _PAUSE
                    start = opener if fresh else number
                    found.append(_begin(hit, start, number, text, traced=fresh and cut))
                opener, idle = -_PAUSE - 1, 0
            elif _ENDS.match(text):
                for one in [one for one in still_open if one.traced][:1]:
                    one.last, one.ended = number, True
            elif _RULE.match(text) and still_open and still_open[-1].pattern.kind == "sanitizer":
                still_open[-1].last, still_open[-1].ended = number, True
            elif _RULE.match(text) or _CUT.match(text):
                opener, cut = number, _CUT.match(text) is not None
            elif still_open:
                idle = 0 if _INSIDE.match(text) else idle + 1
                if idle == 0:
                    still_open[-1].last = number
                elif idle > (_LOST if still_open[-1].traced else _PAUSE):
                    still_open[-1].ended = True
        return found


def _numbered(lines: list[str]) -> Iterator[tuple[int, str]]:
    """Each message with the number of its line, from 0; an empty line counts as one."""
    for number, line in enumerate(lines):
        for text in texts(line) or ("",):
            yield number, text


def _begin(hit: tuple[int, Pattern], start: int, head: int, text: str, *, traced: bool) -> _Report:
    rank, pattern = hit
    traced = traced or pattern.kind == "oops" or bool(pattern.companions)
    return _Report(pattern, rank, start, head, text, head, traced, [(pattern, text)])


def _host(still_open: list[_Report], pattern: Pattern) -> _Report | None:
    """The open report that a further head line belongs to."""
    for report in still_open:
        names = {known.name for known, _ in report.heads}
        if pattern.name not in names and names & pattern.companions:
            return report
    return None


def _fold(report: _Report, hit: tuple[int, Pattern], number: int, text: str) -> None:
    """Adds a head line to the report it belongs to; the more telling one names it."""
    rank, pattern = hit
    report.heads.append((pattern, text))
    report.last = number
    if rank < report.rank:
        report.pattern, report.rank, report.head, report.text = pattern, rank, number, text


def _excerpt(lines: list[str]) -> str:
    if len(lines) > EXCERPT_LINES:
        left_out = len(lines) - EXCERPT_LINES + 1
        keep = EXCERPT_LINES * 3 // 4
        note = f"[… {left_out} lines left out …]"
        lines = [*lines[:keep], note, *lines[keep + left_out :]]
    return "\n".join(line.rstrip("\r") for line in lines)
