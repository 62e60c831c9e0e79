# SPDX-License-Identifier: Apache-2.0
"""Set-up stages run when their inputs change, and only then; a killed one runs again."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import venv
from pathlib import Path

import pytest

from tools.setup import Stage, interpreter, python_stages
from tools.system import ROOT, SetupError

#: Adds a line to the file `runs` and makes the product.
WORK = "open('runs', 'a').write('x'); open('made', 'w').close()"


@pytest.fixture(scope="module")
def empty(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkout with a virtual environment, on which no stage ran yet.

    Its pip is only looked at, not run, and the real one takes ten seconds to install.
    """
    root = tmp_path_factory.mktemp("checkout")
    venv.create(root / ".venv")
    python = root / ".venv/bin/python"
    pip = next(root.glob(".venv/lib/*/site-packages")) / "pip"
    pip.mkdir()
    (pip / "__init__.py").touch()
    (root / ".venv/bin/pip").write_text(f"#!{python}\n")
    return root


@pytest.fixture
def root(empty: Path) -> Path:
    """The checkout as if it were new."""
    shutil.rmtree(empty / ".venv/stamps", ignore_errors=True)
    for name in ("runs", "made", "input", "log"):
        (empty / name).unlink(missing_ok=True)
    (empty / "input").write_text("1")
    return empty


def stage(code: str = WORK) -> Stage:
    return Stage("work", "working", ("input",), ("made",), ("-c", code))


def runs(root: Path, *stages: Stage) -> int:
    """Runs the stages; how often the work was done since the checkout was new."""
    python_stages(root, root / "log", stages or (stage(),))
    return len((root / "runs").read_text())


def test_a_stage_runs_once(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert runs(root) == 1
    assert capsys.readouterr().out == "setup: working\n"
    assert runs(root) == 1
    assert capsys.readouterr().out == ""


def test_other_contents_of_an_input_run_it_again(root: Path) -> None:
    assert runs(root) == 1
    (root / "input").write_text("2")
    assert runs(root) == 2


def test_another_time_of_an_input_does_not(root: Path) -> None:
    assert runs(root) == 1
    os.utime(root / "input", (1, 1))
    assert runs(root) == 1


def test_another_command_runs_it_again(root: Path) -> None:
    assert runs(root) == 1
    assert runs(root, stage(WORK + " # changed")) == 2


def test_a_product_that_is_gone_is_made_again(root: Path) -> None:
    assert runs(root) == 1
    (root / "made").unlink()
    assert runs(root) == 2


def test_an_old_product_is_removed_before_a_stage(root: Path) -> None:
    runs(root)
    (root / "input").write_text("2")
    checks = "import os; open('runs', 'a').write('xy'[os.path.exists('made')])"
    python_stages(root, root / "log", (stage(checks),))
    assert (root / "runs").read_text() == "xx"


def test_a_failure_shows_its_words_and_leaves_no_stamp(root: Path) -> None:
    with pytest.raises(SetupError) as failure:
        python_stages(root, root / "log", (stage("import sys; sys.exit('no such thing')"),))
    assert "no such thing" in str(failure.value)
    assert str(root / "log") in str(failure.value)
    assert list((root / ".venv").glob("stamps/*")) == []
    assert runs(root) == 1


def test_a_set_up_killed_half_way_is_done_again(root: Path) -> None:
    runs(root)
    (root / "input").write_text("2")
    fifo = root / "fifo"
    os.mkfifo(fifo)
    code = (
        "from pathlib import Path; from tests.test_setup_stages import stage;"
        "from tools.setup import python_stages;"
        f"root = Path({str(root)!r});"
        'hang = \'open("fifo", "w").write("started"); open("fifo")\';'
        "python_stages(root, root / 'log', (stage(hang),))"
    )
    with subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, start_new_session=True) as child:
        assert fifo.read_text() == "started"
        os.killpg(child.pid, signal.SIGKILL)
    fifo.unlink()
    assert list((root / ".venv").glob("stamps/*")) == []
    assert runs(root) == 2


def test_a_virtual_environment_that_was_moved_is_not_taken(root: Path, tmp_path: Path) -> None:
    assert interpreter(root / ".venv")
    moved = tmp_path / ".venv"
    shutil.copytree(root / ".venv", moved, symlinks=True)
    assert interpreter(moved) == {}


def test_a_virtual_environment_without_its_python_is_not_taken(tmp_path: Path) -> None:
    assert interpreter(tmp_path / ".venv") == {}
    (tmp_path / ".venv/bin").mkdir(parents=True)
    (tmp_path / ".venv/bin/python").symlink_to("/nonexistent/python3")
    assert interpreter(tmp_path / ".venv") == {}
