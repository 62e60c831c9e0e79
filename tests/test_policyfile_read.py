# SPDX-License-Identifier: Apache-2.0
"""Policies are read as they were written, or refused in one line that says where and what.

`tests/policies/NAME.yaml` is a TracingPolicy and `NAME.short.yaml` the same in the short form;
`tests/bad/policies/NAME.yaml` holds a mistake and `NAME.txt` the line.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from refagent.errors import BadFile, Refused
from refagent.policy import Policy
from refagent.policyfile import read
from refagent.yamlfile import MAX_BYTES

HERE = Path(__file__).parent
SHORT = sorted(HERE.glob("policies/*.short.yaml"))
PUBLISHED = sorted({*HERE.glob("policies/*.yaml")} - {*SHORT})
BAD = sorted(HERE.glob("bad/policies/*.yaml"))

ONE = """\
apiVersion: cilium.io/v1alpha1
kind: TracingPolicy
metadata: {name: one}
spec:
  kprobes:
"""


@pytest.mark.parametrize("path", PUBLISHED, ids=lambda path: path.stem)
def test_a_tracing_policy_is_its_short_form(path: Path) -> None:
    policies = read(path)
    assert policies == read(path.with_suffix(".short.yaml"))
    assert all(policy == policy.checked() for policy in policies)


@pytest.mark.parametrize("path", BAD, ids=lambda path: path.stem)
def test_mistake_is_one_precise_line(path: Path) -> None:
    assert f"{complaint(path)}\n" == path.with_suffix(".txt").read_text(encoding="utf-8")


def test_every_file_has_its_other_half() -> None:
    assert len(PUBLISHED) >= 15
    assert [path.with_suffix(".short.yaml") for path in PUBLISHED] == SHORT
    assert {path.stem for path in HERE.glob("bad/policies/*.txt")} == {path.stem for path in BAD}


def complaint(path: Path) -> str:
    try:
        read(path, path.name)
    except BadFile as problem:
        return str(problem)
    return ""


def test_every_key_of_the_short_form(tmp_path: Path) -> None:
    path = tmp_path / "all.yaml"
    path.write_text(
        "name: all\nhook: security_path_mkdir\nprefix: /p\npath_argument: 1\nargument: 2\n"
        "value: -3\nbinary: /b\npid: 4\nuid: 0\noverride: EWOULDBLOCK\nsignal: 34\npost: true\n"
        "monitor: false\n"
    )
    assert read(path) == (
        Policy(
            "all",
            "security_path_mkdir",
            prefix="/p",
            path_argument=1,
            argument=2,
            value=-3,
            binary="/b",
            pid=4,
            uid=0,
            override=11,
            signal=34,
            post=True,
        ),
    )


def test_a_mistake_is_a_refusal_and_names_the_file_as_it_was_given(tmp_path: Path) -> None:
    path = tmp_path / "p.yaml"
    with pytest.raises(Refused, match=r"^\S+/p\.yaml: cannot be read: No such file"):
        read(path)
    path.write_text("name: a\nhook: x\n")
    with pytest.raises(Refused, match=r"^mine:1:1: policy a does nothing"):
        read(path, "mine")


def test_the_values_of_all_hooks_together_are_bounded(tmp_path: Path) -> None:
    path = tmp_path / "many.yaml"
    values = ", ".join(str(each) for each in range(1, 16001))
    hook = "  - {call: sys_sync, selectors: [{matchPIDs: [{operator: In, values: [%s]}]}]}\n"
    path.write_text(ONE + hook % values)
    assert len(read(path)) == 16000
    path.write_text(ONE + hook % values + hook % values)
    assert complaint(path) == "many.yaml:7:5: this makes 32000 policies; stay below 16385"


def test_large_and_bottomless_files_are_refused_before_they_cost_anything(tmp_path: Path) -> None:
    path = tmp_path / "huge.yaml"
    with path.open("wb") as file:
        file.truncate(1 << 40)
    limit = f"is larger than {MAX_BYTES // 1024} KiB"
    assert complaint(path).startswith(f"huge.yaml:1:1: {limit}; split it: a file is one Tracing")
    path.write_text("spec: " + "[" * 100_000)
    assert "nests deeper than 16 levels; nothing in a policy needs that" in complaint(path)
    path.write_text(ONE + "  - {call: sys_sync, tags: %s}\n" % ("[" * 11 + "]" * 11))
    assert complaint(path) == ""


def test_the_parser_is_imported_only_where_a_file_is_read() -> None:
    code = "import sys, refagent.policyfile, refagent.agent; print('yaml' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, text=True)
    assert done.stdout == "False\n"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("any")


#: Lines of the good files in any order, and what breaks them.
LINES = st.sampled_from(
    sorted(
        {line for path in PUBLISHED + SHORT for line in path.read_text().splitlines()}
        | {"---", "- ", "  - [", "}", "a: &a b", "*a", "\t", "    values:", "      - {", "\x85x"}
    )
)


@given(st.one_of(st.lists(LINES, max_size=30).map("\n".join), st.text()))
@example("spec")
@example("spec: \nkind: ")
@example("- - a")
def test_any_text_is_policies_or_one_line(folder: Path, text: str) -> None:
    path = folder / "any.yaml"
    path.write_bytes(text.encode("utf-8", "replace"))
    line = complaint(path)
    assert not line or line.startswith("any.yaml:")
    assert not line or line.isprintable()


@given(st.data())
def test_a_good_file_with_a_wrong_word_is_policies_or_one_line(
    folder: Path, data: st.DataObject
) -> None:
    text = data.draw(st.sampled_from(PUBLISHED)).read_text()
    lines = text.splitlines()
    at = data.draw(st.integers(0, len(lines) - 1))
    key, colon, _ = lines[at].partition(":")
    word = data.draw(
        st.sampled_from(["", "[]", "{}", "x", "-1", "[x]", "{x: y}", "0", "''", "1e9"])
    )
    lines[at] = f"{key}{colon} {word}" if colon else f"{key}{word}"
    path = folder / "changed.yaml"
    path.write_text("\n".join(lines))
    line = complaint(path)
    assert not line or line.startswith("changed.yaml:")
