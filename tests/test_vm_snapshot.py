# SPDX-License-Identifier: Apache-2.0
"""Machines that are restored: alike, apart, with their own clock; and states that are made anew."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from hookproof.logs import Slice
from hookproof.service import executor, resident
from vm import accel, catalog, images, saved, store
from vm.default import default_catalog, default_lock
from vm.errors import BootFailure, HostProblem, LostMachine, UsageProblem
from vm.machine import Machine, Plan
from vm.snapshot import SnapshotMachine
from vm.virtme import Size
from vm.watch import Watch

pytestmark = pytest.mark.vm

KERNELS = ["5.10", "6.12", "7.3"]


def nothing(_machine: Machine) -> dict[str, Any]:
    return {"kept": ["with", "the state"]}


def machine(
    name: str,
    *words: str,
    prepare: Callable[[Machine], dict[str, Any]] = nothing,
    say: Callable[[str], None] = print,
    size: Size = Size(),  # noqa: B008  it is frozen
    once: bool = False,
) -> SnapshotMachine:
    (kernel,) = catalog.select(catalog.read(default_catalog()), [name])
    image = images.ensure(kernel, lock=default_lock(), say=print)
    plan = Plan(image, executor(), words, size)
    watch, calibration = Watch.load(image.release), accel.choose("auto")
    return SnapshotMachine(plan, resident(), calibration, watch, prepare, say, once=once)


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A cache of the tests' own, with the kernels and roots of the user's."""
    theirs, ours = store.folder(), tmp_path_factory.mktemp("cache")
    for part in ("images", "roots", "vmlinux"):
        (ours / part).symlink_to(store.folder(part))
    (ours / "acceleration.json").symlink_to(theirs / "acceleration.json")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HOOKPROOF_CACHE", str(ours))
        yield ours


@pytest.fixture(scope="module", params=KERNELS)
def kernel(request: pytest.FixtureRequest, cache: Path) -> str:
    """A kernel with a saved state."""
    machine(request.param).save()
    return str(request.param)


@pytest.fixture(scope="module")
def saved_kernel(cache: Path) -> str:
    """One of them, for what does not depend on the kernel."""
    machine("6.12").save()
    return "6.12"


def run_in(booted: Machine, script: str) -> object:
    call = {"argv": ["/bin/sh", "-c", script]}
    reply = booted.guest.request("step", deadline=120, verb="exec", calls=[call])
    return reply["results"][0]


def said_by(booted: Machine, script: str) -> str:
    """What a script prints: it goes by the kernel's log."""
    booted.guest.request("log", deadline=120)
    assert run_in(booted, f"({script}) | sed 's/^/said: /' >/dev/kmsg") == "ok"
    text = Slice.of(booted.guest.request("log", deadline=120)).text
    return "\n".join(line.partition("said: ")[2] for line in text.splitlines() if "said: " in line)


def no_boot(line: str) -> None:
    raise AssertionError(f"not restored at once: {line}")


def test_a_restored_machine_answers(kernel: str) -> None:
    with machine(kernel, say=no_boot) as restored:
        reply = restored.guest.request("hello", deadline=120)
        assert reply == {"id": 1, "release": restored.plan.image.release, "taint": 0}
        assert restored.facts == {"kept": ["with", "the state"]}
        assert restored.state.startswith(restored.plan.image.release)
        assert run_in(restored, "test -w /dev/vport0p1 && test $(nproc) = 2") == "ok"


#: The kernel mixes in what only this machine saw some seconds later; the first of these has
#: to come before that.
RANDOM = """
cat /proc/sys/kernel/random/uuid
head -c 32 /dev/urandom | od -An -tx1 | tr -d ' \n'; echo
/usr/bin/python3 -I -S -c 'import os, random; print(os.getrandom(32).hex(), random.random())'
grep stack /proc/self/maps | cut -d- -f1
"""


def test_no_two_have_the_same_random_numbers(kernel: str) -> None:
    said = []
    for _ in range(2):
        with machine(kernel) as restored:
            said.append(said_by(restored, RANDOM).splitlines())
    assert [len(lines) for lines in said] == [4, 4]
    assert not set(said[0]) & set(said[1])


