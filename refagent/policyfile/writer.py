# SPDX-License-Identifier: Apache-2.0
"""Policies → one TracingPolicy, as far as that can say them."""

from __future__ import annotations

import itertools
import re
import signal
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Final

from refagent.errors import Refused
from refagent.policy import Policy, is_small
from refagent.policyfile import published, words
from refagent.policyfile.selectors import clash
from refagent.policyfile.tracingpolicy import FUNCTION, LSM, SYSCALL
from refagent.yamlfile import MAX_BYTES

_LABEL: Final = "[a-z0-9]([-a-z0-9]*[a-z0-9])?"
#: What Kubernetes takes as a name: a DNS subdomain of RFC 1123.
_NAME: Final = re.compile(rf"(?=.{{1,253}}\Z){_LABEL}(\.{_LABEL})*")

#: Where system calls are meant, and no function of x86-64 is named.
_NO_HOOK: Final = re.compile(rf"sys_|__(ia32|arm64)_sys_|{SYSCALL}sys_\Z")


def write(policies: Iterable[Policy]) -> str:
    """Writes policies as a TracingPolicy that `read` turns into the same ones.

    Policies of one hook that follow each other become selectors of one entry: there as here,
    the first that fits a call decides about it. One that an earlier one would keep from acting
    there begins another entry.

    Args:
        policies: with one name, or with NAME-1, NAME-2, … in this order; those on LSM hooks last.

    Returns:
        The text of the file.

    Raises:
        Refused: a TracingPolicy cannot say one of them, or not all together.
    """
    given = tuple(policies)
    for policy in given:
        try:
            policy.checked()
        except ValueError as mistake:
            raise Refused(str(mistake)) from None
        for wrong in _unsaid(policy):
            raise Refused(f"policy {policy.name}: a TracingPolicy cannot say {wrong}")
    spec: dict[str, Any] = {}
    name = _name([policy.name for policy in given])
    if len({policy.monitor for policy in given}) > 1:
        raise Refused("a TracingPolicy has one mode: write those with monitor to another file")
    if given[0].monitor:
        spec["options"] = [{"name": published.MODE, "value": "monitor"}]
    for hook, group in itertools.groupby(given, key=lambda policy: policy.hook):
        if not hook.startswith(LSM) and "lsmhooks" in spec:
            raise Refused("a TracingPolicy has its LSM hooks last: put those policies last")
        section = "lsmhooks" if hook.startswith(LSM) else "kprobes"
        spec.setdefault(section, []).extend(_entry(hook, each) for each in _entries(group))
    return _text(
        {
            "apiVersion": published.API_VERSION,
            "kind": published.KIND,
            "metadata": {"name": name},
            "spec": spec,
        }
    )


def _unsaid(policy: Policy) -> Iterator[str]:
    """What of a policy cannot be said, and why."""
    if policy.uid is not None:
        yield "uid"
    if policy.by is not None:
        yield "by"
    if policy.digests:
        yield "digests"
    if policy.hash and not (policy.lsm and policy.post):
        yield "a hash without post, or at a hook that is none of LSM programs"
    if policy.names_path and policy.path_argument is None:
        yield "which argument is the path without its number: give it path_argument"
    if not (policy.post or policy.override or policy.signal):
        yield "that calls are counted and post no event: give it post"
    short = policy.hook.removeprefix(LSM)
    if not FUNCTION.fullmatch(short) or _NO_HOOK.match(policy.hook):
        yield f"the hook {policy.hook!r}"
    for key in ("path", "prefix", "binary"):
        path = getattr(policy, key)
        if path is not None and not _is_path(path, begins=key == "prefix"):
            yield f"the {key} {path!r}"


def _is_path(text: str, *, begins: bool) -> bool:
    encodes = not any("\ud800" <= each <= "\udfff" for each in text)
    return encodes and not words.unmatched(text, begins=begins)


def _name(names: Sequence[str]) -> str:
    """The one name of the policies' file."""
    if not names:
        raise Refused("a TracingPolicy hooks something: there are no policies")
    name = names[0]
    if len(names) > 1:
        name = name.removesuffix("-1")
        for number, each in enumerate(names, 1):
            if each != f"{name}-{number}":
                wanted = f"call this one {name}-{number}, or write it to another file"
                raise Refused(f"policy {each}: a TracingPolicy has one name; {wanted}")
    if not _NAME.fullmatch(name):
        raise Refused(
            f"policy {name!r}: a TracingPolicy's name has small letters, digits, '-' and '.' only"
        )
    return name


def _entries(policies: Iterable[Policy]) -> list[list[Policy]]:
    """The policies of one hook, in as few entries as can be."""
    entries: list[list[Policy]] = []
    said: list[dict[str, Any]] = []  # of the last entry
    for policy in policies:
        fields = policy.to_json()
        apart = not policy.monitor and any(clash([each], [fields]) for each in said)
        if apart or not entries:
            entries.append([])
            said = []
        entries[-1].append(policy)
        said.append(fields)
    return entries


