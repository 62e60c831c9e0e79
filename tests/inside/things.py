# SPDX-License-Identifier: Apache-2.0
"""What is in the kernel, read back from there, and what this process holds."""

from __future__ import annotations

import contextlib
import os
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from refagent import layout, naming
from refagent.libbpf import census, template
from refagent.libbpf.census import ProgramInfo
from refagent.libbpf.maps import Map

OVERRIDE, SENSOR, PINNED_SENSOR = "fmod_ret", "kprobe", "fentry"


@dataclass(frozen=True)
class Inventory:
    """Programs, maps and links of the kernel; descriptors and threads of this process."""

    things: Counter[str]

    @classmethod
    def now(cls) -> Inventory:
        """Takes it."""
        found = [f"program {each.id} {each.name}" for each in census.programs()]
        found += [f"map {each.id} {each.name}" for each in census.maps()]
        found += [
            f"link {each.id} of program {each.program}: {each.kind} {each.function}"
            for each in census.links()
        ]
        found += [f"thread {each.name}" for each in threading.enumerate()]
        for fd in os.listdir("/proc/self/fd"):  # noqa: PTH208
            with contextlib.suppress(FileNotFoundError):  # the one that the list was read from
                found.append(f"descriptor of {os.readlink(f'/proc/self/fd/{fd}')}")  # noqa: PTH115
        return cls(Counter(found))

    def since(self, before: Inventory) -> list[str]:
        """What is more or fewer than there was."""
        more, fewer = self.things - before.things, before.things - self.things
        return [f"left: {each}" for each in more] + [f"gone: {each}" for each in fewer]


def error_of(call: Callable[..., object], *args: object) -> int:
    """The errno that a system call gives, or 0."""
    try:
        call(*args)
    except OSError as error:
        return error.errno or -1
    return 0


def program_on(function: str, kind: str) -> ProgramInfo:
    """The one program of that kind that runs at a function."""
    (number,) = {
        each.program for each in census.links() if each.function == function and each.kind == kind
    }
    (found,) = (each for each in census.programs() if each.id == number)
    return found


@contextlib.contextmanager
def map_named(name: str, owner: ProgramInfo | None = None) -> Iterator[Map]:
    """The one map of that name, or what C calls so of a program's."""
    if owner is not None:
        name = kernel_name(owner, name)
    (found,) = (
        each
        for each in census.maps()
        if each.name == name and (owner is None or each.id in owner.maps)
    )
    with Map.opened(found.id, name, found.key_size, found.value_size) as opened:
        yield opened


def kernel_name(program: ProgramInfo, name: str) -> str:
    """What something of the same function as a program is called in the kernel."""
    return naming.on(program.name.partition("_")[2])(name)


def constants(program: ProgramInfo) -> dict[str, int]:
    """A program's constants as the kernel has them."""
    sensor = "sensor" if program.type == "kprobe" else "sensor_fentry"
    source = sensor if naming.is_sensor(program.name) else "override"
    places = template.prepare(source).places
    with map_named(".rodata", program) as rodata:
        raw = rodata.get(bytes(4))
    assert raw is not None
    return {name: int.from_bytes(raw[place], sys.byteorder) for name, place in places.items()}


def override_id(function: str) -> int:
    """Whose entries the override program of a function takes."""
    return constants(program_on(function, OVERRIDE))["override_id"]


@contextlib.contextmanager
def trie_in(slot: Map) -> Iterator[Map]:
    """The table of rules that is in its place now."""
    number = slot.get(bytes(4))
    assert number is not None
    shape = layout.PREFIX.size, layout.RULES_OF_PATH.size
    with Map.opened(int.from_bytes(number, sys.byteorder), "rules", *shape) as opened:
        yield opened


def policies_found(slot: Map, path: str | None) -> list[int]:
    """The ids of the policies whose rules a sensor finds for a path, by the same key as it."""
    text = b"" if path is None else path.encode() + b"\0"
    with trie_in(slot) as trie:
        raw = trie.get(layout.PREFIX.pack(8 * layout.PATH_SIZE, text))
    if raw is None:
        return []
    count, _, rules = layout.RULES_OF_PATH.unpack(raw)
    return [layout.RULE.unpack_from(rules, number * layout.RULE.size)[0] for number in range(count)]


def this_thread() -> int:
    """The caller as the kernel's maps have it: process and thread."""
    return os.getpid() << 32 | threading.get_native_id()


def plant(
    tasks: Map, callers: Sequence[int], override: int, error: int, *, policy: int = 1
) -> None:
    """Leaves entries as a sensor would."""
    entry = layout.OVERRIDE_ENTRY.pack(-error, policy, 0, 0)
    pairs = [(layout.OVERRIDE_KEY.pack(each, override, 0), entry) for each in callers]
    assert tasks.set_all(pairs) == len(pairs)


def waiting(tasks: Map) -> set[tuple[int, int]]:
    """Caller and override of each entry."""
    return {layout.OVERRIDE_KEY.unpack(key)[:2] for key, _ in tasks.items()}
