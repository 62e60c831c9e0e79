# SPDX-License-Identifier: Apache-2.0
"""Steps within a step: read, bound and judged as those that stand alone."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

import pytest

from hookproof import repeats
from hookproof.bind import bind
from hookproof.case import cases
from hookproof.decode import read_scenario
from hookproof.judge import judge
from hookproof.scenario import Call
from hookproof.settings import Settings
from hookproof.verdict import Outcome, Verdict
from vm import catalog
from vm.default import default_catalog
from vm.errors import Problem

HOLD = """\
about: A call waits.
params: {n: [3]}
policies:
  deny: {hook: security_path_mkdir, path: /run/t/$i, override: EPERM}
steps:
  - load: deny-$n
  - hold: override
    at: security_path_mkdir
    call: {mkdir: /run/t/$n/x, by: a, gives: EPERM}
    meanwhile:
      - mkdir: /run/t/$i
        times: 2
      - unload: deny-$n
        returns: after
"""
STORM = """\
about: Two at once.
steps:
  - storm:
      - - {mkdir: /run/t/x}
        - {rmdir: /run/t/x}
      - - {symlink: /run/t/l, by: b, gives: EPERM}
    seed: 7
"""
HELD = {"path": "/run/t/3/x", "mode": 0o755, "by": "a"}


def last(folder: Path, text: str, **params: int) -> Call:
    path = folder / "it.yaml"
    path.write_text(text, encoding="utf-8")
    return bind(read_scenario(path, "it.yaml"), params, {})[-1]


def said(call: str = "EPERM", unload: str = "ok", when: str = "after") -> dict[str, Any]:
    meanwhile = [
        {"results": ["ok", "ok"], "when": "during"},
        {"results": [unload], "when": when},
    ]
    return {"call": [call], "meanwhile": meanwhile}


def test_a_hold_is_one_call_with_its_steps_in_it(tmp_path: Path) -> None:
    call = last(tmp_path, HOLD, n=3)
    first, second = ({"path": f"/run/t/{number}", "mode": 0o755} for number in (1, 2))
    assert call.calls == (
        {
            "point": "override",
            "at": "security_path_mkdir",
            "call": {"verb": "mkdir", "calls": [HELD], "returns": "during"},
            "meanwhile": [
                {"verb": "mkdir", "calls": [first, second], "returns": "during"},
                {"verb": "unload", "calls": [{"name": "deny-3"}], "returns": "after"},
            ],
        },
    )
    assert call.text == "hold mkdir /run/t/3/x by a at override of security_path_mkdir"


@pytest.mark.parametrize(
    ("result", "words"),
    [
        (said(), ""),
        (said(call="ok"), "expected EPERM, got ok (mkdir /run/t/3/x by a)"),
        (said(unload="EIO"), "meanwhile: expected ok, got EIO (unload deny-3)"),
        (
            said(when="during"),
            "unload deny-3 returned before the held call was let go (mkdir /run/t/3/x by a)",
        ),
    ],
)
def test_each_of_them_is_judged(tmp_path: Path, result: dict[str, Any], words: str) -> None:
    assert judge(last(tmp_path, HOLD, n=3), [result]) == words


def test_what_is_to_end_meanwhile_does_not_end_after(tmp_path: Path) -> None:
    call = last(tmp_path, HOLD.replace("returns: after", "returns: during"), n=3)
    assert "unload deny-3 did not return until the held call was let go" in judge(call, [said()])
    either = last(tmp_path, HOLD.replace("returns: after", "returns: either"), n=3)
    assert judge(either, [said()]) == judge(either, [said(when="during")]) == ""


@pytest.mark.parametrize(
    ("result", "words"),
    [
        ({"unreached": True, "call": ["ok"]}, "and never came there: it gave ok"),
        ({"overtime": True}, "and went on by itself before it was let go"),
    ],
)
def test_a_call_that_was_not_held_shows_nothing(
    tmp_path: Path, result: dict[str, Any], words: str
) -> None:
    with pytest.raises(Problem, match=words):
        judge(last(tmp_path, HOLD, n=3), [result])


def test_a_storm_is_judged_by_all_its_rounds(tmp_path: Path) -> None:
    call = last(tmp_path, STORM)
    assert call.text == "storm of 2 branches for 1 s, seed 7"
    good = [[[["ok", 9, 1]]], [[["ok", 9, 1]]]], [[[["EPERM", 40, 1]]]]
    assert judge(call, [{"branches": good}]) == ""
    bad = good[0], [[[["EPERM", 38, 1], ["ok", 2, 17]]]]
    assert judge(call, [{"branches": bad}]) == (
        "expected EPERM, got ok (branch 2: symlink /run/t/l by b; 2 of 40 rounds, first in round"
        " 17; storm of 2 branches for 1 s, seed 7)"
    )


def test_turns_are_counted_and_a_failed_one_can_be_had_again(tmp_path: Path) -> None:
    path = tmp_path / "it.yaml"
    path.write_text(HOLD, encoding="utf-8")
    known = catalog.read(default_catalog())
    (kernel,) = catalog.select(known, ["6.12"])
    turns = list(cases(read_scenario(path, "s/it.yaml"), [kernel], 3))
    assert [case.name for case in turns] == [f"it[6.12-3-turn{turn}]" for turn in (1, 2, 3)]
    settings = Settings("tcg", tmp_path, known, (kernel,), tmp_path, repeat=3)
    outcomes = (Outcome.PASS, Outcome.FAIL, Outcome.PASS)
    done = [(case, Verdict(outcome)) for case, outcome in zip(turns, outcomes, strict=True)]
    command = "hookproof run s/it.yaml -k 'it[6.12-3-turn' --kernel 6.12 --repeat 3"
    command += " --machine snapshot --accel tcg"
    assert repeats.lines(done, settings) == [
        "s/it.yaml::it[6.12-3]: 3 times: 2 pass, 1 fail",
        f"  again: {command}",
    ]
    assert repeats.lines(done[:1], settings) == ["s/it.yaml::it[6.12-3]: 1 times: 1 pass"]


def test_the_command_names_another_list_and_comments_the_boot(tmp_path: Path) -> None:
    path, listed = tmp_path / "it.yaml", tmp_path / "my kernels.txt"
    path.write_text(f"boot: [lsm=bpf, quiet]\n{HOLD}", encoding="utf-8")
    listed.write_text("new debian:trixie/6.12.*\n", encoding="utf-8")
    known = catalog.read(listed)
    (case,) = cases(read_scenario(path, "s/it.yaml"), known)
    settings = Settings("tcg", tmp_path, known, known, tmp_path)
    *_, again = repeats.lines([(case, Verdict(Outcome.FAIL))], settings)
    command, _, comment = again.partition("  # ")
    assert shlex.split(command)[-2:] == ["--kernels", str(listed)]
    assert comment == "boots with: lsm=bpf quiet"
