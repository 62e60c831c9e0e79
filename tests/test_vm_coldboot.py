# SPDX-License-Identifier: Apache-2.0
"""What a saved state is made of: whatever changes, another state is made."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from hookproof.service import executor, resident
from vm import catalog, coldboot, guestroot, images, portmachine, run, saved
from vm.accel import Accel
from vm.coldboot import ColdBoot
from vm.default import default_catalog, default_lock
from vm.errors import HostProblem
from vm.guestroot import Contents, GuestRoot
from vm.machine import Plan
from vm.virtme import Size

pytestmark = pytest.mark.vm


@pytest.fixture(scope="module")
def boot() -> ColdBoot:
    (kernel,) = catalog.select(catalog.read(default_catalog()), ["6.12"])
    image = images.ensure(kernel, lock=default_lock(), say=print)
    return ColdBoot(Plan(image, executor(), ("quiet",)), resident(), Accel.TCG)


def place(boot: ColdBoot) -> Path:
    return saved.place("6.12", boot.ingredients(print))


def test_the_same_boot_is_the_same_state(boot: ColdBoot) -> None:
    again = ColdBoot(replace(boot.plan), replace(boot.resident), boot.accel)
    assert place(again) == place(boot)


SMALLER = Contents(packages=("hookproof.guest",))
CHANGES: dict[str, Callable[[ColdBoot], ColdBoot]] = {
    "words": lambda boot: replace(boot, plan=replace(boot.plan, words=("quiet", "nosmap"))),
    "their order": lambda boot: replace(boot, plan=replace(boot.plan, words=("nosmap", "quiet"))),
    "memory": lambda boot: replace(boot, plan=replace(boot.plan, size=Size(memory=768))),
    "processors": lambda boot: replace(boot, plan=replace(boot.plan, size=Size(cpus=1))),
    "accelerator": lambda boot: replace(boot, accel=Accel.KVM),
    "kernel": lambda boot: replace(
        boot, plan=replace(boot.plan, image=replace(boot.plan.image, digest="0" * 64))
    ),
    "service": lambda boot: replace(
        boot, resident=replace(boot.resident, argv=(*boot.resident.argv, "more"))
    ),
    "root": lambda boot: replace(boot, resident=replace(boot.resident, contents=SMALLER)),
}


@pytest.mark.parametrize("change", CHANGES)
def test_each_change_makes_another(boot: ColdBoot, change: str) -> None:
    assert place(CHANGES[change](boot)) != place(boot)


def test_the_order_of_words_counts(boot: ColdBoot) -> None:
    assert place(CHANGES["words"](boot)) != place(CHANGES["their order"](boot))


def test_another_qemu_makes_another(
    boot: ColdBoot, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = place(boot)
    (tmp_path / "qemu-system-x86_64").symlink_to(run.find("qemu-system-x86_64"))
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    assert place(boot) != before


def test_another_processor_makes_another(
    boot: ColdBoot, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ours = coldboot._processor()
    monkeypatch.setattr(coldboot, "_processor", lambda: f"{ours} II")
    before = place(boot)
    monkeypatch.undo()
    assert place(boot) != before
    assert len(ours) > len(", features ") + 16


def test_without_qemu_it_says_which_package_to_install(
    boot: ColdBoot, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(portmachine, "PROGRAM", "qemu-system-none")
    with pytest.raises(HostProblem, match="qemu-system-none is not installed"):
        place(boot)


def test_what_it_is_made_of_can_be_written_down(boot: ColdBoot) -> None:
    ingredients = boot.ingredients(print)
    assert json.loads(json.dumps(ingredients)) == {**ingredients, "service": list(resident().argv)}
    assert "quiet" in ingredients["words"]


def test_a_root_that_another_process_removed_is_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[Path] = []

    def ensure(_contents: Contents, _say: Callable[[str], None]) -> GuestRoot:
        made.append(tmp_path / "root")
        made[-1].touch()
        return GuestRoot(made[-1], "digest")

    monkeypatch.setattr(guestroot, "ensure", ensure)
    contents = Contents(packages=("of this test",))
    assert coldboot._root(contents, print) is coldboot._root(contents, print)
    assert len(made) == 1
    made[0].unlink()
    assert coldboot._root(contents, print).path.exists()
    assert len(made) == 2
