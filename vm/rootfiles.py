# SPDX-License-Identifier: Apache-2.0
"""What of the host is packed into a guest's root, and where it lies there.

This only lists; nothing is opened, since the list is made before each run, to see whether
anything has changed.
"""

from __future__ import annotations

import fnmatch
import importlib.util
import os
import re
import sys
from collections.abc import Iterator, Sequence
from enum import StrEnum
from pathlib import Path, PurePosixPath
from typing import Final, NamedTuple

from vm import run
from vm.errors import HostProblem

#: The interpreter's place in the guest, and the folder of the packages.
PYTHON: Final = "/usr/bin/python3"
SITE: Final = "/usr/lib/hookproof"
#: Where an interpreter in /usr/bin looks for its standard library.
_LIBRARY: Final = f"/usr/{sys.platlibdir}/python{sys.version_info[0]}.{sys.version_info[1]}"

#: Names in the standard library's folders, of files without suffix → why they stay out.
_LEFT_OUT: Final = {
    "__pycache__": "compiled anew, with the guest's paths",
    "site-packages": "only the packages that are asked for",
    "dist-packages": "the same, as Debian calls it",
    "sitecustomize": "the host's own settings",
    "config-*": "for programs that embed Python",
    "test": "Python's own tests",
    "tests": "the same",
    "_test*": "their C halves",
    "_ctypes_test*": "the same",
    "_xx*": "the same",
    "xx*": "examples",
    "ensurepip": "nothing is installed in a guest",
    "venv": "the same",
    "distutils": "the same",
    "lib2to3": "Python 2's",
    "idlelib": "there is no screen",
    "tkinter": "the same",
    "_tkinter": "the same, with X11's libraries",
    "turtle*": "the same",
    "*curses*": "there is no terminal",
    "readline": "the same",
    "pydoc*": "nobody reads documentation there",
    "sqlite3": "databases; a library of 1.4 MB",
    "_sqlite3": "the same",
    "dbm": "the same",
    "_dbm": "the same",
    "_gdbm": "the same",
    "ssl": "there is no network; OpenSSL has 5 MB",
    "_ssl": "the same",
    "_hashlib": "the same; hashlib has digests of its own",
    "nis": "the same",
    "_codecs_*": "East Asian encodings other than Unicode, 1 MB",
}
_OUT: Final = re.compile("|".join(fnmatch.translate(name) for name in _LEFT_OUT))
#: How the name of the module begins that names the host's folders, and what is packed instead.
_CONFIG: Final = ("_sysconfigdata_", str(Path(__file__).with_name("guestconfig.py")))
_CACHE: Final = re.compile("__pycache__")
#: What of a package is only for building it.
_SOURCES: Final = (".c", ".h", ".pyi")


class Kind(StrEnum):
    """What is done to a file on its way into the guest."""

    CODE = "compiled"
    BINARY = "stripped, with its libraries"
    DATA = "as it is"


class Input(NamedTuple):
    """One file of the host. A tuple, since hundreds are made and compared before each run.

    Attributes:
        place: its absolute path in the guest; of code, that of its source.
        source: the host's file.
        kind: what is done to it.
        size: bytes.
        time: of its last change, in ns.
    """

    place: str
    source: str
    kind: Kind
    size: int
    time: int

    @classmethod
    def of(cls, place: str, source: str, kind: Kind) -> Input:
        """A file as it is now.

        Raises:
            OSError: it is not there.
        """
        stat = os.stat(source)  # noqa: PTH116  Path.stat takes three times as long
        return cls(place, source, kind, stat.st_size, stat.st_mtime_ns)


def interpreter() -> Iterator[Input]:
    """This Python and its standard library."""
    yield Input.of(PYTHON, str(Path(sys.executable).resolve()), Kind.BINARY)
    for each in _walk(str(Path(os.__file__).parent), _LIBRARY, _OUT):
        if each.place.startswith(f"{_LIBRARY}/{_CONFIG[0]}"):
            yield Input.of(each.place, _CONFIG[1], Kind.CODE)
        elif each.kind is not Kind.DATA:
            yield each


def programs(names: Sequence[str], optional: Sequence[str] = ()) -> Iterator[Input]:
    """Programs of the host, each in /usr/bin.

    Raises:
        HostProblem: one that is not optional is not installed.
    """
    for name in (*names, *optional):
        try:
            found = run.find(name)
        except HostProblem:
            if name in names:
                raise
            continue
        yield Input.of(f"/usr/bin/{Path(name).name}", str(Path(found).resolve()), Kind.BINARY)


def package(name: str) -> Iterator[Input]:
    """A package or module that this Python can import, with its data files.

    Args:
        name: if it has dots, the packages above it come without their other contents.

    Raises:
        HostProblem: there is none.
    """
    try:
        spec = importlib.util.find_spec(name)
    except ModuleNotFoundError:
        spec = None
    if spec is None or spec.origin is None:
        what = f"the package '{name}' is to be packed for the guest and is not installed"
        raise HostProblem(what, hint=f"install it for {sys.executable}")
    place = f"{SITE}/{name.replace('.', '/')}"
    if spec.submodule_search_locations is None:
        file = Path(spec.origin).name
        yield Input.of(str(PurePosixPath(place).with_name(file)), spec.origin, _kind(file))
    else:
        for each in _walk(str(Path(spec.origin).parent), place, _CACHE):
            if not each.source.endswith(_SOURCES):
                yield each
    while name := name.rpartition(".")[0]:
        above = importlib.util.find_spec(name)
        if above is not None and above.origin is not None:
            marker = f"{SITE}/{name.replace('.', '/')}/__init__.py"
            yield Input.of(marker, above.origin, Kind.CODE)


def _walk(folder: str, place: str, out: re.Pattern[str]) -> Iterator[Input]:
    """The files below a folder, but for hidden ones and those left out."""
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.name.startswith(".") or out.match(entry.name.partition(".")[0]):
                continue
            if entry.is_dir():
                yield from _walk(entry.path, f"{place}/{entry.name}", out)
            else:
                yield Input.of(f"{place}/{entry.name}", entry.path, _kind(entry.name))


def _kind(name: str) -> Kind:
    if name.endswith(".py"):
        return Kind.CODE
    return Kind.BINARY if name.endswith(".so") else Kind.DATA