def test_it_has_the_hosts_time(kernel: str, monkeypatch: pytest.MonkeyPatch) -> None:
    begin = time.time()
    with machine(kernel) as restored:
        now = float(said_by(restored, "date +%s"))
    assert begin - 1 <= now <= time.time() + 1
    later = time.time_ns() + 10**9 * 86400 * 400  # the state was made too lately to tell
    monkeypatch.setattr(time, "time_ns", lambda: later)
    with machine(kernel) as restored:
        now = float(said_by(restored, "date +%s"))
    assert later / 1e9 - 1 <= now <= later / 1e9 + 100


def test_a_panic_after_the_restore_is_seen(kernel: str) -> None:
    with machine(kernel) as restored:
        with pytest.raises(LostMachine):
            run_in(restored, "echo c >/proc/sysrq-trigger")
        assert restored.console.wait_ended(60)
        assert restored.console.fatal is not None
        assert "sysrq triggered crash" in restored.console.fatal.line.lower()
        assert "Kernel panic - not syncing" in restored.console.text


def test_none_changes_the_state_or_another(saved_kernel: str) -> None:
    with machine(saved_kernel) as one, machine(saved_kernel) as other:
        place = store.folder("saved") / one.state
        before = saved._digest(place / "ram")
        fill = "head -c 5000000 /dev/urandom >/tmp/fill && sync"
        assert run_in(one, fill) == run_in(other, f"! test -e /tmp/fill && {fill}") == "ok"
    assert saved._digest(place / "ram") == before
    with machine(saved_kernel, say=no_boot) as third:
        assert run_in(third, "! test -e /tmp/fill") == "ok"


def test_nothing_grows_from_one_to_the_next(saved_kernel: str) -> None:
    with machine(saved_kernel):
        pass
    before = holdings()
    for _ in range(int(os.environ.get("HOOKPROOF_TEST_RESTORES", "10"))):
        with machine(saved_kernel, say=no_boot) as restored:
            restored.guest.request("hello", deadline=120)
    assert holdings() == before


def holdings() -> tuple[object, ...]:
    """What this process holds: descriptors, threads, children, and folders of the cache."""
    children = Path(f"/proc/self/task/{os.getpid()}/children").read_text(encoding="ascii")
    files = sorted(
        str(path) for part in ("run", "saved") for path in (store.root() / part).rglob("*")
    )
    return len(list(Path("/proc/self/fd").iterdir())), threading.active_count(), children, files


def test_what_prepare_finds_wrong_is_not_saved(cache: Path) -> None:
    def refuse(booted: Machine) -> dict[str, Any]:
        assert booted.guest.request("hello", deadline=120)["taint"] == 0
        raise UsageProblem("not like this")

    refused = machine("6.12", "test=refused", prepare=refuse)
    with pytest.raises(UsageProblem, match="not like this"):
        refused.save()
    assert not list(store.folder("saved").glob(f"*{refused.state}*"))
    assert not list(store.folder("run").iterdir())


def test_a_disk_without_room_is_said_beforehand(cache: Path) -> None:
    with pytest.raises(
        HostProblem, match=r"6\.12: the machine's memory may take 1099511627776 MiB"
    ):
        machine("6.12", size=Size(memory=1 << 40)).save()


def test_a_kernel_that_panics_at_boot_is_named_with_its_panic(cache: Path) -> None:
    refused = machine("6.12", "rdinit=/nonexistent", "root=/dev/none")
    with pytest.raises(BootFailure, match=r"6\.12: the kernel died while booting: .*Kernel panic"):
        refused.save()
    assert not list(store.folder("saved").glob(f"*{refused.state}*"))


def test_a_machine_for_once_is_booted_and_leaves_nothing(cache: Path) -> None:
    used = machine("6.12", "quiet", once=True, prepare=lambda _: {"kept": ["for now"]})
    with used as booted:
        assert booted.booted
        assert booted.facts == {"kept": ["for now"]}
        assert run_in(booted, "grep -qw quiet /proc/cmdline") == "ok"
    assert not list(store.folder("saved").glob(f"*{used.state}*"))
    assert not list(store.folder("run").iterdir())


