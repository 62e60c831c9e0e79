# SPDX-License-Identifier: Apache-2.0
"""What both ends of the control socket know: where it is, and what a line may be."""

from __future__ import annotations

import json
from pathlib import Path
from typing import IO, Any, Final

CONTROL: Final = Path("/run/refagent/control.sock")
#: Bytes of a request, its newline included.
LONGEST: Final = 1 << 20


def encode(message: Any) -> bytes:
    """One line; text that is not valid is escaped, so that the line always is."""
    return json.dumps(message).encode() + b"\n"


def read_line(stream: IO[bytes]) -> bytes:
    """The next request, or nothing at the end of the stream.

    Raises:
        ValueError: it is longer than `LONGEST`; nothing after it can be understood.
    """
    line = stream.readline(LONGEST + 1)
    if len(line) > LONGEST:
        raise ValueError(f"a request has at most {LONGEST} bytes")
    return line
