# SPDX-License-Identifier: Apache-2.0
"""kernels.txt: the kernels under test, one per line.

    NAME SOURCE [OPTION…]        # comment

A word may be quoted as in a shell. The tables below are the whole grammar.
"""

from __future__ import annotations

import fnmatch
import re
import shlex
from collections.abc import Callable, Collection, Iterable, Iterator
from pathlib import Path

from vm import suggest
from vm.default import HERE
from vm.errors import UsageProblem
from vm.kernel import FLAVOURS, BuildSource, DebianSource, Kernel, LocalSource, Source

#: A kernel's name goes into node ids, suite names and folder names.
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]*")
#: Names that mean something else to `select`.
RESERVED = frozenset({"all"})
SUITE = re.compile(r"[a-z][a-z0-9-]*")
PATTERN = re.compile(r"[A-Za-z0-9.+~*?\[\]!-]+")
BOOLEANS = {"yes": True, "no": False}
#: Where the files of options for a build lie that are named without a path.
CONFIGS = HERE / "config"
OPTIONS = {
    "append": "words for the kernel's command line, quoted if more than one",
    "default": "yes or no: whether a run without --kernel includes it",
}

_WORD = re.compile(r"""(?: \\. | [^\s"'\\] | "(?:\\.|[^"\\])*" | '[^']*' )+""", re.VERBOSE)
_Blame = Callable[[str, str], UsageProblem]


def read(path: Path) -> tuple[Kernel, ...]:
    """Reads kernels.txt.

    Args:
        path: the file; the paths of local kernels are relative to its folder.

    Returns:
        The kernels in the file's order; at least one.

    Raises:
        UsageProblem: the file cannot be read, or a line is wrong, as
            `FILE:LINE:COLUMN: what; next step`.
    """
    try:
        text = path.read_bytes().decode("utf-8")
    except OSError as error:
        reason = f"cannot be read: {error.strerror}"
        raise UsageProblem(reason, where=str(path), hint="see docs/kernels.md") from None
    except UnicodeDecodeError as error:
        number = error.object[: error.start].count(b"\n") + 1
        column = error.start - error.object.rfind(b"\n", 0, error.start)
        where = f"{path}:{number}:{column}"
        raise UsageProblem("is not UTF-8", where=where, hint="save the file as UTF-8") from None
    kernels: dict[str, Kernel] = {}
    for number, line in enumerate(text.splitlines(), start=1):
        words = list(_words(line, f"{path}:{number}"))
        if not words:
            continue
        kernel = _kernel(words, path, number)
        if kernel.name in kernels:
            first = kernels[kernel.name].where.rpartition(":")[2]
            raise UsageProblem(
                f"kernel '{kernel.name}' was named before, on line {first}",
                where=f"{path}:{number}:{words[0][0]}",
                hint="give each kernel a name of its own",
            )
        kernels[kernel.name] = kernel
    if not kernels:
        hint = "add a line such as '6.12 debian:trixie/6.12.*'"
        raise UsageProblem("names no kernel", where=f"{path}:1:1", hint=hint)
    return tuple(kernels.values())


def select(kernels: Iterable[Kernel], patterns: Iterable[str] = ()) -> tuple[Kernel, ...]:
    """Chooses kernels by name.

    Args:
        kernels: what there is.
        patterns: names, shell patterns such as `6.*`, `all`, or several of them joined
            by commas. None at all means the kernels marked default.

    Returns:
        The chosen kernels, each once, in the order of `kernels`.

    Raises:
        UsageProblem: a pattern matches nothing; or none is given and none is default.
    """
    known = tuple(kernels)
    wanted = [each.strip() for one in patterns for each in one.split(",") if each.strip()]
    if not wanted:
        default = tuple(kernel for kernel in known if kernel.default)
        if not default:
            hint = f"name some: {', '.join(kernel.name for kernel in known)}, all"
            raise UsageProblem("no kernel is marked default", hint=hint)
        return default
    chosen: set[str] = set()
    for pattern in wanted:
        names = {
            kernel.name
            for kernel in known
            if pattern == "all" or fnmatch.fnmatchcase(kernel.name, pattern)
        }
        if not names:
            there = ", ".join(kernel.name for kernel in known)
            meant = suggest.closest(pattern, (kernel.name for kernel in known))
            hint = meant if meant.startswith("known") else f"{meant} known: {there}"
            raise UsageProblem(f"no kernel matches '{pattern}'", hint=hint)
        chosen |= names
    return tuple(kernel for kernel in known if kernel.name in chosen)


def _words(line: str, where: str) -> Iterator[tuple[int, str]]:
    """The words of a line with their 1-based columns, unquoted, up to a comment."""
    at = 0
    while True:
        at += len(line[at:]) - len(line[at:].lstrip())
        if at == len(line) or line[at] == "#":
            return
        word = _WORD.match(line, at)
        end = word.end() if word else at
        if word is None or not (end == len(line) or line[end].isspace()):
            hint = "close it, or write a backslash before it"
            raise UsageProblem("a quote is not closed", where=f"{where}:{end + 1}", hint=hint)
        yield at + 1, "".join(shlex.split(word.group()))
        at = end


