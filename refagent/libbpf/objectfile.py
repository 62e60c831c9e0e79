# SPDX-License-Identifier: Apache-2.0
"""A compiled BPF object: first open and to be set up, then loaded and to be used.

The two states are two types. `OpenObject.load` ends the first and returns the
second, so that no knob is turned after it could have had an effect.
"""

from __future__ import annotations

import errno
import warnings
from pathlib import Path
from typing import Any

from refagent.libbpf import ids, rodata
from refagent.libbpf._libbpf import ffi, lib
from refagent.libbpf.call import Operation
from refagent.libbpf.maps import Map
from refagent.libbpf.programs import Program


class OpenObject:
    """An object file that libbpf has read and the kernel has not seen; a context manager.

    Args:
        path: the object file.

    Raises:
        BpfError: the file is missing or is no BPF object.
    """

    def __init__(self, path: Path) -> None:
        self.name = path.name.removesuffix(".bpf.o")
        self._reused: list[int] = []
        with Operation(f"open object {self.name}") as op:
            self._pointer = op.pointer(lib.hp_object_open(str(path).encode()))

    def knob(self, name: str, value: int) -> None:
        """Sets a `const volatile` integer of the programs.

        Raises:
            BpfError: ENOENT, there is none of that name.
        """
        with Operation(f"set {name} of object {self.name}") as op:
            where = rodata.places(self._open()).get(name)
            if where is None:
                raise op.failure(errno.ENOENT)
            rodata.initial(self._open())[where] = rodata.number(value, where)

    def target(self, program: str, function: str) -> None:
        """Says which kernel function a tracing program attaches to.

        Raises:
            BpfError: the function is not in the kernel's BTF.
        """
        with Operation(f"attach target {function} for {program}") as op:
            handle = self._program(program)
            op.check(lib.bpf_program__set_attach_target(handle, 0, function.encode()))

    def only(self, *programs: str) -> None:
        """Loads these programs and no others."""
        wanted = {self._program(name) for name in programs}
        handle = lib.bpf_object__next_program(self._open(), ffi.NULL)
        while handle != ffi.NULL:
            lib.bpf_program__set_autoload(handle, handle in wanted)
            handle = lib.bpf_object__next_program(self._open(), handle)

    def reuse(self, name: str, existing: Map) -> None:
        """Uses a map that is there already instead of making one.

        Raises:
            BpfError: there is no such map, or its shape differs.
        """
        with Operation(f"reuse map {name} in object {self.name}") as op:
            handle = op.pointer(lib.bpf_object__find_map_by_name(self._open(), name.encode()))
            op.check(lib.bpf_map__reuse_fd(handle, existing.fd))
        self._reused.append(ids.map_id(existing.fd))

    def load(self) -> Object:
        """Loads maps and programs into the kernel; this object is used up, also on failure.

        Raises:
            BpfError: with the verifier's log where it was the verifier.
        """
        try:
            with Operation(f"load object {self.name}") as op:
                op.check(lib.bpf_object__load(self._open()))
        except BaseException:
            self.close()
            raise
        loaded, self._pointer = Object(self.name, self._pointer, self._reused), None
        return loaded

    def close(self) -> None:
        """Forgets the object file; nothing was in the kernel."""
        if self._pointer is not None:
            lib.bpf_object__close(self._pointer)
            self._pointer = None

    def __enter__(self) -> OpenObject:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def _open(self) -> Any:
        if self._pointer is None:
            raise ValueError(f"object {self.name} is loaded or closed")
        return self._pointer

    def _program(self, name: str) -> Any:
        with Operation(f"find program {name} in object {self.name}") as op:
            return op.pointer(lib.bpf_object__find_program_by_name(self._open(), name.encode()))


class Object:
    """Maps and programs in the kernel, until closed; a context manager.

    Close its links first: an attached program stays in the kernel.
    """

    def __init__(self, name: str, pointer: Any, reused: list[int]) -> None:
        self.name, self._pointer, self._reused = name, pointer, reused

    def program(self, name: str) -> Program:
        """A program by its name in the C source.

        Raises:
            BpfError: ENOENT.
        """
        with Operation(f"find program {name} in object {self.name}") as op:
            found = lib.bpf_object__find_program_by_name(self._pointer, name.encode())
            return Program(op.check(lib.bpf_program__fd(op.pointer(found))), name)

    def map(self, name: str) -> Map:
        """A map by its name in the C source.

        Raises:
            BpfError: ENOENT.
        """
        with Operation(f"find map {name} in object {self.name}") as op:
            found = op.pointer(lib.bpf_object__find_map_by_name(self._pointer, name.encode()))
        return Map(
            lib.bpf_map__fd(found),
            name,
            lib.bpf_map__key_size(found),
            lib.bpf_map__value_size(found),
        )

    def close(self) -> None:
        """Gives programs and maps back; returns when the kernel has freed them.

        Raises:
            AgentError: somebody still holds one of them: a link, a pin, a forked child.
        """
        if self._pointer is not None:
            programs, maps = self._ids()
            lib.bpf_object__close(self._pointer)
            self._pointer = None
            ids.wait_gone(programs, maps)

    def _ids(self) -> tuple[set[int], set[int]]:
        """The kernel's ids of all programs and of all maps that are this object's own."""
        programs, maps = set(), set()
        handle = lib.bpf_object__next_program(self._pointer, ffi.NULL)
        while handle != ffi.NULL:
            if (fd := lib.bpf_program__fd(handle)) >= 0:
                programs.add(ids.program_id(fd))
            handle = lib.bpf_object__next_program(self._pointer, handle)
        handle = lib.bpf_object__next_map(self._pointer, ffi.NULL)
        while handle != ffi.NULL:
            if (fd := lib.bpf_map__fd(handle)) >= 0:
                maps.add(ids.map_id(fd))
            handle = lib.bpf_object__next_map(self._pointer, handle)
        return programs, maps - set(self._reused)

    def __enter__(self) -> Object:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def __del__(self) -> None:
        if getattr(self, "_pointer", None) is not None:
            warnings.warn(f"object {self.name} was never closed", ResourceWarning, stacklevel=1)
