# SPDX-License-Identifier: Apache-2.0
"""results.json: the whole run for programs; every field is described in docs/results.md."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import PurePosixPath

from hookproof.report.evidence import facts
from hookproof.report.rows import Row, Session, totals
from hookproof.report.text import to_json

FORMAT = 1  # goes up when a field changes its meaning or goes away
TOOL = "hookproof"


def document(rows: Sequence[Row], session: Session, folders: Sequence[PurePosixPath]) -> str:
    """The file's text; `folders` holds each row's evidence folder, see `evidence.folders`."""
    return to_json(
        {
            "format": FORMAT,
            "tool": TOOL,
            "started": session.started.isoformat(timespec="seconds"),
            "seconds": round(session.seconds, 3),
            "host": {"cores": session.cores, "accel": session.accel},
            "kernels": [
                {
                    "name": kernel.name,
                    "release": kernel.release,
                    "version": kernel.version,
                    "sha256": kernel.digest,
                }
                for kernel in session.kernels
            ],
            "totals": totals(rows),
            "rows": [
                {**facts(row), "evidence": str(folder)}
                for row, folder in zip(rows, folders, strict=True)
            ],
        }
    )
