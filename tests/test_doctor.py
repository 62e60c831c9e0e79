# SPDX-License-Identifier: Apache-2.0
"""`hookproof doctor` on this host, and on one where things are missing."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from hookproof import doctor
from hookproof.cli_doctor import as_json, as_text
from hookproof.doctor import Finding, State
from hookproof.needs import NEEDS, Need
from hookproof.needs_build import BUILD_NEEDS

COMMAND = Path(sys.prefix) / "bin/hookproof"
LOST = Need("thing", "does a job", lambda: "", debian="d", fedora="f", arch="a")
FINDINGS = [
    Finding("QEMU", State.OK, "7.2", "runs machines", path="/usr/bin/qemu"),
    Finding("kernels", State.NOTE, "1 of 2", "not cached: 6.1", "fetch them"),
    Finding("thing", State.MISSING, "", "does a job", need=LOST),
]


def test_every_need_is_looked_at() -> None:
    found = list(doctor.system())
    assert [finding.need for finding in found] == [*NEEDS, *BUILD_NEEDS]


def test_what_only_tests_need_does_not_stop_a_run(monkeypatch: pytest.MonkeyPatch) -> None:
    extra = replace(LOST, name="extra", runs=False)
    monkeypatch.setattr(doctor, "NEEDS", (LOST,))
    monkeypatch.setattr(doctor, "BUILD_NEEDS", (extra,))
    assert [finding.state for finding in doctor.system()] == [State.MISSING, State.NOTE]


def test_versions_are_read_from_what_programs_say() -> None:
    versions = {
        finding.name: finding.found for finding in doctor.system() if finding.state is State.OK
    }
    for name in ("gcc", "clang", "QEMU", "static busybox", "depmod", "udev", "sshd", "apt-get"):
        assert versions[name][0].isdigit(), versions


def test_a_program_without_a_version_is_still_found() -> None:
    silent = Need("true", "", lambda: "/bin/true", "", "", "", version=("--nothing",))
    assert doctor.version(silent, "/bin/false") == ""


def test_available_memory() -> None:
    text = "MemTotal:       24605212 kB\nMemAvailable:   23000000 kB\n"
    assert doctor.available_memory(text) == 23000000 * 1024
    assert doctor.available_memory("MemTotal: 1 kB\n") == 0


def test_text_shows_state_reason_and_next_step() -> None:
    lines = as_text({"all": FINDINGS}, works=False).splitlines()
    assert lines[:5] == [
        "all",
        "  ok       QEMU                   7.2        runs machines",
        "  note     kernels                1 of 2     not cached: 6.1",
        "           fetch them",
        "  MISSING  thing                  -          does a job",
    ]
    assert "To install what is missing:" in lines
    assert lines[-1] == "A run would not work yet."


def test_text_without_anything_missing_ends_well() -> None:
    lines = as_text({"all": FINDINGS[:2]}, works=True).splitlines()
    assert "To install what is missing:" not in lines
    assert lines[-1] == "A run would work."


def test_json_has_a_fix_for_what_is_missing() -> None:
    rows = json.loads(as_json(FINDINGS, works=False))
    assert rows["works"] is False
    assert [row["state"] for row in rows["findings"]] == ["ok", "note", "missing"]
    assert rows["findings"][0]["path"] == "/usr/bin/qemu"
    assert rows["findings"][1]["fix"] == "fetch them"
    assert "install" in rows["findings"][2]["fix"]


def test_the_status_is_0_only_if_a_run_would_work(tmp_path: Path) -> None:
    here = subprocess.run([COMMAND, "doctor", "--json"], capture_output=True, check=False)
    assert json.loads(here.stdout)["works"] is (here.returncode == 0)

    environment = {**os.environ, "PATH": str(tmp_path), "HOOKPROOF_CACHE": str(tmp_path / "cache")}
    bare = subprocess.run(
        [COMMAND, "doctor"], env=environment, capture_output=True, text=True, check=False
    )
    assert (bare.returncode, bare.stderr) == (1, "")
    assert "  MISSING  QEMU " in bare.stdout
    assert bare.stdout.endswith("A run would not work yet.\n")


def test_a_cache_that_cannot_be_used_is_missing(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    environment = {**os.environ, "HOOKPROOF_CACHE": str(tmp_path / "file" / "cache")}
    done = subprocess.run(
        [COMMAND, "doctor", "--json"], env=environment, capture_output=True, check=False
    )
    rows = {row["name"]: row for row in json.loads(done.stdout)["findings"]}
    assert done.returncode == 1
    assert rows["cache"]["state"] == "missing"
    assert "HOOKPROOF_CACHE" in rows["cache"]["fix"]
