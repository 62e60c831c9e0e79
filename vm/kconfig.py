# SPDX-License-Identifier: Apache-2.0
"""A kernel's configuration file (`/boot/config-RELEASE`, `.config`), and parts of one."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Final

from vm.errors import UsageProblem

_ASKED: Final = re.compile(r"(CONFIG_\w+)=(y|-?\d+|0x[0-9a-fA-F]+|\"[^\"]*\")")
_NOT_ASKED: Final = re.compile(r"# (CONFIG_\w+) is not set")
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


def asked(paths: Iterable[Path]) -> dict[str, str | None]:
    """The options that parts of a configuration ask for; a later part has the last word.

    Returns:
        Name → value as written, quotes included; None for an option that must not be set.

    Raises:
        UsageProblem: a part cannot be read or has a line that is none of a configuration's;
            as `FILE:LINE: what; next step`.
    """
    found: dict[str, str | None] = {}
    for path in paths:
        try:
            lines = path.read_text(encoding="utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise UsageProblem(f"cannot be read: {error}", where=str(path)) from None
        for number, line in enumerate(map(str.strip, lines), start=1):
            if match := _NOT_ASKED.fullmatch(line):
                found[match[1]] = None
            elif match := _ASKED.fullmatch(line):
                found[match[1]] = match[2]
            elif line and not line.startswith("#"):
                hint = "write CONFIG_NAME=y, a number or a quoted text, or # CONFIG_NAME is not set"
                hint += "; modules are not built" if line.endswith("=m") else ""
                what = f"'{line[:60]}' sets no option"
                raise UsageProblem(what, where=f"{path}:{number}", hint=hint)
    return found


def text(options: Mapping[str, str | None]) -> str:
    """Options as a file that the kernel's own configuration program reads."""
    lines = (
        f"# {name} is not set\n" if value is None else f"{name}={value}\n"
        for name, value in options.items()
    )
    return "".join(lines)


def unmet(options: Mapping[str, str | None], configuration: Mapping[str, str]) -> list[str]:
    """Which of the options are not as asked for in a configuration, such as `CONFIG_IMA=y`."""
    wanted = {name: value and value.strip('"') for name, value in options.items()}
    wrong = {name: options[name] for name in wanted if configuration.get(name) != wanted[name]}
    return text(wrong).splitlines()
