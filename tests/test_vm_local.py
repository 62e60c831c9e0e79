# SPDX-License-Identifier: Apache-2.0
"""Kernels that lie on this host already."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.aptrepo import vmlinuz
from vm import images
from vm.errors import UsageProblem
from vm.kernel import Image, Kernel, LocalSource

RELEASE = "6.12.0-mine+"


@pytest.fixture
def tree(tmp_path: Path, cache: Path) -> Path:
    """A kernel, its modules and its configuration, as somebody might have them."""
    modules = tmp_path / "out" / "lib" / "modules" / RELEASE
    (modules / "kernel").mkdir(parents=True)
    (modules / "modules.dep").write_text("kernel/a.ko:\n")
    (modules / "kernel" / "a.ko").write_bytes(b"a")
    (modules / "build").symlink_to("/nowhere")
    (tmp_path / "bzImage").write_bytes(vmlinuz(RELEASE))
    (tmp_path / f"config-{RELEASE}").write_text("CONFIG_A=y\n")
    return tmp_path


def ensure(tree: Path, modules: str = "", vmlinuz: str = "bzImage") -> Image:
    source = LocalSource(tree / vmlinuz, tree / modules if modules else None)
    kernel = Kernel("mine", source, where="kernels.txt:7")
    return images.ensure(kernel, tree / "no.lock", lambda _: None)


def test_is_linked_into_the_usual_layout(tree: Path) -> None:
    image = ensure(tree, f"out/lib/modules/{RELEASE}")
    assert (image.release, image.version) == (RELEASE, RELEASE)
    assert image.vmlinuz.name == f"vmlinuz-{RELEASE}"
    assert image.vmlinuz.read_bytes() == (tree / "bzImage").read_bytes()
    assert image.modules == image.vmlinuz.parent.parent / "lib" / "modules" / RELEASE
    assert (image.modules / "kernel" / "a.ko").read_bytes() == b"a"
    assert image.config == tree / f"config-{RELEASE}"
    assert ensure(tree, f"out/lib/modules/{RELEASE}") == image
    assert images.check(image) == []


def test_without_modules_it_gets_an_empty_folder_for_them(tree: Path) -> None:
    """Else virtme-run looks further up and takes the host's."""
    image = ensure(tree)
    assert image.modules is None
    assert (image.vmlinuz.parent.parent / "used").exists(), "or it would be pruned too early"
    modules = image.vmlinuz.parent.parent / "lib" / "modules"
    assert list(modules.iterdir()) == []


@pytest.mark.parametrize("changed", ["bzImage", f"out/lib/modules/{RELEASE}/kernel/a.ko"])
def test_a_rebuild_is_another_image(tree: Path, changed: str) -> None:
    before = ensure(tree, f"out/lib/modules/{RELEASE}")
    (tree / changed).write_bytes((tree / changed).read_bytes() + b"more")
    assert ensure(tree, f"out/lib/modules/{RELEASE}").digest != before.digest


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (None, "bzImage cannot be read: No such file or directory"),
        (b"", "bzImage is no x86 Linux kernel image; give a bzImage, or /boot/vmlinuz-RELEASE"),
        (b"MZ" + bytes(4000), "bzImage is no x86 Linux kernel image; give a bzImage, or "),
        (b"\x7fELF" + bytes(4000), "is an ELF file and no x86 Linux kernel image; give the "),
        (vmlinuz(RELEASE)[:0x20A], "bzImage is no x86 Linux kernel image"),
        (vmlinuz(RELEASE)[:-1], "is cut short: 1087 bytes, and its header says 1088; copy or "),
        (vmlinuz(RELEASE, flags=0), "bzImage is a 32-bit kernel; give a 64-bit one"),
        (vmlinuz("6/../../etc"), "bzImage names no release"),
    ],
)
def test_what_is_no_kernel(tree: Path, data: bytes | None, message: str) -> None:
    (tree / "bzImage").unlink()
    if data is not None:
        (tree / "bzImage").write_bytes(data)
    with pytest.raises(UsageProblem) as caught:
        ensure(tree)
    assert str(caught.value).startswith("kernels.txt:7: ")
    assert message in str(caught.value)


def test_modules_of_another_kernel(tree: Path) -> None:
    (tree / "out/lib/modules" / RELEASE).rename(tree / "out/lib/modules/6.1")
    with pytest.raises(UsageProblem, match=r"are not those of 6\.12\.0-mine\+; give the folder"):
        ensure(tree, "out/lib/modules/6.1")


def test_modules_that_are_not_there(tree: Path) -> None:
    with pytest.raises(UsageProblem, match=r"kernels\.txt:7: modules=.* is no folder"):
        ensure(tree, "none")


def test_modules_without_an_index(tree: Path) -> None:
    (tree / "out/lib/modules" / RELEASE / "modules.dep").unlink()
    with pytest.raises(UsageProblem) as caught:
        ensure(tree, f"out/lib/modules/{RELEASE}")
    assert caught.value.hint == f"run: depmod -b {tree}/out {RELEASE}"
