# SPDX-License-Identifier: Apache-2.0
"""What a bootable x86 kernel image says about itself.

Offsets from the kernel's Documentation/arch/x86/boot.rst, "The Real-Mode Kernel Header".
"""

from __future__ import annotations

import os
import struct
from pathlib import Path

from vm.errors import UsageProblem

_SETUP_SECTORS = 0x1F1  # u8, of 512 bytes, without the first; 0 means 4
_SYSTEM_SIZE = 0x1F4  # u32, in units of 16 bytes: what follows the setup
_BOOT_FLAG = (0x1FE, b"\x55\xaa")
_MAGIC = (0x202, b"HdrS")
_VERSION_POINTER = 0x20E  # u16, plus 0x200: where the version string starts
_LOAD_FLAGS = 0x236  # u16
_KERNEL_64 = 1
_HEADER_END = 0x238
_LONGEST = 256


def release(path: Path, where: str = "") -> str:
    """The release a kernel image will report, such as `6.12.107+deb13-amd64`.

    Args:
        path: the image.
        where: what to blame; the image itself if left out.

    Raises:
        UsageProblem: the file cannot be read, is no x86-64 kernel image, is not whole,
            or names no release.
    """
    where = where or str(path)
    try:
        with path.open("rb") as file:
            head = file.read(0x10000)
            size = os.fstat(file.fileno()).st_size
    except OSError as error:
        raise UsageProblem(f"{path} cannot be read: {error.strerror}", where=where) from None
    if head.startswith(b"\x7fELF"):
        hint = "give the compressed image, arch/x86/boot/bzImage in the kernel's build tree"
        raise UsageProblem(
            f"{path} is an ELF file and no x86 Linux kernel image", where=where, hint=hint
        )
    marks = all(head[at : at + len(mark)] == mark for at, mark in (_BOOT_FLAG, _MAGIC))
    if not marks or len(head) < _HEADER_END:
        hint = "give a bzImage, or /boot/vmlinuz-RELEASE"
        raise UsageProblem(f"{path} is no x86 Linux kernel image", where=where, hint=hint)
    (flags,) = struct.unpack_from("<H", head, _LOAD_FLAGS)
    if not flags & _KERNEL_64:
        raise UsageProblem(f"{path} is a 32-bit kernel", where=where, hint="give a 64-bit one")
    (units,) = struct.unpack_from("<I", head, _SYSTEM_SIZE)
    whole = ((head[_SETUP_SECTORS] or 4) + 1) * 512 + units * 16
    if size < whole:
        what = f"{path} is cut short: {size} bytes, and its header says {whole}"
        raise UsageProblem(what, where=where, hint="copy or build it again")
    (pointer,) = struct.unpack_from("<H", head, _VERSION_POINTER)
    words = head[pointer + 0x200 :][:_LONGEST].split(b"\0")[0].split() if pointer else []
    text = words[0].decode("ascii", "replace") if words else ""
    # It becomes a folder's name.
    if not text[:1].isdigit() or not all(c.isalnum() or c in "._+~-" for c in text):
        raise UsageProblem(f"{path} names no release", where=where, hint="build it again")
    return text
