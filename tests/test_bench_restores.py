# SPDX-License-Identifier: Apache-2.0
"""Restores without end, and that growth would be seen."""

from __future__ import annotations

import os
import re
import subprocess
import threading
from pathlib import Path

import pytest

from hookproof.bench import restores
from hookproof.bench.peers import Peers
from hookproof.bench.restores import Holding
from hookproof.bench.setup import Setup
from hookproof.bench.spread import Spread
from vm import accel, catalog
from vm.default import default_catalog
from vm.errors import HostProblem


def test_what_is_held_is_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOOKPROOF_CACHE", str(tmp_path))
    before = Holding.now()
    leave = threading.Event()
    thread = threading.Thread(target=leave.wait)
    thread.start()
    reading, writing = os.pipe()
    with subprocess.Popen(["sleep", "1000"]) as child:
        after = Holding.now()
        child.kill()
    leave.set()
    thread.join()
    os.close(reading)
    os.close(writing)
    assert after.descriptors == before.descriptors + 2
    assert after.threads == before.threads + 1
    assert after.processes == before.processes + 1
    assert after.memory > 1
    (tmp_path / "more").mkdir()
    (tmp_path / "more" / "file").write_bytes(os.urandom(1 << 20))
    assert Holding.now().disk > after.disk


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({}, ""),
        ({"memory": 3.0, "disk": 0.1, "threads": -1}, ""),
        ({"memory": 5.0}, "memory +5"),
        ({"disk": 1.0, "descriptors": 2}, "descriptors +2, disk +1"),
        ({"processes": 1}, "processes +1"),
    ],
)
def test_what_grows_is_told(more: dict[str, float], said: str) -> None:
    before = Holding(100.0, 10, 3, 0, 50.0)
    after = Holding(**{name: value + more.get(name, 0) for name, value in vars(before).items()})
    found = restores.Restores("6.12", 1000, 2, Spread.of([0.1, 0.2]), before, after)
    if not said:
        found.check()
        return
    with pytest.raises(HostProblem, match=re.escape(f"than before: {said}; find what")):
        found.check()


@pytest.mark.vm
def test_some_restores_leave_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(restores, "COUNT", 8)
    monkeypatch.setattr(restores, "_BEFORE", 4)
    # So early caches still fill: what is counted is looked at, and that it is looked at.
    monkeypatch.setattr(restores, "_MORE", {"memory": 64.0, "disk": 0.5})
    (kernel,) = catalog.select(catalog.read(default_catalog()), ["6.12"])
    calibration = accel.choose("auto")
    peers = Peers(calibration.accel, tmp_path, print)
    setup = Setup((kernel,), kernel, tmp_path, 1, tmp_path, calibration, peers, print)
    (found,) = restores.measure(setup)  # which fails if something grows
    growth = found.to_json()["growth"]
    assert (growth["descriptors"], growth["threads"], growth["processes"]) == (0, 0, 0)
