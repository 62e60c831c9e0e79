# SPDX-License-Identifier: Apache-2.0
"""The command line: sub-commands, problems as one line, exit statuses."""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from hookproof import cli, cli_run
from vm.errors import Problem

COMMAND = Path(sys.prefix) / "bin/hookproof"
Try = Callable[[Callable[[argparse.Namespace], int]], int]


@pytest.fixture
def attempt(monkeypatch: pytest.MonkeyPatch) -> Try:
    """Runs a function as a sub-command; gives the exit status."""

    def run(body: Callable[[argparse.Namespace], int]) -> int:
        def add_parser(commands: Any) -> None:
            commands.add_parser("attempt").set_defaults(run=body)

        module = ModuleType("hookproof.cli_attempt")
        module.add_parser = add_parser  # type: ignore[attr-defined]
        monkeypatch.setitem(sys.modules, module.__name__, module)
        monkeypatch.setitem(cli.COMMANDS, "attempt", "")
        return cli.main(["attempt"])

    return run


def test_the_exit_status_is_the_sub_commands(attempt: Try) -> None:
    assert attempt(lambda _: 0) == 0
    assert attempt(lambda _: 7) == 7


def test_a_problem_is_one_line_and_status_2(
    attempt: Try, capsys: pytest.CaptureFixture[str]
) -> None:
    def body(_: argparse.Namespace) -> int:
        raise Problem("is wrong", where="file:3:1", hint="mend it")

    assert attempt(body) == 2
    assert capsys.readouterr() == ("", "hookproof: file:3:1: is wrong; mend it\n")


def test_an_interrupt_is_status_130(attempt: Try, capsys: pytest.CaptureFixture[str]) -> None:
    def body(_: argparse.Namespace) -> int:
        raise KeyboardInterrupt

    assert attempt(body) == 130
    assert capsys.readouterr() == ("", "hookproof: interrupted\n")


def test_sigterm_unwinds(attempt: Try) -> None:
    unwound = []

    def body(_: argparse.Namespace) -> int:
        try:
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(60)
        finally:
            unwound.append(True)
        return 0

    before = signal.getsignal(signal.SIGTERM)
    assert attempt(body) == 130
    assert unwound
    assert signal.getsignal(signal.SIGTERM) is before


@pytest.mark.parametrize("name", ["run", "kernels", "shell", "doctor"])
def test_help_of_a_sub_command(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        cli.main([name, "--help"])
    assert end.value.code == 0
    assert capsys.readouterr().out.startswith(f"usage: hookproof {name} ")


def test_help_lists_all_commands_and_imports_none() -> None:
    code = (
        "import sys; from hookproof import cli\n"
        "try: cli.main(['--help'])\n"
        "except SystemExit: pass\n"
        "sys.exit(any(name.startswith('hookproof.cli_') for name in sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    for name, about in cli.COMMANDS.items():
        assert name in done.stdout
        assert about in done.stdout


def test_an_unknown_command_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        cli.main(["kernel"])
    assert end.value.code == 2
    assert "invalid choice: 'kernel'" in capsys.readouterr().err


def test_a_reader_that_has_gone_is_no_error() -> None:
    read, write = os.pipe()
    os.close(read)
    done = subprocess.run(
        [COMMAND, "doctor"], stdout=write, stderr=subprocess.PIPE, text=True, check=False
    )
    os.close(write)
    assert (done.returncode, done.stderr) == (128 + signal.SIGPIPE, "")


@pytest.mark.parametrize("command", ["doctor", "kernels list"])
def test_an_output_that_takes_nothing_is_named_and_a_closed_one_is_not_missed(command: str) -> None:
    def ended(output: str) -> tuple[int, str]:
        shell = ["sh", "-c", f'exec "$0" {command} >{output}', str(COMMAND)]
        done = subprocess.run(shell, capture_output=True, text=True, check=False)
        return done.returncode, done.stderr

    assert ended("/dev/full") == (2, "hookproof: standard output: No space left on device\n")
    assert ended("&-") == ended("/dev/null")


def words(*arguments: str) -> list[str]:
    """What `hookproof run` passes to pytest for these arguments."""
    namespace = cli.parser("run").parse_args(["run", *arguments])
    command = cli_run.pytest_command(namespace)
    assert command[:5] == [sys.executable, "-P", "-m", "pytest", "--no-header"]
    return command[5:]


def test_run_is_pytest_with_friendlier_defaults(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "scenarios").mkdir()
    assert words() == ["scenarios"]
    assert words("a.yaml", "--kernel", "6.*", "--kernel", "5.10") == [
        "--kernel=6.*",
        "--kernel=5.10",
        "a.yaml",
    ]
    assert words("-x", "-k", "one or two", "--list", "--accel", "tcg", "--results", "out") == [
        "--accel=tcg",
        "--results=out",
        "-k",
        "one or two",
        "-x",
        "--collect-only",
        "-q",
        "scenarios",
    ]


def test_run_without_scenarios_says_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert cli.main(["run"]) == 2
    assert capsys.readouterr().err == (
        f"hookproof: {tmp_path}: there is no folder scenarios here;"
        " name a file or a folder: hookproof run PATH\n"
    )
