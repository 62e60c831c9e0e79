# SPDX-License-Identifier: Apache-2.0
"""Programs that are loaded many times: libbpf prepares each once, and never loads it.

For every object that it loads, libbpf parses the kernel's BTF, which takes about 0.4 s under
emulation. So it is let do all of its work (relocations for this kernel, types for the
verifier) up to the moment before the load, the result is kept, and a program is loaded from
it with the maps, the constants and the target that it is to have.
"""

from __future__ import annotations

import errno
import functools
import os
import struct
import sys
import threading
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Final

from refagent import objects
from refagent.errors import Refused
from refagent.libbpf import ids, pins, rodata
from refagent.libbpf._libbpf import ffi, lib
from refagent.libbpf.call import Operation
from refagent.libbpf.maps import Map, Shape
from refagent.libbpf.programs import Program

#: struct bpf_insn: code, registers (the source is the high half), offset, immediate value.
_INSTRUCTION: Final = struct.Struct("=BBhi")
_INSN: Final = _INSTRUCTION.size
#: BPF_LD | BPF_IMM | BPF_DW from BPF_PSEUDO_MAP_FD or BPF_PSEUDO_MAP_VALUE: the immediate value
#: is a map's descriptor.
_LOAD_64: Final = 0x18
_OF_A_MAP: Final = (1, 2)
_LOG: Final = 1 << 20

_thread = threading.local()


@dataclass(frozen=True)
class Records:
    """`count` records of `size` bytes each."""

    content: bytes
    count: int
    size: int

    @classmethod
    def of(cls, start: Any, count: int, size: int) -> Records:
        """A copy of what C has."""
        return cls(bytes(ffi.buffer(start, count * size)) if count else b"", count, size)


@dataclass(frozen=True)
class Types:
    """What the verifier is told beside the instructions, for its log and bpftool."""

    btf_fd: int
    func_info: Records
    line_info: Records


