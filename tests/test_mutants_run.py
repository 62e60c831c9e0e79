# SPDX-License-Identifier: Apache-2.0
"""Mutants in machines: some of them, and patches that show nothing about a scenario."""

from __future__ import annotations

import difflib
from collections.abc import Iterator
from pathlib import Path

import pytest

from hookproof.mutants import patch
from hookproof.mutants.matrix import Matrix, Result
from hookproof.mutants.session import MutantSession, read_scenarios
from hookproof.settings import Settings
from refagent import objects
from vm import catalog
from vm.default import default_catalog, default_lock

pytestmark = pytest.mark.vm

ROOT = Path(__file__).resolve().parent.parent
KNOWN = catalog.read(default_catalog())
KERNEL = "6.12"
#: Some of each kind, but no leak, which takes a minute; `hookproof mutants` runs all.
SOME = (
    "chain-forwards",  # the agent itself finds it out
    "e2big-swallowed",  # nothing is enforced, and nobody is told
    "early-answer",
    "last-decides",
    "told-twice",  # of BPF, at LSM hooks
)
HEAD = """\
SPDX-License-Identifier: Apache-2.0
Bug: It is no good.
Seen: nowhere
Killed-by: override/denial

"""
#: Name → the file, what stands there, and what is to.
PATCHES = {
    "survivor": ("bpf/override.bpf.c", "entry->place)->denied", "entry->place)->outvoted"),
    "no-program": ("bpf/override.bpf.c", "if (!entry)", "if (!counts)"),
    "no-python": ("refagent/site.py", "import contextlib\n", "import refagent.nothing\n"),
    "no-agent": ("refagent/site.py", "and self._no_override is not", "and self._never is not"),
}


def patch_text(file: str, old: str, new: str) -> str:
    text = (ROOT / file).read_text(encoding="utf-8")
    assert old in text
    lines, other = text.splitlines(True), text.replace(old, new, 1).splitlines(True)
    diff = "".join(difflib.unified_diff(lines, other, f"a/{file}", f"b/{file}"))
    return f"{HEAD}diff --git a/{file} b/{file}\n{diff}"


@pytest.fixture(scope="module")
def session(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MutantSession]:
    objects.refresh()
    kernels = catalog.select(KNOWN, [KERNEL])
    settings = Settings("auto", tmp_path_factory.mktemp("r"), KNOWN, kernels, default_lock())
    with MutantSession(settings, print) as made:
        yield made


def tried(session: MutantSession, folder: Path, names: tuple[str, ...]) -> Matrix:
    scenarios = read_scenarios(ROOT / "scenarios")
    return session.run(patch.read_all(folder, names), scenarios, everything=False, whole=False)


def test_some_are_killed(session: MutantSession) -> None:
    matrix = tried(session, ROOT / "mutants", SOME)
    assert matrix.findings() == []
    assert {matrix.verdict(each) for each in matrix.mutants} == {"killed"}


def test_what_shows_nothing_is_no_kill(session: MutantSession, tmp_path: Path) -> None:
    for name, edit in PATCHES.items():
        (tmp_path / f"{name}.patch").write_text(patch_text(*edit), encoding="utf-8")
    matrix = tried(session, tmp_path, ())
    assert matrix.unfit == {}
    found = {name: matrix.of(name)[0] for name in PATCHES}
    assert {name: cell.result for name, cell in found.items()} == {
        "survivor": Result.PASSED,
        "no-program": Result.ERROR,
        "no-python": Result.ERROR,
        "no-agent": Result.ERROR,
    }
    assert "the kernel takes no such program: " in found["no-program"].reason
    assert "No module named 'refagent.nothing'" in found["no-python"].reason
    assert "the agent broke: AttributeError: " in found["no-agent"].reason
    assert len(matrix.findings()) == len(PATCHES)
