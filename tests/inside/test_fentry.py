# SPDX-License-Identifier: Apache-2.0
"""The sensor as an fentry program, as pinned agents have it where kprobes cannot be pinned.

Here it is so on every kernel.
"""

from __future__ import annotations

import ctypes
import errno
import os
import sys
from contextlib import ExitStack
from pathlib import Path

import pytest

from refagent.agent import Agent
from refagent.errors import Refused
from refagent.hooks import PathKind
from refagent.libbpf import btf, census
from refagent.libbpf._libbpf import ffi, lib
from refagent.libbpf.maps import Map
from refagent.policy import Policy
from tests.inside.things import (
    OVERRIDE,
    PINNED_SENSOR,
    SENSOR,
    constants,
    error_of,
    kernel_name,
    program_on,
)

MKDIR = "security_path_mkdir"


@pytest.fixture(autouse=True)
def _no_links_of_kprobes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("refagent.sensor.kprobes_have_links", lambda: False)


def kinds(function: str) -> list[str]:
    return sorted(each.kind for each in census.links() if each.function == function)


def test_only_a_pinned_sensor_takes_a_place_in_the_trampoline(base: Path) -> None:
    policy = Policy("a", MKDIR, path="/nowhere", override=errno.EPERM)
    for folder, sensor in ((base, PINNED_SENSOR), (None, SENSOR)):
        with Agent(folder) as agent:
            agent.load(policy)
            assert kinds(MKDIR) == sorted([sensor, OVERRIDE])


def test_constants_have_the_sizes_of_the_arguments(base: Path) -> None:
    with Agent(base) as agent:
        agent.load(Policy("a", MKDIR, path="/nowhere", override=errno.EPERM))
        agent.load(Policy("b", "__x64_sys_symlink", path="/nowhere", monitor=True))
        mkdir, symlink = (
            constants(program_on(each, PINNED_SENSOR)) for each in (MKDIR, "__x64_sys_symlink")
        )
        assert constants(program_on(MKDIR, OVERRIDE))["override_id"] == mkdir.pop("override_id")
    assert mkdir == {
        "path_kind": PathKind.PATH,
        "path_argument": 0,
        "system_call": 0,
        "ia32": 0,
        "argument_sizes": 0x020808,  # two pointers, and a umode_t
    }
    assert symlink["argument_sizes"] == 8


def test_arguments_are_read_and_nothing_beside_them(base: Path, place: Path) -> None:
    with Agent(base) as agent:
        agent.load(
            Policy("a", MKDIR, path=str(place), argument=2, value=0o751, override=1, post=True)
        )
        assert error_of(os.mkdir, place / "x", 0o751) == errno.EPERM
        assert error_of(os.mkdir, place / "x", 0o750) == 0
        (event,) = agent.events()
    assert (event.path, event.decided) == (str(place), "a")
    assert min(event.arguments[:2]) > 1 << 63  # the kernel's addresses
    assert event.arguments[2:] == (0o751, 0, 0, 0)


def test_arguments_that_no_program_may_load_do_not_hinder(base: Path, place: Path) -> None:
    """Of the five of security_sb_mount three are pointers to other things than structures."""
    libc = ctypes.CDLL(None, use_errno=True)

    def bind() -> int:
        here = str(place).encode()
        return libc.mount(here, here, b"none", 4096, None) and ctypes.get_errno()

    with Agent(base) as agent:
        hook = "security_sb_mount"
        agent.load(Policy("a", hook, path=str(place), override=errno.EXDEV, post=True))
        assert bind() == errno.EXDEV
        (event,) = agent.events()
        assert event.arguments[3] == 4096
        assert event.arguments[4:] == (0, 0)
    assert bind() == 0
    libc.umount(str(place).encode())


def test_a_system_call_is_watched(base: Path, place: Path) -> None:
    with Agent(base) as agent:
        agent.load(Policy("a", "__x64_sys_mkdir", path=f"{place}/x", post=True))
        (place / "x").mkdir(0o751)
        (event,) = agent.events()
    assert (event.path, event.arguments[1]) == (f"{place}/x", 0o751)


def test_a_sensor_that_runs_already_on_a_cpu_is_not_entered_again(base: Path, place: Path) -> None:
    """Its memory is the CPU's: the call in an interrupt passes, the one that it interrupted not."""
    with Agent(base) as agent:
        agent.load(Policy("a", MKDIR, path=str(place), override=errno.EPERM))
        name = kernel_name(program_on(MKDIR, PINNED_SENSOR), "running")
        (found,) = (each.id for each in census.maps() if each.name == name)
        width = 8 * possible_cpus()
        with Map.opened(found, name, 4, width) as running:
            assert running.get(bytes(4)) == bytes(width)
            running.set(bytes(4), (1).to_bytes(8, sys.byteorder) * possible_cpus())
            assert error_of(os.mkdir, place / "x") == 0
            running.set(bytes(4), bytes(width))
            assert error_of(os.mkdir, place / "y") == errno.EPERM
            assert agent.counts("a").matched == 1
            assert running.get(bytes(4)) == bytes(width)


def possible_cpus() -> int:
    last = Path("/sys/devices/system/cpu/possible").read_text("ascii").split("-")[-1]
    return int(last) + 1


def test_where_the_trampoline_is_full_it_is_refused(base: Path) -> None:
    found = btf.vmlinux().function("security_quotactl")
    assert found is not None
    with ExitStack() as stack, Agent(base) as agent:
        for _ in range(64):
            args = lib.BPF_TRACE_FENTRY, found.btf_id, b"full", ffi.NULL, 0
            program = lib.hp_return_zero_load(*args)
            assert program >= 0
            stack.callback(os.close, program)
            link = lib.bpf_raw_tracepoint_open(ffi.NULL, program)
            if link < 0:
                break
            stack.callback(os.close, link)
        assert link == -errno.E2BIG
        with pytest.raises(Refused, match="no further program fits on security_quotactl"):
            agent.load(Policy("a", "security_quotactl", uid=54321, post=True))
        assert agent.status().functions == {}


def test_a_kprobe_that_overrides_cannot_be_pinned(base: Path) -> None:
    """Whether this kernel's kprobes can override or not, and fmod_ret."""
    policy = Policy("a", "__x64_sys_getsid", override=errno.EPERM, uid=54321, by="kprobe")
    with Agent(base) as agent:
        with pytest.raises(Refused, match="kprobe override: this kernel cannot pin a kprobe"):
            agent.load(policy)
        agent.load(Policy("b", "__x64_sys_getsid", uid=54321, post=True))
        assert kinds("__x64_sys_getsid") == [PINNED_SENSOR]
