# SPDX-License-Identifier: Apache-2.0
"""Which function a tracing link is on, asked of kernels before 5.13 by a BPF iterator."""

from __future__ import annotations

import os
import struct
from collections.abc import Collection

from refagent import objects
from refagent.libbpf._libbpf import lib
from refagent.libbpf.call import Operation
from refagent.libbpf.links import Link
from refagent.libbpf.objectfile import OpenObject

_RECORD = struct.Struct("=II")  # descriptor, BTF id


def ask(descriptors: Collection[int]) -> dict[int, int]:
    """Descriptor of a tracing link of this process → BTF id of the function it is on.

    Raises:
        BpfError: the kernel has no iterator over files (before 5.8), or no BTF.
    """
    with OpenObject(objects.path("link_targets")) as opened:
        opened.knob("tgid", os.getpid())
        loaded = opened.load()
    with loaded, Link.iterator(loaded.program("link_targets").fd, "link_targets") as link:
        with Operation("iterate over files") as op:
            reader = op.check(lib.bpf_iter_create(link.fd))
        with open(reader, "rb") as file:  # noqa: PTH123  a descriptor, no path
            raw = file.read()
    return {fd: target for fd, target in _RECORD.iter_unpack(raw) if fd in descriptors}
