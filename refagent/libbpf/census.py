# SPDX-License-Identifier: Apache-2.0
"""All programs, maps and links that are in the running kernel, whoever made them."""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any

from refagent.libbpf import btf, link_targets
from refagent.libbpf._libbpf import ffi, lib
from refagent.libbpf.call import Operation


@dataclass(frozen=True, order=True)
class ProgramInfo:
    """A loaded program.

    Attributes:
        id: the kernel's, never used twice before it wraps at 2^31.
        type: such as `kprobe`, `tracing`, `lsm`.
        name: at most 15 characters.
        run_count: how often it ran, 0 unless the kernel's program statistics are on.
        run_time: nanoseconds that these runs took together; 0 likewise.
        recursion_misses: how often it was skipped because it ran already on that CPU.
        maps: the ids of its maps, the first 32.
    """

    id: int
    type: str
    name: str
    run_count: int = 0
    run_time: int = 0
    recursion_misses: int = 0
    maps: tuple[int, ...] = ()


@dataclass(frozen=True, order=True)
class MapInfo:
    """A map: `id`, `type` such as `hash`, `name`, room for how many elements, their sizes."""

    id: int
    type: str
    name: str
    max_entries: int
    key_size: int
    value_size: int


@dataclass(frozen=True, order=True)
class LinkInfo:
    """An attachment.

    Attributes:
        id: the kernel's; 0 for a kprobe that hangs on a perf event without a link.
        type: such as `tracing`, `perf_event`.
        kind: fentry, fexit, fmod_ret or lsm for tracing links, `kprobe`, else the type.
        function: the kernel function, or empty if it is on none or nobody says: of a kprobe whose
            process is dead, a kernel does since 6.6.
        program: the program's id.
    """

    id: int
    type: str
    kind: str
    function: str
    program: int


#: The kinds of programs that share a function's trampoline, by their numbers.
KINDS: dict[int, str] = {
    lib.BPF_TRACE_FENTRY: "fentry",
    lib.BPF_TRACE_FEXIT: "fexit",
    lib.BPF_MODIFY_RETURN: "fmod_ret",
    lib.BPF_LSM_MAC: "lsm",
}


def programs() -> list[ProgramInfo]:
    """Every program, by id.

    Raises:
        BpfError: this process may not ask.
    """
    info = ffi.new("struct hp_prog_info *")
    found = []
    for _ in _each(lib.bpf_prog_get_next_id, lib.bpf_prog_get_fd_by_id, lib.hp_prog_info, info):
        kind = _text(lib.libbpf_bpf_prog_type_str(info.type)) or str(info.type)
        found.append(
            ProgramInfo(
                info.id,
                kind,
                _text(info.name),
                run_count=info.run_cnt,
                run_time=info.run_time_ns,
                recursion_misses=info.recursion_misses,
                maps=tuple(info.maps[0 : min(info.map_count, len(info.maps))]),
            )
        )
    return found


def maps() -> list[MapInfo]:
    """Every map, by id.

    Raises:
        BpfError: this process may not ask.
    """
    info = ffi.new("struct hp_map_info *")
    found = []
    for _ in _each(lib.bpf_map_get_next_id, lib.bpf_map_get_fd_by_id, lib.hp_map_info, info):
        kind = _text(lib.libbpf_bpf_map_type_str(info.type)) or str(info.type)
        sizes = info.max_entries, info.key_size, info.value_size
        found.append(MapInfo(info.id, kind, _text(info.name), *sizes))
    return found


