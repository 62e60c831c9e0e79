# SPDX-License-Identifier: Apache-2.0
"""Every outcome a scenario can come to, each brought about for real on both kinds of machine."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from hookproof import stage
from hookproof.case import Case
from hookproof.decode import read_scenario
from hookproof.runner import Runner
from hookproof.settings import Settings
from hookproof.verdict import Outcome, Verdict
from vm import catalog
from vm.default import default_catalog, default_lock

pytestmark = pytest.mark.vm

KNOWN = catalog.read(default_catalog())
(KERNEL,) = catalog.select(KNOWN, ["6.12"])


@pytest.fixture(scope="module")
def lines() -> list[str]:
    return []


@pytest.fixture(scope="module", params=[("snapshot", "vm"), ("virtme", "none")], ids="-".join)
def runner(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, lines: list[str]
) -> Iterator[Runner]:
    machine, isolate = request.param
    results = tmp_path_factory.mktemp("results")
    settings = Settings("auto", results, KNOWN, (KERNEL,), default_lock(), machine, isolate, 1)
    with Runner(settings, lines.append) as made:
        yield made


def run(runner: Runner, folder: Path, text: str) -> Verdict:
    path = folder / "it.yaml"
    path.write_text(f"about: A test.\n{text}", encoding="utf-8")
    return runner.run(Case(read_scenario(path), KERNEL, {}))


def shell(command: str) -> str:
    return f'steps:\n  - exec: [/bin/sh, -c, "{command}"]\n'


def test_unsupported_and_pass(runner: Runner, tmp_path: Path) -> None:
    missing = run(runner, tmp_path, "needs: [override_return]\n" + shell("true"))
    assert missing.outcome is Outcome.UNSUPPORTED
    assert missing.reason.startswith("override_return: ")
    assert missing.where.endswith("it.yaml:1:1")
    passed = run(runner, tmp_path, shell("echo '<4>from a scenario' >/dev/kmsg"))
    assert passed.outcome is Outcome.PASS
    assert passed.reason == ""
    assert "from a scenario" in passed.kernel_log
    again = run(runner, tmp_path, shell("true"))
    assert again.kernel_log == "", "a scenario got another's slice of the log"


@pytest.mark.parametrize(("machine", "isolate"), [("snapshot", "none"), ("virtme", "none")])
def test_a_machine_serves_until_a_case_does_not_pass(
    tmp_path: Path, machine: str, isolate: str
) -> None:
    lines: list[str] = []
    settings = Settings("auto", tmp_path, KNOWN, (KERNEL,), default_lock(), machine, isolate, 1)
    path = tmp_path / "it.yaml"
    text = "about: A test.\nsteps:\n  - mkdir: /run/kept\n    gives: "
    with Runner(settings, lines.append) as runner:
        outcomes = []
        cases = []
        for gives in ("ok", "EEXIST", "ok", "ok"):
            path.write_text(text + gives, encoding="utf-8")
            cases.append(Case(read_scenario(path), KERNEL, {}))
        runner.expect(cases, [4, 3, 2, 1])
        outcomes = [runner.run(case).outcome for case in cases]
    # The first leaves a folder for the second, the third finds it, and the fourth a new machine.
    assert outcomes == [Outcome.PASS, Outcome.PASS, Outcome.FAIL, Outcome.PASS]


def test_isolated_cases_do_not_see_each_other(tmp_path: Path) -> None:
    settings = Settings("auto", tmp_path, KNOWN, (KERNEL,), default_lock(), "snapshot", "vm", 2)
    path = tmp_path / "it.yaml"
    path.write_text("about: A test.\nsteps:\n  - mkdir: /run/kept\n", encoding="utf-8")
    cases = [Case(read_scenario(path), KERNEL, {}) for _ in range(6)]
    with Runner(settings, lambda _line: None) as runner:
        runner.expect(cases, [0] * 6)
        assert {runner.run(case).outcome for case in cases} == {Outcome.PASS}


def test_the_end_stops_what_still_runs(tmp_path: Path) -> None:
    settings = Settings("auto", tmp_path, KNOWN, (KERNEL,), default_lock(), "snapshot", "vm", 2)
    quick, slow = tmp_path / "quick.yaml", tmp_path / "slow.yaml"
    quick.write_text("about: A test.\n" + shell("true"), encoding="utf-8")
    slow.write_text("about: A test.\n" + shell("sleep 1000"), encoding="utf-8")
    cases = [Case(read_scenario(path), KERNEL, {}) for path in (quick, slow, slow, slow)]
    others = set(threading.enumerate())  # another test's runner may still be open
    with Runner(settings, lambda _line: None) as runner:
        runner.expect(cases, [9, 1, 1, 1])
        assert runner.run(cases[0]).outcome is Outcome.PASS
        assert set(threading.enumerate()) > others
    assert set(threading.enumerate()) <= others


def test_a_wrong_result_names_step_and_difference(runner: Runner, tmp_path: Path) -> None:
    text = "steps:\n  - mkdir: /run/t/a\n  - mkdir: /run/t/a\n  - mkdir: /run/t/b\n"
    verdict = run(runner, tmp_path, text)
    assert verdict.outcome is Outcome.FAIL
    assert verdict.reason == "expected ok, got EEXIST (mkdir /run/t/a)"
    assert verdict.where.endswith("it.yaml:4:5")
    assert [step.wrong for step in verdict.steps] == ["", verdict.reason]


@pytest.mark.parametrize(
    ("command", "left"),
    [
        ("sleep 1000 & true", "(sleep, state S) is left"),
        ("mkdir /tmp/left; mount -t tmpfs left /tmp/left", "(/tmp/left) is left"),
        ("mkdir /sys/fs/bpf/left", "pin /sys/fs/bpf/left (pin) is left"),
        ("umount /dev/shm", "(/dev/shm) is gone"),
    ],
)
def test_what_is_left_is_a_leak(
    runner: Runner, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: str, left: str
) -> None:
    monkeypatch.setattr(stage, "_PATIENCE", (0.0, 2.0))  # these never go by themselves
    verdict = run(runner, tmp_path, shell(command))
    assert verdict.outcome is Outcome.LEAK
    assert left in verdict.reason


def test_a_report_of_the_kernel_is_a_splat_although_every_step_passed(
    runner: Runner, tmp_path: Path
) -> None:
    command = "sleep 1000 & echo 1000 >/proc/$$!/oom_score_adj; echo f >/proc/sysrq-trigger; wait"
    verdict = run(runner, tmp_path, shell(f"{command}; true"))
    assert verdict.outcome is Outcome.SPLAT, verdict
    assert "Out of memory: Killed process" in verdict.reason
    assert "oom-killer" in verdict.kernel_log
    assert [step.wrong for step in verdict.steps] == [""]


def test_a_panic_is_told_from_the_console(runner: Runner, tmp_path: Path) -> None:
    verdict = run(runner, tmp_path, shell("echo c >/proc/sysrq-trigger"))
    assert verdict.outcome is Outcome.PANIC
    assert verdict.reason == "Kernel panic - not syncing: sysrq triggered crash"
    assert "Kernel panic - not syncing" in verdict.console
    assert verdict.steps == ()


def test_a_lost_executor_is_infrastructure(runner: Runner, tmp_path: Path) -> None:
    verdict = run(runner, tmp_path, shell("kill -9 $$PPID"))
    assert verdict.outcome is Outcome.INFRA
    assert "the connection to the guest ended" in verdict.reason


def test_no_reply_is_a_hang(
    runner: Runner, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert run(runner, tmp_path, shell("true")).outcome is Outcome.PASS  # it has booted
    monkeypatch.setattr(stage, "_STEP", (0.0, 5.0))
    verdict = run(runner, tmp_path, shell("sleep 1000"))
    assert verdict.outcome is Outcome.HANG
    assert verdict.reason == "no reply to 'step' within 5 s"


def test_a_kernel_that_does_not_boot(runner: Runner, tmp_path: Path) -> None:
    verdict = run(runner, tmp_path, "boot: [rdinit=/nonexistent]\n" + shell("true"))
    assert verdict.outcome is Outcome.BOOT
    assert verdict.reason.startswith("6.12: the kernel died while booting: ")
    assert "Unable to mount root fs" in verdict.console
