# SPDX-License-Identifier: Apache-2.0
"""Programs are started by threads, while pytest sets and takes a variable at each test."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from vm import kmodules, run
from vm.kernel import Image, Kernel, LocalSource

#: Without a copy of the variables, one in five fails.
OFTEN = 50


@pytest.fixture
def changing() -> Iterator[None]:
    """Another thread sets and takes a variable all the time."""
    over = threading.Event()

    def change() -> None:
        while not over.is_set():
            os.environ["HOOKPROOF_TEST_CHANGING"] = "x"
            del os.environ["HOOKPROOF_TEST_CHANGING"]

    thread = threading.Thread(target=change)
    thread.start()
    yield
    over.set()
    thread.join()


@pytest.mark.usefixtures("changing")
def test_a_program_starts_while_a_thread_changes_variables() -> None:
    for _ in range(OFTEN):
        run.run(["true"], timeout=60)
        with run.reading(["true"], timeout=60):
            pass


@pytest.mark.usefixtures("changing")
def test_modules_are_found_while_a_thread_changes_variables(tmp_path: Path) -> None:
    modules = tmp_path / "9.9.9"
    modules.mkdir()
    (modules / "modules.dep").touch()
    kernel = Kernel("test", LocalSource(tmp_path / "vmlinuz", modules))
    image = Image(kernel, "9.9.9", "9.9.9", tmp_path / "vmlinuz", modules, None, "0" * 64)
    for _ in range(OFTEN // 2):
        assert kmodules.files(image, ["one", "two"]) == []


@pytest.mark.usefixtures("changing")
def test_the_variables_can_be_copied_while_a_thread_changes_them() -> None:
    for _ in range(20_000):
        run.environment()


def test_a_program_sees_the_variables_and_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOOKPROOF_TEST_ONE", "1")
    monkeypatch.setenv("LC_ALL", "xx_XX")
    said = run.run(["env"], env={"HOOKPROOF_TEST_TWO": "2"}, timeout=60).stdout.splitlines()
    assert {"HOOKPROOF_TEST_ONE=1", "HOOKPROOF_TEST_TWO=2", "LC_ALL=C"} <= set(said)
