# SPDX-License-Identifier: Apache-2.0
"""What this kernel can do for the agent, found out by trying.

Importing this package loads neither libbpf nor its binding: names can be checked
on a host that has none. `run` does the rest, in the kernel under test, as root.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from typing import Any, Literal

from refagent.probes.answers import ConfiguredOut, Finding, Unsupported


@dataclass(frozen=True)
class Probe:
    """One question to the kernel.

    Attributes:
        name: what `needs:` of a scenario says.
        about: the question, as a sentence with a verb.
        since: the kernel version that brought it, for every build; None where only the
            configuration decides. A newer kernel that says no is no answer but a bug.
        run: `module:function` in this package; the function tries it and returns a `Finding`.
    """

    name: str
    about: str
    since: tuple[int, int] | None
    run: str


#: Versions are those of docs and of kernel-side commits; a probe is believed before its version.
PROBES: tuple[Probe, ...] = (
    Probe(
        "trampoline_limit",
        "so many fentry, fexit, fmod_ret and LSM programs fit on one function",
        (5, 5),
        "trampolines:limit",
    ),
    Probe(
        "trampoline_order",
        "of two programs on one function, this one runs first",
        (5, 7),
        "trampolines:order",
    ),
    Probe(
        "fmod_ret",
        "a program changes what a security_* function returns",
        (5, 7),
        "overriding:fmod_ret",
    ),
    Probe(
        "fmod_ret_syscall",
        "a program changes what a system call's function returns",
        (7, 1),
        "overriding:fmod_ret_syscall",
    ),
    Probe(
        "override_return",
        "a kprobe changes what a system call's function returns (CONFIG_BPF_KPROBE_OVERRIDE)",
        None,
        "overriding:override_return",
    ),
    Probe(
        "kprobe_link",
        "a kprobe is attached by a link, which a pin keeps alive without its process",
        (5, 15),
        "pinning:kprobe_link",
    ),
    Probe(
        "ia32",
        "a system call is made by the way of 32-bit programs (CONFIG_IA32_EMULATION)",
        None,
        "ia32:works",
    ),
    Probe(
        "overlayfs",
        "a directory is mounted over another one, which stays as it is (CONFIG_OVERLAY_FS)",
        None,
        "mounting:overlayfs",
    ),
    Probe(
        "tmpfs_direct",
        "a file that lies in memory is opened with O_DIRECT",
        (6, 6),
        "mounting:direct",
    ),
    Probe(
        "userfaultfd",
        "a process hears of a page that is missing, and fills it (CONFIG_USERFAULTFD)",
        None,
        "holding:userfaultfd",
    ),
    Probe(
        "chosen_id",
        "a process chooses the id of its next thread (CONFIG_CHECKPOINT_RESTORE)",
        None,
        "holding:chosen_id",
    ),
    Probe(
        "preempt",
        "the kernel preempts itself as the command line says (preempt=), if it says how",
        None,
        "preempting:as_told",
    ),
    Probe("lsm", "an LSM program denies a call", (5, 7), "lsm:fires"),
    Probe("lsm_sleepable", "an LSM program that may sleep runs", (5, 10), "lsm:sleepable"),
    Probe(
        "ima_file_hash",
        "bpf_ima_file_hash gives a program's right digest at its execution",
        (5, 18),
        "lsm:ima_file_hash",
    ),
    Probe(
        "ima_inode_hash",
        "bpf_ima_inode_hash answers: a digest IMA has taken before, or EOPNOTSUPP",
        (5, 11),
        "lsm:ima_inode_hash",
    ),
    Probe(
        "ima_hash",
        "IMA takes the algorithm that the command line names (ima_hash=), if it names one",
        None,
        "lsm:ima_hash",
    ),
    Probe("ringbuf", "a ring buffer carries a record to this process", (5, 8), "storage:ringbuf"),
    Probe("task_storage", "a task finds what it stored before", (5, 12), "storage:task_storage"),
)

NAMES: tuple[str, ...] = tuple(probe.name for probe in PROBES)


@dataclass(frozen=True)
class Answer:
    """What one probe found.

    Attributes:
        name: the probe's.
        answer: `broken` if the probe failed in a way that says nothing about the kernel, or
            if a kernel that must have it says no.
        words: one line, in the kernel's words where they exist.
        value: of `trampoline_limit` the number of programs, of `trampoline_order`
            `last-attached-first` or `first-attached-first`, of the IMA probes the algorithm.
    """

    name: str
    answer: Literal["yes", "no", "broken"]
    words: str
    value: int | str | None = None

    def to_json(self) -> dict[str, Any]:
        """The fields as JSON values."""
        return asdict(self)


def run(names: Iterable[str] = NAMES) -> list[Answer]:
    """Tries each in turn; each leaves the kernel as it found it.

    Raises:
        KeyError: there is no probe of that name.
    """
    by_name = {probe.name: probe for probe in PROBES}
    return [_ask(probe) for probe in [by_name[name] for name in names]]


def _ask(probe: Probe) -> Answer:
    try:
        found = _function(probe)()
    except ConfiguredOut as no:
        return Answer(probe.name, "no", str(no))
    except Unsupported as no:
        if probe.since and _version() >= probe.since:
            since = ".".join(map(str, probe.since))
            return Answer(probe.name, "broken", f"kernels have this since {since}, and yet: {no}")
        return Answer(probe.name, "no", str(no))
    except Exception as failure:
        return Answer(
            probe.name, "broken", f"the probe failed: {type(failure).__name__}: {failure}"
        )
    return Answer(probe.name, "yes", found.words, found.value)


def _function(probe: Probe) -> Callable[[], Finding]:
    module, function = probe.run.split(":")
    found: Callable[[], Finding] = getattr(
        importlib.import_module(f"{__name__}.{module}"), function
    )
    return found


def _version() -> tuple[int, int]:
    trampoline = importlib.import_module("refagent.trampoline")
    version = trampoline.running()
    return version.major, version.minor
