# SPDX-License-Identifier: Apache-2.0
"""The `const volatile` globals of an object: its map .rodata, before it is loaded."""

from __future__ import annotations

import itertools
import sys
from typing import Any, Final

from refagent.libbpf._libbpf import ffi, lib

NAME: Final = ".rodata"


def places(obj: Any) -> dict[str, slice]:
    """The names of an object's constants, and where each is in the initial value."""
    offset, size = ffi.new("uint32_t *"), ffi.new("uint32_t *")
    found: dict[str, slice] = {}
    for index in itertools.count():
        name = lib.hp_knob(obj, index, offset, size)
        if name == ffi.NULL:
            break
        found[ffi.string(name).decode()] = slice(offset[0], offset[0] + size[0])
    return found


def initial(obj: Any) -> Any:
    """The initial value, writable; empty if the object has no constants."""
    found = lib.bpf_object__find_map_by_name(obj, NAME.encode())
    if found == ffi.NULL:
        return bytearray()
    size = ffi.new("size_t *")
    content = lib.bpf_map__initial_value(found, size)
    return ffi.buffer(content, size[0])


def number(value: int, place: slice) -> bytes:
    """An integer as it is at that place; negative ones in two's complement."""
    size: int = place.stop - place.start
    return (value & ~(-1 << 8 * size)).to_bytes(size, sys.byteorder)
