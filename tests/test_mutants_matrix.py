# SPDX-License-Identifier: Apache-2.0
"""What verdicts say about mutants, and which of it makes the command fail."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from hookproof.decode import read_scenario
from hookproof.mutants import report
from hookproof.mutants.inside import judged
from hookproof.mutants.matrix import CONTROL, Cell, Matrix, Result, beside_control, result_of
from hookproof.mutants.patch import Mutant
from hookproof.mutants.session import worst
from hookproof.scenario import Scenario
from hookproof.verdict import Outcome, Verdict

ROOT = Path(__file__).resolve().parent.parent
SITE = (ROOT / "refagent" / "site.py", ROOT / "refagent" / "chain.py")
MUTANT = Mutant(
    "m", Path("mutants/m.patch"), "A bug.", "issue 1", ("override/a",), kernels=("6.*",)
)
ABOUT = report.About(datetime(2026, 1, 2, tzinfo=UTC), 12.5, 2)


@pytest.fixture
def scenarios(tmp_path: Path) -> dict[str, Scenario]:
    found = {}
    for name, more in (("a", ""), ("b", ""), ("fact", "no_mutant: it is the kernel's\n")):
        path = tmp_path / f"{name}.yaml"
        path.write_text(f"about: A test.\n{more}steps:\n  - mkdir: /run/t/x\n", encoding="utf-8")
        found[f"override/{name}"] = read_scenario(path, f"scenarios/override/{name}.yaml")
    return found


def cell(mutant: str, name: str, result: Result, reason: str = "") -> Cell:
    return Cell(mutant, f"override/{name}", "6.12", result, "6.12", result.value, reason)


def matrix(scenarios: dict[str, Scenario], *cells: Cell, whole: bool = True) -> Matrix:
    control = [cell(CONTROL, name.rpartition("/")[2], Result.PASSED) for name in scenarios]
    return Matrix([MUTANT], scenarios, ["6.12"], [*control, *cells], {}, whole)


GOOD = (cell("m", "a", Result.KILLED, "no"), cell("m", "b", Result.KILLED, "no"))


@pytest.mark.parametrize(
    ("outcome", "reason", "log", "result"),
    [
        (Outcome.PASS, "", "", Result.PASSED),
        (Outcome.UNSUPPORTED, "lsm: no", "", Result.SKIPPED),
        (Outcome.FAIL, "expected EPERM, got ok (mkdir /run/t/x)", "", Result.KILLED),
        (Outcome.LEAK, "pin /x is left", "", Result.KILLED),
        (Outcome.SPLAT, "WARNING", "", Result.KILLED),
        (Outcome.PANIC, "panic", "", Result.KILLED),
        (Outcome.HANG, "no reply", "", Result.ERROR),
        (Outcome.BOOT, "no boot", "", Result.ERROR),
        (Outcome.INFRA, "the executor failed at 'warm': NameError", "", Result.ERROR),
        (
            *(Outcome.FAIL, "expected ok, got refused 'f cannot be probed: EACCES: R1 !read_ok'"),
            *("", Result.ERROR),
        ),
        (
            Outcome.FAIL,
            "expected ok, got refused 'lsm/x: this kernel does not take the ima program: EINVAL'",
            *("", Result.ERROR),
        ),
        (
            Outcome.FAIL,
            "expected ok, got refused 'this kernel lets no program override f: EINVAL'",
            *("", Result.ERROR),
        ),
        (
            Outcome.FAIL,
            "expected ok, got failed \"the agent failed at 'load': load program sensor: EACCES\"",
            *("", Result.ERROR),
        ),
        (
            Outcome.FAIL,
            "expected ok, got failed \"the agent failed at 'load': not understood: int()\"",
            *("", Result.ERROR),
        ),
        # What a scenario expects is not what the agent said.
        (Outcome.FAIL, "expected refused 'x cannot be probed: ', got ok", "", Result.KILLED),
        (Outcome.FAIL, "it ended", "Traceback\nNameError: name 'x'\n", Result.ERROR),
        (Outcome.FAIL, "it ended", "refagent.errors.AgentError: asleep\n", Result.KILLED),
    ],
)
def test_what_a_verdict_says(outcome: Outcome, reason: str, log: str, result: Result) -> None:
    verdict = Verdict(outcome, reason, evidence={"agent_log": log})
    assert result_of(verdict, MUTANT)[0] is result


@pytest.mark.parametrize(
    ("breaks", "verdict"),
    [
        ("hang", Verdict(Outcome.HANG, "no reply")),
        ("verifier", Verdict(Outcome.FAIL, "expected ok, got refused 'f cannot be probed: E'")),
        ("agent", Verdict(Outcome.FAIL, "ended", evidence={"agent_log": "KeyError: 'x'"})),
    ],
)
def test_a_header_says_that_breaking_is_the_bug(breaks: str, verdict: Verdict) -> None:
    assert result_of(verdict, MUTANT)[0] is Result.ERROR
    assert result_of(verdict, replace(MUTANT, breaks=(breaks,)))[0] is Result.KILLED
    other = "agent" if breaks == "hang" else "hang"
    assert result_of(verdict, replace(MUTANT, breaks=(other,)))[0] is Result.ERROR


def test_the_agents_words_for_a_program_that_is_not_taken_are_these() -> None:
    text = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "refagent").glob("*.py"))
    text += (ROOT / "refagent" / "libbpf" / "template.py").read_text(encoding="utf-8")
    for words in ("cannot be probed: ", "this kernel does not take the ", "load program "):
        assert words in text
    assert "this kernel lets no program override " in text
    assert "not understood: " in text
    assert "is missing or unknown; ops" in text


def test_all_is_well(scenarios: dict[str, Scenario]) -> None:
    assert matrix(scenarios, *GOOD).findings() == []
    assert matrix(scenarios, GOOD[0], whole=False).findings() == []
    assert matrix(scenarios, *GOOD).verdict(MUTANT) == "killed"


def test_a_survivor(scenarios: dict[str, Scenario]) -> None:
    found = matrix(scenarios, cell("m", "a", Result.PASSED), GOOD[1], whole=False)
    (line,) = found.findings()
    assert line.startswith("mutants/m.patch: survives override/a on 6.12; mend the scenario")
    assert found.verdict(MUTANT) == "survived"
    assert "m       6.12    survived  by override/b; not by override/a" in report.table(found)


def test_each_kernel_has_its_own_word(scenarios: dict[str, Scenario]) -> None:
    other = replace(cell("m", "a", Result.PASSED), kernel="6.1")
    found = matrix(scenarios, cell("m", "a", Result.KILLED), other, whole=False)
    lines = report.table(replace(found, kernels=["6.1", "6.12"])).splitlines()
    assert [line.split() for line in lines[1:]] == [
        ["m", "6.1", "survived", "not", "by", "override/a"],
        ["m", "6.12", "killed", "by", "override/a"],
    ]
    assert found.verdict(MUTANT) == "survived"


def test_what_fails_once_and_passes_once_survives() -> None:
    good, bad = cell("m", "a", Result.KILLED, "got ok"), cell("m", "a", Result.PASSED)
    assert worst([good, good]) == good
    assert worst([good, bad, good]) == replace(bad, reason="passed 1 of 3 times")
    control = [replace(each, mutant=CONTROL) for each in (bad, good, bad)]
    assert worst(control) == replace(control[1], reason="killed 1 of 3 times: got ok")


def test_a_scenario_that_the_header_does_not_name_may_pass(scenarios: dict[str, Scenario]) -> None:
    assert matrix(scenarios, GOOD[0], cell("m", "b", Result.PASSED), whole=False).findings() == []


def test_one_that_cannot_run_where_the_header_says(scenarios: dict[str, Scenario]) -> None:
    found = matrix(scenarios, cell("m", "a", Result.SKIPPED, "lsm: no"), whole=False)
    (line,) = found.findings()
    assert "names runs on 6.12 (override/a: lsm: no); leave the kernel out of Kernels" in line
    # One of several that are named is enough.
    both = replace(MUTANT, killed_by=("override/a", "override/b"))
    beside = [*found.cells, cell("m", "b", Result.KILLED, "no")]
    assert replace(found, mutants=[both], cells=beside).findings() == []


def test_no_verdict(scenarios: dict[str, Scenario]) -> None:
    found = matrix(scenarios, cell("m", "a", Result.ERROR, "it hung"), whole=False)
    (line,) = found.findings()
    assert line.startswith("mutants/m.patch: no verdict of override/a on 6.12: it hung; ")
    assert found.verdict(MUTANT) == "suite error"


def test_a_patch_that_is_no_good(scenarios: dict[str, Scenario]) -> None:
    found = replace(matrix(scenarios, whole=False), unfit={"m": "does not apply: error: x"})
    (line,) = found.findings()
    assert line.startswith("mutants/m.patch: does not apply: error: x; make the patch anew")
    assert found.verdict(MUTANT) == "suite error"
    assert "does not apply: error: x" in report.table(found)


def test_the_control_has_to_pass(scenarios: dict[str, Scenario]) -> None:
    found = matrix(scenarios, *GOOD)
    bad = replace(found, cells=[cell(CONTROL, "a", Result.KILLED, "got ok"), *found.cells[1:]])
    (line,) = bad.findings()
    assert line.startswith("scenarios/override/a.yaml: killed on 6.12 without any mutant: got ok; ")


def test_a_scenario_that_no_mutant_fails(scenarios: dict[str, Scenario]) -> None:
    (line,) = matrix(scenarios, GOOD[0]).findings()
    assert line.startswith("scenarios/override/b.yaml: no mutant fails it")
    # What did not run on these kernels is not blamed.
    found = matrix(scenarios, GOOD[0])
    cells = [each for each in found.cells if each.scenario != "override/b"]
    assert replace(found, cells=cells).findings() == []


def test_a_fact_that_a_mutant_fails(scenarios: dict[str, Scenario]) -> None:
    (line,) = matrix(scenarios, *GOOD, cell("m", "fact", Result.KILLED)).findings()
    assert line.startswith("scenarios/override/fact.yaml: says that no mutant can fail it, and m")


def test_a_mutant_of_other_kernels_is_not_shown(scenarios: dict[str, Scenario]) -> None:
    found = replace(matrix(scenarios, whole=False), kernels=["5.10"], cells=[])
    assert found.verdict(MUTANT) == "not shown"
    assert report.summary(found, 3.2) == "1 mutants on 5.10: 1 not shown in 3 s"
    # It is no mistake beside others, but it is one if nothing else was tried.
    (line,) = found.findings()
    assert line == "nothing was tried: no mutant is for 5.10; choose others by --kernel"
    other = replace(MUTANT, name="n", kernels=("5.10",))
    killed = Cell("n", "override/a", "5.10", Result.KILLED)
    beside = replace(found, mutants=[MUTANT, other], cells=[killed])
    assert beside.findings() == []


def test_a_scenario_without_a_case_there(scenarios: dict[str, Scenario]) -> None:
    found = matrix(scenarios, cell("m", "b", Result.KILLED), whole=False)
    (line,) = found.findings()
    assert (
        line == "mutants/m.patch: nothing that Killed-by names runs on 6.12 (no case there); "
        "leave the kernel out of Kernels"
    )


def test_what_the_control_does_not_pass_kills_nothing() -> None:
    killed, other = cell("m", "a", Result.KILLED, "got ok"), cell("m", "b", Result.PASSED)
    passed = cell(CONTROL, "a", Result.PASSED)
    assert beside_control([passed, killed, other]) == [passed, killed, other]
    for control in ([cell(CONTROL, "a", Result.KILLED)], [replace(passed, kernel="7.3")], []):
        found = beside_control([*control, killed, other])
        why = "it does not pass without the mutant either: got ok"
        assert found == [*control, replace(killed, result=Result.ERROR, reason=why), other]


def test_an_interrupted_run_is_not_complete(scenarios: dict[str, Scenario]) -> None:
    found = replace(matrix(scenarios, whole=True), cut=True)
    assert found.findings() == ["interrupted before all was tried; run the rest again"]
    assert found.verdict(MUTANT) == "not shown"


def test_an_agent_that_does_not_start_may_be_the_bug() -> None:
    verdict = Verdict(Outcome.INFRA, "the executor failed at 'warm': OSError: no")
    assert result_of(verdict, replace(MUTANT, breaks=("agent",)))[0] is Result.KILLED
    result, why = result_of(verdict, MUTANT)
    assert result is Result.ERROR
    assert why.startswith("the agent does not start: ")


TEST = "tests/inside/test_x.py::test_y"
OTHER = "tests/inside/test_x.py::test_z"


def account(test: str, why: str, *, at: str = "tests/inside/test_x.py") -> str:
    """As pytest shows a failed test with --tb=short."""
    name = test.rpartition("::")[2]
    places = f"tests/inside/test_x.py:5: in {name}\n    call()\n{at}:7: in call\n    more()\n"
    return f"________ {name} ________\n{places}E   {why}\nE     more\n==== short summary ====\n"


@pytest.mark.parametrize(
    ("text", "log", "result", "reason"),
    [
        (f"{TEST} PASSED [ 50%]\n{OTHER} FAILED", "", Result.PASSED, ""),
        (f"{TEST}[a b] PASSED\n{TEST}[c] SKIPPED", "", Result.PASSED, ""),
        (f"{TEST} SKIPPED (no)", "", Result.SKIPPED, "the test says"),
        (
            f"{TEST}[a] PASSED\n{TEST}[b] FAILED\n{account(OTHER, 'assert other')}"
            + account(f"{TEST}[b]", "assert 1 == 2"),
            *("", Result.KILLED, "assert 1 == 2"),
        ),
        (
            f"{TEST} FAILED\n" + account(TEST, "NameError: name 'x'", at="refagent/site.py"),
            *("", Result.ERROR, "the agent broke: NameError: name 'x'"),
        ),
        (  # which the test raises, of what the agent gave it
            f"{TEST} FAILED\n" + account(TEST, "IndexError: list index out of range"),
            *("", Result.KILLED, "IndexError: list index out of range"),
        ),
        (
            f"{TEST} FAILED\n" + account(TEST, "refagent.errors.Refused: f cannot be probed: R1"),
            *("", Result.ERROR, "the kernel takes no such program: "),
        ),
        (  # which is what the test is about
            f"{TEST} FAILED\n"
            + account(TEST, "assert not [Refused('f cannot be probed: EMFILE')]"),
            *("", Result.KILLED, "assert not [Refused"),
        ),
        (  # what came of it counts
            (
                f"{TEST} FAILED\n________ test_y ________\n"
                "refagent/site.py:1: in x\nE   KeyError: 1\n\n"
                "The above exception was the direct cause of the following exception:\n"
                "tests/inside/test_x.py:3: in test_y\nE   refagent.errors.AgentError: no\n"
            ),
            *("", Result.KILLED, "refagent.errors.AgentError: no"),
        ),
        (  # what one parameter says is enough
            f"{TEST}[a] FAILED\n{TEST}[b] FAILED\n"
            + account(f"{TEST}[a]", "KeyError: 1", at="refagent/site.py")
            + account(f"{TEST}[b]", "assert 1 == 2"),
            *("", Result.KILLED, "assert 1 == 2"),
        ),
        (
            (
                f"{TEST} PASSED\n{TEST} ERROR\n________ ERROR at teardown of test_y ________\n"
                "tests/inside/conftest.py:9: in _nothing_left\nE   AssertionError: left\n"
            ),
            *("", Result.KILLED, "AssertionError: left"),
        ),
        (  # a long name fills the line
            f"{TEST} FAILED\n_ test_y _\nE   assert 1 == 2\n_ {'long' * 19} _\nE   no\n",
            *("", Result.KILLED, "assert 1 == 2"),
        ),
        (  # before it began
            (
                f"{TEST}[a] PASSED\n{TEST}[b] ERROR\n"
                "________ ERROR at setup of test_y[b] ________\nE   OSError: no\n= 1 error =\n"
            ),
            *("", Result.ERROR, "it did not run: = 1 error ="),
        ),
        (f"{TEST} FAILED\n", "", Result.ERROR, "pytest does not say why"),
        ("ERROR: not found: x\n", "", Result.ERROR, "it did not run: ERROR: not found: x"),
        (f"{TEST} PASSED", "WARNING: at x", Result.KILLED, "WARNING: at x"),
    ],
)
def test_what_a_test_in_a_guest_says(text: str, log: str, result: Result, reason: str) -> None:
    found = judged(Cell("m", TEST, "6.12", Result.ERROR), text, log, MUTANT)
    assert found.result is result
    assert found.reason.startswith(reason)
    assert bool(found.reason) == bool(reason)
    if reason.startswith("the agent broke"):
        broken = replace(MUTANT, breaks=("agent",))
        assert judged(found, text, log, broken).result is Result.KILLED


def test_the_files(scenarios: dict[str, Scenario], tmp_path: Path) -> None:
    results = tmp_path / "results"
    odd = cell("m", "a", Result.PASSED, "<b> & 'c' \udcff")
    report.write(results, matrix(scenarios, odd, GOOD[1]), ABOUT)
    assert sorted(path.name for path in results.iterdir()) == ["mutants.html", "mutants.json"]
    raw = json.loads((results / "mutants.json").read_text(encoding="utf-8"))
    assert raw["mutants"][0]["verdict"] == "survived"
    assert raw["cells"][0]["mutant"] is None
    assert raw["cells"][-1] == {
        "mutant": "m",
        "scenario": "override/b",
        "kernel": "6.12",
        "result": "killed",
        "case": "6.12",
        "outcome": "killed",
        "reason": "no",
        "seconds": 0.0,
    }
    assert len(raw["findings"]) == 2
    page = (results / "mutants.html").read_text(encoding="utf-8")
    assert "&lt;b&gt; &amp; &#x27;c&#x27; \\udcff" in page
    assert '<td class="passed named"' in page
    assert page.count('<td class="killed"') == 1
