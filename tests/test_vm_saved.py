# SPDX-License-Identifier: Apache-2.0
"""The cache of saved machines: what is damaged is noticed, what is used stays, the rest fits."""

from __future__ import annotations

import fcntl
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from vm import saved, store
from vm.errors import UsageProblem

MADE_OF = {"kernel": "6.12", "words": ["panic=-1"]}
MIB = 1 << 20


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HOOKPROOF_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def make(number: int = 0, mib: int = 1) -> Path:
    """A state like a machine's: sparse RAM with something at both ends."""
    place = saved.place("6.12", {**MADE_OF, "number": number})
    with store.replacing(place) as new:
        with (new / "ram").open("wb") as ram:
            ram.write(b"begin" * 1000)
            ram.truncate(64 * MIB)
            ram.seek(-mib * MIB, os.SEEK_END)
            ram.write(b"\1" * (mib * MIB))
        (new / "state").write_bytes(b"device state" * 1000)
        saved.describe(new, MADE_OF, {"taint": 3})
    return place


def facts(place: Path) -> Any:
    with saved.using(place) as state:
        return state.facts


def refusal(place: Path) -> str:
    with pytest.raises(saved.Unusable) as caught, saved.using(place):
        pass
    return str(caught.value)


def test_what_was_saved_is_found(cache: Path) -> None:
    with saved.using(make()) as state:
        assert state.facts == {"taint": 3}
        assert state.ram.read_bytes().startswith(b"begin")
        assert state.device_state.read_bytes().startswith(b"device state")


@pytest.mark.parametrize(
    "other",
    [{"kernel": "6.13", "words": ["panic=-1"]}, {"kernel": "6.12", "words": []}, {}],
)
def test_every_ingredient_counts(cache: Path, other: dict[str, Any]) -> None:
    assert saved.place("6.12", other) != saved.place("6.12", MADE_OF)
    assert saved.place("6.12", dict(reversed(MADE_OF.items()))) == saved.place("6.12", MADE_OF)


def test_its_ingredients_can_be_read(cache: Path) -> None:
    record = json.loads((make() / "facts.json").read_text(encoding="utf-8"))
    assert record["made of"] == MADE_OF


def test_there_is_none(cache: Path) -> None:
    assert refusal(saved.place("6.12", MADE_OF)) == ""


def flip(path: Path, at: int = 3) -> None:
    with path.open("r+b") as file:
        file.seek(at)
        byte = file.read(1)
        file.seek(at)
        file.write(bytes([byte[0] ^ 1]))


def unset(path: Path, name: str) -> None:
    record = json.loads(path.read_text(encoding="utf-8"))
    record.pop(name)
    path.write_text(json.dumps(record), encoding="utf-8")


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (lambda place: flip(place / "ram"), "ram was changed"),
        (lambda place: flip(place / "ram", 30 * MIB), "ram was changed"),
        (lambda place: flip(place / "state"), "state was changed"),
        (lambda place: os.truncate(place / "ram", 65 * MIB), "ram was changed"),
        (lambda place: (place / "state").unlink(), "No such file"),
        (lambda place: (place / "facts.json").write_text("{"), "facts.json is not whole"),
        (lambda place: unset(place / "facts.json", "sha256"), "facts.json is not whole"),
        (lambda place: (place / "facts.json").unlink(), "facts.json: No such file"),
    ],
)
def test_damage_is_noticed(cache: Path, damage: Callable[[Path], object], reason: str) -> None:
    place = make()
    facts(place)
    damage(place)
    assert reason in refusal(place)
    assert facts(make()) == {"taint": 3}  # it can be made again at its place


