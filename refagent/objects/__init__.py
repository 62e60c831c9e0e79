# SPDX-License-Identifier: Apache-2.0
"""The compiled BPF objects: where they lie, and how they follow their sources.

A wheel carries them as package data. In a source checkout `refresh` compiles
those whose source, headers or command changed: by content, so that switching
branches or restoring a file neither misses a change nor invents one.

The agent only needs `path`, in guests where each imported module costs some 20 ms:
what compiling needs is imported when something is compiled.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from refagent.errors import BuildFailed

DIRECTORY = Path(__file__).resolve().parent

#: The sources of a checkout; a wheel has none.
SOURCES = DIRECTORY.parent.parent / "bpf"

#: Debian 12 has clang 14 as `clang` or only as `clang-14`; newer ones will do.
_VERSIONS = ("", *(f"-{number}" for number in range(22, 13, -1)))

FLAGS = ("-target", "bpf", "-O2", "-g", "-Wall", "-Werror", "-mcpu=v3")


def path(name: str) -> Path:
    """The object compiled from `bpf/NAME.bpf.c`.

    Raises:
        BuildFailed: it has not been compiled.
    """
    found = DIRECTORY / f"{name}.bpf.o"
    if not found.is_file():
        raise BuildFailed(f"{found} is missing; run `python -m refagent.objects`")
    return found


def compile_all(source_dir: Path, out_dir: Path) -> list[Path]:
    """Compiles every `*.bpf.c` of a directory to `out_dir`; returns the objects.

    Raises:
        BuildFailed: no compiler, or its messages.
    """
    out_dir.mkdir(parents=True, exist_ok=True)
    return [_compile(source, out_dir) for source in sorted(source_dir.glob("*.bpf.c"))]


def refresh(source_dir: Path = SOURCES, out_dir: Path = DIRECTORY) -> list[Path]:
    """Compiles what is out of date; returns the objects that were compiled.

    Does nothing where there are no sources. Safe in several processes at once: one
    compiles, the others wait and find the work done. A reader never sees half an object.

    Raises:
        BuildFailed: no compiler, or its messages.
    """
    if not _stale(source_dir, out_dir):
        return []
    with _lock(out_dir):
        return [_compile(source, out_dir) for source in _stale(source_dir, out_dir)]


def _stale(source_dir: Path, out_dir: Path) -> list[Path]:
    return [
        source
        for source in sorted(source_dir.glob("*.bpf.c"))
        if not _is_fresh(source, out_dir / f"{source.stem}.o")
    ]


def _is_fresh(source: Path, built: Path) -> bool:
    try:
        return built.is_file() and _stamp(built).read_text("ascii") == _inputs(source)
    except FileNotFoundError:
        return False


def _stamp(built: Path) -> Path:
    return built.with_name(f".{built.name}.inputs")


def _inputs(source: Path) -> str:
    """A digest of all that the object depends on, except the compiler's version."""
    import hashlib

    digest = hashlib.sha256(" ".join(FLAGS).encode())
    for file in (source, *sorted(source.parent.glob("*.h"))):
        digest.update(f"\0{file.name}\0".encode() + file.read_bytes())
    return digest.hexdigest()


def _compile(source: Path, out_dir: Path) -> Path:
    built = out_dir / f"{source.stem}.o"
    inputs = _inputs(source)
    scratch = str(out_dir / f".{source.stem}-{os.getpid()}.o")
    try:
        # The object is the same wherever it is compiled: its BTF names files below bpf/.
        place = f"-fdebug-prefix-map={source.parent}=bpf"
        _run([_tool("clang"), *FLAGS, place, "-c", source.name, "-o", scratch], source.parent)
        if strip := _tool("llvm-strip", needed=False):
            _run([strip, "-g", scratch], source.parent)  # DWARF goes, BTF stays
        Path(scratch).chmod(0o644)
        _stamp(built).unlink(missing_ok=True)
        Path(scratch).replace(built)
    finally:
        Path(scratch).unlink(missing_ok=True)
    _write(_stamp(built), inputs)
    return built


def _write(file: Path, text: str) -> None:
    scratch = file.with_name(f"{file.name}.{os.getpid()}")
    scratch.write_text(text, "ascii")
    scratch.replace(file)


def _tool(name: str, *, needed: bool = True) -> str:
    import shutil

    for version in _VERSIONS:
        if found := shutil.which(name + version):
            return found
    if needed:
        raise BuildFailed(f"{name} is not installed; it compiles the programs in bpf/")
    return ""


def _run(command: list[str], directory: Path) -> None:
    import subprocess

    done = subprocess.run(command, cwd=directory, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise BuildFailed(f"{' '.join(command)} failed in {directory}:\n{done.stderr.strip()}")


@contextmanager
def _lock(directory: Path) -> Iterator[None]:
    directory.mkdir(parents=True, exist_ok=True)
    with (directory / ".lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
