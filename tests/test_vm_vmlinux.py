# SPDX-License-Identifier: Apache-2.0
"""Kernels unpacked for quicker boots, or booted as they are."""

from __future__ import annotations

import bz2
import gzip
import lzma
import shutil
import struct
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from vm import vmlinux
from vm.kernel import Image, Kernel, LocalSource

#: An ELF file with Xen's note of the entry for PVH guests, as QEMU looks for it.
KERNEL = b"\x7fELF" + bytes(1000) + struct.pack("<III4sQ", 4, 8, 18, b"Xen\0", 0x1000000)
RELEASE = "6.12.0-test"


def zstd(data: bytes) -> bytes:
    if not shutil.which("zstd"):
        pytest.skip("the program zstd is not installed")
    packed = subprocess.run(["zstd", "-c"], input=data, capture_output=True, check=True).stdout
    return packed + len(data).to_bytes(4, "little")  # as the kernel's build does


PACK: dict[str, Callable[[bytes], bytes]] = {
    "zstd": zstd,
    "xz": lambda data: lzma.compress(data) + len(data).to_bytes(4, "little"),
    "gzip": gzip.compress,
    "bzip2": lambda data: bz2.compress(data) + len(data).to_bytes(4, "little"),
}


@pytest.fixture
def said() -> list[str]:
    return []


def image(folder: Path, payload: bytes) -> Image:
    head = bytearray(3 * 512)
    head[0x1F1] = 2
    struct.pack_into("<II", head, 0x248, 100, len(payload))
    path = folder / "vmlinuz"
    path.write_bytes(head + bytes(100) + payload + b"a signature")
    return Image(Kernel("mine", LocalSource(path)), RELEASE, "", path, None, None, "d" * 64)


@pytest.mark.parametrize("packing", PACK)
def test_a_kernel_is_unpacked_once(
    tmp_path: Path, cache: Path, said: list[str], packing: str
) -> None:
    mine = image(tmp_path, PACK[packing](KERNEL))
    found = vmlinux.bootable(mine, said.append)
    assert found.is_relative_to(cache)
    assert found.read_bytes() == KERNEL
    assert said == [f"{RELEASE}: unpacked for quicker boots"]
    assert vmlinux.bootable(mine, said.append) == found
    assert len(said) == 1


@pytest.mark.parametrize(
    "payload",
    [PACK["xz"](KERNEL[:1004]), PACK["xz"](b"no ELF" + KERNEL), b"packed in a new way" + KERNEL],
    ids=["without the note", "not ELF", "unknown packing"],
)
def test_what_qemu_cannot_start_is_booted_as_it_is(
    tmp_path: Path, cache: Path, said: list[str], payload: bytes
) -> None:
    mine = image(tmp_path, payload)
    for _ in range(2):
        assert vmlinux.bootable(mine, said.append) == mine.vmlinuz
    assert said == [f"{RELEASE}: can only be booted packed"]


@pytest.mark.parametrize("packing", PACK)
def test_a_damaged_kernel_is_left_to_the_guest(
    tmp_path: Path, cache: Path, said: list[str], packing: str
) -> None:
    payload = bytearray(PACK[packing](KERNEL))
    payload[8:20] = b"\xff" * 12
    mine = image(tmp_path, bytes(payload))
    assert vmlinux.bootable(mine, said.append) == mine.vmlinuz
    assert [line.partition(": ")[2].partition(":")[0] for line in said] == [
        "boots packed, which is slower"
    ]
    assert not list((cache / "vmlinux").glob("*"))


def test_a_file_that_is_too_short_is_left_to_the_guest(
    tmp_path: Path, cache: Path, said: list[str]
) -> None:
    mine = image(tmp_path, b"")
    mine.vmlinuz.write_bytes(b"short")
    assert vmlinux.bootable(mine, said.append) == mine.vmlinuz


def test_a_host_without_zstd_boots_slower(
    tmp_path: Path, cache: Path, said: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    payload = PACK["zstd"](KERNEL)
    monkeypatch.setenv("PATH", str(tmp_path))
    mine = image(tmp_path, payload)
    assert vmlinux.bootable(mine, said.append) == mine.vmlinuz
    why = "zstd is not installed; install the package 'zstd'"
    assert said == [f"{RELEASE}: boots packed, which is slower: {why}"]


def test_a_damaged_entry_is_made_again(tmp_path: Path, cache: Path, said: list[str]) -> None:
    mine = image(tmp_path, PACK["xz"](KERNEL))
    found = vmlinux.bootable(mine, said.append)
    found.write_bytes(KERNEL.replace(b"Xen", b"xen"))
    assert vmlinux.bootable(mine, said.append).read_bytes() == KERNEL
    assert len(said) == 2
