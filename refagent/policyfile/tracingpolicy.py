# SPDX-License-Identifier: Apache-2.0
"""A TracingPolicy → policies, as far as a policy can say it.

The rest is refused with its place and name, so that what is loaded is what was written.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

from refagent.policy import Policy
from refagent.policyfile import published, words
from refagent.policyfile.actions import read_actions
from refagent.policyfile.matches import (
    MOST_POLICIES,
    Fields,
    read_arguments,
    read_matches,
    too_many,
)
from refagent.policyfile.selectors import clash
from refagent.yamltree import Node, blame

#: How the kernel names the entry of a system call on x86-64, and other machines'.
SYSCALL: Final = "__x64_"
_OTHER_SYSCALLS: Final = ("__ia32_", "__arm64_")
#: How a policy's hook begins that is one of the LSM framework's.
LSM: Final = "lsm/"
FUNCTION: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_.]*", re.ASCII)


def read_tracing_policy(root: Node) -> tuple[Policy, ...]:
    """Reads a TracingPolicy.

    Args:
        root: the file's.

    Returns:
        Its policies in the order in which they are to be loaded: named as it is, or with
        -1, -2, … after that where there are several.

    Raises:
        BadFile: the first thing that is wrong or not supported.
    """
    top = published.TRACING_POLICY.take(root)
    words.choice(top["apiVersion"], (published.API_VERSION,), "an apiVersion")
    others = ("TracingPolicyNamespaced",)
    words.choice(top["kind"], (published.KIND,), "a kind", elsewhere=others)
    name = words.text(published.METADATA.take(top["metadata"])["name"], "a name")
    spec = published.SPEC.take(top["spec"])
    monitor = "options" in spec and _monitors(spec["options"])
    found: list[Fields] = []
    for section, read_hook in (("kprobes", _kprobe), ("lsmhooks", _lsm_hook)):
        if section not in spec:
            continue
        for item in words.items(spec[section], f"a list of {section}"):
            found += read_hook(item, monitor)
            if len(found) > MOST_POLICIES:
                raise too_many(item.where, len(found))
    if not found:
        raise blame(top["spec"].where, "this TracingPolicy hooks nothing", "add 'kprobes: …'")
    names = [name] if len(found) == 1 else [f"{name}-{each + 1}" for each in range(len(found))]
    return tuple(
        Policy(name=one, monitor=monitor, **fields)
        for one, fields in zip(names, found, strict=True)
    )


def _monitors(node: Node) -> bool:
    """Whether nothing is done about calls."""
    monitors: bool | None = None
    for item in words.items(node, "a list of options"):
        taken = published.OPTION.take(item)
        words.choice(taken["name"], (published.MODE,), "an option", published.OTHER_OPTIONS)
        if monitors is not None:
            raise blame(item.where, f"'{published.MODE}' stands here twice", "keep one of them")
        mode = words.choice(taken["value"], published.MODES, f"a {published.MODE}")
        monitors = published.MODES[mode]
    return bool(monitors)


def _kprobe(node: Node, monitor: bool) -> list[Fields]:
    taken = published.KPROBE.take(node)
    # The resource's own definition says true where nothing is said.
    syscall = "syscall" not in taken or words.switch(taken["syscall"])
    hook = _syscall(taken["call"]) if syscall else _function(taken["call"])
    return list(_policies(hook, taken, monitor))


def _syscall(node: Node) -> str:
    """The kernel's function for a system call."""
    name = _identifier(node)
    if name.startswith(_OTHER_SYSCALLS):
        raise blame(node.where, f"'{name}' is not of x86-64", "begin it with sys_")
    short = name.removeprefix(SYSCALL)
    if not re.fullmatch("sys_.+", short):
        hint = "add 'syscall: false'; it is true where it is missing"
        raise blame(node.where, f"'{name}' is not a system call", hint)
    return SYSCALL + short


def _function(node: Node) -> str:
    name = _identifier(node)
    if name.startswith(("sys_", *(f"{each}sys_" for each in (SYSCALL, *_OTHER_SYSCALLS)))):
        raise blame(node.where, f"'{name}' is a system call", "write 'syscall: true'")
    return name


def _lsm_hook(node: Node, monitor: bool) -> list[Fields]:
    taken = published.LSM_HOOK.take(node)
    return list(_policies(LSM + _identifier(taken["hook"]), taken, monitor))


def _identifier(node: Node) -> str:
    name = words.text(node, "a function's name")
    if name.startswith("list:"):
        raise blame(node.where, f"'{name}': lists are not supported", "name one function")
    if not FUNCTION.fullmatch(name):
        raise blame(node.where, f"'{name}' is no name of a function", "use the kernel's")
    return name


def _policies(hook: str, taken: dict[str, Node], monitor: bool) -> Iterator[Fields]:
    """The policies of a kprobe or an LSM hook, those of its first selector first."""
    syscall = hook.startswith(f"{SYSCALL}sys_")
    arguments = read_arguments(taken["args"], syscall=syscall) if "args" in taken else []
    nodes = words.items(taken["selectors"], "a list") if "selectors" in taken else ()
    before: list[tuple[Node, list[Fields]]] = []
    for node in nodes:
        selector = published.SELECTOR.take(node)
        does = read_actions(selector.pop("matchActions", None), lsm=hook.startswith(LSM))
        made = [{"hook": hook, **asks, **does} for asks in read_matches(selector, arguments)]
        for other, earlier in before:
            if not monitor and clash(earlier, made):
                both = f"a call that fits the selector on line {other.where.line} as well"
                what = f"{both} is left alone by Tetragon, and would be acted on here"
                hint = "say what such calls do not fit; to act on them, give it its own entry"
                raise blame(node.where, what, hint)
        before.append((node, made))
        yield from made
    if not nodes:
        yield {"hook": hook, **read_actions(None, lsm=False)}
