# SPDX-License-Identifier: Apache-2.0
"""How many machines fit on this host."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from vm import capacity


def test_processors_bound_it() -> None:
    assert capacity.machines(1) == capacity.processors() <= len(os.sched_getaffinity(0))


def test_memory_bounds_it_and_one_always_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(capacity, "processors", lambda: 64)
    half = capacity.available() // 2
    assert capacity.machines(half) == 1
    assert capacity.machines(half // 4) in range(4, 9)
    assert capacity.machines(2**40) == 1


@pytest.mark.parametrize(
    ("quota", "expected"), [("max 100000", 4), ("250000 100000", 2), ("50000 100000", 1)]
)
def test_a_control_group_bounds_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, quota: str, expected: int
) -> None:
    monkeypatch.setattr(capacity, "_CGROUP", tmp_path)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _pid: {0, 1, 2, 3})
    (tmp_path / "cpu.max").write_text(quota + "\n")
    assert capacity.processors() == expected
    (tmp_path / "memory.max").write_text(f"{300 << 20}\n")
    (tmp_path / "memory.current").write_text(f"{100 << 20}\n")
    assert capacity.available() == 200