def test_a_machine_for_once_takes_a_state_that_is_there(saved_kernel: str) -> None:
    with machine(saved_kernel, say=no_boot, once=True) as restored:
        assert not restored.booted
        assert run_in(restored, "true") == "ok"


def test_a_damaged_state_is_made_again(saved_kernel: str) -> None:
    lines: list[str] = []
    wanted = machine(saved_kernel, say=lines.append)
    place = store.folder("saved") / wanted.state
    with (place / "ram").open("r+b") as ram:
        ram.seek(32 << 20)
        ram.write(b"damage")
    with wanted as restored:
        assert run_in(restored, "true") == "ok"
    assert "6.12: the saved state is damaged (ram was changed), making it again" in lines
    assert [line for line in lines if "saved after" in line]


def cut_state(place: Path) -> None:
    state = (place / "state").read_bytes()
    half = len(state) // 2
    (place / "state").write_bytes(state[:half] + bytes(len(state) - half))


def clear_ram(place: Path) -> None:
    size = (place / "ram").stat().st_size
    os.truncate(place / "ram", 0)
    os.truncate(place / "ram", size)


@pytest.mark.parametrize("ruin", [cut_state, clear_ram])
def test_a_whole_state_that_is_of_no_use_is_made_again(
    saved_kernel: str, ruin: Callable[[Path], None]
) -> None:
    lines: list[str] = []
    wanted = machine(saved_kernel, say=lines.append)
    place = store.folder("saved") / wanted.state
    ruin(place)
    record = json.loads((place / "facts.json").read_text(encoding="utf-8"))
    saved.describe(place, record["made of"], record["facts"])
    with wanted as restored:
        assert run_in(restored, "true") == "ok"
    assert [line for line in lines if "its saved state is made again" in line]
    assert [line for line in lines if "saved after" in line]


def test_of_two_that_need_a_state_one_makes_it(cache: Path) -> None:
    lines: list[str] = []
    both = [machine("6.12", "test=two", say=lines.append) for _ in range(2)]
    threads = [threading.Thread(target=each.save) for each in both]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len([line for line in lines if "saved after" in line]) == 1
    assert len([line for line in lines if "waiting for another process" in line]) == 1


def test_another_thread_can_close_it_while_it_boots(cache: Path) -> None:
    def close(booted: Machine) -> dict[str, Any]:
        threading.Thread(target=wanted.close).start()
        booted.guest.request("step", deadline=120, verb="exec", calls=[{"argv": ["sleep", "99"]}])
        return {}

    wanted = machine("6.12", "test=closed", prepare=close)
    with pytest.raises(LostMachine), wanted:
        pass
    assert not list(store.folder("saved").glob(f"*{wanted.state}*"))
    assert not list(store.folder("run").iterdir())
    with pytest.raises(LostMachine, match="closed"):
        wanted.__enter__()


KILLED = """
import sys
sys.path.insert(0, {top!r})
from tests.test_vm_snapshot import machine
def prepare(_booted):
    print("answered", flush=True)
    input()
machine("6.12", "test=killed", prepare=prepare).save()
"""


def test_nothing_half_written_is_used_after_a_kill(cache: Path) -> None:
    script = KILLED.format(top=str(Path(__file__).resolve().parents[1]))
    with subprocess.Popen(
        [sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as owner:
        assert owner.stdout is not None
        while "answered" not in (line := owner.stdout.readline()):
            assert line, "it ended"
        owner.send_signal(signal.SIGKILL)
    wanted = machine("6.12", "test=killed")  # which sweeps
    assert not list(store.folder("saved").glob(f"*{wanted.state}*"))
    end = time.monotonic() + 60
    while list(store.folder("run").iterdir()):
        assert time.monotonic() < end, "its guardian left something"
        time.sleep(0.02)
    wanted.save()
    with machine("6.12", "test=killed", say=no_boot) as restored:
        assert run_in(restored, "true") == "ok"
