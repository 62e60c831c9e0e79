# SPDX-License-Identifier: Apache-2.0
"""Scenarios in real pytest sessions; where a machine is not the point, a runner by the hook."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

pytest_plugins = ["pytester"]

KERNELS = "a local:/boot/a\nb local:/boot/b\nc local:/boot/c default=no\n"

#: A runner that answers `ok`, or what a line `# OUTCOME on KERNELS: reason` of the scenario says.
CONFTEST = """
import pathlib
import re
from types import MappingProxyType
from hookproof.verdict import Outcome, StepRecord, Verdict

class Runner:
    images = MappingProxyType({})
    accel = "tcg"

    def __init__(self, log, say):
        self.log, self.say = log, say

    def expect(self, cases, seconds):
        self.log("expect", *map(round, seconds))

    def run(self, case):
        self.log("run", case.kernel.name, case.scenario.name, *map(str, case.params.values()))
        self.say(f"{case.kernel.name}: progress")
        for line in case.scenario.path.read_text().splitlines():
            found = re.fullmatch(r"# (\\w+) on ([\\w ]+): (.*)", line)
            if found and case.kernel.name in found[2].split():
                if found[1] == "INTERRUPT":
                    raise KeyboardInterrupt
                if found[1] == "PROBLEM":
                    from vm.errors import HostProblem
                    raise HostProblem(found[3], hint="install it")
                return self.verdict(case, Outcome[found[1]], found[3])
        return self.verdict(case, Outcome.PASS, "")

    def verdict(self, case, outcome, reason):
        step = case.scenario.steps[0]
        record = StepRecord(str(step.where), "mkdir /x", 0.25, reason)
        where = str(step.where) if reason else ""
        took = case.scenario.path.read_text().count("# slow")
        return Verdict(outcome, reason, where, (record,), "KERNEL LOG", "CONSOLE", seconds=took)

    def close(self):
        self.log("close")
        if pathlib.Path("stuck").exists():
            from vm.errors import LostMachine
            raise LostMachine("a machine did not stop")

def pytest_hookproof_runner(settings, say):
    def log(*words):
        with pathlib.Path("log").open("a") as file:
            print(*words, file=file)
    log("made", settings.accel, ",".join(k.name for k in settings.kernels))
    return Runner(log, say)