def test_a_file_that_was_only_copied_is_good_and_read_once(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = make()
    os.utime(place / "ram", (1, 1))
    assert facts(place) == {"taint": 3}
    monkeypatch.setattr(saved, "_digest", None)  # to call it would be an error
    assert facts(place) == {"taint": 3}


def test_all_is_read_again_after_the_host_has_booted(cache: Path) -> None:
    place = make()
    stat = (place / "ram").stat()
    flip(place / "ram")  # as a host that crashed before all was written leaves it
    os.utime(place / "ram", ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert facts(place) == {"taint": 3}
    note = json.loads((place / "checked").read_text(encoding="utf-8"))
    (place / "checked").write_text(json.dumps(["another boot", *note[1:]]), encoding="utf-8")
    assert refusal(place) == "ram was changed"


def test_holes_count_as_zeros(cache: Path, tmp_path: Path) -> None:
    sparse, dense, longer = (tmp_path / name for name in ("sparse", "dense", "longer"))
    for path, end in ((sparse, 4 * MIB), (longer, 4 * MIB + 1)):
        with path.open("wb") as file:
            file.write(b"x")
            file.truncate(end)
    dense.write_bytes(b"x" + bytes(4 * MIB - 1))
    assert dense.stat().st_blocks > sparse.stat().st_blocks
    digests = [saved._digest(path) for path in (sparse, dense, longer)]
    assert digests[0] == digests[1] != digests[2]


def test_the_longest_unused_go_first(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    places = [make(number, mib=8) for number in range(4)]
    for age, place in enumerate(reversed(places)):
        os.utime(place, (time.time() - 100 - age,) * 2)
    facts(places[0])  # the oldest is used
    said: list[str] = []
    monkeypatch.setenv(saved.LIMIT, str(20 / 1024))
    saved.trim(places[3], said.append)
    assert [place.exists() for place in places] == [True, False, False, True]
    assert [line.split(":")[0] for line in said] == [places[1].name, places[2].name]


def test_one_in_use_stays_and_so_does_the_newest(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    used, unused, new = (make(number) for number in range(3))
    monkeypatch.setenv(saved.LIMIT, "0")
    with saved.using(used) as state:
        saved.trim(new, print)
        assert [place.exists() for place in (used, unused, new)] == [True, False, True]
        assert state.ram.exists()
    saved.trim(new, print)
    assert not used.exists()


def test_one_that_another_process_uses_stays(cache: Path) -> None:
    place = make()
    script = (
        "import sys\nfrom pathlib import Path\nfrom vm import saved\n"
        "with saved.using(Path(sys.argv[1])):\n print('using', flush=True)\n sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", script, str(place)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as user:
        assert user.stdout is not None
        assert user.stdin is not None
        assert user.stdout.readline() == b"using\n"
        saved.discard(place)
        assert place.exists()
        user.stdin.close()
        user.wait(timeout=20)
    saved.discard(place)
    assert not place.exists()


def test_who_waits_for_a_state_that_is_being_removed_finds_none(cache: Path) -> None:
    place = make()
    handle = os.open(place, os.O_RDONLY)
    fcntl.flock(handle, fcntl.LOCK_EX)
    with subprocess.Popen(
        [sys.executable, "-c", WAITER, str(place)], stdout=subprocess.PIPE, text=True
    ) as waiter:
        assert waiter.stdout is not None
        wait_until_locked(waiter.pid)
        assert store.remove(place)
        os.close(handle)
        assert waiter.stdout.read() == "none\n"


WAITER = """
import sys
from pathlib import Path
from vm import saved
try:
    with saved.using(Path(sys.argv[1])):
        print("found")
except saved.Unusable as why:
    print(str(why) or "none")
"""


def wait_until_locked(pid: int) -> None:
    """Until the process waits for a lock (proc(5): /proc/locks, "->" stands for waiting)."""
    end = time.monotonic() + 20
    while not any(
        "->" in line and f" {pid} " in line
        for line in Path("/proc/locks").read_text(encoding="ascii").splitlines()
    ):
        assert time.monotonic() < end, "it never asked for the lock"
        time.sleep(0.01)


@pytest.mark.parametrize("text", ["much", "-1", "nan"])
def test_a_limit_that_is_none(cache: Path, monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.setenv(saved.LIMIT, text)
    with pytest.raises(UsageProblem, match=f"HOOKPROOF_CACHE_LIMIT={text} is no number of GiB"):
        saved.limit()


def test_the_limit_is_in_gib(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(saved.LIMIT, "0.5")
    assert saved.limit() == 512 * MIB
    monkeypatch.delenv(saved.LIMIT)
    assert saved.limit() == 8 << 30


def test_what_a_killed_process_left_is_swept(cache: Path) -> None:
    place = make()
    half = place.with_name(f".new-{place.name}")
    half.mkdir()
    (half / "ram").write_bytes(b"half")
    with store.locked(store.lock_of(place), "a state", print):
        store.sweep()
        assert half.exists()  # somebody is at it
    store.sweep()
    assert not half.exists()
    assert facts(place) == {"taint": 3}
