# SPDX-License-Identifier: Apache-2.0
"""Which kernel functions can be overridden, read from the kernel's own BTF."""

from __future__ import annotations

import difflib
import functools
from dataclasses import dataclass

from refagent.errors import Refused
from refagent.libbpf import btf
from refagent.policy import Policy
from refagent.sensor import NO_PATH

_PATH = "const struct path *"
#: Arguments that are passed in registers on x86-64 (and by what sensor.bpf.c reads).
_REGISTERS = 6


@dataclass(frozen=True)
class Hook:
    """A function a policy can be on.

    Attributes:
        function: its name.
        btf_id: in the kernel's BTF.
        path_argument: the first argument that is a `const struct path *`, from 0, or NO_PATH.
    """

    function: str
    btf_id: int
    path_argument: int


def resolve(policy: Policy) -> Hook:
    """Finds a policy's hook in the running kernel.

    Raises:
        Refused: it is no function there, or none whose result a program may change, or it has
            no path to match.
        BpfError: this kernel has no BTF.
    """
    hook = _find(policy.hook)
    named = policy.path is not None or policy.prefix is not None
    if named and hook.path_argument == NO_PATH:
        raise Refused(f"{hook.function} has no const struct path argument, so no path can match")
    return hook


@functools.cache  # the search takes 20 ms under emulation, and policies share hooks
def _find(name: str) -> Hook:
    if not name.startswith("security_"):
        raise Refused(f"{name} cannot be overridden: only security_* functions can")
    found = btf.vmlinux().function(name)
    if found is None:
        near = difflib.get_close_matches(name, btf.vmlinux().functions("security_"), 1)
        meant = f"; did you mean {near[0]}?" if near else ""
        raise Refused(f"{name} is no function of this kernel, or the compiler inlined it{meant}")
    if found.returns != "int":
        raise Refused(f"{name} returns {found.returns}, so there is no errno to override")
    paths = [i for i, kind in enumerate(found.parameters[:_REGISTERS]) if kind == _PATH]
    return Hook(name, found.btf_id, paths[0] if paths else NO_PATH)
