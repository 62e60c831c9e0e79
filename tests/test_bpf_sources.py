# SPDX-License-Identifier: Apache-2.0
"""The BPF programs: they compile without a warning, look alike, and agree with Python."""

from __future__ import annotations

import re
import struct
import subprocess
import sys
from pathlib import Path

import pytest

from refagent import digests, layout, objects
from refagent.rules import Rule

FILES = sorted([*objects.SOURCES.glob("*.c"), *objects.SOURCES.glob("*.h")])
HOLDS = objects.SOURCES.parent / "hookproof" / "guest" / "holds.py"
TEXT = {file.name: file.read_text("utf-8") for file in FILES}


def test_all_compile(tmp_path: Path) -> None:
    built = objects.compile_all(objects.SOURCES, tmp_path)
    assert {file.name for file in built} == {
        file.name.replace(".bpf.c", ".bpf.o") for file in FILES if file.suffix == ".c"
    }


def test_objects_carry_no_path_of_this_host(tmp_path: Path) -> None:
    for built in objects.compile_all(objects.SOURCES, tmp_path):
        assert str(objects.SOURCES).encode() not in built.read_bytes()


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_style(file: Path) -> None:
    tool = Path(sys.executable).with_name("clang-format")
    subprocess.run([tool, "--dry-run", "-Werror", file], check=True)


@pytest.mark.parametrize("name", TEXT)
def test_licence_comes_first(name: str) -> None:
    assert TEXT[name].startswith("/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */\n")


def _programs(built: Path) -> dict[str, list[tuple[int, int, int]]]:
    """Section → its instructions, each as (opcode, offset, immediate)."""
    raw = built.read_bytes()
    table, size, count, names = struct.unpack_from("<Q10xHHH", raw, 40)
    headers = [struct.unpack_from("<IIQQQQ", raw, table + i * size) for i in range(count)]
    name_at = headers[names][4]
    found = {}
    for name, kind, flags, _, at, length in headers:
        if kind == 1 and flags & 4:  # PROGBITS that is executable
            text = raw[name_at + name : raw.index(b"\0", name_at + name)].decode()
            code = struct.iter_unpack("<BBhi", raw[at : at + length])
            found[text] = [(op, offset, value) for op, _, offset, value in code]
    return {name: code for name, code in found.items() if code}


def _back_edges_that_5_10_refuses(code: list[tuple[int, int, int]]) -> list[int]:
    """Kernel 5.10's check_cfg(): a loop may be closed by a jump, not by falling through."""
    state, stack, refused = {0: "open"}, [(0, 0)], []
    while stack:
        at, edge = stack.pop()
        op, offset, _ = code[at]
        if op == 0x95:  # exit
            edges = []
        elif op == 0x05:  # ja
            edges = [(at + 1 + offset, True)]
        elif op & 7 in {5, 6} and op != 0x85:  # conditional jumps
            edges = [(at + 1, True), (at + 1 + offset, True)]
        else:
            edges = [(at + (2 if op == 0x18 else 1), False)]
        if edge == len(edges):
            state[at] = "done"
            continue
        stack.append((at, edge + 1))
        target, loop_is_fine = edges[edge]
        if state.get(target) == "open" and not loop_is_fine:
            refused.append(at)
        if target not in state:
            state[target] = "open"
            stack.append((target, 0))
    return refused


def test_loops_have_a_shape_that_5_10_takes(tmp_path: Path) -> None:
    built = objects.compile_all(objects.SOURCES, tmp_path)
    refused = {
        (file.name, section): at
        for file in built
        for section, code in _programs(file).items()
        if (at := _back_edges_that_5_10_refuses(code))
    }
    assert not refused


def _defined(name: str, text: str) -> int:
    found = re.search(rf"^#define {name}\s+(\d+)$", text, re.MULTILINE)
    assert found, name
    return int(found[1])


def test_sizes_agree_with_python() -> None:
    assert _defined("PATH_SIZE", TEXT["path.h"]) == layout.PATH_SIZE
    steps = _defined("PATH_CLIMB", TEXT["path.h"]) * _defined("PATH_CLIMBS", TEXT["path.h"])
    assert steps > 4096 / 2  # the names that a path of PATH_MAX bytes can have
    assert _defined("POLICIES", TEXT["override.h"]) == layout.POLICIES
    assert _defined("RULES_PER_PATH", TEXT["rules.h"]) == layout.RULES_PER_PATH
    assert _defined("DIGEST_SIZE", TEXT["chain.h"]) == digests.SIZE
    assert f"max_entries, {layout.BINARIES})" in TEXT["rules.h"]
    assert layout.OVERRIDE_KEY.size == layout.OVERRIDE_ENTRY.size == 16
    assert layout.RULE.size == 64
    assert layout.RULES_OF_PATH.size == 8 + layout.RULES_PER_PATH * layout.RULE.size
    assert layout.PREFIX.size == 4 + layout.PATH_SIZE


def test_rules_are_packed_with_negative_errnos_and_masks() -> None:
    ones = 2**32 - 1
    errno = Rule(policy=7, place=2, error=13, uid=0)
    assert layout.RULE.unpack(errno.packed()) == (
        *(7, 2, -13, 0, layout.DECIDES, 0),
        *(0, 0, 0, ones, 0, 0),
        *(0, 0),
    )
    watch = Rule(9, 0, signal=9, post=True, pid=5, binary=3, monitor=True)
    assert layout.RULE.unpack(watch.packed()) == (
        *(9, 0, 0, 9, layout.POSTS, 0),
        *(5, ones, 0, 0, 3, ones),
        *(0, 0),
    )
    value = Rule(1, 0, post=True, argument=2, value=0o755, value_mask=0xFFFF)
    assert layout.RULE.unpack(value.packed())[4:] == (layout.POSTS, 2, *6 * (0,), 0o755, 0xFFFF)


def test_a_gate_is_left_by_the_clock_and_not_by_its_turns() -> None:
    """Also on a processor that copies a word of eight bytes in each cycle, 6.5 in a nanosecond."""
    room = 1 << int(
        re.findall(r"^#define ROOM_SIZE \(1 << (\d+)\)$", TEXT["gate.h"], re.MULTILINE)[0]
    )
    known = "COPIES|TURN_NS|TURNS"
    found = re.findall(rf"^#define (?:{known})\s+(\d+)$", TEXT["gate.h"], re.MULTILINE)
    copies, turn, turns = map(int, found)
    seconds = turns * min(turn / 1e9, copies * room / 8 / 6.5e9)
    (bound,) = re.findall(r"^_BOUND: Final = ([\d.]+)$", HOLDS.read_text("utf-8"), re.MULTILINE)
    assert seconds > 1.3 * float(bound)
