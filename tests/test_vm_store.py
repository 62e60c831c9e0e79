# SPDX-License-Identifier: Apache-2.0
"""The cache's folders, locks and manifests, with real processes that are really killed."""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from vm import manifest, store
from vm.errors import FetchProblem, HostProblem

HOLD = """
import sys
from pathlib import Path
from vm import store
place = Path(sys.argv[1])
with store.locked(store.lock_of(place), "x", print), store.replacing(place) as new:
    (new / "half").write_text("written")
    print("held", flush=True)
    sys.stdin.read()
"""
COUNT = """
import sys
from pathlib import Path
from vm import store
place = Path(sys.argv[1])
for _ in range(50):
    with store.locked(store.lock_of(place), "x", lambda _: None):
        number = int(place.read_text())
        place.write_text(str(number + 1))
"""


def silent(_: str) -> None:
    pass


def spawn(script: str, place: Path) -> subprocess.Popen[str]:
    argv = [sys.executable, "-c", script, str(place)]
    return subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.fixture
def place(cache: Path) -> Path:
    return store.folder("images") / "entry"


@pytest.mark.parametrize(
    ("own", "xdg", "home", "expected"),
    [
        ("/o", "/x", "/h", "/o"),
        ("", "/x", "/h", "/x/hookproof"),
        ("", "relative", "/h", "/h/.cache/hookproof"),
        ("", "", "/h", "/h/.cache/hookproof"),
    ],
)
def test_where_the_cache_is(
    own: str, xdg: str, home: str, expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOOKPROOF_CACHE", own)
    monkeypatch.setenv("XDG_CACHE_HOME", xdg)
    monkeypatch.setenv("HOME", home)
    assert store.root() == Path(expected)


def test_a_cache_that_cannot_be_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("HOOKPROOF_CACHE", str(tmp_path / "file"))
    with pytest.raises(HostProblem, match="set HOOKPROOF_CACHE"):
        store.folder("images")


def test_an_entry_appears_whole(place: Path) -> None:
    with store.replacing(place) as new:
        (new / "a").write_text("1")
        assert not place.exists()
    assert names(place) == ["a"]
    with store.replacing(place) as new:
        (new / "b").write_text("2")
        assert names(place) == ["a"]
    assert names(place) == ["b"]
    assert names(place.parent) == ["entry"]


def half_written(place: Path) -> None:
    with store.replacing(place) as new:
        (new / "b").write_text("2")
        raise OSError(28, "No space left on device")


def test_a_failure_leaves_what_was_there(place: Path) -> None:
    with pytest.raises(OSError, match="No space"):
        half_written(place)
    assert names(place.parent) == []
    with store.replacing(place) as new:
        (new / "a").write_text("1")
    with pytest.raises(OSError, match="No space"):
        half_written(place)
    assert names(place) == ["a"]
    assert names(place.parent) == ["entry"]


def test_waits_for_another_process_and_says_so(place: Path) -> None:
    said: list[str] = []
    with spawn(HOLD, place) as other:
        assert other.stdin is not None
        assert other.stdout is not None
        assert other.stdout.readline() == "held\n"

        def say(line: str) -> None:
            said.append(line)
            other.stdin.close()  # type: ignore[union-attr]  # lets it finish

        with store.locked(store.lock_of(place), "6.12", say):
            assert names(place) == ["half"], "it had finished before we went on"
    assert said == [f"6.12: waiting for another process ({other.pid}) to finish it"]
    assert names(place.parent) == ["entry"]


def test_waits_not_for_ever(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store, "PATIENCE", 0.0)
    lock = store.lock_of(place)
    with (
        store.locked(lock, "6.12", silent),
        pytest.raises(FetchProblem, match="end that process and try again"),
        store.locked(lock, "6.12", silent),
    ):
        pytest.fail("two holders")


def test_one_at_a_time(place: Path) -> None:
    """Four processes take the lock, which is removed each time, 50 times each."""
    place.write_text("0")
    for child in [spawn(COUNT, place) for _ in range(4)]:
        child.communicate()
        assert child.returncode == 0
    assert place.read_text() == "200"
    assert names(place.parent) == ["entry"]


def test_a_lock_on_a_file_that_was_removed_meanwhile_is_none(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The holder removes the file between our open and our lock, and a third makes it anew."""
    lock = store.lock_of(place)
    flock = fcntl.flock
    made_anew = [True, False]

    def late(fd: int, operation: int) -> None:
        if made_anew:
            lock.unlink()
            if made_anew.pop():
                lock.touch()
        flock(fd, operation)

    monkeypatch.setattr(fcntl, "flock", late)
    with store.locked(lock, "6.12", silent):
        assert not made_anew, "it was tried three times"
        with lock.open() as other, pytest.raises(BlockingIOError):
            flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)


def test_removes_what_a_killed_process_left(place: Path) -> None:
    with spawn(HOLD, place) as other:
        assert other.stdout is not None
        other.stdout.readline()
        store.sweep()
        assert names(place.parent) == [".lock-entry", ".new-entry"], "it is still at work"
        other.kill()
    assert names(place.parent) == [".lock-entry", ".new-entry"]
    store.sweep()
    assert names(place.parent) == []


def test_removes_an_entry_unless_somebody_is_at_it(place: Path) -> None:
    place.mkdir()
    (place / "file").write_text("")
    with store.locked(store.lock_of(place), "x", silent):
        assert not store.remove(place)
    assert names(place) == ["file"]
    assert store.remove(place)
    assert names(place.parent) == []
    assert store.remove(place), "somebody else was faster"


def test_an_entry_that_cannot_be_removed(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place.mkdir()

    def refuse(_: Path, __: Path) -> Path:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(Path, "rename", refuse)
    with pytest.raises(HostProblem, match="cannot be removed: Operation not permitted"):
        store.remove(place)
    assert names(place.parent) == ["entry"]


# Manifests

NEEDED = ("boot/vmlinuz-1", "boot/config-1", "lib/modules/1/modules.dep")


@pytest.fixture
def entry(tmp_path: Path) -> Path:
    files = {
        "boot/vmlinuz-1": b"kernel",
        "boot/config-1": b"CONFIG_A=y\n",
        "lib/modules/1/modules.dep": b"kernel/a.ko:\n",
        "lib/modules/1/kernel/a.ko": b"module",
    }
    for path, data in files.items():
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_bytes(data)
    manifest.write(tmp_path, {path: manifest.digest(tmp_path / path) for path in files})
    assert manifest.full(tmp_path, NEEDED) == []
    return tmp_path


def test_the_manifest_is_one_of_sha256sum(entry: Path) -> None:
    argv = ["sha256sum", "--check", "--strict", "--quiet", manifest.NAME]
    subprocess.run(argv, cwd=entry, check=True)


@pytest.mark.parametrize("path", NEEDED)
def test_the_quick_check_reads_what_a_boot_stands_on(entry: Path, path: str) -> None:
    before = (entry / path).stat()
    (entry / path).write_bytes((entry / path).read_bytes()[:-1] + b"!")
    os.utime(entry / path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert manifest.quick(entry, NEEDED) == [f"{path}: SHA-256 differs"]
    (entry / path).unlink()
    assert manifest.quick(entry, NEEDED) == [f"{path}: No such file or directory"]


def test_the_quick_check_sees_changes_of_modules(entry: Path) -> None:
    module = entry / "lib/modules/1/kernel/a.ko"
    module.write_bytes(b"Module")
    assert manifest.quick(entry, NEEDED) == ["lib/modules/1/kernel/a.ko: SHA-256 differs"]
    module.write_bytes(b"")
    assert manifest.quick(entry, NEEDED) == ["lib/modules/1/kernel/a.ko: SHA-256 differs"]
    module.unlink()
    assert manifest.quick(entry, NEEDED) == ["lib/modules/1/kernel/a.ko: No such file or directory"]
    module.write_bytes(b"module")
    assert manifest.quick(entry, NEEDED) == [], "other time, same content"
    (entry / "lib/b.ko").write_bytes(b"")
    assert manifest.quick(entry, NEEDED) == ["lib/b.ko: does not belong there"]


def test_the_full_check_sees_what_the_quick_one_cannot_and_remembers(entry: Path) -> None:
    module = entry / "lib/modules/1/kernel/a.ko"
    before = module.stat()
    module.write_bytes(b"Module")
    os.utime(module, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert manifest.quick(entry, NEEDED) == []
    assert manifest.full(entry, NEEDED) == ["lib/modules/1/kernel/a.ko: SHA-256 differs"]
    assert manifest.quick(entry, NEEDED) == ["lib/modules/1/kernel/a.ko: SHA-256 differs"]


def test_a_copied_entry_is_good_after_one_slow_check(entry: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(entry, copy, copy_function=shutil.copyfile)
    stamp = copy / manifest.CHECKED
    before = stamp.read_text()
    assert manifest.quick(copy, NEEDED) == []
    assert stamp.read_text() != before


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (lambda text: text[:-30], "SHA256SUMS: the line"),
        (lambda text: "", "boot/vmlinuz-1: not in SHA256SUMS"),
        (lambda text: text.replace("0", "1", 1), ": SHA-256 differs"),
        (lambda text: text[text.index("\n") + 1 :], "not in SHA256SUMS"),
        (lambda text: "\0" * 99, "SHA256SUMS: the line"),
    ],
)
def test_a_damaged_manifest(entry: Path, change: object, problem: str) -> None:
    path = entry / manifest.NAME
    path.write_text(change(path.read_text()))  # type: ignore[operator]
    assert problem in manifest.quick(entry, NEEDED)[0]


def test_a_manifest_of_nothing_is_damaged(tmp_path: Path) -> None:
    """An entry without modules has nothing below lib that could be out of place."""
    (tmp_path / "lib").mkdir()
    (tmp_path / manifest.NAME).write_text("")
    for check in (manifest.quick, manifest.full):
        assert check(tmp_path, NEEDED[:1]) == ["boot/vmlinuz-1: not in SHA256SUMS"]


def test_no_manifest(entry: Path) -> None:
    (entry / manifest.NAME).unlink()
    assert manifest.quick(entry, NEEDED) == ["SHA256SUMS: No such file or directory"]
    assert manifest.full(entry / "none", NEEDED) == ["SHA256SUMS: No such file or directory"]
