# SPDX-License-Identifier: Apache-2.0
"""The reports of a run: JUnit, JSON, evidence folders, the table; see docs/results.md."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from hookproof.report.rows import KernelFacts, Row, Session, totals
from hookproof.report.table import table, totals_line

__all__ = ["KernelFacts", "Row", "Session", "table", "totals", "totals_line", "write"]


def write(results: Path, rows: Sequence[Row], session: Session) -> None:
    """Writes all reports of a run in the place of the last run's, all at once.

    Args:
        results: the folder; made with those above it.
        rows: in the order they ran.
        session: the run as a whole.

    Raises:
        UsageProblem: `results` is a file or somebody else's folder.
        HostProblem: the file system says no (full, read-only, …).
    """
    # Kept out of every start of pytest; a run without items needs none of it.
    from hookproof.report import evidence, junit, results_json
    from hookproof.report.place import replacing

    folders = evidence.folders(rows)
    with replacing(results) as fresh:
        for row, folder in zip(rows, folders, strict=True):
            evidence.write(fresh / folder, row)
        (fresh / "junit.xml").write_text(junit.document(rows, session), encoding="utf-8")
        text = results_json.document(rows, session, folders)
        (fresh / "results.json").write_text(text, encoding="utf-8")
