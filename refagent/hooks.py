# SPDX-License-Identifier: Apache-2.0
"""The kernel functions a policy can be on: where the path is, and what can be overridden.

Read from the kernel's own BTF. Whether a system call's result can be changed is tried.
"""

from __future__ import annotations

import difflib
import enum
import functools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from refagent.errors import BpfError, Refused
from refagent.libbpf import btf, template
from refagent.policy import LSM, REGISTERS, Policy, is_small


class PathKind(enum.IntEnum):
    """How a sensor finds a path from an argument: `enum path_kind` of sensor.h."""

    NONE = 0
    PATH = 1
    FILE = 2
    BPRM = 3
    STRING = 4


_PATHS: Final = {
    "struct path *": PathKind.PATH,
    "struct file *": PathKind.FILE,
    "struct linux_binprm *": PathKind.BPRM,
}

#: The function that an LSM hook's programs are attached to is called so, and then as the hook.
_BPF_LSM: Final = "bpf_lsm_"

#: What the functions of system calls are called on x86-64: CONFIG_ARCH_HAS_SYSCALL_WRAPPER.
_IA32: Final = ("__ia32_sys_", "__ia32_compat_sys_")
_X64: Final = "__x64_sys_"
_SYSCALLS: Final = (_X64, *_IA32)

#: The argument that names what a system call makes, changes, opens or runs; of two, the new one.
#: From the prototypes in include/linux/syscalls.h.
_NAMED: Final[Mapping[str, int]] = {
    **dict.fromkeys(("execve", "open", "creat", "mkdir", "mknod", "rmdir", "unlink"), 0),
    **dict.fromkeys(("chmod", "chown", "lchown", "truncate", "chdir", "chroot", "access"), 0),
    **dict.fromkeys(("execveat", "openat", "openat2", "mkdirat", "mknodat", "unlinkat"), 1),
    **dict.fromkeys(("fchmodat", "fchownat", "faccessat", "faccessat2", "rename", "link"), 1),
    **dict.fromkeys(("symlink", "mount", "pivot_root"), 1),
    "symlinkat": 2,
    **dict.fromkeys(("renameat", "renameat2", "linkat"), 3),
}


@dataclass(frozen=True)
class Hook:
    """A function, or LSM hook, that a policy can be on.

    Attributes:
        function: its name; of an LSM hook, `lsm/` and its name.
        btf_id: in the kernel's BTF; of an LSM hook, that of the function to attach to.
        system_call: whether its arguments are the caller's registers.
        paths: the arguments that are paths, the one that is meant first.
        sizes: of the arguments in bytes; empty where they are not known.
        no_override: why no fmod_ret program can change its result, or None: one can.
    """

    function: str
    btf_id: int
    system_call: bool
    paths: Mapping[int, PathKind]
    sizes: tuple[int, ...]
    no_override: str | None

    @property
    def lsm(self) -> bool:
        """Whether it is a hook of LSM programs."""
        return self.function.startswith(LSM)

    def check_digest(self) -> None:
        """Refuses to have a digest where there is no file.

        Raises:
            Refused: the hook's first argument is none.
        """
        if self.paths.get(0) not in {PathKind.FILE, PathKind.BPRM}:
            raise Refused(f"{self.function} has no file as its first argument, so no digest")

    @property
    def ia32(self) -> bool:
        """Whether it is what 32-bit programs come in by: their arguments are in other registers."""
        return self.function.startswith(_IA32)

    def check_override(self, by: str | None) -> None:
        """Refuses what no kernel would allow; the rest is tried.

        Args:
            by: the way that is asked for, or None.

        Raises:
            Refused: no program may override this function, or not this way.
        """
        if by == "kprobe" and not self.system_call:
            raise Refused(
                f"{self.function} cannot be overridden by a kprobe: only system calls can"
            )
        if self.no_override is not None and (by == "fmod_ret" or not self.system_call):
            raise Refused(f"{self.function} cannot be overridden: {self.no_override}")

    def path_argument(self, policy: Policy) -> int | None:
        """The argument that a policy's path is about; None: it has no path.

        Raises:
            Refused: that argument is none.
        """
        if not policy.names_path:
            return None
        if policy.path_argument is not None:
            if policy.path_argument not in self.paths and not self.system_call:
                raise Refused(f"argument {policy.path_argument} of {self.function} is no path")
            return self._in_a_register(policy.path_argument)
        if not self.paths:
            raise Refused(f"{self.function} has no argument that is a path, so no path can match")
        return self._in_a_register(next(iter(self.paths)))

    def _in_a_register(self, argument: int) -> int:
        """The same; each argument before it has one register as well, or it would be in another.

        Raises:
            Refused: one is a struct of several words, or what `...` stands for.
        """
        for number, size in enumerate(self.sizes[: argument + 1]):
            if not 1 <= size <= 8:
                raise Refused(
                    f"argument {argument} of {self.function} cannot be found: argument {number} "
                    "is passed by value in more than a register, or is one of many"
                )
        return argument

    def path_kind(self, argument: int | None) -> PathKind:
        """How that argument is read; every one of a system call may be a string."""
        if argument is None:
            return PathKind.NONE
        return self.paths.get(argument, PathKind.STRING)

    def masked(self, policy: Policy) -> tuple[int, int]:
        """The value of an argument as the register has it, and the bits that count.

        Raises:
            Refused: the argument does not exist or cannot have the value.
        """
        if policy.argument is None or policy.value is None:
            return 0, 0
        if self.sizes and policy.argument >= len(self.sizes):
            raise Refused(f"{self.function} has {len(self.sizes)} arguments: no {policy.argument}")
        self._in_a_register(policy.argument)
        needed = 32 if is_small(policy.value) else 64
        bits = 8 * self.sizes[policy.argument] if self.sizes else policy.value_bits or needed
        if policy.value_bits not in {None, bits}:
            raise Refused(
                f"argument {policy.argument} of {self.function} has {bits} bits, "
                f"not {policy.value_bits}"
            )
        if not -(1 << bits - 1) <= policy.value < 1 << bits:
            raise Refused(
                f"argument {policy.argument} of {self.function} has {bits} bits, "
                f"and cannot be {policy.value}"
            )
        mask = (1 << bits) - 1
        return policy.value & mask, mask


