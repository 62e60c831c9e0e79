# SPDX-License-Identifier: Apache-2.0
"""Gates: BPF programs of the harness that hold a call at a kernel function (bpf/gate.h)."""

from __future__ import annotations

import contextlib
import functools
import struct
import time
from collections.abc import Iterator
from typing import Final

from refagent.errors import BpfError
from refagent.libbpf import btf, template
from refagent.libbpf.maps import Map

#: Of bpf/gate.h: thread, open; who came, overtime.
_SAID: Final = struct.Struct("=II")
_TOLD: Final = struct.Struct("=QQ")
_SLOT: Final = bytes(4)

#: The programs, as `bpf/NAME.bpf.c` has them: between a function's sensor and its override
#: program, and at the entry of a function.
BETWEEN: Final = "gate"
ENTRY: Final = "gate_fentry"


class Gate:
    """A gate that is there.

    Args:
        said: its map of what it is to do.
        told: and that of what it did.
        thread: the kernel's id of the thread that it is for.
    """

    def __init__(self, said: Map, told: Map, thread: int) -> None:
        self._said, self._told, self._thread = said, told, thread
        said.set(_SLOT, _SAID.pack(thread, 0))

    def reached(self, seconds: float) -> bool:
        """Whether the call has come, at the latest after so many seconds."""
        until = time.monotonic() + seconds
        while not self.caller:
            if time.monotonic() > until:
                return False
            time.sleep(0.001)
        return True

    @property
    def caller(self) -> int:
        """The process whose call is held, or was; 0: none."""
        return self._state()[0] >> 32

    @property
    def overtime(self) -> bool:
        """Whether the call went on without being let go."""
        return bool(self._state()[1])

    def open(self) -> None:
        """Lets the call go, or lets it pass if it comes later."""
        self._said.set(_SLOT, _SAID.pack(self._thread, 1))

    def _state(self) -> tuple[int, ...]:
        return _TOLD.unpack(self._told.get(_SLOT) or bytes(_TOLD.size))


@contextlib.contextmanager
def at(kind: str, function: str, thread: int, patience: float, error: int = 0) -> Iterator[Gate]:
    """A gate for one call of a thread or a child of its, until the block ends.

    Args:
        kind: `BETWEEN` or `ENTRY`.
        function: the kernel function.
        thread: the kernel's id.
        patience: seconds after which the call goes on by itself.
        error: the errno that the call returns when it is let go, if `BETWEEN`; 0: it goes on.

    Raises:
        OSError: with the kernel's errno; ENOENT if there is no such function.
    """
    found = btf.vmlinux().function(function)
    if found is None:
        raise FileNotFoundError(2, f"{function} is no function of this kernel")
    with contextlib.ExitStack() as undo:
        try:
            load = functools.partial(
                template.prepare(kind).load,
                {},
                target=found.btf_id,
                patience=int(patience * 1e9),
            )
            program = load(error=-error) if error else load()
            undo.callback(program.close)
            gate = Gate(program.map("gate_said"), program.map("gate_told"), thread)
            undo.enter_context(program.attach())
        except BpfError as failure:
            raise OSError(failure.errno, str(failure)) from failure
        undo.callback(gate.open)  # whatever happens: nobody is left in it
        yield gate


def warm() -> None:
    """Has libbpf prepare the programs, once for all scenarios of a machine."""
    for kind in (BETWEEN, ENTRY):
        template.prepare(kind)
