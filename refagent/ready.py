# SPDX-License-Identifier: Apache-2.0
"""Whether this process can load anything into this kernel at all, and all that takes time."""

from __future__ import annotations

import errno
from collections.abc import Iterator

from refagent import chain, inside
from refagent.errors import BpfError, Refused
from refagent.libbpf import btf, template
from refagent.sensor import kprobes_have_links


def prepare() -> None:
    """Has libbpf read the kernel's types and prepare the agent's programs.

    Without it the first load does that. Nothing is in the kernel after it.

    Raises:
        Refused: the kernel has no BTF, or this process may not load programs.
        BpfError: something else is amiss.
    """
    try:
        btf.vmlinux()
    except BpfError as failure:
        raise Refused(
            f"this kernel has no BTF ({failure.words}); use one with CONFIG_DEBUG_INFO_BTF"
        ) from None
    try:
        for name in _names():
            template.prepare(name)
    except BpfError as failure:
        if failure.errno == errno.EPERM:
            raise Refused("this process may not load BPF programs; run it as root") from None
        raise


def _names() -> Iterator[str]:
    """The programs that this kernel may have a use for."""
    yield from ("override", "sensor")
    if not kprobes_have_links():
        yield "sensor_fentry"
    if btf.vmlinux().enumerator("BPF_MAP_TYPE_TASK_STORAGE") is not None:  # or LSM hooks have none
        yield from ("canary", *chain.PROGRAMS, inside.PROGRAM)
