# SPDX-License-Identifier: Apache-2.0
"""The binding: errors in libbpf's words, and states that cannot be mixed up. Needs no BPF."""

from __future__ import annotations

import errno
import os
import threading
from pathlib import Path
from typing import Any

import pytest

from refagent import objects
from refagent.errors import BpfError
from refagent.libbpf import census
from refagent.libbpf._libbpf import lib
from refagent.libbpf.btf import Btf
from refagent.libbpf.call import Operation, strerror
from refagent.libbpf.maps import Map
from refagent.libbpf.objectfile import OpenObject


@pytest.fixture(autouse=True, scope="module")
def _compiled() -> None:
    objects.refresh()


def test_a_missing_object_is_named(tmp_path: Path) -> None:
    with pytest.raises(BpfError, match="open object nothing: ENOENT: elf: failed to open") as found:
        OpenObject(tmp_path / "nothing.bpf.o")
    assert found.value.errno == errno.ENOENT


def test_an_object_that_is_none_gives_libbpfs_own_error(tmp_path: Path) -> None:
    broken = tmp_path / "broken.bpf.o"
    broken.write_bytes(b"no ELF at all")
    with pytest.raises(BpfError, match="is not a proper ELF object"):
        OpenObject(broken)


def test_a_truncated_object_is_refused(tmp_path: Path) -> None:
    whole = objects.path("override").read_bytes()
    short = tmp_path / "short.bpf.o"
    short.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(BpfError, match="open object short"):
        OpenObject(short)


def test_errnos_of_libbpf_have_words() -> None:
    assert strerror(4001) == "BPF object format invalid"
    assert strerror(errno.EPERM) == os.strerror(errno.EPERM)


def test_knobs_and_programs_are_found_by_name() -> None:
    with OpenObject(objects.path("override")) as opened:
        opened.knob("override_id", 7)
        opened.only("override")
        with pytest.raises(BpfError, match="set overide_id of object override: ENOENT"):
            opened.knob("overide_id", 7)
        with pytest.raises(BpfError, match="find program nobody in object override"):
            opened.only("nobody")


def test_a_closed_object_cannot_be_set_up() -> None:
    opened = OpenObject(objects.path("override"))
    opened.close()
    opened.close()
    with pytest.raises(ValueError, match="loaded or closed"):
        opened.knob("override_id", 7)


def test_what_libbpf_says_stays_with_its_thread(tmp_path: Path) -> None:
    def fail() -> None:
        with pytest.raises(BpfError):
            OpenObject(tmp_path / "other.bpf.o")

    with Operation("outer") as outer:
        thread = threading.Thread(target=fail)
        thread.start()
        thread.join()
        fail()
    assert outer.lines == []


def test_a_nested_operation_gives_the_outer_ones_lines_back(tmp_path: Path) -> None:
    with Operation("outer") as outer:
        with pytest.raises(BpfError):
            OpenObject(tmp_path / "inner.bpf.o")
        lib.hp_object_open(str(tmp_path / "own.bpf.o").encode())
    assert [line for line in outer.lines if "own.bpf.o" in line]
    assert not [line for line in outer.lines if "inner.bpf.o" in line]


def test_the_verifiers_log_is_taken_out_of_libbpfs_lines() -> None:
    log = "R0 !read_ok\nprocessed 1 insns\n"
    with Operation("load object x") as op:
        op.lines += [
            "libbpf: prog 'p': BPF program load failed: Invalid argument\n",
            f"libbpf: prog 'p': -- BEGIN PROG LOAD LOG --\n{log}-- END PROG LOAD LOG --\n",
        ]
        failure = op.failure(errno.EINVAL)
    assert failure.text == "prog 'p': BPF program load failed: Invalid argument"
    assert failure.verifier_log == log
    assert failure.words == "EINVAL: R0 !read_ok"


@pytest.mark.parametrize("size", [0, 3, 5])
def test_keys_of_another_size_never_reach_the_kernel(size: int) -> None:
    table = Map(-1, "table", key_size=4, value_size=4)
    with pytest.raises(ValueError, match="keys of 4 bytes"):
        table.get(bytes(size))
    with pytest.raises(ValueError, match="values of 4 bytes"):
        table.set(bytes(4), bytes(size))


def test_a_bad_descriptor_is_an_error_and_not_an_absent_key() -> None:
    with pytest.raises(BpfError, match="look up in map table"):
        Map(-1, "table", key_size=4, value_size=4).get(bytes(4))


def test_types_read_as_c_has_them() -> None:
    """Our own object's BTF has a function too: no need for a kernel's."""
    with OpenObject(objects.path("sensor")) as opened:
        own = Btf(lib.bpf_object__btf(opened._open()))
        found = own.function("sensor")
        assert found is not None
        assert (found.returns, found.parameters) == ("int", ("struct pt_regs *",))
        assert own.function("nobody") is None
        assert own.functions("sen") == ["sensor"]
        assert own.enumerator("NO_SUCH_ENUMERATOR") is None


def test_what_is_not_there_yet_or_any_more_is_not_listed() -> None:
    there = os.open(os.devnull, os.O_RDONLY)
    opened = {1: -errno.ENOENT, 2: -errno.EAGAIN, 5: there}

    def next_id(number: int, place: Any) -> int:
        place[0] = min((each for each in opened if each > number), default=number)
        return -errno.ENOENT if place[0] == number else 0

    found = list(census._each(next_id, opened.__getitem__, lambda _fd, _info: 0, None))
    assert found == [there]
    opened[2] = -errno.EACCES
    with pytest.raises(BpfError, match="list the kernel's BPF objects: EACCES"):
        list(census._each(next_id, opened.__getitem__, lambda _fd, _info: 0, None))
