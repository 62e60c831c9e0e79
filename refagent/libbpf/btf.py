# SPDX-License-Identifier: Apache-2.0
"""The running kernel's own description of its functions and types."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any

from refagent.libbpf._libbpf import ffi, lib
from refagent.libbpf.call import Operation


@dataclass(frozen=True)
class Function:
    """A kernel function's prototype.

    Attributes:
        btf_id: its id in the kernel's BTF.
        returns: the return type as C has it, such as `int`.
        parameters: their types, such as `const struct path *`.
        sizes: of the parameters, in bytes.
    """

    btf_id: int
    returns: str
    parameters: tuple[str, ...]
    sizes: tuple[int, ...]


class Btf:
    """BTF that libbpf has parsed; kept for good: parsing takes up to 0.5 s under emulation."""

    def __init__(self, pointer: Any) -> None:
        self._pointer = pointer
        self._known: dict[str, int] = {}

    def function(self, name: str) -> Function | None:
        """The function of that name, or None."""
        btf_id = self._known.get(name)
        if btf_id is None:
            btf_id = lib.btf__find_by_name_kind(self._pointer, name.encode(), lib.BTF_KIND_FUNC)
        if btf_id < 0:
            return None
        text = ffi.new("char[128]")
        count = lib.hp_btf_func(self._pointer, btf_id, text, len(text))
        returns = _text(text)
        parameters = []
        for index in range(count):
            lib.hp_btf_param(self._pointer, btf_id, index, text, len(text))
            parameters.append(_text(text))
        sizes = (lib.hp_btf_param_size(self._pointer, btf_id, index) for index in range(count))
        return Function(btf_id, returns, tuple(parameters), tuple(sizes))

    def functions(self, prefix: str) -> list[str]:
        """The names of the functions that begin so, at most 4096; `function` finds them at once."""
        ids = ffi.new("uint32_t[4096]")
        count = lib.hp_btf_funcs(self._pointer, prefix.encode(), ids, len(ids))
        found = {self.name(ids[i]): int(ids[i]) for i in reversed(range(count))}
        self._known |= found
        return sorted(found)

    def name(self, btf_id: int) -> str:
        """The name of a type or function by its id; empty if there is none."""
        found = lib.hp_btf_name(self._pointer, btf_id)
        return _text(found) if found != ffi.NULL else ""

    def enumerator(self, name: str) -> int | None:
        """The value of an enumerator such as `BPF_MAX_TRAMP_LINKS`, or None."""
        value = ffi.new("int64_t *")
        return (
            int(value[0])
            if lib.hp_btf_enumerator(self._pointer, name.encode(), value) == 0
            else None
        )


@functools.cache
def vmlinux() -> Btf:
    """The running kernel's BTF, parsed once per process.

    Raises:
        BpfError: this kernel has none (`CONFIG_DEBUG_INFO_BTF`).
    """
    with Operation("read the kernel's BTF") as op:
        return Btf(op.pointer(lib.btf__load_vmlinux_btf()))


def _text(found: Any) -> str:
    return str(ffi.string(found).decode())
