# SPDX-License-Identifier: Apache-2.0
"""A kernel's modules: found with what they need, unpacked, in order, by the real modprobe."""

from __future__ import annotations

import gzip
import lzma
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests import initramfs
from vm import kmodules, run
from vm.errors import FetchProblem, HostProblem
from vm.kernel import Image, Kernel, LocalSource

RELEASE = "9.9.9-test"
DEPMOD = run.find("depmod")
RING = 'static const char n[] __attribute__((section("__ksymtab_strings"), used)) = "vring_new";'
USER = "extern void vring_new(void); void use(void) { vring_new(); }"
#: A module → its source: the two of virtio stand on a third, which sorts behind them.
SOURCES = {"virtio_ring": RING, "virtio_pci": USER, "virtio_console": USER, "overlay": ""}


def zstd(data: bytes) -> bytes:
    if not shutil.which("zstd"):
        pytest.skip("the program zstd is not installed")
    return subprocess.run(["zstd", "-c"], input=data, capture_output=True, check=True).stdout


def gz(data: bytes) -> bytes:
    said = subprocess.run([DEPMOD, "--version"], capture_output=True, text=True, check=True)
    if "-ZLIB" in said.stdout:
        pytest.skip("this host's kmod cannot read modules packed by gzip")
    return gzip.compress(data)


PACK: dict[str, Callable[[bytes], bytes]] = {
    "": bytes,
    ".gz": gz,
    ".xz": lzma.compress,
    ".zst": zstd,
}


class Tree:
    """A kernel's modules as its build installs them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.modules = folder / "lib" / "modules" / RELEASE
        (self.modules / "kernel").mkdir(parents=True)
        (self.modules / "modules.order").touch()
        (self.modules / "modules.builtin").touch()
        (self.modules / "modules.builtin.modinfo").touch()

    def add(self, name: str, suffix: str = "") -> bytes:
        compiled = self.folder / f"{name}.o"
        argv = ["gcc", "-c", "-x", "c", "-", "-o", str(compiled)]
        subprocess.run(argv, input=SOURCES[name].encode(), check=True)
        data = compiled.read_bytes()
        (self.modules / "kernel" / f"{name}.ko{suffix}").write_bytes(PACK[suffix](data))
        return data

    def build_in(self, name: str) -> None:
        with (self.modules / "modules.builtin").open("a") as builtin:
            builtin.write(f"kernel/drivers/{name}.ko\n")

    def image(self) -> Image:
        subprocess.run([DEPMOD, "-b", self.folder, RELEASE], check=True)
        vmlinuz = self.folder / "vmlinuz"
        kernel = Kernel("test", LocalSource(vmlinuz, self.modules))
        return Image(kernel, RELEASE, RELEASE, vmlinuz, self.modules, None, "0" * 64)


@pytest.fixture
def tree(tmp_path: Path) -> Tree:
    return Tree(tmp_path)


def packed(image: Image) -> dict[str, bytes]:
    members = initramfs.read(kmodules.archive(image))
    return {name: each.data for name, each in members.items() if name.endswith(".ko")}


@pytest.mark.parametrize("suffix", PACK)
def test_modules_are_unpacked_and_in_the_order_of_their_needs(tree: Tree, suffix: str) -> None:
    made = {name: tree.add(name, suffix) for name in SOURCES}
    found = packed(tree.image())
    assert sorted(found) == [
        "modules/00-virtio_ring.ko",
        "modules/01-virtio_pci.ko",
        "modules/02-virtio_console.ko",
        "modules/03-overlay.ko",
    ]
    assert found == {f"modules/{name[8:]}": made[name[11:-3]] for name in found}


def test_what_is_built_in_is_left_out(tree: Tree) -> None:
    tree.build_in("virtio-pci")
    tree.build_in("virtio_console")
    tree.add("overlay")
    assert [*packed(tree.image())] == ["modules/00-overlay.ko"]


def test_nothing_to_insert_is_nothing(tree: Tree) -> None:
    tree.build_in("virtio_pci")
    tree.build_in("virtio_console")
    assert kmodules.archive(tree.image()) == b""


def test_a_kernel_without_modules_has_all_it_has_built_in(tree: Tree) -> None:
    image = tree.image()
    whole = Image(image.kernel, RELEASE, RELEASE, image.vmlinuz, None, None, image.digest)
    assert kmodules.archive(whole) == b""


def test_a_kernel_that_cannot_have_the_port_is_a_problem(tree: Tree) -> None:
    tree.build_in("virtio_pci")
    with pytest.raises(HostProblem) as caught:
        kmodules.archive(tree.image())
    assert caught.value.what == (
        f"{RELEASE} has no virtio_console, neither built in nor as a module"
    )
    assert caught.value.hint


@pytest.mark.parametrize("suffix", PACK)
def test_a_damaged_module_is_a_problem_that_names_it(tree: Tree, suffix: str) -> None:
    for name in ("virtio_ring", "virtio_pci", "virtio_console"):
        tree.add(name, suffix)
    image = tree.image()
    module = tree.modules / "kernel" / f"virtio_console.ko{suffix}"
    module.write_bytes(b"x" + module.read_bytes()[1:])
    with pytest.raises(FetchProblem, match=r"virtio_console\.ko"):
        kmodules.archive(image)
