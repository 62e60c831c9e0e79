# SPDX-License-Identifier: Apache-2.0
"""A machine: boots a kernel, answers as a guest, is gone at the end of its block.

The interface is small on purpose: a later kind (restored from a snapshot, or a host
elsewhere) is another class with `guest`, `console` and the context manager's two ends.
"""

from __future__ import annotations

import contextlib
import shlex
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Protocol

from vm import kmodules, run, rundir, ssh, virtme
from vm.accel import Calibration
from vm.console import Console
from vm.errors import BootFailure, GuestHang, GuestPanic, HostProblem, LostMachine
from vm.guest import Guest
from vm.kernel import Image
from vm.qemu import Qemu
from vm.virtme import Size
from vm.watch import Watch

if TYPE_CHECKING:
    import paramiko

#: Deadlines in units of a payload's boot (vm/accel.py), with the least seconds. A boot
#: takes about 40 units and an ssh handshake 5, on an idle host.
_BOOT: Final = (400.0, 30.0)
_ANSWER: Final = (100.0, 15.0)

#: Modules of the guest's one network card; the rest of virtio comes with the initramfs.
_MODULES: Final = ("virtio_net",)
#: Folders that a tmpfs hides in the guest (vm/init.sh).
_HIDDEN: Final = (Path("/tmp"), Path("/var/tmp"))  # noqa: S108  the guest's, not ours
#: Folders with file systems of the guest's own, from which nothing can be kept.
_MASKED: Final = (Path("/run"), Path("/dev"), Path("/proc"), Path("/sys"))
_LISTENING: Final = "Server listening on"


@dataclass(frozen=True)
class Service:
    """The program that answers in the guest.

    Attributes:
        argv: started by the guest's init; paths are the host's, as the guest shares its root.
        port: the TCP port on the guest's loopback on which it takes one connection at a time.
        ready: what it prints once it listens there.
        folders: paths it needs, so that none of them is hidden in the guest.
        workdir: where it starts.
    """

    argv: tuple[str, ...]
    port: int
    ready: str
    folders: tuple[Path, ...] = ()
    workdir: Path = Path("/")


@dataclass(frozen=True)
class Plan:
    """All that decides what a boot will be.

    Attributes:
        image: the kernel.
        words: further words for its command line, beyond those of kernels.txt.
        service: what answers in the guest.
        size: memory and CPUs.
    """

    image: Image
    service: Service
    words: tuple[str, ...] = ()
    size: Size = field(default_factory=Size)

    @property
    def cmdline(self) -> tuple[str, ...]:
        """Every word that is added to the kernel's command line."""
        return (*self.image.kernel.cmdline, *self.words)


class Machine(Protocol):
    """What every kind of machine offers once its block is entered."""

    plan: Plan

    @property
    def guest(self) -> Guest:
        """The guest's service, connected."""

    @property
    def console(self) -> Console:
        """What the guest's serial line said."""

    @property
    def state(self) -> str:
        """The key of the saved state for such machines; empty if they boot."""

    @property
    def booted(self) -> bool:
        """Whether this one was booted itself; known once the block is entered."""

    @property
    def facts(self) -> Mapping[str, Any]:
        """What was kept with the saved state; known once the block is entered."""

    def __enter__(self) -> Machine: ...

    def __exit__(self, *exc: object) -> None: ...

    def save(self) -> None:
        """Makes sure of the saved state; nothing to do for a machine that boots.

        Raises:
            Problem: the boot failed, or the state could not be saved.
        """

    def close(self) -> None:
        """Ends the block; another thread may call it, also while the machine starts."""


