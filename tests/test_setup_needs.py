# SPDX-License-Identifier: Apache-2.0
"""The table of what a host needs, and how one installs it on each family of distributions."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import pytest

from hookproof import distribution, needs
from hookproof.distribution import FAMILIES, advice, command, family_of, packages
from hookproof.needs import NEEDS, Need
from hookproof.needs_build import BUILD_NEEDS

GONE = Need("thing", "reason", lambda: "", debian="d", fedora="f", arch="a")
HERE = Need("other", "reason", lambda: "/x", debian="d", fedora="f2", arch="a2")


def test_every_need_has_a_reason_and_a_package_everywhere() -> None:
    for need in (*NEEDS, *BUILD_NEEDS):
        assert need.why, need.name
        for family in FAMILIES:
            assert packages([need], family)[0].strip(), (need.name, family.label)


def test_needs_are_named_once() -> None:
    names = [need.name for need in (*NEEDS, *BUILD_NEEDS)]
    assert len(set(names)) == len(names)


def test_missing_are_those_that_are_not_found() -> None:
    assert needs.missing((HERE, GONE)) == (GONE,)


def test_program_takes_the_first_that_is_there() -> None:
    assert needs.program("no-such-program", "sh") == shutil.which("sh")
    assert needs.program("no-such-program") == ""


def test_programs_of_the_superuser_are_found_by_everybody() -> None:
    assert "/usr/sbin" in needs.SEARCH_PATH.split(":")


def test_a_busybox_with_shared_libraries_will_not_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(needs, "SEARCH_PATH", str(tmp_path))
    assert needs.static_busybox() == ""
    dynamic = tmp_path / "busybox"
    shutil.copy(str(shutil.which("ls")), dynamic)
    assert needs.static_busybox() == ""
    static = tmp_path / "busybox.static"
    static.write_bytes(b"\x7fELF static")
    static.chmod(0o755)
    assert needs.static_busybox() == str(static)


def test_this_python_can_make_a_virtual_environment() -> None:
    # Otherwise the environment of this test would not be there.
    assert needs.python_venv() == sys.base_prefix


@pytest.mark.parametrize(
    ("release", "label"),
    [
        ({"ID": "debian"}, "Debian/Ubuntu"),
        ({"ID": "ubuntu", "ID_LIKE": "debian"}, "Debian/Ubuntu"),
        ({"ID": "linuxmint", "ID_LIKE": "ubuntu debian"}, "Debian/Ubuntu"),
        ({"ID": "fedora"}, "Fedora"),
        ({"ID": "rocky", "ID_LIKE": "rhel centos fedora"}, "Fedora"),
        ({"ID": "arch"}, "Arch"),
        ({"ID": "manjaro", "ID_LIKE": "arch"}, "Arch"),
        ({"ID": "alpine"}, None),
        ({}, None),
    ],
)
def test_family_follows_os_release(release: dict[str, str], label: str | None) -> None:
    found = family_of(release)
    assert (found and found.label) == label


def test_each_family_has_one_command_to_paste() -> None:
    lines = [command([GONE, HERE], family) for family in FAMILIES]
    assert lines == [
        "sudo apt-get update && sudo apt-get install --yes --no-install-recommends d",
        "sudo dnf install --assumeyes f f2",
        "sudo pacman --sync --needed --noconfirm a a2",
    ]


def test_installing_sshd_by_hand_keeps_the_server_off() -> None:
    sshd = next(need for need in NEEDS if need.name == "sshd")
    debian, fedora, _ = (command([sshd], family) for family in FAMILIES)
    first, *_, last = debian.split(" && ")
    assert first == "sudo install -D /dev/null /etc/ssh/sshd_not_to_be_run"
    assert last.endswith(" openssh-server")
    assert "sshd_not_to_be_run" not in fedora


def test_advice_on_an_unknown_distribution_has_a_line_for_each_family() -> None:
    lines = advice([GONE], None)
    assert [line.split(":")[0] for line in lines] == ["Debian/Ubuntu", "Fedora", "Arch"]
    assert advice([GONE], distribution.FAMILIES[1]) == ("sudo dnf install --assumeyes f",)