def links(among: Iterable[str] | None = None) -> list[LinkInfo]:
    """Every link, and every kprobe of a BPF program, whether it is a link (5.15+) or not.

    Args:
        among: the ids of the processes that are asked for their kprobes; None: all there are.

    Raises:
        BpfError: this process may not ask.
    """
    info = ffi.new("struct hp_link_info *")
    found: list[LinkInfo] = []
    # Names and no Paths: each object counts under emulation.
    kprobes = _kprobes(filter(str.isdecimal, os.listdir("/proc")) if among is None else among)  # noqa: PTH208
    silent: list[tuple[int, LinkInfo]] = []  # tracing links whose function the kernel keeps back
    try:
        for fd in _each(
            lib.bpf_link_get_next_id, lib.bpf_link_get_fd_by_id, lib.hp_link_info, info
        ):
            kind = _link_type(info.type)
            function = ""
            if kind == "tracing":
                kind = KINDS.get(info.attach_type, str(info.attach_type))
                function = btf.vmlinux().name(info.btf_id) if info.btf_id else ""
            elif function := _text(info.function):
                kind = "kprobe"
                with contextlib.suppress(ValueError):  # if its process is dead
                    kprobes.get(info.prog_id, []).remove(function)
            elif kprobes.get(info.prog_id):
                kind, function = "kprobe", kprobes[info.prog_id].pop()
            link = LinkInfo(info.id, _link_type(info.type), kind, function, info.prog_id)
            if link.type == "tracing" and not info.btf_id:
                silent.append((os.dup(fd), link))
            else:
                found.append(link)
        targets = link_targets.ask({fd for fd, _ in silent}) if silent else {}
        for fd, link in silent:
            found.append(replace(link, function=btf.vmlinux().name(targets.get(fd, 0))))
    finally:
        for fd, _ in silent:
            os.close(fd)
    for program, functions in kprobes.items():
        found += [LinkInfo(0, "perf_event", "kprobe", each, program) for each in functions]
    return sorted(found)


def _link_type(number: int) -> str:
    return _text(lib.hp_link_type(number)) or str(number)


def _each(
    next_id: Callable[[int, Any], int],
    open_by_id: Callable[[int], int],
    ask: Callable[[int, Any], int],
    info: Any,
) -> Iterator[int]:
    """Fills `info` for each object in turn; gives its descriptor, which it closes."""
    number = ffi.new("uint32_t *")
    with Operation("list the kernel's BPF objects") as op:
        while (result := next_id(number[0], number)) != -errno.ENOENT:
            op.check(result)
            fd = open_by_id(number[0])
            # Gone in the meantime; or a link that is just being made, and has its id already.
            if fd in {-errno.ENOENT, -errno.EAGAIN}:
                continue
            op.check(fd)
            try:
                op.check(ask(fd, info))
                yield fd
            finally:
                os.close(fd)


def _kprobes(processes: Iterable[str]) -> dict[int, list[str]]:
    """Program id → the functions it probes, from the perf events of processes.

    A perf event's own descriptor is the one place that names the function on every
    kernel. A forked child shows its parent's events again: the longest list counts.
    """
    found: dict[int, list[str]] = {}
    for process in processes:
        own: dict[int, list[str]] = {}
        for program, function in _perf_events(process):
            own.setdefault(program, []).append(function)
        for program, functions in own.items():
            found[program] = max(found.get(program, []), functions, key=len)
    return found


def _perf_events(process: str) -> Iterator[tuple[int, str]]:
    folder = f"/proc/{process}/fd"
    try:
        for fd in os.listdir(folder):  # noqa: PTH208
            if os.readlink(f"{folder}/{fd}") != "anon_inode:[perf_event]":  # noqa: PTH115
                continue
            text, program = ffi.new("char[256]"), ffi.new("uint32_t *")
            asked = lib.hp_task_kprobe(int(process), int(fd), text, len(text), program)
            if asked == 1:
                yield int(program[0]), _text(text)
    except (FileNotFoundError, ProcessLookupError):
        return  # the process or the descriptor is gone: so is its probe
    except PermissionError:
        return  # a process that even root may not look into, as in a container


def _text(found: Any) -> str:
    return "" if found == ffi.NULL else str(ffi.string(found).decode("utf-8", "replace"))
