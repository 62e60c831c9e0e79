# SPDX-License-Identifier: Apache-2.0
"""The headers of mutants: read strictly, and true of the repository."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from hookproof.mutants import build, patch
from hookproof.mutants.patch import Mutant
from hookproof.mutants.session import faced, read_scenarios
from vm.errors import UsageProblem

ROOT = Path(__file__).resolve().parent.parent
FOLDER = ROOT / "mutants"
#: A line of a patch that changes a comment and no code.
COMMENT = re.compile(r"[+-]\s*(#(?!define|include)|//|/?\*)|[+-]\s*$")
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
        breaks=("hang",),
        files=("refagent/serve.py",),
    )
    assert [mutant.shows_on(each) for each in ("5.10", "6.12", "7.3", "7.2")] == [
        *(False, True, True, False)
    ]
    assert read(tmp_path, HEAD + DIFF).shows_on("5.10")


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("Seen:", "seen:", "it.patch:4: unknown field 'seen'; did you mean 'Seen'?"),
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
def test_a_patch_makes_an_agent(name: str) -> None:
    (mutant,) = patch.read_all(FOLDER, [name])
    assert build.build(mutant)


def test_no_two_are_the_same_bug() -> None:
    found: dict[tuple[str, ...], str] = {}
    for name in NAMES:
        _, _, diff = (FOLDER / f"{name}.patch").read_text(encoding="utf-8").partition("diff --git ")
        changed = (each for each in diff.splitlines() if each.startswith(("+", "-")))
        code = tuple(each for each in changed if not COMMENT.match(each))
        assert found.setdefault(code, name) == name, f"{name} makes the same change"


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


@pytest.mark.parametrize(
    ("diff", "said"),
    [
        (  # a name that only a rename has
            (
                "diff --git a/refagent/probes/lsm.py b/refagent/probes/lsm2.py\n"
                "similarity index 100%\n"
                "rename from refagent/probes/lsm.py\nrename to refagent/probes/lsm2.py\n"
            ),
            "changes refagent/probes/lsm2.py, which is no part of the agent",
        ),
        (
            (
                "diff --git a/refagent/serve.py b/refagent/serve2.py\nsimilarity index 100%\n"
                "rename from refagent/serve.py\nrename to refagent/serve2.py\n"
            ),
            "takes refagent/serve.py away, which a running machine's copy would still have",
        ),
    ],
)
def test_what_a_patch_comes_to_is_looked_at(tmp_path: Path, diff: str, said: str) -> None:
    mutant = read(tmp_path, HEAD + DIFF)
    mutant.path.write_text(f"{HEAD}\n{diff}", encoding="utf-8")
    with pytest.raises(build.Unfit) as caught:
        build.build(mutant)
    assert str(caught.value) == said


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"kernels": ("4.*",)}, "Kernels has no kernel: 4.*; known: 5.10, 7.3"),
        ({"killed_by": ("override/denail",)}, "no scenario; did you mean 'override/denial'?"),
        ({"tests": ("tests/inside/test_pins.py::test_no",)}, "which is no test; look into"),
    ],
)
def test_a_header_that_names_what_is_not_there(change: dict[str, Any], said: str) -> None:
    (mutant,) = patch.read_all(FOLDER, ["positive-result"])
    scenarios = read_scenarios(ROOT / "scenarios")
    kernels = ["5.10", "7.3"]
    assert list(faced(mutant, scenarios, kernels)) == list(mutant.killed_by)
    with pytest.raises(UsageProblem) as caught:
        faced(replace(mutant, **change), scenarios, kernels)
    assert said in str(caught.value)
    assert str(caught.value).startswith(str(mutant.path))
