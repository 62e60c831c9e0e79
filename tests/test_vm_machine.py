# SPDX-License-Identifier: Apache-2.0
"""Real machines: they answer, let nobody else in, reach nothing, and say why they died."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

import pytest

from hookproof.logs import Slice
from hookproof.service import executor
from vm import accel, catalog, images, rundir, ssh, store
from vm.default import default_catalog, default_lock
from vm.errors import BootFailure, GuestHang, LostMachine
from vm.kernel import Image
from vm.machine import Plan, VirtmeMachine
from vm.watch import Watch

pytestmark = pytest.mark.vm

ROOT = Path(__file__).resolve().parents[1]


def image(name: str) -> Image:
    (kernel,) = catalog.select(catalog.read(default_catalog()), [name])
    return images.ensure(kernel, lock=default_lock(), say=print)


def machine(name: str, *words: str) -> VirtmeMachine:
    found = image(name)
    plan = Plan(found, executor(), words)
    return VirtmeMachine(plan, accel.choose("auto"), Watch.load(found.release))


@pytest.fixture(scope="module", params=["5.10", "6.12", "7.3"])
def running(request: pytest.FixtureRequest) -> Iterator[VirtmeMachine]:
    with machine(request.param) as booted:
        yield booted


def run_in(booted: VirtmeMachine, script: str) -> object:
    call = {"argv": ["/bin/sh", "-c", script]}
    reply = booted.guest.request("step", deadline=120, verb="exec", calls=[call])
    return reply["results"][0]


def test_the_kernel_that_was_asked_for_answers(running: VirtmeMachine) -> None:
    reply = running.guest.request("hello", deadline=120)
    assert reply["release"] == running.plan.image.release
    assert reply["taint"] == 0


def test_its_log_begins_with_the_boot_and_is_clean(running: VirtmeMachine) -> None:
    log = Slice.of(running.guest.request("log", deadline=120))
    assert f"Linux version {running.plan.image.release}" in log.text
    assert log.wrong(Watch.load(running.plan.image.release), since=0) == ""
    assert Slice.of(running.guest.request("log", deadline=120)).text == ""


def test_each_record_comes_once(running: VirtmeMachine) -> None:
    running.guest.request("log", deadline=120)
    assert run_in(running, "echo '<4>marked by a test' >/dev/kmsg") == "ok"
    assert "marked by a test" in Slice.of(running.guest.request("log", deadline=120)).text


@pytest.mark.parametrize("place", ["/proc", "/sys", "/sys/fs/bpf", "/run", "/tmp"])  # noqa: S108
def test_what_the_guest_mounts_is_its_own(running: VirtmeMachine, place: str) -> None:
    assert run_in(running, f"grep -q ' {place} ' /proc/mounts") == "ok"


def test_the_hosts_root_cannot_be_written(running: VirtmeMachine) -> None:
    call = {"path": str(ROOT / "hookproof" / "left-by-a-guest"), "mode": 0o755}
    reply = running.guest.request("step", deadline=120, verb="mkdir", calls=[call])
    assert reply["results"] == ["EROFS"]


def test_the_guest_reaches_nothing_of_ours(running: VirtmeMachine) -> None:
    with ssh.free_port() as port, socket.socket() as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(("127.0.0.1", port))
        listener.listen()
        reach = f"import socket; socket.create_connection(('10.0.2.2', {port}), timeout=3)"
        script = f'{sys.executable} -I -S -c "{reach}" 2>/dev/null'
        assert run_in(running, script) == {"exit": 1}
        listener.settimeout(0)
        with pytest.raises(BlockingIOError):
            listener.accept()


def test_another_key_is_not_let_in(running: VirtmeMachine, tmp_path: Path) -> None:
    strangers = ssh.make_keys(tmp_path)
    known = running.transport.get_remote_server_key()
    port = running.transport.getpeername()[1]
    with pytest.raises(BootFailure, match="Authentication failed"):
        ssh.connect(port, ssh.Keys(client=strangers.client, host=known), deadline=120)
    with pytest.raises(BootFailure, match="host key that is not this guest's"):
        ssh.connect(port, strangers, deadline=120)


def test_ssh_leads_to_the_service_and_nowhere_else(running: VirtmeMachine) -> None:
    with pytest.raises(LostMachine, match="no connection to the guest's port 22"):
        ssh.channel(running.transport, 22, deadline=120)


def test_a_kernel_that_panics_at_boot_is_named_with_its_panic(made: list[Path]) -> None:
    with (
        pytest.raises(
            BootFailure, match=r"the kernel died while booting: .*Kernel panic"
        ) as caught,
        machine("6.12", "rdinit=/nonexistent"),
    ):
        pass
    assert "Kernel panic - not syncing: VFS: Unable to mount root fs" in caught.value.console
    assert [folder.exists() for folder in made] == [False]


def test_a_guest_that_says_nothing_is_a_hang_and_leaves_nothing(made: list[Path]) -> None:
    with machine("6.12") as booted:
        call = {"argv": ["/bin/sleep", "1000"]}
        with pytest.raises(GuestHang, match="no reply to 'step' within"):
            booted.guest.request("step", deadline=0.5, verb="exec", calls=[call])
    assert [folder.exists() for folder in made] == [False]


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """The folders of this process's machines; others may run beside them."""
    folders: list[Path] = []
    create = rundir.create

    @contextlib.contextmanager
    def noted() -> Iterator[Path]:
        with create() as folder:
            folders.append(folder)
            yield folder

    monkeypatch.setattr(rundir, "create", noted)
    return folders


