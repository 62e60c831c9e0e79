# SPDX-License-Identifier: Apache-2.0
"""The harness's gates: what they tell is not lost in what they are told."""

from __future__ import annotations

import os
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import get_native_id

import pytest

from hookproof.guest import gates
from refagent.libbpf.maps import Map
from tests.inside.chains import wait

MKDIR = "security_path_mkdir"
#: Seconds; fewer than a scenario's holds have, and more than a processor could pass with few turns.
PATIENCE = 4.0


@pytest.fixture(scope="module", autouse=True)
def _warm_gates() -> None:
    gates.warm()


@pytest.mark.parametrize("kind", [gates.BETWEEN, gates.ENTRY])
def test_that_it_was_too_late_is_told_though_it_is_opened_then(
    place: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    """The call goes on by itself at the very moment at which it is let go."""
    plain = Map.set
    with ThreadPoolExecutor(1) as pool:
        thread = pool.submit(get_native_id).result(60)
        with gates.at(kind, MKDIR, thread, 0.5) as gate:
            call = pool.submit(os.mkdir, place / "x")
            assert gate.reached(60)

            def write(self: Map, key: bytes, value: bytes) -> None:
                wait(lambda: gate.overtime, "the call has gone on by itself")
                plain(self, key, value)

            with monkeypatch.context() as patch:
                patch.setattr(Map, "set", write)
                gate.open()
            call.result(60)
            assert gate.overtime


def test_a_call_goes_on_by_itself_when_its_patience_is_over_and_not_before(place: Path) -> None:
    with ThreadPoolExecutor(1) as pool:
        thread = pool.submit(get_native_id).result(60)
        with gates.at(gates.ENTRY, MKDIR, thread, PATIENCE) as gate:
            begun = time.monotonic()
            pool.submit(os.mkdir, place / "x").result(60)
            assert time.monotonic() - begun >= PATIENCE
            assert gate.overtime