"""

#: Hypothesis' plugin would be most of the time of each session.
PLUGINS = ("-p", "hookproof.plugin", "-p", "no:hypothesispytest")
ROOT = Path(__file__).parent.parent

Project = Callable[..., pytest.Pytester]


@pytest.fixture
def project(pytester: pytest.Pytester) -> Project:
    """Makes a repository with scenarios of one step, each with the given first lines."""
    pytester.makefile(".txt", kernels=KERNELS)
    pytester.makeconftest(CONFTEST)
    pytester.makeini("[pytest]\n")

    def make(**scenarios: str) -> pytest.Pytester:
        for name, text in scenarios.items():
            path = pytester.path / "scenarios" / f"{name.replace('__', '/').replace('_', '-')}.yaml"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(f"{text}\nabout: About {name}.\norigin: seen\nsteps:\n  - mkdir: /x\n")
        return pytester

    return make


def run(pytester: pytest.Pytester, *args: str) -> pytest.RunResult:
    return pytester.runpytest_inprocess(*PLUGINS, *args)


def run_apart(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch, *args: str
) -> pytest.RunResult:
    """A process of its own, for what would interrupt this one."""
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    return pytester.runpytest_subprocess(*PLUGINS, *args)


def log(pytester: pytest.Pytester) -> list[str]:
    path = pytester.path / "log"
    return path.read_text().splitlines() if path.exists() else []


def test_items_are_kernels_times_parameters(project: Project) -> None:
    steps = "params: {n: [1, limit+1]}\npolicies: {p: {hook: f, path: /$n}}"
    pytester = project(one=steps)
    path = pytester.path / "scenarios" / "one.yaml"
    path.write_text(path.read_text() + "  - load: p\n")
    result = run(pytester, "--collect-only", "-q")
    assert result.outlines[:4] == [
        "scenarios/one.yaml::one[a-1]",
        "scenarios/one.yaml::one[a-limit+1]",
        "scenarios/one.yaml::one[b-1]",
        "scenarios/one.yaml::one[b-limit+1]",
    ]
    assert result.ret == 0
    assert log(pytester) == []


def test_cases_of_one_machine_run_together_and_the_runner_is_made_once(project: Project) -> None:
    pytester = project(one="boot: quiet", two="", three="boot: quiet")
    result = run(pytester)
    result.assert_outcomes(passed=6)
    assert log(pytester) == [
        "made auto a,b",
        "expect 0 0 0 0 0 0",
        *("run a one", "run a three", "run a two"),
        *("run b one", "run b three", "run b two"),
        "close",
    ]


def test_machines_with_most_to_do_come_first_as_the_last_time_showed(project: Project) -> None:
    pytester = project(one="boot: quiet", two="# slow", three="# slow\n# slow\nboot: quiet")
    run(pytester)
    Path(pytester.path / "log").unlink()
    run(pytester, "--kernel", "a")
    assert log(pytester) == [
        "made auto a",
        "expect 0 2 1",
        *("run a one", "run a three", "run a two"),
        "close",
    ]
    Path(pytester.path / "log").unlink()
    path = pytester.path / "scenarios" / "two.yaml"
    path.write_text("# slow\n# slow\n# slow\n" + path.read_text())
    run(pytester, "--kernel", "a")
    Path(pytester.path / "log").unlink()
    result = run(pytester, "--kernel", "a")
    assert log(pytester)[1:] == [
        "expect 4 0 2",
        *("run a two", "run a one", "run a three"),
        "close",
    ]
    # The table is in the order in which they are listed, whatever came first.
    result.stdout.fnmatch_lines(["one * ok", "three * ok", "two * ok"], consecutive=True)


def test_other_items_keep_their_places(project: Project) -> None:
    pytester = project(one="")
    pytester.makepyfile(test_first="def test_it(): pass\n", test_last="def test_it(): pass\n")
    result = run(pytester, "test_first.py", "scenarios", "test_last.py", "-v", "--no-header")
    names = [line.split("::")[1].split()[0] for line in result.outlines if "PASSED" in line]
    assert names == ["test_it", "one[a]", "one[b]", "test_it"]


@pytest.mark.parametrize(
    ("outcome", "expected"),
    [
        ("FAIL", {"failed": 1}),
        ("LEAK", {"failed": 1}),
        ("SPLAT", {"failed": 1}),
        ("PANIC", {"failed": 1}),
        ("HANG", {"errors": 1}),
        ("BOOT", {"errors": 1}),
        ("INFRA", {"errors": 1}),
        ("UNSUPPORTED", {"skipped": 1}),
    ],
)
def test_verdicts_become_pytest_outcomes(
    project: Project, outcome: str, expected: dict[str, int]
) -> None:
    pytester = project(one=f"# {outcome} on a: the reason")
    result = run(pytester)
    result.assert_outcomes(**{"passed": 1, **expected})
    assert result.ret == (0 if outcome == "UNSUPPORTED" else 1)


def test_failure_reads_as_a_verdict_not_as_a_traceback(project: Project) -> None:
    pytester = project(one="# FAIL on b: expected EPERM, got ok (mkdir /x)")
    result = run(pytester, "-q")
    text = result.stdout.str()
    result.stdout.fnmatch_lines(
        [
            "*one?b?*",
            "about:    About one.",
            "origin:   seen",
            "evidence: results/evidence/b/one",
            "scenarios/one.yaml:5:5: expected EPERM, got ok (mkdir /x)",
            "  WRONG mkdir /x  (0.250 s)",
            "FAILED scenarios/one.yaml::one?b? - scenarios/one.yaml:5:5: expected EPERM*",
        ]
    )
    assert "Traceback" not in text
    assert "NotPassed" not in text
    assert "KERNEL LOG" not in text
    folder = pytester.path / "results" / "evidence" / "b" / "one"
    assert (folder / "kernel.log").read_text().strip() == "KERNEL LOG"


def test_splat_shows_the_kernel_log_and_lost_machines_the_console(project: Project) -> None:
    pytester = project(one="# SPLAT on a: WARNING\n# BOOT on b: no answer")
    result = run(pytester, "-q")
    result.stdout.fnmatch_lines(["*splat: WARNING", "kernel log:", "  KERNEL LOG"])
    result.stdout.fnmatch_lines(["*boot failure: no answer", "console:", "  CONSOLE"])
    result.stdout.fnmatch_lines(["ERROR scenarios/one.yaml::one?b? - *boot failure*"])


def test_skip_carries_the_probes_words_and_the_scenarios_place(project: Project) -> None:
    pytester = project(one="# UNSUPPORTED on a: lsm: bpf is not in lsm=")
    result = run(pytester, "-rs")
    result.stdout.fnmatch_lines(["SKIPPED [[]1] scenarios/one.yaml:2: lsm: bpf is not in lsm="])


def test_scenario_that_every_kernel_skips_fails_the_session(project: Project) -> None:
    pytester = project(
        nowhere="# UNSUPPORTED on a b: cannot",
        somewhere="# UNSUPPORTED on a: cannot",
    )
    result = run(pytester)
    result.assert_outcomes(passed=1, skipped=3)
    line = "ERROR: scenarios/nowhere.yaml: skipped on every selected kernel (a, b)*"
    result.stdout.fnmatch_lines([line])
    result.stdout.no_fnmatch_line("*somewhere.yaml: skipped on every*")
    assert result.ret == pytest.ExitCode.TESTS_FAILED


@pytest.mark.parametrize("code", [0, 1])
def test_on_one_kernel_a_session_fails_for_skips_only_if_nothing_ran(
    project: Project, code: int
) -> None:
    skip = "# UNSUPPORTED on a: cannot"
    pytester = project(nowhere=skip, other=skip if code else "")
    result = run(pytester, "--kernel", "a")
    result.assert_outcomes(skipped=2 if code else 1, passed=0 if code else 1)
    assert result.ret == code


def test_scenario_that_was_cut_short_is_not_blamed_for_skips(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytester = project(one="# UNSUPPORTED on a: cannot\n# INTERRUPT on b: now")
    result = run_apart(pytester, monkeypatch)
    result.stdout.no_fnmatch_line("*skipped on every*")
    assert result.ret == pytest.ExitCode.INTERRUPTED


def test_interrupt_closes_the_runner_and_keeps_what_was_seen(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytester = project(one="# INTERRUPT on b: now")
    result = run_apart(pytester, monkeypatch)
    assert result.ret == pytest.ExitCode.INTERRUPTED
    assert log(pytester)[-1] == "close"
    rows = json.loads((pytester.path / "results" / "results.json").read_text())
    assert "one" in json.dumps(rows)


def test_problem_of_the_host_is_an_error_in_one_line(project: Project) -> None:
    pytester = project(one="# PROBLEM on a b: there is no qemu")
    result = run(pytester, "-q")
    result.assert_outcomes(errors=2)
    result.stdout.fnmatch_lines(["infrastructure: there is no qemu; install it"])
    result.stdout.no_fnmatch_line("*Traceback*")


def test_progress_is_seen_although_output_is_captured(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    result = run_apart(project(one=""), monkeypatch)
    result.stdout.fnmatch_lines(["  a: progress", "  b: progress"])


def test_quiet_run_shows_no_progress(project: Project) -> None:
    result = run(project(one=""), "-q")
    result.stdout.no_fnmatch_line("*progress*")


def test_table_and_reports_close_the_session(project: Project) -> None:
    pytester = project(one="", two="# FAIL on b: wrong")
    result = run(pytester, "--results", "elsewhere")
    result.stdout.fnmatch_lines(["*kernels x scenarios*", "one *ok *ok*", "two *ok *FAIL*"])
    written = {path.name for path in (pytester.path / "elsewhere").iterdir()}
    assert {"junit.xml", "results.json", "evidence"} <= written


def test_results_that_cannot_be_written_fail_the_session(project: Project) -> None:
    pytester = project(one="")
    pytester.makefile(".txt", taken="a file")
    result = run(pytester, "--results", "taken.txt")
    result.assert_outcomes(passed=2)
    result.stdout.fnmatch_lines(["ERROR: *taken.txt*"])
    assert result.ret == pytest.ExitCode.TESTS_FAILED


def test_machine_that_does_not_stop_fails_the_session(project: Project) -> None:
    pytester = project(one="")
    pytester.makefile("", stuck="")
    result = run(pytester)
    result.assert_outcomes(passed=2)
    result.stdout.fnmatch_lines(["ERROR: a machine did not stop"])
    assert result.ret == pytest.ExitCode.TESTS_FAILED


def test_last_failed_first_failure_and_keywords(project: Project) -> None:
    pytester = project(one="# FAIL on b: wrong", two="# FAIL on a: wrong")
    run(pytester).assert_outcomes(passed=2, failed=2)
    run(pytester, "--lf").assert_outcomes(failed=2)
    run(pytester, "-x").assert_outcomes(passed=1, failed=1)
    run(pytester, "-k", "one and b").assert_outcomes(failed=1, deselected=3)
    run(pytester, "scenarios/two.yaml::two[b]").assert_outcomes(passed=1)
    run(pytester, "-p", "no:cacheprovider").assert_outcomes(passed=2, failed=2)
    assert run(pytester, "-k", "nothing").ret == pytest.ExitCode.NO_TESTS_COLLECTED


def test_pytests_own_junit_report_has_the_reason(project: Project) -> None:
    pytester = project(one="# FAIL on b: expected EPERM, got ok")
    run(pytester, "--junit-xml", "own.xml")
    text = (pytester.path / "own.xml").read_text()
    assert 'message="scenarios/one.yaml:5:5: expected EPERM, got ok"' in text


def test_broken_scenario_is_one_line_and_the_others_are_collected(project: Project) -> None:
    pytester = project(good="", bad="neds: [lsm]")
    result = run(pytester)
    result.stdout.fnmatch_lines(
        [
            "*ERROR collecting scenarios/bad.yaml*",
            "scenarios/bad.yaml:1:1: a scenario has no key 'neds'; did you mean 'needs'?",
            "ERROR scenarios/bad.yaml*",
        ]
    )
    result.stdout.no_fnmatch_line("*Traceback*")
    assert result.ret == pytest.ExitCode.INTERRUPTED
    run(pytester, "--continue-on-collection-errors").assert_outcomes(passed=2, errors=1)
