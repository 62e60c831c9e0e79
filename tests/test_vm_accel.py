# SPDX-License-Identifier: Apache-2.0
"""The payload that tells a working accelerator from a /dev/kvm that hangs."""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path

import pytest

from vm import accel
from vm.accel import Accel, Calibration
from vm.errors import HostProblem


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HOOKPROOF_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def qemu_that(does: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Puts a QEMU first on PATH that does something else; `$2` is the accelerator."""
    program = tmp_path / "bin" / "qemu-system-x86_64"
    program.parent.mkdir()
    program.write_text(f"#!/bin/sh\n{does}\n", encoding="utf-8")
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", f"{program.parent}{os.pathsep}{os.environ['PATH']}")


def test_the_payload_boots_under_software_emulation(tmp_path: Path) -> None:
    image = tmp_path / "payload"
    image.write_bytes(accel.payload())
    seconds, wrong = accel._boot(image, Accel.TCG, 60)
    assert wrong == ""
    assert seconds > 0


def test_a_payload_that_is_broken_does_not_arrive(tmp_path: Path) -> None:
    image = tmp_path / "payload"
    image.write_bytes(accel.payload()[:-9] + b"\xf4\xeb\xfd" * 3)  # halts without a word
    _, wrong = accel._boot(image, Accel.TCG, 3)
    assert wrong == "a tiny payload did not arrive within 3.0 s"


def test_the_verdict_is_kept_until_the_host_boots_again(cache: Path) -> None:
    first = accel.calibrate()
    note = cache / "acceleration.json"
    raw = json.loads(note.read_text(encoding="utf-8"))
    note.write_text(json.dumps(raw | {"words": "as noted", "unit": 7.5}), encoding="utf-8")
    assert accel.calibrate() == Calibration(first.accel, "as noted", 7.5)
    assert accel.calibrate(refresh=True).words == first.words
    note.write_text(json.dumps(raw | {"key": "another boot", "words": "old"}), encoding="utf-8")
    assert accel.calibrate().words == first.words
    note.write_text("{", encoding="utf-8")
    assert accel.calibrate().words == first.words


@pytest.mark.skipif(
    not os.access("/dev/kvm", os.R_OK | os.W_OK), reason="no /dev/kvm to be wrong about"
)
@pytest.mark.parametrize(
    ("kvm", "words"),
    [
        ("exec sleep 1000", "a tiny payload did not arrive within 2.0 s"),
        ("echo 'failed to set MSR' >&2; exit 1", "did not boot: failed to set MSR"),
        ("exit 0", "did not boot: no message"),
    ],
)
def test_a_kvm_that_hangs_or_fails_is_not_used(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kvm: str, words: str
) -> None:
    qemu_that(f'[ "$2" = tcg ] && exit 85\n{kvm}', tmp_path, monkeypatch)
    found = accel.calibrate()
    assert found.accel is Accel.TCG
    assert words in found.words
    with pytest.raises(HostProblem, match="--accel kvm: no KVM: a tiny payload"):
        accel.choose("kvm")


@pytest.mark.skipif(
    not os.access("/dev/kvm", os.R_OK | os.W_OK), reason="no /dev/kvm to be right about"
)
def test_a_kvm_that_works_is_used(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    qemu_that("exit 85", tmp_path, monkeypatch)
    assert accel.choose("auto").accel is Accel.KVM
    assert accel.choose("tcg").accel is Accel.TCG


def test_a_qemu_that_does_not_work_at_all(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    qemu_that("echo broken library >&2; exit 127", tmp_path, monkeypatch)
    with pytest.raises(HostProblem, match=r"QEMU does not work here: .*broken library"):
        accel.calibrate()
    assert not (cache / "acceleration.json").exists()


def test_no_qemu(cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(HostProblem, match=r"qemu-system-x86_64 is not installed; .*doctor"):
        accel.calibrate()


def test_deadlines_grow_with_a_slow_host_and_have_a_floor() -> None:
    assert Calibration(Accel.TCG, "", 0.5).deadline(400, least=30) == 200
    assert Calibration(Accel.KVM, "", 0.01).deadline(400, least=30) == 30
