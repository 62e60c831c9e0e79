# SPDX-License-Identifier: Apache-2.0
"""Which calls are still inside a chain, asked of their tasks by a BPF iterator."""

from __future__ import annotations

import contextlib
import struct
from types import TracebackType
from typing import Final

from refagent import namespaces
from refagent.libbpf import btf, template
from refagent.libbpf._libbpf import lib
from refagent.libbpf.call import Operation
from refagent.libbpf.links import Link
from refagent.libbpf.maps import Map

PROGRAM: Final = "calls_inside"

_RECORD: Final = struct.Struct("=II")  # epoch, thread


class Looker:
    """A context manager; its program is loaded when it looks for the first time.

    Args:
        frames: a chain's map of that name.
    """

    def __init__(self, frames: Map) -> None:
        self._frames = frames
        self._link: Link | None = None
        self._stack = contextlib.ExitStack()

    def look(self) -> dict[int, int]:
        """Epoch → a thread whose call may be inside, of those that were given a frame in it.

        Outside of the first pid namespace, where not all tasks can be seen, there may always be
        one: 0.

        Raises:
            BpfError: the kernel failed.
        """
        # The iterator gives the tasks of its reader's namespace (kernel/bpf/task_iter.c).
        if not namespaces.sees_all_tasks():
            return {0: 0, 1: 0}
        if self._link is None:
            self._link = self._start()
        with Operation("iterate over tasks") as op:
            reader = op.check(lib.bpf_iter_create(self._link.fd))
        with open(reader, "rb") as file:  # noqa: PTH123  a descriptor, no path
            return dict(_RECORD.iter_unpack(file.read()))

    def _start(self) -> Link:
        found = btf.vmlinux().function("bpf_iter_task")
        program = template.prepare(PROGRAM).load(
            {"frames": self._frames}, target=0 if found is None else found.btf_id
        )
        self._stack.callback(program.close)
        return self._stack.enter_context(Link.iterator(program.fd, PROGRAM))

    def __enter__(self) -> Looker:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stack.close()
