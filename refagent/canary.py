# SPDX-License-Identifier: Apache-2.0
"""In which order this kernel runs the programs of an LSM hook: found, not assumed."""

from __future__ import annotations

import functools
import os
from contextlib import ExitStack
from pathlib import Path
from typing import Final

from refagent.errors import AgentError, BpfError, Refused
from refagent.libbpf import btf, template

_HOOK: Final = "bpf_lsm_task_getpgid"
_MODULES: Final = Path("/sys/kernel/security/lsm")


@functools.cache
def last_attached_runs_first() -> bool:
    """Attaches two programs to a hook that a harmless call passes, and makes the call.

    Every kernel from 5.10 to 7.3 says True; no document promises it.

    Raises:
        Refused: LSM programs do not run here, and why.
        BpfError: this process lacks what it takes to find out.
        AgentError: what ran makes no sense.
    """
    found = btf.vmlinux().function(_HOOK)
    if found is None:
        raise Refused(f"{_HOOK} is not in this kernel: it is built without CONFIG_BPF_LSM")
    with ExitStack() as stack:
        try:
            canary = template.prepare("canary")
            seen = stack.enter_context(canary.make("seen"))
            for number in (1, 2):
                program = canary.load(
                    {"seen": seen}, target=found.btf_id, tgid=os.getpid(), attached_as=number
                )
                stack.callback(program.close)
                stack.enter_context(program.attach())
        except BpfError as failure:
            if failure.lack:
                raise
            raise Refused(f"this kernel runs no LSM program: {failure.words}") from failure
        os.getpgid(os.getpid())  # 0 would not come to the hook
        ran, first, second = (
            int.from_bytes(seen.get(slot.to_bytes(4, "little")) or b"", "little")
            for slot in range(3)
        )
    if not ran:
        raise Refused(f"LSM programs can be attached here and do not run{why_silent()}")
    if ran != 2 or {first, second} != {1, 2}:
        raise AgentError(f"two programs ran {ran} times in one call, as {first} and {second}")
    return second < first


def why_silent() -> str:
    """What the kernel's list of security modules says about programs that do not run."""
    try:
        modules = _MODULES.read_text("ascii")
    except OSError as error:
        return f"; {_MODULES}, which would say why, cannot be read: {error.strerror}"
    if "bpf" in modules.split(","):
        return ""
    return f": bpf is not in {_MODULES} ({modules}); boot with lsm={modules},bpf"