#: Kind of machine, the line of progress to wait for, and what is in the argv of its QEMU.
MOMENTS = (
    ("virtme", "booting", "virtme"),
    ("virtme", "answered", "virtme"),
    ("snapshot", "guest root", "-kernel"),
    ("snapshot", "saved after", "-incoming"),
)


@pytest.mark.parametrize(("machine", "moment", "word"), MOMENTS)
def test_nothing_is_left_of_a_killed_pytest(
    tmp_path: Path, machine: str, moment: str, word: str
) -> None:
    image("6.12")
    cache = tmp_path / "cache"
    cache.mkdir()
    (cache / "images").symlink_to(store.root() / "images")
    scenarios = tmp_path / "scenarios"
    scenarios.mkdir()
    (scenarios / "slow.yaml").write_text(
        "about: It takes its time.\nsteps:\n  - exec: [/bin/sleep, '1000']\n", encoding="utf-8"
    )
    argv = [sys.executable, "-m", "pytest", str(scenarios), "--kernel", "6.12"]
    argv += ["--machine", machine, "-p", "hookproof.plugin", "-p", "no:cacheprovider"]
    argv += ["--rootdir", str(tmp_path), "--kernels", str(default_catalog())]
    environment = os.environ | {"HOOKPROOF_CACHE": str(cache)}
    with subprocess.Popen(
        argv,
        env=environment,
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as owner:
        assert owner.stdout is not None
        said = ""
        while moment not in said:
            line = owner.stdout.readline()
            assert line, f"pytest ended without '{moment}':\n{said}"
            said += line
        qemu = wait_for(lambda: qemu_of(cache, word), "a QEMU")
        owner.send_signal(signal.SIGKILL)
    wait_for(lambda: not list((cache / "run").iterdir()), "the folder to go")
    assert not Path(f"/proc/{qemu}").exists()
    # Nobody holds a lock either: the next command gets on.
    subprocess.run(
        [sys.executable, "-c", "from vm import rundir\nwith rundir.create(): pass"],
        env=environment,
        timeout=60,
        check=True,
    )


def qemu_of(cache: Path, word: str) -> int:
    """The process id of a machine of this cache with that word in its argv, or 0."""
    for path in (cache / "run").glob("*/qemu.pid"):
        with contextlib.suppress(OSError, ValueError):
            pid = int(path.read_text(encoding="ascii"))
            if word in Path(f"/proc/{pid}/cmdline").read_text(encoding="utf-8", errors="replace"):
                return pid
    return 0


T = TypeVar("T")


def wait_for(condition: Callable[[], T], what: str) -> T:
    end = time.monotonic() + 60
    while not (found := condition()):
        assert time.monotonic() < end, f"waited in vain for {what}"
        time.sleep(0.02)
    return found
