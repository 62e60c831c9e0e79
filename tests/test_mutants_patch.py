# SPDX-License-Identifier: Apache-2.0
"""The headers of mutants: read strictly, and true of the repository."""

from __future__ import annotations

from pathlib import Path

import pytest

from hookproof.mutants import build, patch
from hookproof.mutants.patch import Mutant
from hookproof.mutants.session import read_scenarios
from vm.errors import UsageProblem

ROOT = Path(__file__).resolve().parent.parent
FOLDER = ROOT / "mutants"
NAMES = sorted(path.stem for path in FOLDER.glob("*.patch"))

HEAD = """\
SPDX-License-Identifier: Apache-2.0
Bug: An entry is found by its thread alone,
 so a neighbour's program takes it.
Seen: https://example.org/issues/1
Killed-by: override/hooks lifecycle/unload
"""
DIFF = """\

diff --git a/refagent/serve.py b/refagent/serve.py
--- a/refagent/serve.py
+++ b/refagent/serve.py
@@ -2,1 +2,1 @@
---a line that begins with two hyphens
+++another one
"""


def read(folder: Path, text: str, name: str = "it") -> Mutant:
    path = folder / f"{name}.patch"
    path.write_text(text, encoding="utf-8")
    return patch.read(path)


def test_a_header_is_read(tmp_path: Path) -> None:
    more = "Kernels: 6.* 7.3\nRace: yes\nBreaks: hang\n"
    mutant = read(tmp_path, HEAD + more + DIFF)
    assert mutant == Mutant(
        name="it",
        path=tmp_path / "it.patch",
        bug="An entry is found by its thread alone, so a neighbour's program takes it.",
        seen="https://example.org/issues/1",
        killed_by=("override/hooks", "lifecycle/unload"),
        kernels=("6.*", "7.3"),
        race=True,
        breaks="hang",
        files=("refagent/serve.py",),
    )
    assert [mutant.shows_on(each) for each in ("5.10", "6.12", "7.3", "7.2")] == [
        *(False, True, True, False)
    ]
    assert read(tmp_path, HEAD + DIFF).shows_on("5.10")


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("Seen:", "Seem:", "it.patch:4: unknown field 'Seem'; did you mean 'Seen'?"),
        ("Seen: https://example.org/issues/1\n", "", "it.patch:1: 'Seen' is missing; "),
        ("issues/1\n", "issues/1\nSeen: here\n", "it.patch:5: 'Seen' stands here twice; "),
        ("https://example.org/issues/1", "", "it.patch:4: 'Seen' is empty; "),
        ("takes it.", "takes it", "it.patch:2: the bug is one sentence; "),
        ("alone,", "alone. And", "it.patch:2: the bug is one sentence; "),
        ("override/hooks", "hooks", "it.patch:5: 'hooks' is no scenario; "),
        ("lifecycle/unload", "override/hooks", "it.patch:5: a scenario stands here twice; "),
        ("Seen", "\nwords\nSeen", "it.patch:5: this is no field; "),
        ("Seen", "Race: maybe\nSeen", "it.patch:4: 'maybe' is none of its values; "),
        ("Seen", "Breaks: all\nSeen", "it.patch:4: 'all' is none of its values; "),
        ("--- a/refagent", "--- a/vm", "it.patch:8: 'vm/serve.py' is no part of the agent; "),
        ("a/refagent/serve", "a/refagent/probes/lsm", "/lsm.py' is no part of the agent; "),
        (DIFF, "", "it.patch:6: there is no diff; "),
    ],
)
def test_a_mistake_is_one_line(tmp_path: Path, old: str, new: str, said: str) -> None:
    text = HEAD + DIFF
    assert old in text
    with pytest.raises(UsageProblem) as caught:
        read(tmp_path, text.replace(old, new))
    assert said in str(caught.value)
    assert str(caught.value).startswith(str(tmp_path))
    assert "\n" not in str(caught.value)


def test_a_name_is_asked_for(tmp_path: Path) -> None:
    with pytest.raises(UsageProblem, match=r"'No Name' is no name for a mutant; use small"):
        read(tmp_path, HEAD + DIFF, "No Name")
    with pytest.raises(UsageProblem, match="there are no mutants"):
        patch.read_all(tmp_path / "none")
    read(tmp_path, HEAD + DIFF, "one")
    read(tmp_path, HEAD + DIFF, "two")
    (tmp_path / "No Name.patch").unlink()
    assert [each.name for each in patch.read_all(tmp_path, ["two"])] == ["two"]
    with pytest.raises(UsageProblem, match=r"no mutant 'tow'; did you mean 'two'\?"):
        patch.read_all(tmp_path, ["tow"])


def test_there_are_enough_of_them_and_they_name_scenarios() -> None:
    mutants = patch.read_all(FOLDER)
    assert len(mutants) >= 25
    scenarios = read_scenarios(ROOT / "scenarios")
    assert [
        (mutant.name, name)
        for mutant in mutants
        for name in mutant.killed_by
        if name not in scenarios
    ] == []
    named = {name for mutant in mutants for name in mutant.killed_by}
    marked = {name for name, scenario in scenarios.items() if scenario.no_mutant}
    assert named | marked == set(scenarios)
    assert named & marked == set()


@pytest.mark.parametrize("name", NAMES)
def test_a_patch_applies(name: str) -> None:
    (mutant,) = patch.read_all(FOLDER, [name])
    with build.applied(mutant) as copy:
        for each in mutant.files:
            assert (copy / each).read_bytes() != (ROOT / each).read_bytes()


def test_what_a_patch_changes_is_found() -> None:
    (mutant,) = patch.read_all(FOLDER, ["positive-result"])
    assert mutant.files == ("bpf/override.bpf.c", "refagent/rules.py")
    changed = build.build(mutant)
    assert set(changed) == {"refagent/objects/override.bpf.o", "refagent/rules.py"}
    assert all((ROOT / name).read_bytes() != content for name, content in changed.items())


def test_a_patch_that_no_longer_applies_is_told(tmp_path: Path) -> None:
    with pytest.raises(build.Unfit, match=r"^does not apply: error: refagent/serve.py: patch does"):
        build.build(read(tmp_path, HEAD + DIFF))


def test_one_that_does_not_compile_is_told(tmp_path: Path) -> None:
    diff = (
        (FOLDER / "always-eperm.patch")
        .read_text(encoding="utf-8")
        .replace("+\terror = -1;", "+\terror = -;")
    )
    with pytest.raises(build.Unfit, match=r"^does not compile: .*override\.bpf\.c:\d+:\d+: error"):
        build.build(read(tmp_path, diff))
