# SPDX-License-Identifier: Apache-2.0
"""Lines of progress for a person who waits, beside what a command prints."""

from __future__ import annotations

import sys


def say(line: str) -> None:
    """Shows a line on standard error at once."""
    print(line, file=sys.stderr, flush=True)
