# SPDX-License-Identifier: Apache-2.0
"""A mutant's file → `Mutant`, or one line that says where it is wrong and what was meant.

    SPDX-License-Identifier: Apache-2.0
    Bug: An entry is found by its thread alone, so a neighbour's program takes it.
    Seen: https://github.com/cilium/tetragon/pull/4244
    Killed-by: override/hooks lifecycle/unload

    diff --git a/bpf/override.h b/bpf/override.h
    …

A field's value goes on in lines that begin with blanks. What follows the header is for
`git apply`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Final

from hookproof.decode import STEM
from vm.errors import UsageProblem
from vm.suggest import closest

#: What a mutant may change; not the probes, which say what the kernel can do, not the agent.
ROOMS: Final = ("bpf/", "refagent/")
NO_AGENT: Final = ("bpf/probe", "refagent/probes/")
#: Field of the header → whether it must be there.
FIELDS: Final = {
    "SPDX-License-Identifier": True,
    "Bug": True,
    "Seen": True,
    "Killed-by": True,
    "Kernels": False,
    "Race": False,
    "Breaks": False,
}
#: Values of `Breaks`: what else is a mistake in the patch is what this bug looks like.
BREAKS: Final = ("verifier", "agent", "hang")
#: What else can kill: a test that runs in a guest.
TEST: Final = re.compile(r"(tests/inside/test_\w+\.py)::(test_\w+)")
_FIELD: Final = re.compile(r"([A-Za-z][\w-]*):(?: +(.*))?")
_FILE: Final = re.compile(r"(?:---|\+\+\+) (?:[ab]/)?([^\t]+)")


@dataclass(frozen=True)
class Mutant:
    """A bug that is put back into the agent.

    Attributes:
        name: the file's stem.
        path: the file.
        bug: what is wrong, in one sentence.
        seen: where it was: an issue, a commit, a document.
        killed_by: scenarios, each by its folder and name; every one of them fails.
        tests: tests of tests/inside, of which the same is said.
        kernels: patterns of kernels' names where they do.
        race: whether the bug shows only if two things happen at once.
        breaks: what the bug does that otherwise means that the patch is no good.
        files: what it changes, from the root of the checkout.
    """

    name: str
    path: Path
    bug: str
    seen: str
    killed_by: tuple[str, ...]
    tests: tuple[str, ...] = ()
    kernels: tuple[str, ...] = ("*",)
    race: bool = False
    breaks: tuple[str, ...] = ()
    files: tuple[str, ...] = ()

    @property
    def killers(self) -> tuple[str, ...]:
        """All that is said to fail."""
        return (*self.killed_by, *self.tests)

    def shows_on(self, kernel: str) -> bool:
        """Whether it is said to be seen on a kernel."""
        return any(fnmatchcase(kernel, each) for each in self.kernels)


@dataclass(frozen=True)
class _Line:
    """A field's value and where it stands."""

    text: str
    where: str


def read_all(folder: Path, names: Sequence[str] = ()) -> list[Mutant]:
    """The mutants of a folder, sorted by name.

    Args:
        folder: with `*.patch`.
        names: those that are wanted; none: all.

    Raises:
        UsageProblem: there is no such mutant, none at all, or a file is wrong.
    """
    found = {path.stem: path for path in sorted(folder.glob("*.patch"))}
    if not found:
        raise UsageProblem("there are no mutants", where=str(folder))
    for name in names:
        if name not in found:
            raise UsageProblem(f"there is no mutant '{name}'", hint=closest(name, found))
    return [read(path) for name, path in found.items() if not names or name in names]


