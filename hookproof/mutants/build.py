# SPDX-License-Identifier: Apache-2.0
"""What a mutant changes of the agent: the patch on a scratch copy of the sources, compiled."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

from hookproof.mutants.patch import NO_AGENT, Mutant
from refagent import objects
from refagent.errors import BuildFailed
from vm import run, rundir
from vm.errors import UsageProblem

_TIMEOUT: Final = 60.0
_WHAT: Final = "does not apply"
#: What is left out of the copy: results of building the binding, which no mutant changes.
_NOT_NEEDED: Final = shutil.ignore_patterns("__pycache__", "*.so", "_libbpf.c", ".lock")


class Unfit(Exception):  # noqa: N818  the patch is, not the agent
    """The patch does not apply, or what it makes does not compile."""


def checkout() -> Path:
    """The root of the checkout that the agent is used from.

    Raises:
        UsageProblem: it was installed without its sources.
    """
    root = objects.SOURCES.parent
    if not objects.SOURCES.is_dir():
        what = "mutants are made from the agent's sources, which are not installed"
        raise UsageProblem(what, hint="use hookproof from a checkout: make setup")
    return root


@contextlib.contextmanager
def applied(mutant: Mutant) -> Iterator[Path]:
    """A copy of the agent's sources and objects with the patch; gone when the block ends.

    Raises:
        Unfit: it does not apply.
    """
    root = checkout()
    with rundir.create() as copy:
        for room in ("bpf", "refagent"):
            shutil.copytree(root / room, copy / room, ignore=_NOT_NEEDED)
        command: list[str | Path] = ["git", "apply", "--whitespace=nowarn", mutant.path.absolute()]
        above = {"GIT_CEILING_DIRECTORIES": str(copy.parent)}
        try:
            run.run(
                command, timeout=_TIMEOUT, cwd=copy, env=above, problem=UsageProblem, what=_WHAT
            )
        except UsageProblem as problem:
            raise Unfit(problem.what) from None
        yield copy


def build(mutant: Mutant) -> Mapping[str, bytes]:
    """The agent's files that are other ones with the mutant, by their paths from its root.

    BPF objects count as files; they are compiled if a source of theirs is changed.

    Raises:
        Unfit: see there.
    """
    with applied(mutant) as copy:
        try:
            objects.refresh(copy / "bpf", copy / "refagent" / "objects")
        except BuildFailed as failure:
            raise Unfit(f"does not compile: {_error(str(failure))}") from None
        return _changed(checkout(), copy)


def _changed(root: Path, copy: Path) -> dict[str, bytes]:
    before, after = _files(root), _files(copy)
    found = {name: text for name, text in after.items() if before.get(name) != text}
    # Whatever the patch calls itself: what it comes to is looked at.
    for name in (*found, *(before.keys() - after.keys())):
        if name.startswith(NO_AGENT):
            raise Unfit(f"changes {name}, which is no part of the agent")
        if name not in after:
            raise Unfit(f"takes {name} away, which a running machine's copy would still have")
    if not found:
        raise Unfit("changes nothing that the agent is made of")
    return found


def _files(root: Path) -> dict[str, bytes]:
    """What a guest has of an agent, by paths from its root.

    Without the probes' objects: a header that they share with the agent's may be changed.
    """
    return {
        str(path.relative_to(root)): path.read_bytes()
        for path in sorted((root / "refagent").rglob("*"))
        if path.suffix in {".py", ".o"}
        and not path.name.startswith((".", "probe_"))
        and path.is_file()
    }


def _error(text: str) -> str:
    """The compiler's first complaint."""
    lines = text.splitlines()
    return next((line for line in lines if "error:" in line), lines[-1])
