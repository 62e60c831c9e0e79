# SPDX-License-Identifier: Apache-2.0
"""A new results folder takes the old one's place whole, and nobody else's folder ever."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from hookproof.report.place import replacing
from vm.errors import HostProblem, UsageProblem


def put(results: Path, word: str) -> None:
    with replacing(results) as fresh:
        (fresh / "evidence" / word).mkdir(parents=True)
        (fresh / "results.json").write_text('{"tool": "hookproof"}', encoding="utf-8")
        (fresh / "junit.xml").write_text(word, encoding="utf-8")


def everything(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


RESULTS = ["results", "results/evidence", "results/junit.xml", "results/results.json"]


def test_the_folder_is_made_with_those_above(tmp_path: Path) -> None:
    put(tmp_path / "a" / "b" / "results", "one")
    assert (tmp_path / "a" / "b" / "results" / "junit.xml").read_text(encoding="utf-8") == "one"
    assert oct((tmp_path / "a" / "b" / "results").stat().st_mode)[-3:] == "755"


def test_old_results_go_as_a_whole(tmp_path: Path) -> None:
    put(tmp_path / "results", "one")
    put(tmp_path / "results", "two")
    assert everything(tmp_path) == sorted([*RESULTS, "results/evidence/two"])


@pytest.mark.parametrize("name", ["bench.json", "notes"])
def test_what_others_put_there_stays(tmp_path: Path, name: str) -> None:
    put(tmp_path / "results", "one")
    (tmp_path / "results" / name).write_text("mine", encoding="utf-8")
    put(tmp_path / "results", "two")
    assert everything(tmp_path) == sorted([*RESULTS, "results/evidence/two", f"results/{name}"])
    assert (tmp_path / "results" / name).read_text(encoding="utf-8") == "mine"


def test_a_bench_alone_is_no_foreign_folder(tmp_path: Path) -> None:
    (tmp_path / "results").mkdir()
    put(tmp_path / "results", "one")
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "bench.json").write_text("{}", encoding="utf-8")
    put(tmp_path / "other", "one")
    assert (tmp_path / "other" / "bench.json").exists()


@pytest.mark.parametrize("text", [None, "", "[]", '{"tool": "another"}', "\xff"])
def test_a_foreign_folder_is_never_touched(tmp_path: Path, text: str | None) -> None:
    home = tmp_path / "home"
    home.mkdir()
    (home / "thesis.tex").write_text("mine", encoding="utf-8")
    if text is not None:
        (home / "results.json").write_bytes(text.encode("latin-1"))
    before = everything(tmp_path)
    with pytest.raises(UsageProblem, match=r"no results of hookproof.*--results"):
        put(home, "one")
    assert everything(tmp_path) == before


def test_a_file_in_the_place_is_not_touched(tmp_path: Path) -> None:
    (tmp_path / "results").write_text("mine", encoding="utf-8")
    with pytest.raises(UsageProblem, match="is a file"):
        put(tmp_path / "results", "one")
    assert everything(tmp_path) == ["results"]


def test_a_link_to_a_folder_is_followed(tmp_path: Path) -> None:
    put(tmp_path / "real", "one")
    (tmp_path / "link").symlink_to(tmp_path / "real")
    put(tmp_path / "link", "two")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "real" / "junit.xml").read_text(encoding="utf-8") == "two"


def test_an_exception_leaves_the_old_results(tmp_path: Path) -> None:
    put(tmp_path / "results", "one")
    before = everything(tmp_path)

    def fails() -> None:
        with replacing(tmp_path / "results") as fresh:
            (fresh / "junit.xml").write_text("half", encoding="utf-8")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fails()
    assert everything(tmp_path) == before
    assert (tmp_path / "results" / "junit.xml").read_text(encoding="utf-8") == "one"


def test_a_file_system_that_says_no_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(HostProblem, match=r"cannot be written.*--results"):
        put(Path("/proc/results"), "one")
    with (
        pytest.raises(HostProblem, match="No space left on device"),
        replacing(tmp_path / "results"),
        Path("/dev/full").open("wb", buffering=0) as full,
    ):
        full.write(b"x")
    assert everything(tmp_path) == []


KILLED = """
import os, signal, sys
from pathlib import Path
from hookproof.report import place
results = Path(sys.argv[1])
if sys.argv[2] == "swap":  # between the two renames
    rename = Path.rename
    def once(path, to):
        rename(path, to)
        os.kill(os.getpid(), signal.SIGKILL)
    Path.rename = once
with place.replacing(results) as fresh:
    (fresh / "junit.xml").write_text("half")
    if sys.argv[2] == "write":
        os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.parametrize("moment", ["write", "swap"])
def test_a_killed_run_leaves_nothing_after_the_next(tmp_path: Path, moment: str) -> None:
    put(tmp_path / "results", "one")
    (tmp_path / "results" / "bench.json").write_text("{}", encoding="utf-8")
    run = [sys.executable, "-c", KILLED, str(tmp_path / "results"), moment]
    done = subprocess.run(run, check=False, cwd=Path(__file__).parents[1], env=dict(os.environ))
    assert done.returncode == -signal.SIGKILL
    assert len(everything(tmp_path)) > len(RESULTS) + 2  # something was left behind
    if moment == "write":
        assert (tmp_path / "results" / "junit.xml").read_text(encoding="utf-8") == "one"
    put(tmp_path / "results", "two")
    left = sorted([*RESULTS, "results/evidence/two", "results/bench.json"])
    assert everything(tmp_path) == left
    assert (tmp_path / "results" / "junit.xml").read_text(encoding="utf-8") == "two"