def read(path: Path) -> Mutant:
    """Reads and checks one mutant's file.

    Raises:
        UsageProblem: the first thing that is wrong, as `file:line: what; hint`.
    """
    if not STEM.fullmatch(path.stem):
        hint = "use small letters and digits with - or _ between"
        raise UsageProblem(f"'{path.stem}' is no name for a mutant", where=str(path), hint=hint)
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UsageProblem(f"cannot be read: {error}", where=str(path)) from None
    begin = next((n for n, line in enumerate(lines) if line.startswith("diff --git ")), len(lines))
    fields = _header(path, lines[:begin])
    killers = _killers(fields["Killed-by"])
    mutant = Mutant(
        name=path.stem,
        path=path,
        bug=_sentence(fields["Bug"]),
        seen=fields["Seen"].text,
        killed_by=tuple(each for each in killers if not TEST.fullmatch(each)),
        tests=tuple(each for each in killers if TEST.fullmatch(each)),
        files=tuple(dict.fromkeys(_changed(path, lines, begin))),
    )
    if "Kernels" in fields:
        mutant = replace(mutant, kernels=tuple(fields["Kernels"].text.split()))
    if "Race" in fields:
        mutant = replace(mutant, race=_words(fields["Race"], ("yes", "no")) == ("yes",))
    if "Breaks" in fields:
        mutant = replace(mutant, breaks=_words(fields["Breaks"], BREAKS))
    return mutant


def _header(path: Path, lines: Sequence[str]) -> dict[str, _Line]:
    found: dict[str, _Line] = {}
    last = ""
    for number, each in enumerate(lines, 1):
        where = f"{path}:{number}"
        if not each.strip():
            continue
        if each[0] in " \t" and last:
            found[last] = replace(found[last], text=f"{found[last].text} {each.strip()}".strip())
            continue
        match = _FIELD.fullmatch(each)
        if match is None:
            raise UsageProblem("this is no field", where=where, hint="write NAME: VALUE")
        last, text = match[1], (match[2] or "").strip()
        if last not in FIELDS:
            raise UsageProblem(f"unknown field '{last}'", where=where, hint=closest(last, FIELDS))
        if last in found:
            raise UsageProblem(f"'{last}' stands here twice", where=where, hint="remove one")
        found[last] = _Line(text, where)
    for name, line in found.items():
        if not line.text:
            raise UsageProblem(f"'{name}' is empty", where=line.where, hint="write its value")
    for name, needed in FIELDS.items():
        if needed and name not in found:
            raise UsageProblem(
                f"'{name}' is missing", where=f"{path}:1", hint="a header has " + ", ".join(FIELDS)
            )
    return found


def _changed(path: Path, lines: Sequence[str], begin: int) -> Iterator[str]:
    """The files that the diff is about, from its `---` and `+++` lines outside of hunks."""
    some, inside = False, False
    for number, line in enumerate(lines[begin:], begin + 1):
        if line.startswith("diff --git "):
            inside = False
        elif line.startswith("@@ "):
            inside = True
        match = None if inside else _FILE.fullmatch(line)
        if match is None:
            continue
        some = True
        if not match[1].startswith(ROOMS) or match[1].startswith(NO_AGENT):
            what = f"'{match[1]}' is no part of the agent"
            raise UsageProblem(what, where=f"{path}:{number}", hint="mutate bpf/ or refagent/")
        yield match[1]
    if not some:
        where = f"{path}:{begin + 1}"
        raise UsageProblem("there is no diff", where=where, hint="append the output of git diff")


def _sentence(line: _Line) -> str:
    if not line.text.endswith(".") or ". " in line.text:
        raise UsageProblem("the bug is one sentence", where=line.where, hint="end it with a dot")
    return line.text


def _killers(line: _Line) -> tuple[str, ...]:
    words = tuple(line.text.split())
    for word in words:
        folder, _, name = word.rpartition("/")
        if not TEST.fullmatch(word) and (not folder or not STEM.fullmatch(name)):
            hint = "write FOLDER/NAME, such as override/denial, or tests/inside/FILE.py::TEST"
            raise UsageProblem(f"'{word}' is no scenario", where=line.where, hint=hint)
    if len(set(words)) != len(words):
        raise UsageProblem("a scenario stands here twice", where=line.where, hint="remove one")
    return words


def _words(line: _Line, known: Sequence[str]) -> tuple[str, ...]:
    found = tuple(line.text.split())
    for each in found or (line.text,):
        if each not in known:
            hint = f"write one of {', '.join(known)}"
            raise UsageProblem(f"'{each}' is none of its values", where=line.where, hint=hint)
    return found
