# SPDX-License-Identifier: Apache-2.0
"""junit.xml, results.json and the evidence folders say what the rows say, whatever is in them."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ET
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hookproof.case import Case
from hookproof.report import KernelFacts, Row, Session, write
from hookproof.report.evidence import folders
from hookproof.report.junit import LOG_LIMIT, document
from hookproof.report.text import safe_name, to_json
from hookproof.scenario import Scenario
from hookproof.verdict import MARKS, Outcome, StepRecord, Verdict
from hookproof.yamltree import Location
from vm.kernel import Kernel, LocalSource

SESSION = Session(
    started=datetime(2026, 11, 22, 3, 4, 5, tzinfo=UTC),
    seconds=61.5,
    cores=2,
    accel="tcg",
    kernels=(
        KernelFacts("6.12", "6.12.107+deb13-amd64", "6.12.107-1", "ab" * 32),
        KernelFacts("5.10", "5.10.0-32-amd64", "5.10.223-1", "cd" * 32),
    ),
)
STEPS = (
    StepRecord("scenarios/override/limit.yaml:7:5", "load deny (x64)", 1.25),
    StepRecord("scenarios/override/limit.yaml:9:5", "mkdir /run/t/1", 0.5, "gave ok, not EPERM"),
)


def row(
    outcome: Outcome = Outcome.PASS,
    *,
    kernel: str = "6.12",
    path: str = "scenarios/override/limit.yaml",
    params: dict[str, str | int] | None = None,
    **verdict: Any,
) -> Row:
    params = {"n": 64} if params is None else params
    name = "-".join([kernel, *map(str, params.values())])
    return Row(kernel, Path(path).stem, Path(path), params, name, Verdict(outcome, **verdict))


def junit(*rows: Row) -> ET.Element:
    return ET.fromstring(document(rows, SESSION).encode())  # noqa: S314  we wrote it


# Rows


def test_a_row_is_made_from_a_case(tmp_path: Path) -> None:
    file = tmp_path / "scenarios" / "override" / "limit.yaml"
    scenario = Scenario("limit", file, "x", (), Location(str(file), 1, 1))
    case = Case(scenario, Kernel("6.12", LocalSource(Path("/x"))), {"n": 64, "errno": "EPERM"})
    verdict = Verdict(Outcome.PASS)
    made = Row.of(case, verdict, tmp_path)
    assert made == Row(
        "6.12",
        "limit",
        Path("scenarios/override/limit.yaml"),
        {"n": 64, "errno": "EPERM"},
        "6.12-64-EPERM",
        verdict,
    )
    assert made.name == case.name
    assert Row.of(case, verdict, tmp_path / "elsewhere").path == Path("override/limit.yaml")


# junit.xml


def test_one_suite_per_kernel_in_the_sessions_order() -> None:
    root = junit(row(kernel="5.10"), row(kernel="6.12"), row(kernel="7.3"))
    assert [suite.get("name") for suite in root] == ["6.12", "5.10", "7.3"]
    properties = {one.get("name"): one.get("value") for one in root.iter("property")}
    assert properties["release"] == "5.10.0-32-amd64"
    assert root[0].get("timestamp") == "2026-11-22T03:04:05+00:00"


def test_names_time_and_place_of_a_case() -> None:
    where = "/home/me/scenarios/override/limit.yaml:9:5"
    [case] = junit(row(Outcome.FAIL, reason="r", where=where, seconds=1.75)).iter("testcase")
    assert case.attrib == {
        "classname": "scenarios.override.limit",
        "name": "limit[6.12-64]",
        "time": "1.750000",
        "file": "scenarios/override/limit.yaml",
        "line": "9",
    }


@pytest.mark.parametrize("outcome", Outcome)
@pytest.mark.parametrize("reason", ["why", "", " \x00"])
def test_each_outcome_is_counted_as_its_mark(outcome: Outcome, reason: str) -> None:
    root = junit(row(outcome, reason=reason, steps=STEPS))
    [suite], [case] = root, root.iter("testcase")
    mark = MARKS[outcome]
    counts = {"failure": "failures", "error": "errors", "skipped": "skipped"}
    assert {key: suite.get(key) for key in counts.values()} == {
        key: str(int(key == counts.get(mark))) for key in counts.values()
    }
    results = [element for element in case if element.tag in counts]
    if mark == "passed":
        assert results == []
        return
    [result] = results
    assert result.tag == mark
    assert result.get("message") == ("why" if reason == "why" else outcome.value)
    if mark != "skipped":
        assert result.get("type") == outcome.value
        assert "gave ok, not EPERM" in (result.text or "")


def test_the_totals_of_the_file() -> None:
    root = junit(*(row(outcome, params={"n": i}, reason="x") for i, outcome in enumerate(Outcome)))
    assert (root.get("tests"), root.get("failures"), root.get("errors")) == ("9", "4", "3")


def test_system_out_is_the_kernel_log() -> None:
    log = "[    1.000000] <script> & ]]> \x1b[1m\x00\udc80\ufffe\U0001f427 é\r\nnext"
    [out] = junit(row(kernel_log=log)).iter("system-out")
    assert out.text == "[    1.000000] <script> & ]]> [1m\U0001f427 é\nnext"


def test_a_huge_log_is_cut_in_the_middle() -> None:
    log = "first\n" + "x" * 20_000_000 + "\nlast"
    [out] = junit(row(kernel_log=log)).iter("system-out")
    assert out.text is not None
    assert len(out.text) < LOG_LIMIT + 100
    assert out.text.startswith("first\n")
    assert out.text.endswith("\nlast")
    assert "characters left out" in out.text


@settings(deadline=None, max_examples=100)
@given(text=st.text(st.characters(exclude_categories=[])), outcome=st.sampled_from(Outcome))
def test_any_text_gives_a_file_that_can_be_parsed(text: str, outcome: Outcome) -> None:
    params: dict[str, str | int] = {"p": text}
    nasty = row(outcome, params=params, reason=text, where=text, kernel_log=text)
    [case] = junit(nasty).iter("testcase")
    assert (case.get("name") or "").startswith("limit[6.12-")


# results.json


def written(results: Path, *rows: Row) -> dict[str, Any]:
    write(results, rows, SESSION)
    raw: dict[str, Any] = json.loads((results / "results.json").read_text(encoding="utf-8"))
    return raw


def test_results_json_whole(tmp_path: Path) -> None:
    where = "scenarios/override/limit.yaml:9:5"
    bad = row(Outcome.FAIL, reason="gave ok, not EPERM", where=where, steps=STEPS, seconds=1.75)
    raw = written(tmp_path / "results", row(kernel="5.10"), bad)
    assert raw.pop("rows")[1] == {
        "kernel": "6.12",
        "scenario": "limit",
        "path": "scenarios/override/limit.yaml",
        "params": {"n": 64},
        "id": "6.12-64",
        "outcome": "fail",
        "mark": "failure",
        "reason": "gave ok, not EPERM",
        "where": where,
        "seconds": 1.75,
        "steps": [
            {
                "where": "scenarios/override/limit.yaml:7:5",
                "text": "load deny (x64)",
                "seconds": 1.25,
                "wrong": "",
            },
            {
                "where": "scenarios/override/limit.yaml:9:5",
                "text": "mkdir /run/t/1",
                "seconds": 0.5,
                "wrong": "gave ok, not EPERM",
            },
        ],
        "evidence": "evidence/6.12/limit[64]",
    }
    assert raw == {
        "format": 1,
        "tool": "hookproof",
        "started": "2026-11-22T03:04:05+00:00",
        "seconds": 61.5,
        "host": {"cores": 2, "accel": "tcg"},
        "kernels": [
            {
                "name": "6.12",
                "release": "6.12.107+deb13-amd64",
                "version": "6.12.107-1",
                "sha256": "ab" * 32,
            },
            {
                "name": "5.10",
                "release": "5.10.0-32-amd64",
                "version": "5.10.223-1",
                "sha256": "cd" * 32,
            },
        ],
        "totals": {"passed": 1, "failed": 1, "errors": 0, "skipped": 0},
    }


DOCUMENTED = (Path(__file__).parents[1] / "docs" / "results.md").read_text(encoding="utf-8")


def test_every_field_is_documented(tmp_path: Path) -> None:
    def keys(value: Any) -> set[str]:
        if isinstance(value, dict):
            return set(value).union(*map(keys, value.values()))
        return set().union(*map(keys, value)) if isinstance(value, list) else set()

    raw = written(tmp_path / "results", row(params={}, steps=STEPS))
    assert {key for key in keys(raw) if f"`{key}`" not in DOCUMENTED} == set()


def test_values_that_json_has_no_word_for() -> None:
    text = to_json({"nan": float("nan"), "bytes": b"\xff", "half": "\udc80", 1: (True, None, {3})})
    assert json.loads(text) == {
        "nan": "nan",
        "bytes": r"b'\xff'",
        "half": r"\udc80",
        "1": [True, None, "{3}"],
    }


# Evidence


def test_the_evidence_folder_of_a_row(tmp_path: Path) -> None:
    evidence = {"census": {"programs": [1, 2]}, "agent": "line 1\nline 2\n", "verdict": 1}
    one = row(
        Outcome.LEAK,
        reason="a map is left",
        steps=STEPS,
        kernel_log="log \udcff\n",
        console="tail\n",
        evidence=evidence,
    )
    raw = written(tmp_path / "results", one, row(params={"n": 1}))
    folder = tmp_path / "results" / raw["rows"][0]["evidence"]
    files = {path.name: path.read_text(encoding="utf-8") for path in folder.iterdir()}
    assert files.pop("kernel.log") == "log \\udcff\n"
    assert files.pop("console.log") == "tail\n"
    assert files.pop("agent.txt") == "line 1\nline 2\n"
    assert json.loads(files.pop("census.json")) == {"programs": [1, 2]}
    told = json.loads(files.pop("verdict.json"))
    assert raw["rows"][0] == {**told, "evidence": "evidence/6.12/limit[64]"}
    steps = files.pop("steps.txt").split("\n")
    assert steps[0] == "ok        1.250 s  scenarios/override/limit.yaml:7:5  load deny (x64)"
    assert steps[1:3] == [
        "WRONG     0.500 s  scenarios/override/limit.yaml:9:5  mkdir /run/t/1",
        "       gave ok, not EPERM",
    ]
    assert steps[3:] == ["leak: a map is left", ""]
    [(name, text)] = files.items()  # an evidence of the name of our own file stays apart
    assert name.startswith("verdict-")
    assert text == "1\n"
    other = tmp_path / "results" / raw["rows"][1]["evidence"]
    assert {path.name for path in other.iterdir()} == {"kernel.log", "steps.txt", "verdict.json"}


def test_rows_that_would_share_a_folder_do_not() -> None:
    rows = [
        row(),
        row(path="scenarios/lsm/limit.yaml"),
        row(path="scenarios/lsm/LIMIT.yaml"),
        row(),
        row(params={"n": "a/b"}),
        row(params={"n": "a_b"}),
        row(params={"a": "b-c"}),
        row(params={"a": "b", "c": "c"}),
    ]
    found = folders(rows)
    assert len({str(one).casefold() for one in found}) == len(rows)
    assert folders(rows) == found
    assert all(str(one).startswith("evidence/6.12/") for one in found)


def test_a_rows_folder_does_not_depend_on_the_order() -> None:
    rows = [row(), row(path="scenarios/lsm/limit.yaml"), row(kernel="5.10")]
    assert folders(rows) == folders(rows[::-1])[::-1]


@settings(deadline=None)
@given(st.lists(st.tuples(st.text(max_size=300), st.text(max_size=300)), max_size=8))
def test_no_name_leaves_the_evidence_folder(names: list[tuple[str, str]]) -> None:
    rows = [row(kernel=kernel, params={"n": value}) for kernel, value in names]
    rows += [row(kernel="..", params={"n": "/../../x"}), row(path="x/..yaml", params={})]
    found = folders(rows)
    assert len({str(one).casefold() for one in found}) == len(rows)
    for one in found:
        assert len(one.parts) == 3
        assert not {".", "..", ""} & set(one.parts)
        assert all(len(part.encode()) < 200 for part in one.parts)


@pytest.mark.parametrize("name", ["limit[64]", "limit[limit+1]", "6.12", "a_b-c=d"])
def test_plain_names_stay_as_they_are(name: str) -> None:
    assert safe_name(name, "key") == name


@pytest.mark.parametrize("name", ["", ".", "..", ".hidden", "-rf", "a/b", "a\0b", "é", "x" * 300])
def test_other_names_are_changed_and_told_apart(name: str) -> None:
    assert safe_name(name, "one") != name
    assert safe_name(name, "one") != safe_name(name, "two")
