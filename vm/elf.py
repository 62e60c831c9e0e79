# SPDX-License-Identifier: Apache-2.0
"""The host's programs and libraries, made ready for another root."""

from __future__ import annotations

import re
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import Final

from vm import run
from vm.errors import HostProblem

_TIMEOUT: Final = 120.0
_LIBC: Final = "libc.so.6"
#: Libraries that nothing names and the C library opens, beside itself → when.
_OPENED: Final = {"libgcc_s.so.1": "a thread ends early, such as Python's daemon threads at exit"}
#: A line of ldd: `NAME => FILE (ADDRESS)`, `NAME => not found`, or the loader's own `FILE
#: (ADDRESS)`. The kernel's vdso matches nothing: it has a name and no file.
_NEEDS: Final = re.compile(r"\s+(\S+) => (?:(/.+) \(0x\w+\)|(not found))|\s+(/.+) \(0x\w+\)")


def libraries(files: Sequence[str]) -> dict[str, str]:
    """What the dynamic linker loads for some programs and libraries.

    All go into the folder where the host has its C library: the linker looks there
    unasked, whatever folders of the host it was told of when these were built.

    Args:
        files: ELF files; those linked statically add nothing.

    Returns:
        Place in the guest → file of the host.

    Raises:
        HostProblem: ldd is missing, or a library is.
    """
    found: dict[str, str] = {}
    loader = current = ""
    # This Python, too: the C library is always among the answers, and ldd names each file
    # only where there are several.
    said = run.run(["ldd", sys.executable, *files], timeout=_TIMEOUT, ok=(0, 1)).stdout
    for line in said.splitlines():
        match = _NEEDS.match(line)
        if match is None:
            current = current if line.startswith("\t") else line.rstrip(":")
        elif match[3]:
            what = f"{match[1]}, which {current} needs, is not on this host"
            raise HostProblem(what, hint="install the package it comes from")
        elif match[4]:
            loader = match[4]
        else:
            found.setdefault(match[1], match[2])
    if _LIBC not in found or not loader:
        raise HostProblem(f"ldd finds no {_LIBC} for {sys.executable}", hint="use a glibc host")
    beside = Path(found[_LIBC]).parent
    found |= {name: str(beside / name) for name in _OPENED if (beside / name).exists()}
    folder = PurePosixPath(beside)
    return {loader: loader} | {str(folder / name): path for name, path in found.items()}


def portable(files: Sequence[str]) -> list[bytes]:
    """The contents of ELF files without debug information and the folders of this Python.

    Raises:
        HostProblem: strip is missing or failed.
        OSError: a file cannot be read.
    """
    contents = [Path(name).read_bytes() for name in files]
    with tempfile.TemporaryDirectory(prefix="hookproof-") as folder:
        # Only where there is something to take: strip can damage what patchelf has changed.
        copies = {
            number: Path(folder) / str(number)
            for number, content in enumerate(contents)
            if b"\0.debug_info\0" in content
        }
        for number, copy in copies.items():
            copy.write_bytes(contents[number])
        if copies:
            run.run(["strip", "--strip-debug", *copies.values()], timeout=_TIMEOUT)
        for number, copy in copies.items():
            contents[number] = copy.read_bytes()
    return [_anonymous(content) for content in contents]


def _anonymous(content: bytes) -> bytes:
    """Blanks the folders above the one in which this Python was installed.

    Its path is in the interpreter, as the last resort for finding the standard library, and
    in the linker's search path; the guest needs neither. The length has to stay, and so
    has the path's last part: linkers let a string that ends another share its bytes, and
    `3.11.7` at the end of pyenv's folder is also this Python's version.
    """
    for prefix in {sys.base_prefix, sys.base_exec_prefix, str(Path(sys.base_prefix).resolve())}:
        above, slash, last = prefix.rpartition("/")
        if above not in {"", "/usr"}:
            blank = "/" * len(above) + slash + last
            content = content.replace(prefix.encode(), blank.encode())
    return content