class VirtmeMachine:
    """A machine on the host's own root file system, shared read-only, as virtme-ng boots it.

    Entering the block boots and connects; leaving it kills and removes everything.

    Args:
        plan: what to boot.
        calibration: how to run it, and this host's speed.
        watch: the patterns that tell a dying kernel.
    """

    def __init__(self, plan: Plan, calibration: Calibration, watch: Watch) -> None:
        self.plan = plan
        self._calibration = calibration
        self._console = Console(watch)
        self._stack = contextlib.ExitStack()
        self._closing = threading.RLock()
        self._transport: paramiko.Transport | None = None
        self._guest: Guest | None = None
        self._qemu: Qemu | None = None

    @property
    def guest(self) -> Guest:
        """The guest's service, connected."""
        if self._guest is None:
            raise LostMachine("the machine has not been started")
        return self._guest

    @property
    def console(self) -> Console:
        """What the guest's serial line said."""
        return self._console

    @property
    def state(self) -> str:
        """None: it boots."""
        return ""

    @property
    def booted(self) -> bool:
        """Always."""
        return True

    @property
    def facts(self) -> Mapping[str, Any]:
        """None."""
        return {}

    @property
    def transport(self) -> paramiko.Transport:
        """The ssh connection, for whoever wants a shell beside the service."""
        if self._transport is None:
            raise LostMachine("the machine has not been started")
        return self._transport

    def __enter__(self) -> VirtmeMachine:
        try:
            self._start()
        except OSError as error:
            self._stack.close()
            what = f"cannot prepare a machine: {error.strerror}"
            where = str(error.filename or "")
            raise HostProblem(what, where=where, hint="set HOOKPROOF_CACHE") from None
        except BaseException:
            self._stack.close()
            raise
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def save(self) -> None:
        """Nothing: it boots."""

    def close(self) -> None:
        """Stops the machine; another thread may call it, also while it boots.

        Of two that do, each returns when nothing is left.
        """
        with self._closing:
            self._stack.close()

    def _start(self) -> None:
        virtme.require(self.plan.image)
        folder = self._stack.enter_context(rundir.create())
        keys = ssh.make_keys(folder)
        with ssh.free_port() as port:
            argv = self._prepare(folder, port)
            self._qemu = self._stack.enter_context(Qemu(argv, folder, self._console))
            try:
                self._connect(port, keys)
            except (BootFailure, GuestHang, GuestPanic, LostMachine) as error:
                raise self._explained(error) from None

    def _connect(self, port: int, keys: ssh.Keys) -> None:
        boot = self._seconds(_BOOT)
        self._console.wait_for(_LISTENING, deadline=boot, what="sshd in the guest")
        answer = self._seconds(_ANSWER)
        self._transport = ssh.connect(port, keys, deadline=answer)
        self._stack.callback(self._transport.close)
        # The service has been loading all the while, on the guest's other processor.
        service = self.plan.service
        self._console.wait_for(service.ready, deadline=boot, what="service in the guest")
        stream = ssh.channel(self._transport, service.port, deadline=answer)
        self._guest = Guest(stream)
        self._stack.callback(self._guest.close)
        self._guest.request("hello", deadline=answer)

    def _seconds(self, deadline: tuple[float, float]) -> float:
        return self._calibration.deadline(deadline[0], least=deadline[1])

    def _explained(self, error: Exception) -> BootFailure:
        """Why the boot failed, by the best witness: the kernel, QEMU, the console's end."""
        name = self.plan.image.kernel.name
        fatal, text = self._console.fatal, self._console.text
        words = self._qemu.words.splitlines() if self._qemu else []
        said = [line.strip() for line in text.splitlines() if line.strip()]
        if fatal is not None:
            what = f"the kernel died while booting: {fatal.line}"
        elif words and self._console.ended:
            what = f"QEMU ended: {words[-1]}"
        elif said:
            what = f"{error}, the console's last line is: {said[-1]}"
        else:
            what = f"{error}, the console is empty"
        return BootFailure(f"{name}: {what}", console=text)

    def _prepare(self, folder: Path, port: int) -> list[str]:
        """Writes init and sshd's configuration into the run's folder; QEMU's command."""
        plan, service = self.plan, self.plan.service
        keep = [
            folder,
            *service.folders,
            *([plan.image.modules.resolve()] if plan.image.modules else []),
        ]
        init = folder / "init"
        _fill(
            "init.sh",
            init,
            BUSYBOX=run.find("busybox"),
            KEEP=_quoted(_hidden(keep)),
            WORKDIR=shlex.quote(str(service.workdir)),
            SERVICE=shlex.join(service.argv),
            MODULES=_quoted(kmodules.files(plan.image, _MODULES, needed=_MODULES)),
            RUNDIR=shlex.quote(str(folder)),
            SSHD=run.find("sshd"),
        )
        init.chmod(0o700)
        _fill("fstab", folder / "fstab")
        (folder / "shadow").write_text("root:*:19000:0:99999:7:::\n", encoding="ascii")
        _fill("sshd_config", folder / "sshd_config", RUNDIR=str(folder), PORT=str(service.port))
        return virtme.command(
            plan.image,
            size=plan.size,
            accel=self._calibration.accel,
            init=init,
            port=port,
            folder=folder,
            words=plan.cmdline,
        )


def _fill(template: str, place: Path, **words: str) -> None:
    """Writes a template of this folder with its @WORDS@ put in."""
    text = Path(__file__).with_name(template).read_text(encoding="utf-8")
    for word, value in words.items():
        text = text.replace(f"@{word}@", value)
    place.write_text(text, encoding="utf-8")


def _quoted(paths: Sequence[Path | str]) -> str:
    return " ".join(shlex.quote(str(path)) for path in paths)


def _hidden(paths: Sequence[Path]) -> list[Path]:
    """Those of the paths that the guest would lose, outermost first and each once."""
    found: list[Path] = []
    for path in sorted({path.absolute() for path in paths}):
        for top in _MASKED:
            if path.is_relative_to(top):
                raise HostProblem(f"{path} is below {top}, which a guest can't see", hint="move it")
        # The folder itself as a working folder is the guest's own.
        below = any(path != each and path.is_relative_to(each) for each in _HIDDEN)
        if below and path != path.resolve():
            raise HostProblem(f"{path} is a symbolic link, lost in a guest", hint="use its target")
        if below and not any(path.is_relative_to(each) for each in found):
            found.append(path)
    return found
