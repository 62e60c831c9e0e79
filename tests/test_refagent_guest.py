# SPDX-License-Identifier: Apache-2.0
"""The daemon and its command line on a real kernel: one boot, tests/inside/daemon.py in it."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from typing import Any

import pytest

from tests.test_repository import ROOT

pytestmark = pytest.mark.vm

SHELL = "import sys; from hookproof.cli import main; sys.exit(main())"


@pytest.fixture(scope="module")
def seen() -> Any:
    """What the script says that it saw in the guest."""
    argv = [sys.executable, "-c", SHELL, "shell", "6.12", "--"]
    argv += ["env", f"PYTHONPATH={ROOT}", sys.executable, "tests/inside/daemon.py"]
    done = subprocess.run(
        argv,
        cwd=ROOT,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        timeout=900,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_a_loaded_policy_denies_is_counted_and_can_be_disabled(seen: Any) -> None:
    commands = seen["commands"]
    assert commands["load"] == {"status": 0, "out": "loaded a\nloaded b\n", "err": ""}
    assert commands["denied"] == "EPERM"
    assert commands["stats"]["out"].splitlines() == [
        "NAME  MATCHED  DENIED  OUTVOTED  LOST",
        "a     1        1       0         0",
        "b     0        0       0         0",
    ]
    assert commands["disable"] == {"status": 0, "out": "", "err": ""}
    assert commands["allowed"] == "ok"
    assert [each["enabled"] for each in json.loads(commands["list disabled"]["out"])] == [
        False,
        True,
    ]
    assert commands["enable"] == {"status": 0, "out": "", "err": ""}
    assert commands["denied again"] == "EPERM"
    assert commands["stats of one"] == {"a": {"matched": 2, "denied": 2, "outvoted": 0, "lost": 0}}


def test_a_file_is_loaded_whole_or_not_at_all(seen: Any) -> None:
    load = seen["commands"]["load bad"]
    assert (load["status"], load["out"]) == (1, "")
    assert load["err"].startswith(
        "refagent: /run/t/bad.yaml: policy d: security_path_mkdirr is no function of this kernel"
    )
    assert load["err"].count("\n") == 1
    assert seen["commands"]["list"]["out"].splitlines() == [
        "NAME  HOOK                 ACTS ON         DOES                  ENABLED",
        "a     security_path_mkdir  path /run/t     override EPERM, post  yes",
        "b     security_path_rmdir  prefix /run/u/  override EACCES       yes",
    ]


def test_who_loads_a_system_call_is_told_of_32_bit_programs(seen: Any) -> None:
    assert seen["commands"]["load a system call"] == {
        "status": 0,
        "out": "loaded e\n",
        "err": "refagent: __x64_sys_openat is not what 32-bit programs come in by: that is "
        "__ia32_compat_sys_openat, where no policy is\n",
    }
    assert seen["commands"]["uncovered"] == {"__x64_sys_openat": "__ia32_compat_sys_openat"}


def test_unload_does_what_it_can_and_names_the_rest(seen: Any) -> None:
    assert seen["commands"]["unload"] == {
        "status": 1,
        "out": "",
        "err": "refagent: no policy bb is loaded\n",
    }
    status = seen["commands"]["status"]["out"].splitlines()
    assert status[0].split() == ["policies", "a"]
    assert status[2].split() == ["on", "security_path_mkdir", "a", "sensor", "and", "fmod_ret"]


def test_events_are_followed_until_an_interrupt(seen: Any) -> None:
    assert seen["follow"]["status"] == -signal.SIGINT
    event = seen["follow"]["line"]
    assert (event["hook"], event["path"], event["policies"], event["override"]) == (
        "security_path_mkdir",
        "/run/t",
        ["a"],
        "EPERM",
    )


def test_who_asks_is_answered_while_policies_come_and_go(seen: Any) -> None:
    assert seen["stress"]["wrong"] == []
    within = seen["stress"]["answers within"]
    assert len(within) == seen["stress"]["changes"] == 24
    # One may slip in before a change has begun; the second is given while it is under way.
    assert sum(count >= 2 for count in within) > 12


def test_nothing_is_left_of_a_killed_daemon_but_its_socket_which_is_replaced(seen: Any) -> None:
    assert seen["after SIGKILL"] == []
    assert seen["stale"] is True
    assert seen["status"]["policies"] == ["a", "b"]


def test_events_that_the_kernel_lost_are_told_and_counted(seen: Any) -> None:
    overflow = seen["overflow"]
    assert overflow["lost"] > 0
    assert overflow["events"] + overflow["lost"] == overflow["calls"]
    assert seen["status"]["totals"]["events_lost"] == overflow["lost"]
    assert seen["events"][-1] == {"lost": overflow["lost"]}


def test_signals_end_it_and_nothing_is_left(seen: Any) -> None:
    assert seen["exit"] == 0
    assert seen["left"] == []
    assert seen["socket"] is False
