# SPDX-License-Identifier: Apache-2.0
"""From a line of kernels.txt to files on this host, and what can go wrong on the way."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.aptrepo import SUITE, Archive, Keys, Server, vmlinuz
from vm import images, lockfile, manifest, mirror
from vm.archive import Suite
from vm.errors import FetchProblem, HostProblem, UsageProblem
from vm.kernel import DebianSource, Image, Kernel

RELEASE = "6.12.9+deb13-amd64"
KERNEL = Kernel("6.12", DebianSource(SUITE, "6.12.*"), where="kernels.txt:3")
#: `ensure` in a process of its own: arguments are the keyring and the lock file.
CHILD = f"""
import sys
from pathlib import Path
from vm import images, mirror
from vm.errors import Problem
from vm.kernel import DebianSource, Kernel
mirror.KEYRING = Path(sys.argv[1])
kernel = Kernel("6.12", DebianSource("{SUITE}", "6.12.*"), where="kernels.txt:3")
try:
    image = images.ensure(kernel, Path(sys.argv[2]), lambda line: print(line, file=sys.stderr))
    print(image.release)
except Problem as problem:
    sys.exit(str(problem))
"""


@pytest.fixture
def lock(tmp_path: Path) -> Path:
    return tmp_path / "kernels.lock"


@pytest.fixture
def said() -> list[str]:
    return []


@pytest.fixture
def locked(archive: Archive, server: Server, cache: Path, lock: Path) -> Path:
    """A lock file for the one kernel in the archive; nothing is in the cache."""
    archive.whole("6.12.9-1", RELEASE)
    archive.publish()
    images.update([KERNEL], lock, lambda _: None)
    server.requests.clear()
    return lock


def child(signer: Keys, lock: Path, *before: str) -> subprocess.Popen[str]:
    argv = [*before, sys.executable, "-c", CHILD, str(signer.keyring), str(lock)]
    return subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def files(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def left_over(cache: Path) -> list[str]:
    return [
        path.name for path in cache.rglob(".*") if path.name.startswith((".new", ".old", ".lo"))
    ]


def place_of(image: Image) -> Path:
    return image.vmlinuz.parent.parent


def test_fetches_once_and_then_works_offline(
    locked: Path, server: Server, cache: Path, said: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    image = images.ensure(KERNEL, locked, said.append)
    assert [re.sub(r"\d+ s", "N s", line) for line in said] == [
        "6.12: fetching 6.12.9-1 (0 MB)",
        "6.12: fetched in N s, unpacking",
        "6.12: ready after N s",
    ]
    assert (image.release, image.version) == (RELEASE, "6.12.9-1")
    place = place_of(image)
    assert place == cache / "images" / f"{RELEASE}-{image.digest[:16]}"
    assert image.modules == place / "lib" / "modules" / RELEASE
    there = files(place)
    home = f"lib/modules/{RELEASE}"
    assert {f"boot/vmlinuz-{RELEASE}", f"boot/config-{RELEASE}", f"{home}/modules.dep"} <= there
    assert {f"{home}/kernel/fs/a.ko", f"{home}/kernel/net/b.ko.xz"} <= there
    assert not [
        path for path in there if "System.map" in path or "doc" in path or "deb" in path[:4]
    ]
    assert left_over(cache) == []

    server.requests.clear()
    said.clear()
    monkeypatch.setenv(mirror.VARIABLE, "http://127.0.0.1:1/")
    monkeypatch.setenv("PATH", "")
    assert images.ensure(KERNEL, locked, said.append) == image
    assert (server.requests, said) == ([], [])


def test_lays_split_packages_out_alike(
    archive: Archive, server: Server, cache: Path, lock: Path, said: list[str]
) -> None:
    release = "7.3.4+deb13-amd64"
    archive.split("7.3.4-1~bpo13+1", release)
    archive.publish()
    kernel = Kernel("7.3", DebianSource(SUITE, "7.3.*"))
    images.update([kernel], lock, said.append)
    image = images.ensure(kernel, lock, said.append)
    assert image.config is not None
    assert image.config.read_text() == "CONFIG_IMA=y\n"
    assert image.vmlinuz.name == f"vmlinuz-{release}"
    assert f"lib/modules/{release}/kernel/a.ko" in files(place_of(image))
    assert images.check(image) == []


def test_a_kernel_of_which_nothing_else_is_left(
    archive: Archive,
    server: Server,
    cache: Path,
    lock: Path,
    said: list[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    release = "7.0.13+deb13-amd64"
    archive.split("7.0.13-1", release, base=False, modules=False)
    archive.publish()
    kernel = Kernel("7.0", DebianSource(SUITE, "7.0.*", modules=False))
    images.update([kernel], lock, said.append)
    image = images.ensure(kernel, lock, said.append)
    assert (image.modules, image.config) == (None, None)
    assert files(place_of(image)) == {f"boot/vmlinuz-{release}", "SHA256SUMS", "checked"}
    said.clear()
    with monkeypatch.context() as offline:
        offline.setenv(mirror.VARIABLE, "http://127.0.0.1:1/")
        assert images.ensure(kernel, lock, said.append) == image
        assert images.find(kernel, lock) == (image, [])
        assert images.check(image) == []
    assert said == []
    (place_of(image) / manifest.NAME).write_text("")
    assert images.check(image) == [f"boot/vmlinuz-{release}: not in SHA256SUMS"]
    images.ensure(kernel, lock, said.append)
    assert said[0].startswith("7.0: damaged in the cache (")
    assert images.check(image) == []


def test_the_configuration_is_taken_where_it_is_left(
    archive: Archive, server: Server, cache: Path, lock: Path, said: list[str]
) -> None:
    archive.split("7.3.4-1", "7.3.4-cloud-amd64")
    archive.publish()
    kernel = Kernel("7.3", DebianSource(SUITE, "7.3.*", "cloud-amd64", modules=False))
    images.update([kernel], lock, said.append)
    image = images.ensure(kernel, lock, said.append)
    assert image.modules is None
    assert image.config is not None
    assert image.config.read_text() == "CONFIG_IMA=y\n"
    image.config.unlink()
    assert images.find(kernel, lock)[1] == [
        "boot/config-7.3.4-cloud-amd64: No such file or directory"
    ]


def test_modules_that_leave_the_archive_are_missed(
    archive: Archive, server: Server, cache: Path, lock: Path, said: list[str]
) -> None:
    """A kernel that had modules does not quietly come without."""
    archive.split("7.3.4-1", "7.3.4-amd64")
    archive.publish()
    kernel = Kernel("7.3", DebianSource(SUITE, "7.3.*"), where="kernels.txt:9")
    images.update([kernel], lock, said.append)
    before = lock.read_bytes()
    (archive.pool / "linux-modules-7.3.4-amd64_7.3.4-1_amd64.deb").unlink()
    archive.publish()
    lost = f"{SUITE} has kernel 7.3.4-1 and no longer linux-modules-7.3.4-amd64"
    hint = f"or have it without modules: debian:{SUITE}/7.3.*,modules=none"
    with pytest.raises(FetchProblem) as caught:
        images.update([kernel], lock, said.append)
    assert caught.value.what == f"kernel '7.3': {lost}"
    assert caught.value.hint.endswith(hint)
    assert lock.read_bytes() == before
    with pytest.raises(FetchProblem) as caught:
        images.ensure(kernel, lock, said.append)
    assert caught.value.what == (
        f"kernel '7.3': linux-modules-7.3.4-amd64 7.3.4-1 has left {SUITE}; {lost}"
    )
    assert caught.value.hint.endswith(hint)
    bare = Kernel("7.3", DebianSource(SUITE, "7.3.*", modules=False), where="kernels.txt:9")
    with pytest.raises(UsageProblem, match=r"is debian:\S+,modules=none here and debian:\S+/7"):
        images.ensure(bare, lock, said.append)
    images.update([bare], lock, said.append)
    assert images.ensure(bare, lock, said.append).modules is None


def flip(path: Path) -> None:
    data = path.read_bytes()
    path.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))


@pytest.mark.parametrize(
    ("name", "harm"),
    [
        (f"boot/vmlinuz-{RELEASE}", flip),
        (f"boot/vmlinuz-{RELEASE}", Path.unlink),
        (f"boot/config-{RELEASE}", flip),
        (f"lib/modules/{RELEASE}/modules.dep", Path.unlink),
        (f"lib/modules/{RELEASE}/kernel/fs/a.ko", lambda path: path.write_bytes(b"")),
        (f"lib/modules/{RELEASE}/kernel/net/b.ko.xz", flip),
        (manifest.NAME, lambda path: path.write_text("")),
        (manifest.NAME, Path.unlink),
    ],
)
def test_fetches_a_damaged_entry_again(
    locked: Path, said: list[str], name: str, harm: Callable[[Path], object]
) -> None:
    image = images.ensure(KERNEL, locked, said.append)
    good = files(place_of(image))
    said.clear()
    harm(place_of(image) / name)
    assert images.find(KERNEL, locked)[1] != []
    images.ensure(KERNEL, locked, said.append)
    assert said[0].startswith("6.12: damaged in the cache (")
    assert files(place_of(image)) == good
    assert images.check(image) == []


def test_a_damaged_entry_stays_until_there_is_another(
    locked: Path, said: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    image = images.ensure(KERNEL, locked, said.append)
    flip(image.vmlinuz)
    monkeypatch.setenv(mirror.VARIABLE, "http://127.0.0.1:1/")
    with pytest.raises(FetchProblem, match="check the network"):
        images.ensure(KERNEL, locked, said.append)
    assert image.vmlinuz.exists()


def test_check_finds_what_a_boot_would_not_and_ensure_then_mends_it(
    locked: Path, said: list[str]
) -> None:
    image = images.ensure(KERNEL, locked, said.append)
    assert image.modules is not None
    module = image.modules / "kernel" / "fs" / "a.ko"
    before = module.stat()
    flip(module)
    os.utime(module, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert images.find(KERNEL, locked) == (image, [])
    assert images.check(image) == [f"lib/modules/{RELEASE}/kernel/fs/a.ko: SHA-256 differs"]
    images.ensure(KERNEL, locked, said.append)
    assert images.check(image) == []


@pytest.mark.parametrize("known", [True, False], ids=["lists-renewed", "lists-of-before"])
def test_a_locked_version_that_has_left_the_archive(
    archive: Archive, locked: Path, cache: Path, said: list[str], known: bool
) -> None:
    for deb in archive.pool.iterdir():
        deb.unlink()
    archive.whole("6.12.10-1", "6.12.10+deb13-amd64")
    archive.publish()
    if known:
        Suite.of(SUITE, said.append).refresh()
    with pytest.raises(FetchProblem) as caught:
        images.ensure(KERNEL, locked, said.append)
    assert str(caught.value) == (
        f"kernels.txt:3: kernel '6.12': linux-image-{RELEASE} 6.12.9-1 has left {SUITE}; "
        "the newest that matches is 6.12.10-1; run: hookproof kernels fetch --update 6.12"
    )
    assert left_over(cache) == []
    images.update([KERNEL], locked, said.append)
    assert said[-1] == "6.12: 6.12.10-1, was 6.12.9-1"
    assert images.ensure(KERNEL, locked, said.append).version == "6.12.10-1"


def test_a_file_that_has_left_behind_old_lists(
    archive: Archive, locked: Path, said: list[str]
) -> None:
    """The lists name it still, and the mirror has it no more."""
    for deb in archive.pool.iterdir():
        deb.unlink()
    with pytest.raises(FetchProblem) as caught:
        images.ensure(KERNEL, locked, said.append)
    assert "404" in caught.value.what
    assert "apt-get download" in caught.value.where
    assert caught.value.hint == "the mirror is being renewed: try again later"
    assert said.count(f"updating the package lists of {SUITE}") == 1


def test_a_lock_that_does_not_fit(locked: Path, said: list[str]) -> None:
    other = Kernel("6.12", DebianSource(SUITE, "6.12.9"), where="kernels.txt:3")
    with pytest.raises(UsageProblem) as caught:
        images.ensure(other, locked, said.append)
    assert str(caught.value) == (
        f"kernels.txt:3: kernel '6.12' is debian:{SUITE}/6.12.9 here and "
        f"debian:{SUITE}/6.12.* in kernels.lock; run: hookproof kernels fetch --update 6.12"
    )
    with pytest.raises(UsageProblem, match=r"kernel '6\.13' is not in kernels\.lock; run: "):
        images.ensure(Kernel("6.13", KERNEL.source), locked, said.append)


def test_update_writes_what_it_found_and_keeps_the_rest(
    archive: Archive, locked: Path, said: list[str]
) -> None:
    archive.split("7.3.4-1", "7.3.4-amd64")
    archive.publish()
    first = lockfile.read(locked)
    seven = Kernel("7.3", DebianSource(SUITE, "7.3.*"))
    images.update([seven], locked, said.append, keep=["6.12"])
    assert lockfile.read(locked) == first | {"7.3": lockfile.read(locked)["7.3"]}
    assert said[-1] == "7.3: 7.3.4-1, new"
    written = locked.stat()
    images.update([seven], locked, said.append, keep=["6.12"])
    assert said[-1] == "7.3: 7.3.4-1, as before"
    assert locked.stat().st_ino == written.st_ino, "nothing new, nothing written"
    images.update([seven], locked, said.append)
    assert list(lockfile.read(locked)) == ["7.3"]


def test_update_leaves_the_lock_if_one_kernel_is_not_to_be_had(locked: Path) -> None:
    before = locked.read_bytes()
    gone = Kernel("6.99", DebianSource(SUITE, "6.99.*"), where="kernels.txt:9")
    with pytest.raises(FetchProblem, match=r"kernels\.txt:9: kernel '6\.99': .* it has 6\.12\.9"):
        images.update([KERNEL, gone], locked, lambda _: None)
    assert locked.read_bytes() == before


@pytest.mark.parametrize(
    ("more", "problem"),
    [
        ({f"boot/vmlinuz-{RELEASE}": b"no kernel" * 100}, "is no x86 Linux kernel image"),
        ({f"boot/vmlinuz-{RELEASE}": vmlinuz("6.99-other")}, r"calls itself 6\.99-other"),
        ({}, "hold no modules"),
    ],
)
def test_packages_that_are_no_kernel(
    archive: Archive, server: Server, cache: Path, lock: Path, more: dict[str, bytes], problem: str
) -> None:
    files = {f"boot/vmlinuz-{RELEASE}": b"", f"boot/config-{RELEASE}": b""}
    if more:
        archive.whole("6.12.9-1", RELEASE, **more)
    else:
        archive.add(f"linux-image-{RELEASE}", "6.12.9-1", files)
    archive.publish()
    images.update([KERNEL], lock, lambda _: None)
    with pytest.raises((FetchProblem, UsageProblem), match=problem):
        images.ensure(KERNEL, lock, lambda _: None)
    assert left_over(cache) == []
    assert images.find(KERNEL, lock) == (None, [])


def test_killed_half_way(
    locked: Path, archive: Archive, server: Server, cache: Path, said: list[str]
) -> None:
    server.hold[".deb"] = threading.Event()
    with child(archive.signer, locked) as other:
        assert server.asked.wait(60), "it never came to the download"
        other.send_signal(signal.SIGKILL)
        other.communicate()
    # apt's download is still held, so it would be there for long if it were not killed too.
    deadline = time.monotonic() + 30
    while left := processes_in(cache):
        assert time.monotonic() < deadline, f"waited 30 s for {left} to end"
        time.sleep(0.02)
    assert any(name.startswith(".new-") for name in left_over(cache))
    server.hold.pop(".deb").set()
    image = images.ensure(KERNEL, locked, said.append)
    assert images.check(image) == []
    assert left_over(cache) == []


def processes_in(folder: Path) -> list[str]:
    """Processes whose working folder or command line is below a folder."""
    found = []
    for proc in Path("/proc").glob("[0-9]*"):
        try:
            where, words = (proc / "cwd").readlink(), (proc / "cmdline").read_text()
        except OSError:
            continue
        if where.is_relative_to(folder) or str(folder) in words:
            found.append(f"{proc.name} {words}")
    return found


def test_the_next_command_for_another_kernel_cleans_up_too(
    locked: Path, archive: Archive, cache: Path, said: list[str]
) -> None:
    images.ensure(KERNEL, locked, said.append)
    dead = cache / "images" / ".new-7.3-dead"
    dead.mkdir()
    images.ensure(KERNEL, locked, said.append)
    assert not dead.exists()


def test_two_processes_at_once(locked: Path, archive: Archive, server: Server) -> None:
    both = [child(archive.signer, locked) for _ in range(2)]
    results = [one.communicate() for one in both]
    assert [one.returncode for one in both] == [0, 0], results
    assert [out for out, _ in results] == [f"{RELEASE}\n"] * 2
    assert len([path for path in server.requests if path.endswith(".deb")]) == 1


@pytest.mark.parametrize(
    ("kilobytes", "stage"),
    [
        (600, "the package lists of"),
        (4_000, "the download failed"),
        (10_000, "the cache cannot be written: No space left on device"),
    ],
)
def test_a_full_disk(
    locked: Path, archive: Archive, cache: Path, kilobytes: int, stage: str
) -> None:
    """A cache on a small file system of its own, in a mount namespace of its own.

    apt's lists take 2 MB and the package 6, twice while it is unpacked.
    """
    for deb in archive.pool.iterdir():
        deb.unlink()
    archive.whole("6.12.9-1", RELEASE, **{f"boot/config-{RELEASE}": b"#" * 6_000_000})
    archive.publish()
    images.update([KERNEL], locked, lambda _: None)
    script = (
        f'mount -t tmpfs -o size={kilobytes}k none "$0" && "$@"; s=$?; ls -A "$0"/images; exit $s'
    )
    inside = ("unshare", "--mount", "--user", "--map-root-user", "sh", "-c", script, str(cache))
    probe = subprocess.run([*inside, "true"], capture_output=True, text=True, check=False)
    if "images" not in probe.stderr:
        pytest.skip(f"needs a mount namespace: {probe.stderr.strip()}")
    with child(archive.signer, locked, *inside) as other:
        out, err = other.communicate()
    assert other.returncode == 1, err
    line = err.splitlines()[-1]
    assert f"kernel '6.12': {stage}" in line
    assert "free some space, or set HOOKPROOF_CACHE to a folder elsewhere" in line
    assert "Traceback" not in err
    assert out == "", "nothing half-written is left"


def test_a_cache_that_is_a_file(
    locked: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("HOOKPROOF_CACHE", str(tmp_path / "file"))
    with pytest.raises(HostProblem, match="set HOOKPROOF_CACHE"):
        images.ensure(KERNEL, locked, lambda _: None)
