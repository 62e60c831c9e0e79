# SPDX-License-Identifier: Apache-2.0
"""The kernel modules that a guest inserts when it boots, as an archive of their own."""

from __future__ import annotations

import contextlib
import gzip
import io
import lzma
import tempfile
import zlib
from collections.abc import Callable, Collection, Iterable, Iterator
from pathlib import Path
from typing import Final

from vm import newc, run
from vm.errors import FetchProblem, HostProblem
from vm.kernel import Image

#: Where the guest's init looks for them; their names sort in the order of insertion.
FOLDER: Final = "/modules"

#: Module → why. What a kernel has built in, or lacks, is left out.
MODULES: Final = {
    "virtio_pci": "the bus on which the service's port is found",
    "virtio_console": "the service's port",
    "fuse": "scenarios hold a system call open in a file system of their own",
    "overlay": "scenarios name one file by several paths",
}
#: Without these no service answers.
_NEEDED: Final = ("virtio_pci", "virtio_console")


def archive(image: Image) -> bytes:
    """A cpio archive with the modules that a guest inserts; empty where there are none.

    Raises:
        HostProblem: modprobe or a decompressor is missing, or the kernel cannot have the
            service's port.
        FetchProblem: a module's file is damaged.
    """
    found = files(image, MODULES, needed=_NEEDED)
    if not found:
        return b""
    out = io.BytesIO()
    newc.write(
        (
            newc.file(f"{FOLDER}/{number:02}-{path.name.partition('.')[0]}.ko", _unpacked(path))
            for number, path in enumerate(found)
        ),
        out,
    )
    return out.getvalue()


def files(image: Image, names: Iterable[str], needed: Collection[str] = ()) -> list[Path]:
    """The files of modules and of what they depend on, in the order of insertion.

    Args:
        image: the kernel; one without modules has all that it has built in.
        names: the modules; those that are built in or not there are left out.
        needed: those of them that cannot be left out, but for being built in.

    Raises:
        HostProblem: modprobe is missing; or a needed module is neither built in nor there.
    """
    if image.modules is None:
        return []
    found: dict[Path, None] = {}
    with _folder(image.modules, image.release) as top:
        for name in names:
            said = run.run(
                ["modprobe", "-C", "/dev/null", "-d", top, "-S", image.release, "-D", name],
                timeout=60,
                ok=(0, 1),  # 1: it is not there
            ).stdout
            lines = [line.strip().partition(" ") for line in said.splitlines()]
            paths = [Path(path).resolve() for verb, _, path in lines if verb == "insmod"]
            # Without modules.builtin.modinfo, modprobe knows of none that is built in.
            if not paths and name in needed and name not in _built_in(image.modules):
                what = f"{image.release} has no {name}, neither built in nor as a module"
                raise HostProblem(
                    what, where=str(image.modules), hint="try the other kind of --machine"
                )
            found |= dict.fromkeys(paths)
    return [*found]


@contextlib.contextmanager
def _folder(modules: Path, release: str) -> Iterator[Path]:
    """A root folder with a kernel's modules where modprobe looks: one of two, by its build."""
    with tempfile.TemporaryDirectory(prefix="hookproof-") as name:
        top = Path(name)
        for place in (top / "lib" / "modules", top / "usr" / "lib" / "modules"):
            place.mkdir(parents=True)
            (place / release).symlink_to(modules.resolve())
        yield top


def _built_in(modules: Path) -> set[str]:
    try:
        text = (modules / "modules.builtin").read_text(encoding="utf-8")
    except FileNotFoundError:
        return set(_NEEDED)  # a local kernel's folder may lack the list; believe it
    return {Path(line).name.partition(".")[0].replace("-", "_") for line in text.splitlines()}


def _zstd(path: Path) -> bytes:
    """By the program: Python's own module for it is newer than the Python we ask for."""
    with run.reading(["zstd", "-dc", path], timeout=60, problem=FetchProblem) as pipe:
        return pipe.read()


#: How a module's file is packed → how to unpack it.
_UNPACK: Final[dict[str, Callable[[Path], bytes]]] = {
    ".ko": Path.read_bytes,
    ".gz": lambda path: gzip.decompress(path.read_bytes()),
    ".xz": lambda path: lzma.decompress(path.read_bytes()),
    ".zst": _zstd,
}


def _unpacked(path: Path) -> bytes:
    """A module's file as finit_module(2) takes it from any kernel.

    Raises:
        FetchProblem: it is damaged.
        HostProblem: the program that unpacks it is missing.
    """
    try:
        data = _UNPACK[path.suffix](path)
    except (OSError, EOFError, lzma.LZMAError, zlib.error) as error:
        raise FetchProblem(f"the module is damaged: {error}", where=str(path)) from None
    if not data.startswith(b"\x7fELF"):
        raise FetchProblem("the module is damaged: not an ELF file", where=str(path))
    return data
