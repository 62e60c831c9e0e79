# SPDX-License-Identifier: Apache-2.0
"""junit.xml: one suite per kernel, one case per row."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import PurePath
from typing import Any

from hookproof.report.evidence import steps
from hookproof.report.rows import KernelFacts, Row, Session
from hookproof.report.text import clean, shorten

#: Characters of a kernel log in the file; the whole is in the evidence folder. Readers
#: built on libxml2 refuse a text node of more than 10 million bytes.
LOG_LIMIT = 200_000


def document(rows: Sequence[Row], session: Session) -> str:
    """The file's text: suites in the session's order of kernels, cases in the rows' order."""
    # Kept out of every start of pytest. The package has no types.
    from junit_xml import TestSuite, to_xml_report_string  # type: ignore[import-untyped]

    known = {kernel.name: kernel for kernel in session.kernels}
    names = dict.fromkeys([*known, *(row.kernel for row in rows)])
    suites = [
        TestSuite(
            clean(name),
            [_case(row) for row in rows if row.kernel == name],
            timestamp=session.started.isoformat(timespec="seconds"),
            properties=_properties(known.get(name, KernelFacts(name)), session),
        )
        for name in names
        if any(row.kernel == name for row in rows)
    ]
    text: str = to_xml_report_string(suites, prettyprint=False, encoding="utf-8")
    return text


def _case(row: Row) -> Any:
    from junit_xml import TestCase

    verdict = row.verdict
    file, line = _place(row)
    case = TestCase(
        clean(row.name),
        classname=clean(".".join(row.path.with_suffix("").parts)),
        elapsed_sec=verdict.seconds,
        stdout=clean(shorten(verdict.kernel_log, LOG_LIMIT)),
        file=clean(file),
        line=line,
    )
    # The library leaves out a failure or an error that has neither message nor text.
    message = clean(verdict.reason).strip() or verdict.outcome.value
    word = verdict.outcome.value
    match row.mark:
        case "failure":
            case.add_failure_info(message, clean(steps(row)), word)
        case "error":
            case.add_error_info(message, clean(steps(row)), word)
        case "skipped":
            case.add_skipped_info(message)
    return case


def _place(row: Row) -> tuple[str, int | None]:
    """File and line of what went wrong, or the scenario's file."""
    file, _, rest = row.verdict.where.partition(":")
    line = rest.partition(":")[0]
    if PurePath(file).name == row.path.name and line.isdecimal():
        return row.path.as_posix(), int(line)
    return row.path.as_posix(), None


def _properties(kernel: KernelFacts, session: Session) -> dict[str, str]:
    facts = {
        "release": kernel.release,
        "version": kernel.version,
        "sha256": kernel.digest,
        "accel": session.accel,
    }
    return {key: clean(value) for key, value in facts.items() if value}
