# SPDX-License-Identifier: Apache-2.0
"""Whether this process can load anything into this kernel at all, and all that takes time."""

from __future__ import annotations

import errno

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
        for name in ("override", "sensor", *(() if kprobes_have_links() else ("sensor_fentry",))):
            template.prepare(name)
    except BpfError as failure:
        if failure.errno == errno.EPERM:
            raise Refused("this process may not load BPF programs; run it as root") from None
        raise