def _kernel(words: list[tuple[int, str]], path: Path, number: int) -> Kernel:
    def blame(column: int) -> _Blame:
        return lambda what, hint: UsageProblem(what, where=f"{path}:{number}:{column}", hint=hint)

    (column, name), *rest = words
    if not NAME.fullmatch(name) or name in RESERVED:
        hint = "use letters, digits and . _ + -, and not 'all'"
        raise blame(column)(f"'{name}' cannot be a kernel's name", hint)
    if not rest:
        hint = "write NAME SOURCE, such as '6.12 debian:trixie/6.12.*'"
        raise blame(column + len(name))(f"kernel '{name}' has no source", hint)
    (column, source), *options = rest
    cmdline: tuple[str, ...] = ()
    default = True
    seen: set[str] = set()
    for at, option in options:
        key, equals, value = option.partition("=")
        if key not in OPTIONS:
            raise blame(at)(f"unknown option '{key}'", suggest.closest(key, OPTIONS))
        if not equals or not value:
            raise blame(at)(f"option '{key}' has no value", f"write {key}=…: {OPTIONS[key]}")
        if key in seen:
            raise blame(at)(f"option '{key}' stands here twice", "keep one of them")
        seen.add(key)
        if key == "append":
            cmdline = tuple(value.split())
        elif value in BOOLEANS:
            default = BOOLEANS[value]
        else:
            raise blame(at)(f"default={value} is neither yes nor no", "write default=no")
    return Kernel(
        name, _source(source, path.parent, blame(column)), cmdline, default, f"{path}:{number}"
    )


def _source(text: str, folder: Path, blame: _Blame) -> Source:
    kind, colon, rest = text.partition(":")
    if not colon or kind not in SOURCES:
        raise blame(f"unknown source '{kind}'", suggest.closest(kind, SOURCES))
    return SOURCES[kind](rest, folder, blame)


def _debian(rest: str, _folder: Path, blame: _Blame) -> DebianSource:
    place, *settings = rest.split(",")
    suite, _, pattern = place.partition("/")
    if not SUITE.fullmatch(suite) or not PATTERN.fullmatch(pattern):
        hint = "write debian:SUITE/PATTERN, such as debian:trixie/6.12.*"
        raise blame(f"'debian:{place}' names no suite and version pattern", hint)
    hint = "write debian:SUITE/PATTERN[,flavour=FLAVOUR][,modules=none]"
    given = _settings(settings, ("flavour", "modules"), "a kernel of the archive", hint, blame)
    flavour = given.get("flavour", FLAVOURS[0])
    if flavour not in FLAVOURS:
        raise blame(f"unknown flavour '{flavour}'", suggest.closest(flavour, FLAVOURS))
    modules = given.get("modules")
    if modules not in {None, "none"}:
        hint = "leave it out, or write modules=none: the archive has the kernel without them"
        raise blame(f"modules={modules} cannot follow a kernel of the archive", hint)
    return DebianSource(suite, pattern, flavour, modules is None)


def _local(rest: str, folder: Path, blame: _Blame) -> LocalSource:
    vmlinuz, *settings = rest.split(",")
    hint = "write local:VMLINUZ or local:VMLINUZ,modules=DIR"
    given = _settings(settings, ("modules",), "a local kernel", hint, blame)
    if not vmlinuz:
        raise blame("a local kernel needs a path", hint)
    return LocalSource(folder / vmlinuz, folder / given["modules"] if given else None)


def _build(rest: str, folder: Path, blame: _Blame) -> BuildSource:
    place, *settings = rest.split(",")
    hint = "write build:debian:SUITE/PATTERN,config=NAMES or build:DIR,config=NAMES"
    given = _settings(settings, ("config",), "a kernel to build", hint, blame)
    if not place or not given:
        raise blame("a kernel to build needs a source and the names of its options", hint)
    config = tuple(_config(name, folder, blame) for name in given["config"].split("+"))
    kind, colon, archived = place.partition(":")
    if colon and kind == "debian":
        return BuildSource(_debian(archived, folder, blame), config)
    return BuildSource(folder / place, config)


def _config(name: str, folder: Path, blame: _Blame) -> Path:
    """The file of options: one of ours by its name, anybody's by a path that ends in .config."""
    path = folder / name if name.endswith(".config") else CONFIGS / f"{name}.config"
    if not path.is_file():
        ours = sorted(one.stem for one in CONFIGS.glob("*.config"))
        hint = f"{suggest.closest(name, ours)} a path to others ends in .config"
        raise blame(f"there are no options '{name}'", hint)
    return path


def _settings(
    words: Iterable[str], keys: Collection[str], subject: str, hint: str, blame: _Blame
) -> dict[str, str]:
    """The settings KEY=VALUE that follow a source, each at most once."""
    given: dict[str, str] = {}
    for word in words:
        key, _, value = word.partition("=")
        if key not in keys or not value or key in given:
            raise blame(f"'{word}' cannot follow {subject}", hint)
        given[key] = value
    return given


#: Kind of source → what reads the rest of the word.
SOURCES: dict[str, Callable[[str, Path, _Blame], Source]] = {
    "build": _build,
    "debian": _debian,
    "local": _local,
}
