# SPDX-License-Identifier: Apache-2.0
"""What the set-up says where it may not install, from the shell script on."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

from tools.system import ROOT


def test_without_the_right_to_install_it_names_everything_and_one_command(tmp_path: Path) -> None:
    code = (
        "import pathlib, sys\n"
        "from hookproof.distribution import FAMILIES\n"
        "from tools import system\n"
        "system.family = lambda: FAMILIES[0]\n"
        "system.root_prefix = lambda: None\n"
        f"try: system.install_missing(pathlib.Path({str(tmp_path)!r}, 'log'))\n"
        "except system.SetupError as error: sys.exit(str(error))\n"
    )
    # Nothing is on this PATH: no compiler, no QEMU.
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        env={"PATH": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1, done
    assert done.stdout == ""
    lines = done.stderr.splitlines()
    assert "  QEMU                   runs the virtual machines" in lines
    assert lines[-2] == "setup: to install it, run"
    assert "sudo apt-get update && sudo apt-get install --yes " in lines[-1]
    assert {"gcc", "clang", "qemu-system-x86"} <= set(lines[-1].split())
    # To build kernels is not everybody's wish.
    assert "flex" not in lines[-1].split()
    assert not (tmp_path / "log").exists()


def test_without_that_right_nobody_has_to_be_able_to_build_kernels(tmp_path: Path) -> None:
    code = (
        "import pathlib\n"
        "from tools import system\n"
        "system.NEEDS = ()\n"
        "system.root_prefix = lambda: None\n"
        f"system.install_missing(pathlib.Path({str(tmp_path)!r}, 'log'))\n"
    )
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, env={"PATH": str(tmp_path)}, check=True)


def test_an_ordinary_user_without_sudo_may_not_install(tmp_path: Path) -> None:
    code = (
        "import os; from tools import system\n"
        "if os.geteuid() == 0: assert system.root_prefix() == (); os.setuid(65534)\n"
        "assert system.root_prefix() is None\n"
    )
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, env={"PATH": str(tmp_path)}, check=True)


def test_without_python_the_script_says_how_to_get_it(tmp_path: Path) -> None:
    for name in ("dirname", "id"):
        (tmp_path / name).symlink_to(str(shutil.which(name)))
    done = subprocess.run(
        [ROOT / "tools/setup.sh"],
        env={"PATH": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert done.stdout == ""
    assert "no Python 3.11 or newer" in done.stderr
    assert all(name in done.stderr for name in ("Debian/Ubuntu", "Fedora", "Arch"))


def test_an_old_python_is_passed_over(tmp_path: Path) -> None:
    for name in ("dirname", "id"):
        (tmp_path / name).symlink_to(str(shutil.which(name)))
    old = tmp_path / "python3"
    old.write_text("#!/bin/sh\nexit 1\n")
    good = tmp_path / "python3.13"
    good.write_text('#!/bin/sh\n[ "$1" = -c ] || echo "called: $*"\n')
    for script in (old, good):
        script.chmod(0o755)
    done = subprocess.run(
        [ROOT / "tools/setup.sh"],
        env={"PATH": str(tmp_path)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == "called: -m tools.setup\n"


def test_make_alone_lists_every_target_that_has_a_comment() -> None:
    environment = {name: value for name, value in os.environ.items() if name != "MAKEFLAGS"}
    done = subprocess.run(
        ["make", "-C", str(ROOT), "--no-print-directory"],
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    for target in ("test", "matrix", "unit", "lint", "bench", "clean", "help"):
        assert f"\n  make {target} " in done.stdout
