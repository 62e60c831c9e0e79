# SPDX-License-Identifier: Apache-2.0
"""The output of a command: all of it is written, or it is said why it cannot be."""

from __future__ import annotations

import contextlib
import io
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from refagent.errors import AgentError


class Unwritable(AgentError):  # noqa: N818
    """What a command prints cannot be written where it should go."""


class _Output(io.FileIO):
    """Standard output, whose errors cannot be taken for those of another file."""

    def write(self, data: Any, /) -> int:
        try:
            return super().write(data)
        except BrokenPipeError:
            raise
        except OSError as failure:
            raise Unwritable(f"standard output: {failure.strerror}") from None


@contextlib.contextmanager
def written() -> Iterator[None]:
    """All that is printed in it is written at its end; a closed output is /dev/null.

    Raises:
        BrokenPipeError: who read it (head, less) has seen enough.
        Unwritable: it cannot be written, and why.
    """
    if sys.stdout is None:
        # Takes descriptor 1, which would be the next socket's.
        sys.stdout = Path(os.devnull).open("w", encoding="utf-8")  # noqa: SIM115  it stays open
    before = sys.stdout
    buffer = getattr(before, "buffer", None)
    # With PYTHONUNBUFFERED there is none, and what looks like one is the file.
    if isinstance(getattr(buffer, "raw", buffer), io.FileIO):
        sys.stdout = _told(before)
    try:
        yield
        sys.stdout.flush()
    except (BrokenPipeError, Unwritable):
        # What is still buffered goes nowhere, or Python complains once more at its end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise
    finally:
        sys.stdout = before


def _told(before: Any) -> io.TextIOWrapper:
    return io.TextIOWrapper(
        io.BufferedWriter(_Output(before.fileno(), "w", closefd=False)),
        encoding=before.encoding,
        errors=before.errors,
        line_buffering=before.line_buffering or before.write_through,
    )