@dataclass(frozen=True)
class Template:
    """A program as libbpf was about to load it.

    Attributes:
        name: the object's and the program's.
        type: BPF_PROG_TYPE_…
        attach_type: BPF_…, or 0.
        flags: BPF_F_SLEEPABLE, or 0.
        insns: the instructions, relocated for this kernel.
        uses: (offset of an instruction in bytes, the name of the map it refers to).
        shapes: the maps that the object declares.
        contents: the ids of the types of their keys and values.
        constants: the initial value of .rodata.
        places: where each constant is in it.
        types: or None where the kernel takes none.
    """

    name: str
    type: int
    attach_type: int
    flags: int
    insns: bytes
    uses: tuple[tuple[int, str], ...]
    shapes: Mapping[str, Shape]
    contents: Mapping[str, tuple[int, int]]
    constants: bytes
    places: Mapping[str, slice]
    types: Types | None

    def load(
        self,
        maps: Mapping[str, Map],
        *,
        names: Callable[[str], str] = str,
        target: int = 0,
        **constants: int,
    ) -> Loaded:
        """Loads one program.

        Args:
            maps: those to be used; what is missing is made as declared and is the program's own.
            names: what the program and its own maps are called in the kernel, by their names in
                the C source.
            target: the BTF id of the kernel function, of a tracing program.
            constants: values of `const volatile` integers.

        Raises:
            BpfError: with the verifier's log where it was the verifier.
        """
        unknown = constants.keys() - self.places.keys()
        if unknown:
            raise ValueError(f"program {self.name} has no constant {min(unknown)}")
        own: dict[str, Map] = {}
        try:
            for name in dict.fromkeys(name for _, name in self.uses):
                if name not in maps:
                    own[name] = self._make(name, names(name), constants)
            fd = self._load({**maps, **own}, names(self.name), target)
        except BaseException:
            numbers = [ids.map_id(each.fd) for each in own.values()]
            for each in own.values():
                each.close()
            ids.wait_gone((), numbers)
            raise
        return Loaded(fd, self.name, own)

    def make(self, name: str, called: str | None = None) -> Map:
        """Makes one of the maps that the object declares; close it.

        Args:
            name: its.
            called: the kernel's name for it, if not the same.

        Raises:
            BpfError: the kernel did not make it.
        """
        shape = self.shapes[name]
        if shape.type == lib.BPF_MAP_TYPE_TASK_STORAGE and self.types is not None:
            # The kernel makes none whose types it does not know.
            types = (self.types.btf_fd, *self.contents[name])
            return Map.create(called or name, shape, types=types)
        return Map.create(called or name, shape)

    def _make(self, name: str, called: str, constants: Mapping[str, int]) -> Map:
        if not name.endswith(rodata.NAME):
            return self.make(name, called)
        content = bytearray(self.constants)
        for constant, value in constants.items():
            place = self.places[constant]
            content[place] = rodata.number(value, place)
        return Map.frozen(called, bytes(content))

    def _load(self, maps: Mapping[str, Map], called: str, target: int) -> int:
        insns = bytearray(self.insns)
        for at, name in self.uses:
            insns[at + 4 : at + 8] = maps[name].fd.to_bytes(4, sys.byteorder)
        code = ffi.from_buffer("struct bpf_insn *", insns)
        options = ffi.new("struct bpf_prog_load_opts *")
        options.sz = ffi.sizeof("struct bpf_prog_load_opts")
        options.expected_attach_type = self.attach_type
        options.attach_btf_id = target
        options.prog_flags = self.flags
        if self.types is not None:
            functions, lines = self.types.func_info, self.types.line_info
            options.prog_btf_fd = self.types.btf_fd
            options.func_info = ffi.from_buffer(functions.content)
            options.func_info_cnt, options.func_info_rec_size = functions.count, functions.size
            options.line_info = ffi.from_buffer(lines.content)
            options.line_info_cnt, options.line_info_rec_size = lines.count, lines.size
        arguments = (self.type, called.encode(), b"GPL", code, len(insns) // _INSN, options)
        with Operation(f"load program {self.name}") as op:
            fd = lib.bpf_prog_load(*arguments)
            if fd >= 0:
                return int(fd)
            # The verifier's log is asked for late, as it takes longer than the load.
            log = ffi.new("char[]", _LOG)
            options.log_level, options.log_size, options.log_buf = 1, _LOG, log
            fd = lib.bpf_prog_load(*arguments)
            if fd >= 0:
                return int(fd)
            raise op.failure(-fd, ffi.string(log).decode("utf-8", "replace"))


class Loaded(Program):
    """A program of its own, with the maps that only it uses; close it."""

    def __init__(self, fd: int, name: str, maps: Mapping[str, Map]) -> None:
        super().__init__(fd, name)
        self._maps = maps

    @classmethod
    def pinned(
        cls, path: Path, name: str, maps: Mapping[str, Map], uses: Collection[Map]
    ) -> Loaded:
        """A program by its pin; close it.

        Args:
            path: the pin.
            name: that the kernel has.
            maps: its own, which belong to it then, by their names in the C source.
            uses: maps that it has to use.

        Raises:
            Refused: another program is pinned there.
            BpfError: there is no pin, or it is no program.
        """
        program = cls(pins.opened(path), name, maps)
        try:
            theirs = ids.maps_of(program.fd)
            same = ids.program_name(program.fd) == name and all(
                ids.map_id(each.fd) in theirs for each in (*maps.values(), *uses)
            )
        except BaseException:
            os.close(program.fd)
            raise
        if not same:
            os.close(program.fd)
            raise Refused(f"the pin {path} is another program than the agent's {name}")
        return program

    def map(self, name: str) -> Map:
        """One of its own maps, by its name in the C source."""
        return self._maps[name]

    def leave(self) -> None:
        """Closes the descriptors and nothing else: what is pinned or linked goes on."""
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1
            for each in self._maps.values():
                each.close()

    def close(self) -> None:
        """Gives program and maps back; returns when the kernel has freed them.

        Raises:
            AgentError: somebody still holds one of them: a link, a pin, a forked child.
        """
        close_all([self])

    def numbers(self) -> tuple[int, list[int]]:
        """The kernel's ids of the program and of its maps."""
        return ids.program_id(self.fd), [ids.map_id(each.fd) for each in self._maps.values()]


def close_all(programs: Iterable[Loaded]) -> None:
    """Gives programs and their maps back; returns when the kernel has freed all of them.

    It does so after grace periods, which pass for all at the same time.

    Raises:
        AgentError: somebody still holds one of them: a link, a pin, a forked child.
    """
    numbers = []
    for each in programs:
        if each.fd >= 0:
            numbers.append(each.numbers())
            each.leave()
    ids.wait_gone({program for program, _ in numbers}, [one for _, maps in numbers for one in maps])


@functools.cache
def prepare(name: str) -> Template:
    """The template of a compiled object's program, which is in a section `shared/…`.

    Prepared once for this process and the children it forks.

    Raises:
        BpfError: libbpf could not, or this kernel has no BTF.
    """
    with Operation(f"prepare object {name}") as op:
        op.check(_register())
        obj = op.pointer(lib.hp_object_open(str(objects.path(name)).encode()))
        try:
            _thread.obj, _thread.template = obj, None
            result = lib.bpf_object__load(obj)  # -ECANCELED where all went well
            found: Template | None = _thread.template
            if found is None:
                raise op.failure(-result)
            return found
        finally:
            lib.bpf_object__close(obj)


@functools.cache
def _register() -> int:
    return int(lib.hp_templates())


def _failed(kind: type[BaseException], error: BaseException, trace: TracebackType) -> None:
    """An exception cannot cross C's frames: the load ends all the same, with no template."""


@ffi.def_extern(error=-errno.EFAULT, onerror=_failed)  # type: ignore[untyped-decorator]
def hp_template(program: Any, options: Any, _cookie: int) -> int:
    """Receives a program a moment before libbpf would load it."""
    _thread.template = _copied(_thread.obj, program, options)
    return -errno.ECANCELED


def _copied(obj: Any, program: Any, options: Any) -> Template:
    section = ffi.string(lib.bpf_program__section_name(program))
    count = lib.bpf_program__insn_cnt(program)
    insns = bytes(ffi.buffer(lib.bpf_program__insns(program), count * _INSN))
    shapes, contents, names = {}, {}, {}
    declared = lib.bpf_object__next_map(obj, ffi.NULL)
    while declared != ffi.NULL:
        name = ffi.string(lib.bpf_map__name(declared)).decode()
        names[lib.bpf_map__fd(declared)] = name
        shapes[name] = Shape(
            lib.bpf_map__type(declared),
            lib.bpf_map__key_size(declared),
            lib.bpf_map__value_size(declared),
            lib.bpf_map__max_entries(declared),
            lib.bpf_map__map_flags(declared),
        )
        contents[name] = (
            lib.bpf_map__btf_key_type_id(declared),
            lib.bpf_map__btf_value_type_id(declared),
        )
        declared = lib.bpf_object__next_map(obj, declared)
    return Template(
        name=ffi.string(lib.bpf_program__name(program)).decode(),
        type=lib.bpf_program__type(program),
        attach_type=options.expected_attach_type,
        flags=lib.BPF_F_SLEEPABLE if section.endswith(b".s") else 0,
        insns=insns,
        uses=tuple(_uses(insns, names)),
        shapes=shapes,
        contents=contents,
        constants=bytes(rodata.initial(obj)),
        places=rodata.places(obj),
        types=_types(options),
    )


def _uses(insns: bytes, names: Mapping[int, str]) -> Iterator[tuple[int, str]]:
    for at in range(0, len(insns), _INSN):
        code, registers, _, value = _INSTRUCTION.unpack_from(insns, at)
        if code == _LOAD_64 and registers >> 4 in _OF_A_MAP:
            yield at, names[value]


def _types(options: Any) -> Types | None:
    if not options.func_info_cnt:
        return None
    return Types(
        os.dup(options.prog_btf_fd),
        Records.of(options.func_info, options.func_info_cnt, options.func_info_rec_size),
        Records.of(options.line_info, options.line_info_cnt, options.line_info_rec_size),
    )
