# SPDX-License-Identifier: Apache-2.0
"""A kernel's configuration file (`/boot/config-RELEASE`, `.config`)."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

_OPTION: Final = re.compile(r"^(CONFIG_\w+)=(.*)$", re.MULTILINE)


def read(path: Path | None) -> dict[str, str] | None:
    """The options that are set, such as `{"CONFIG_9P_FS": "m"}`; what is missing is not set.

    Values are as written: `y`, `m`, a number, or a text, whose quotes are taken off.

    Returns:
        None if there is no such file: then nothing is known, not even what is not set.
    """
    if path is None or not path.is_file():
        return None
    text = path.read_text(encoding="utf-8", errors="replace")
    return {name: value.strip('"') for name, value in _OPTION.findall(text)}