def _entry(hook: str, policies: Sequence[Policy]) -> dict[str, Any]:
    """A kprobe or an LSM hook with a selector for each policy."""
    entry: dict[str, Any] = {}
    if hook.startswith(LSM):
        entry["hook"] = hook.removeprefix(LSM)
    elif hook.startswith(f"{SYSCALL}sys_"):
        entry |= {"call": hook.removeprefix(SYSCALL), "syscall": True}
    else:
        entry |= {"call": hook, "syscall": False}
    if arguments := _arguments(hook, policies):
        entry["args"] = [{"index": each, "type": arguments[each]} for each in sorted(arguments)]
    entry["selectors"] = [_selector(each) for each in policies]
    return entry


def _arguments(hook: str, policies: Sequence[Policy]) -> dict[int, str]:
    """The type of each argument that is asked, which a policy does not know.

    A number's is the first in a table that holds all values it is compared with.
    """
    paths = {each.path_argument for each in policies if each.path_argument is not None}
    asked: dict[int, list[Policy]] = {}
    for each in policies:
        if each.argument is not None:
            asked.setdefault(each.argument, []).append(each)
    types = dict.fromkeys(paths, _path_type(hook))
    for index, those in asked.items():
        kind = next((name for name in _NUMBERS if all(_says(name, each) for each in those)), None)
        if kind is None or index in types:
            raise Refused(
                f"no type of a TracingPolicy fits all that is asked of argument {index} of {hook}"
            )
        types[index] = kind
    return types


def _says(kind: str, policy: Policy) -> bool:
    """Whether a policy's number, said with this type, is read as it was."""
    least, most = published.NUMBERS[kind]
    if policy.value is None or not least <= policy.value <= most:
        return False
    syscall = policy.hook.startswith(f"{SYSCALL}sys_")
    wide = syscall and kind in published.WIDE and is_small(policy.value)
    return policy.value_bits == (64 if wide else None)


def _path_type(hook: str) -> str:
    found = (kind for begins, kind in _PATHS.items() if hook.startswith(begins))
    return next(found, "path")


#: Types to write for numbers. Arguments of 64 bits are rarely compared with one.
_NUMBERS: Final = ("int", "uint32", "int64", "uint64")
#: How a function begins that has its path in something else than a struct path.
_PATHS: Final = {
    SYSCALL: "string",
    **dict.fromkeys(("security_bprm_", f"{LSM}bprm_"), "linux_binprm"),
    **dict.fromkeys(("security_file_", f"{LSM}file_"), "file"),
    **dict.fromkeys(("security_mmap_file", f"{LSM}mmap_file"), "file"),
    **dict.fromkeys(("security_kernel_read_file", f"{LSM}kernel_read_file"), "file"),
}


def _selector(policy: Policy) -> dict[str, Any]:
    selector: dict[str, Any] = {}
    matches = []
    for operator, path in (("Equal", policy.path), ("Prefix", policy.prefix)):
        if path is not None:
            matches.append(_match(policy.path_argument, operator, path))
    if policy.value is not None:
        matches.append(_match(policy.argument, "Equal", str(policy.value)))
    if matches:
        selector["matchArgs"] = matches
    if policy.binary is not None:
        selector["matchBinaries"] = [{"operator": "In", "values": [policy.binary]}]
    if policy.pid is not None:
        selector["matchPIDs"] = [{"operator": "In", "values": [policy.pid]}]
    return selector | {"matchActions": list(_actions(policy))}


def _match(index: int | None, operator: str, value: str) -> dict[str, Any]:
    return {"index": index, "operator": operator, "values": [value]}


def _actions(policy: Policy) -> Iterator[dict[str, Any]]:
    """What is done, at most three: more are not taken there."""
    if policy.override is not None:
        yield {"action": "Override", "argError": -policy.override}
    if policy.signal == signal.SIGKILL:
        yield {"action": "Sigkill"}
    elif policy.signal is not None:
        yield {"action": "Signal", "argSig": policy.signal}
    if policy.hash:
        yield {"action": "Post", "imaHash": True}
    else:
        yield {"action": "Post" if policy.post else "NoPost"}


def _text(resource: dict[str, Any]) -> str:
    import yaml

    dumper = yaml.CSafeDumper if yaml.__with_libyaml__ else yaml.SafeDumper
    text: str = yaml.dump(resource, Dumper=dumper, sort_keys=False, allow_unicode=True)
    if (size := len(text.encode())) > MAX_BYTES:
        limit = MAX_BYTES // 1024
        raise Refused(f"these policies make a file of {size // 1024} KiB, and {limit} is the most")
    return text
