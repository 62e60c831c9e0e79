# SPDX-License-Identifier: Apache-2.0
"""Where a scenario expects a report of the kernel's, one passes, and none fails; elsewhere not."""

from dataclasses import replace
from pathlib import Path

import pytest

from hookproof.case import Case
from hookproof.decode import read_scenario
from hookproof.splats import expected
from hookproof.verdict import Outcome, StepRecord, Verdict
from vm import catalog
from vm.default import default_catalog

ROOT = Path(__file__).resolve().parent.parent
KNOWN = catalog.read(default_catalog())


def case(folder: Path, kernel: str) -> Case:
    path = folder / "it.yaml"
    path.write_text("about: A test.\nsplats: ['6.*', '7.0']\nsteps:\n  - mkdir: /x\n", "utf-8")
    (found,) = catalog.select(KNOWN, [kernel])
    return Case(read_scenario(path), found, {})


@pytest.mark.parametrize("outcome", [Outcome.SPLAT, Outcome.PANIC])
def test_a_report_is_what_is_expected(tmp_path: Path, outcome: Outcome) -> None:
    verdict = Verdict(outcome, "Oops: int3", kernel_log="log", evidence={"leaks": []})
    passed = expected(case(tmp_path, "6.12"), verdict)
    assert (passed.outcome, passed.reason, passed.kernel_log) == (Outcome.PASS, "", "log")
    assert passed.evidence == {"leaks": [], "reported": "Oops: int3"}


def test_a_report_beside_a_wrong_step_proves_nothing(tmp_path: Path) -> None:
    right, wrong = (StepRecord("it.yaml:4:5", "mkdir /x", 0.1, each) for each in ("", "got EPERM"))
    reason = "WARNING: CPU: 0 (and: got EPERM)"
    verdict = Verdict(Outcome.SPLAT, reason, "it.yaml:4:5", steps=(right, wrong))
    failed = expected(case(tmp_path, "6.12"), verdict)
    assert (failed.outcome, failed.where) == (Outcome.FAIL, "it.yaml:4:5")
    assert failed.reason.endswith(f"proves nothing: {reason}")
    panicked = replace(verdict, outcome=Outcome.PANIC)  # which can be why the step went wrong
    assert expected(case(tmp_path, "6.12"), panicked).outcome is Outcome.PASS


@pytest.mark.parametrize(
    ("outcome", "reason", "said"),
    [
        (Outcome.PASS, "", "its log has no report"),
        (Outcome.FAIL, "expected ok, got EPERM", "no report (and: expected ok, got EPERM)"),
        (Outcome.LEAK, "a map is left", "no report (and: a map is left)"),
    ],
)
def test_no_report_is_a_failure(tmp_path: Path, outcome: Outcome, reason: str, said: str) -> None:
    failed = expected(case(tmp_path, "6.12"), Verdict(outcome, reason))
    assert failed.outcome is Outcome.FAIL
    assert failed.reason.startswith("6.12 is said to have this bug, ")
    assert failed.reason.endswith(said)
    assert failed.where.endswith("it.yaml:1:1")


@pytest.mark.parametrize(
    "outcome", [Outcome.HANG, Outcome.BOOT, Outcome.INFRA, Outcome.UNSUPPORTED]
)
def test_what_shows_nothing_stays_what_it_is(tmp_path: Path, outcome: Outcome) -> None:
    verdict = Verdict(outcome, "why")
    assert expected(case(tmp_path, "6.12"), verdict) is verdict


@pytest.mark.parametrize("outcome", list(Outcome))
def test_on_other_kernels_nothing_is_expected(tmp_path: Path, outcome: Outcome) -> None:
    verdict = Verdict(outcome, "why")
    assert expected(case(tmp_path, "7.3"), verdict) is verdict


def test_each_of_the_repositorys_own_is_for_kernels_with_and_without_the_bug() -> None:
    files = sorted((ROOT / "kernelbugs").glob("*.yaml"))
    assert files
    for path in files:
        scenario = read_scenario(path)
        cases = [Case(scenario, kernel, {}) for kernel in KNOWN]
        silent = Verdict(Outcome.PASS)
        outcomes = {each.kernel.name: expected(each, silent).outcome for each in cases}
        assert outcomes["6.12"] is Outcome.FAIL
        assert outcomes["7.3"] is Outcome.PASS
