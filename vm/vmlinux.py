# SPDX-License-Identifier: Apache-2.0
"""The kernel inside a bzImage, for QEMU to boot without having the guest unpack it.

Under software emulation the unpacking takes a third of a boot. QEMU starts an ELF kernel
by the way that was made for Xen's PVH guests, if a note in it names an entry for that
(Documentation/arch/x86/boot.rst; CONFIG_PVH, which Debian's kernels have). What differs
is that the unpacking stub also picks random addresses: the kernel lies where it was linked.

    CACHE/vmlinux/RELEASE-DIGEST/vmlinux      empty: this one has to be booted as it is
    CACHE/vmlinux/RELEASE-DIGEST/sha256       of that, compared before each use
"""

from __future__ import annotations

import bz2
import contextlib
import lzma
import os
import struct
import tempfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Final

from vm import manifest, run, store
from vm.errors import Problem
from vm.kernel import Image

Say = Callable[[str], None]

_NAME: Final = "vmlinux"
_DIGEST: Final = "sha256"
_LETTERS: Final = 16
#: Seconds after which one that was not booted goes when another is made: 60 MB each.
_KEPT: Final = 30 * 24 * 3600.0
#: Documentation/arch/x86/boot.rst, "The Real-Mode Kernel Header".
_SETUP_SECTORS: Final = 0x1F1  # u8, of 512 bytes, without the first; 0 means 4
_PAYLOAD: Final = 0x248  # two u32: where it starts behind the setup, and its length
#: The note XEN_ELFNOTE_PHYS32_ENTRY (include/xen/interface/elfnote.h): lengths of the
#: owner's name and of the entry's address, type, name.
_ENTRY_NOTES: Final = tuple(struct.pack("<III4s", 4, size, 18, b"Xen\0") for size in (4, 8))


def _zstd(packed: bytes) -> bytes:
    """By the program: Python's own module for it is newer than the Python we ask for.

    The build appends the unpacked size, which the program would take for damage.
    """
    with tempfile.NamedTemporaryFile(prefix="hookproof-") as file:
        file.write(packed[:-4])
        file.flush()
        with run.reading(["zstd", "-dcq", file.name], timeout=120) as pipe:
            return pipe.read()


#: How a payload begins → how it is unpacked. The others are rare.
_UNPACK: Final[dict[bytes, Callable[[bytes], bytes]]] = {
    b"\x28\xb5\x2f\xfd": _zstd,
    b"\xfd7zXZ\0": lambda packed: lzma.LZMADecompressor().decompress(packed),
    b"\x1f\x8b": lambda packed: zlib.decompressobj(wbits=31).decompress(packed),
    b"BZh": lambda packed: bz2.BZ2Decompressor().decompress(packed),
}


def bootable(image: Image, say: Say) -> Path:
    """What QEMU boots soonest: the kernel unpacked, or the image as it is where that can't be.

    Args:
        image: the kernel.
        say: is told what is done, and why something can't be.
    """
    try:
        place = store.folder("vmlinux") / f"{image.release}-{image.digest[:_LETTERS]}"
        if not _is_whole(place):
            with store.locked(store.lock_of(place), f"{image.release}: unpacking", say):
                if not _is_whole(place):  # another process may have made it while we waited
                    kernel = _unpacked(image.vmlinuz.read_bytes())
                    with store.replacing(place) as new:
                        (new / _NAME).write_bytes(kernel)
                        (new / _DIGEST).write_text(manifest.digest(new / _NAME), "ascii")
                    what = "unpacked for quicker boots" if kernel else "can only be booted packed"
                    say(f"{image.release}: {what}")
            store.expire("vmlinux", _KEPT)
        with contextlib.suppress(OSError):  # a cache that one may only read
            os.utime(place)
        found = place / _NAME
        return found if found.stat().st_size else image.vmlinuz
    except (Problem, OSError, EOFError, struct.error, lzma.LZMAError, zlib.error) as error:
        say(f"{image.release}: boots packed, which is slower: {error}")
        return image.vmlinuz


def _is_whole(place: Path) -> bool:
    try:
        return (place / _DIGEST).read_text("ascii") == manifest.digest(place / _NAME)
    except (OSError, ValueError):
        return False


def _unpacked(packed: bytes) -> bytes:
    """The kernel in a bzImage; empty if QEMU could not start it."""
    (start, length) = struct.unpack_from("<II", packed, _PAYLOAD)
    start += ((packed[_SETUP_SECTORS] or 4) + 1) * 512
    payload = packed[start : start + length]
    unpack = next((each for magic, each in _UNPACK.items() if payload.startswith(magic)), None)
    kernel = unpack(payload) if unpack else b""
    found = kernel.startswith(b"\x7fELF") and any(note in kernel for note in _ENTRY_NOTES)
    return kernel if found else b""
