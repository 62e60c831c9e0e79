# SPDX-License-Identifier: Apache-2.0
"""The BPF programs: they compile without a warning, look alike, and agree with Python."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from refagent import layout, objects, sensor

FILES = sorted([*objects.SOURCES.glob("*.c"), *objects.SOURCES.glob("*.h")])
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


def _defined(name: str, text: str) -> int:
    found = re.search(rf"^#define {name}\s+(\d+)$", text, re.MULTILINE)
    assert found, name
    return int(found[1])


def test_sizes_agree_with_python() -> None:
    assert _defined("PATH_SIZE", TEXT["path.h"]) == layout.PATH_SIZE
    assert _defined("PATH_STEPS", TEXT["path.h"]) > layout.PATH_NAMES
    assert f"max_entries, {layout.OVERRIDE_TASKS_ENTRIES})" in TEXT["override.h"]
    assert layout.OVERRIDE_KEY.size == 16
    assert layout.OVERRIDE_ENTRY.size == layout.RULE.size == 8


def test_a_rule_is_packed_with_a_negative_errno() -> None:
    assert layout.RULE.unpack(sensor.Rule(policy=7, error=13).packed()) == (-13, 7)