@functools.cache  # the search takes 20 ms under emulation, and policies share hooks
def find(name: str) -> Hook:
    """Finds a function in the running kernel.

    Raises:
        Refused: there is none of that name.
        BpfError: this kernel has no BTF, or this process lacks what it takes to try an override.
    """
    if name.startswith(LSM):
        return _find_lsm(name)
    found = btf.vmlinux().function(name)
    if found is None:
        same = btf.vmlinux().functions(name.partition("_")[0])
        near = difflib.get_close_matches(name, same, 1)
        meant = f"; did you mean {near[0]}?" if near else ""
        raise Refused(f"{name} is no function of this kernel, or the compiler inlined it{meant}")
    system_call = next((name.removeprefix(each) for each in _SYSCALLS if name.startswith(each)), "")
    if system_call:
        paths = {_NAMED[system_call]: PathKind.STRING} if system_call in _NAMED else {}
    else:
        paths = _paths(found)
    return Hook(
        name,
        found.btf_id,
        bool(system_call),
        paths,
        () if system_call else found.sizes[:REGISTERS],
        _no_override(name, found, bool(system_call)),
    )


def _find_lsm(name: str) -> Hook:
    found = btf.vmlinux().function(_BPF_LSM + name.removeprefix(LSM))
    if found is None:
        hooks = [each.removeprefix(_BPF_LSM) for each in btf.vmlinux().functions(_BPF_LSM)]
        if not hooks:
            raise Refused(f"{name}: this kernel is built without CONFIG_BPF_LSM")
        near = difflib.get_close_matches(name.removeprefix(LSM), hooks, 1)
        meant = f"; did you mean {LSM}{near[0]}?" if near else ""
        raise Refused(f"{name} is no LSM hook of this kernel{meant}")
    returns = None if found.returns == "int" else f"it returns {found.returns}"
    return Hook(name, found.btf_id, False, _paths(found), found.sizes[:REGISTERS], returns)


def _paths(found: btf.Function) -> dict[int, PathKind]:
    kinds = (each.removeprefix("const ") for each in found.parameters[:REGISTERS])
    return {i: _PATHS[kind] for i, kind in enumerate(kinds) if kind in _PATHS}


@functools.cache
def twin(function: str) -> str | None:
    """What 32-bit programs come in by, where 64-bit ones come in by this system call's function.

    Raises:
        BpfError: this kernel has no BTF.
    """
    if not function.startswith(_X64):
        return None
    # A call whose arguments differ has a function of its own: arch/x86/entry/syscalls.
    names = (each + function.removeprefix(_X64) for each in reversed(_IA32))
    return next((name for name in names if btf.vmlinux().function(name)), None)


def _no_override(name: str, found: btf.Function, system_call: bool) -> str | None:
    if name.startswith("security_"):
        if found.returns != "int":
            return f"it returns {found.returns}, so there is no errno to override"
        return None  # all of them are allowed: kernel/bpf/verifier.c, check_attach_modify_return
    if not system_call:
        return "only security_* functions and system calls can be"
    try:
        template.prepare("override").load({}, target=found.btf_id).close()
    except BpfError as failure:
        if failure.lack:
            raise
        return f"fmod_ret: {failure.words}"
    return None
