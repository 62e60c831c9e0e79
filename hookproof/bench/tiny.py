# SPDX-License-Identifier: Apache-2.0
"""A program that does nothing: what its execution costs is what executing costs."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Final

#: x86-64: mov edi, STATUS; mov eax, 60; syscall, which is exit(STATUS).
_CODE: Final = struct.Struct("<B i 7s")
_MOV_EDI: Final = 0xBF
_EXIT: Final = bytes.fromhex("b83c0000000f05")
_BASE: Final = 0x400000
_HEADERS: Final = 64 + 56


def program(path: Path, text: str = "", status: int = 0) -> Path:
    """Makes one for x86-64, of 132 bytes, without interpreter or library.

    Args:
        path: the file.
        text: more bytes, which are never run, to tell one from the other.
        status: that it exits with.
    """
    content = _CODE.pack(_MOV_EDI, status, _EXIT) + text.encode()
    size = _HEADERS + len(content)
    # elf(5): a header of ELFCLASS64 and ET_EXEC, and one segment, PT_LOAD, that is all of the file.
    header = struct.pack(
        "<16sHHIQQQIHHHHHH",
        *(b"\x7fELF\2\1\1", 2, 62, 1, _BASE + _HEADERS, 64, 0, 0, 64, 56, 1, 0, 0, 0),
    )
    segment = struct.pack("<IIQQQQQQ", 1, 5, 0, _BASE, _BASE, size, size, 0x1000)
    path.write_bytes(header + segment + content)
    path.chmod(0o755)
    return path
