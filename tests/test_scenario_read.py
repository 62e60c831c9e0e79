# SPDX-License-Identifier: Apache-2.0
"""A scenario file becomes data: by declared types, never by YAML's own guesses."""

from pathlib import Path
from typing import Any

import pytest

from hookproof.decode import read_scenario
from hookproof.names import Sum
from hookproof.scenario import Scenario
from hookproof.verbs import VERBS
from hookproof.yamltree import Location, Mapping, Node, Scalar, Sequence, read


def scenario(tmp_path: Path, text: str) -> Scenario:
    path = tmp_path / "case.yaml"
    path.write_text(text, encoding="utf-8")
    return read_scenario(path, "case.yaml")


def plain(node: Node) -> Any:
    if isinstance(node, Scalar):
        return node.text
    if isinstance(node, Sequence):
        return [plain(each) for each in node.items]
    assert isinstance(node, Mapping)
    return {key.text: plain(value) for key, value in node.pairs}


@pytest.mark.parametrize(
    "word",
    [
        "yes",
        "no",
        "on",
        "off",
        "y",
        "n",
        "null",
        "~",
        "true",
        "6.10",
        "0755",
        "0o755",
        "0x1F",
        "1:30",
        "1e3",
        "1_000",
        ".inf",
        "2026-11-22",
        "=",
        "-1",
        "+1",
    ],
)
def test_word_stays_as_it_was_written(tmp_path: Path, word: str) -> None:
    path = tmp_path / "word.yaml"
    path.write_text(f"about: {word}\nlist: [{word}, '{word}']\n")
    assert plain(read(path, "word.yaml")) == {"about": word, "list": [word, word]}


def test_every_key_lands_in_its_place(tmp_path: Path) -> None:
    got = scenario(
        tmp_path,
        "# comment\n"
        "steps:\n"
        "  - load: deny\n"
        "    times: $n\n"
        "  - mkdir: /run/t/x\n"
        "    mode: 0o700\n"
        "    gives: EPERM\n"
        "policies:\n"
        "  deny: {hook: security_path_mkdir, path: /run/t/$i, override: $e}\n"
        "params: {n: [1, 0o10, limit+1], e: EACCES}\n"
        "boot: [quiet, lsm=bpf]\n"
        "needs: fmod_ret\n"
        "origin: https://example.org/1\n"
        "about: It costs $5, and holds.\n",
    )
    assert got.name == "case"
    assert got.about == "It costs $5, and holds."
    assert got.origin == "https://example.org/1"
    assert got.needs == ("fmod_ret",)
    assert got.boot == ("quiet", "lsm=bpf")
    assert got.params["n"][:2] == (1, 8)
    assert isinstance(got.params["n"][2], Sum)
    assert got.params["e"] == ("EACCES",)
    assert got.facts == ("limit",)
    assert got.policies["deny"]["hook"] == "security_path_mkdir"
    assert got.where == Location("case.yaml", 2, 1)
    load, mkdir = got.steps
    assert (load.verb, load.where) == ("load", Location("case.yaml", 3, 5))
    assert mkdir.args == {"path": "/run/t/x", "mode": 0o700}
    assert (mkdir.times, mkdir.gives) == (1, "EPERM")


def test_defaults_of_a_step(tmp_path: Path) -> None:
    text = "about: a\nsteps:\n  - mkdir: /x\n  - symlink: /y\n  - open: /z\n  - exec: /bin/true\n"
    mkdir, symlink, opened, ran = scenario(tmp_path, text).steps
    assert mkdir.args["mode"] == 0o755
    assert symlink.args["target"] == "target"
    assert opened.args["flags"] == ("O_RDONLY",)
    assert ran.args["argv"] == ("/bin/true",)
    assert all(step.gives == "ok" for step in (mkdir, symlink, opened, ran))


def test_expectations_beside_the_verb_and_inside_it(tmp_path: Path) -> None:
    steps = scenario(
        tmp_path,
        "about: a\n"
        "steps:\n"
        "  - read: /x\n"
        "  - read: /x\n"
        "    text: ''\n"
        "  - read: /x\n"
        "    contains: b\n"
        "  - read: /x\n"
        "    gives: ENOENT\n"
        "  - links: {function: f, fmod_ret: 1, lsm: 0}\n",
    ).steps
    assert [step.gives for step in steps] == [
        "ok",
        {"text": ""},
        {"contains": "b"},
        "ENOENT",
        {"fmod_ret": 1, "lsm": 0},
    ]
    assert steps[-1].args == {"function": "f"}


def test_byte_order_mark_and_windows_line_ends_are_harmless(tmp_path: Path) -> None:
    path = tmp_path / "case.yaml"
    path.write_bytes(b"\xef\xbb\xbfabout: a\r\nsteps:\r\n  - mkdir: /x\r\n")
    got = read_scenario(path, "case.yaml")
    assert (got.about, got.steps[0].where) == ("a", Location("case.yaml", 3, 5))


def test_column_counts_characters_not_bytes(tmp_path: Path) -> None:
    got = scenario(tmp_path, "about: ä\nsteps: [{mkdir: /ä/ü}, {mkdir: /x}]\n")
    assert got.steps[1].where == Location("case.yaml", 2, 25)


@pytest.mark.parametrize("verb", VERBS.values(), ids=lambda verb: verb.name)
def test_example_of_each_verb_is_a_step(tmp_path: Path, verb: Any) -> None:
    declared = "policies:\n" + "".join(f"  {p}: {{hook: f}}\n" for p in ("a", "b", "deny"))
    used = "  - loaded: [a, b, deny]\n"
    got = scenario(tmp_path, f"about: a\n{declared}steps:\n{used}  - {verb.example}\n")
    assert got.steps[-1].verb == verb.name
