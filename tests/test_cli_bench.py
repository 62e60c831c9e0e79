# SPDX-License-Identifier: Apache-2.0
"""`hookproof bench` on the command line: what it refuses, and what an interrupted run keeps."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from hookproof import cli
from hookproof.bench.setup import Setup
from hookproof.bench.table import Row
from vm.errors import HostProblem

ROOT = Path(__file__).parents[1]
Part = Callable[[Setup], Iterator[Any]]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["boot"], "there is no part 'boot'; did you mean 'boots'?"),
        (["--rounds=0"], "--rounds: 0 rounds measure nothing"),
        (["--scenario=no.yaml"], "--scenario no.yaml: there is no such file"),
        (["--kernel=6.13"], "6.13"),
    ],
)
def test_what_cannot_be_measured_is_one_line(
    words: list[str],
    said: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    monkeypatch.chdir(ROOT)
    assert cli.main(["bench", *words, f"--results={tmp_path}"]) == 2
    told = capsys.readouterr().err
    assert said in told
    assert told.count("\n") == 1
    assert not list(tmp_path.iterdir())


class Found:
    """A result with one row."""

    def __init__(self, number: int) -> None:
        self.number = number

    def to_json(self) -> int:
        return self.number

    def rows(self) -> list[Row]:
        return [Row("number", str(self.number))]


def part(name: str, measure: Part, monkeypatch: pytest.MonkeyPatch) -> None:
    module = ModuleType(f"hookproof.bench.{name}")
    module.measure = measure  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, module.__name__, module)


def test_a_part_that_fails_leaves_the_others_alone(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def good(setup: Setup) -> Iterator[Any]:
        assert setup.folder.is_dir()
        yield Found(1)
        yield Found(2)

    def bad(_setup: Setup) -> Iterator[Any]:
        yield Found(3)
        raise HostProblem("the disk is gone")

    parts: dict[str, Part] = {"boots": good, "scenarios": bad, "memory": good}
    for name, measure in parts.items():
        part(name, measure, monkeypatch)
    monkeypatch.chdir(ROOT)
    results = tmp_path / "deep" / "results"
    assert cli.main(["bench", *parts, f"--results={results}"]) == 1
    told = capsys.readouterr()
    assert "error: scenarios: the disk is gone\n" in told.err
    rows = [line.split() for line in told.out.splitlines()[1:]]
    assert rows == [["number", "2"], ["number", "3"], ["number", "2"]]
    assert [path.name for path in results.iterdir()] == ["bench.json"]
    plain = json.loads((results / "bench.json").read_text())
    assert (plain["format"], plain["rounds"], plain["lost"]) == (2, 5, [])
    assert plain["errors"] == [{"part": "scenarios", "what": "the disk is gone"}]
    assert (plain["boots"], plain["scenarios"], plain["memory"]) == (2, 3, 2)
    assert "matrix" not in plain


def test_an_interrupted_run_keeps_what_it_has(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def interrupted(_setup: Setup) -> Iterator[Any]:
        yield Found(7)
        raise KeyboardInterrupt

    part("memory", interrupted, monkeypatch)
    monkeypatch.chdir(ROOT)
    assert cli.main(["bench", "memory", f"--results={tmp_path}"]) == cli.INTERRUPTED
    assert capsys.readouterr().out.split()[-2:] == ["number", "7"]
    assert json.loads((tmp_path / "bench.json").read_text())["memory"] == 7
