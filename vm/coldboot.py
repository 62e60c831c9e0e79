# SPDX-License-Identifier: Apache-2.0
"""The one boot that a saved state is made from: what goes into it, and QEMU's arguments."""

from __future__ import annotations

import functools
import hashlib
import io
import shutil
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from vm import guestroot, kmodules, newc, portmachine, run, virtme, vmlinux
from vm.accel import Accel
from vm.guestroot import Contents, GuestRoot
from vm.machine import Plan

#: The guest's init reads the service's command from there, a word a line.
_SERVICE: Final = "/etc/hookproof/service"
#: Words for a quicker boot of the same kernel → what they leave out.
_QUICKER: Final = {
    "cryptomgr.notests": "the kernel's tests of its ciphers, a second under software emulation",
    "damon_stat.enabled=0": "a thread that samples accesses to memory, a sixth of a restore",
    "initcall_blacklist=jent_mod_init": "random numbers from the clock's jitter, a tenth of a boot",
}
#: Words under software emulation → why.
_EMULATED: Final = {
    "tsc=reliable": "timer interrupts come late on a busy host, for which kernels blame the "
    "processor's counter: without it each look at the clock is a look at a slow device"
}

Say = Callable[[str], None]


@dataclass(frozen=True)
class Resident:
    """What answers in the guest, on the device `PORT`.

    Attributes:
        argv: the service's command; paths are the guest's, no word holds a line's end.
        contents: what the guest's root has.
    """

    argv: tuple[str, ...]
    contents: Contents


@dataclass(frozen=True)
class ColdBoot:
    """A boot of a plan's kernel on a root of our own, up to a waiting service.

    Attributes:
        plan: kernel, words, size.
        resident: what answers.
        accel: how it runs.
    """

    plan: Plan
    resident: Resident
    accel: Accel

    def ingredients(self, say: Say) -> dict[str, Any]:
        """All that decides what the machine is like, as JSON values.

        Raises:
            HostProblem: something is not installed, or the guest's root cannot be made.
        """
        qemu = Path(run.find(portmachine.PROGRAM))
        stat = qemu.stat()
        return {
            "kernel": self.plan.image.release,
            "image": self.plan.image.digest,
            "modules": list(kmodules.MODULES),
            "root": _root(self.resident.contents, say).digest,
            "service": self.resident.argv,
            "hardware": portmachine.hardware(self.plan.size, self.accel),
            "words": self._words(),
            # Another one, or another version of it, has other devices.
            "qemu": [str(qemu), stat.st_size, stat.st_mtime_ns],
            "processor": _processor(),
        }

    def start(self, folder: Path, say: Say) -> list[str]:
        """Writes the initramfs into a folder; QEMU's arguments to boot it.

        Raises:
            OSError: from the file system.
            Problem: modules or root cannot be had.
        """
        initrd = folder / "initrd"
        own = io.BytesIO()
        newc.write([newc.file(_SERVICE, "\n".join(self.resident.argv).encode())], own)
        with _root(self.resident.contents, say).path.open("rb") as root, initrd.open("wb") as out:
            shutil.copyfileobj(root, out, 1 << 20)
            for archive in (kmodules.archive(self.plan.image), own.getvalue()):
                out.write(bytes(-out.tell() % 4))  # where the kernel looks for another archive
                out.write(archive)
        return [
            "-kernel", str(vmlinux.bootable(self.plan.image, say)), "-initrd", str(initrd),
            "-append", " ".join(self._words()),
        ]  # fmt: skip

    def _words(self) -> list[str]:
        emulated = _EMULATED if self.accel is Accel.TCG else ()
        return [*virtme.CONSOLE_WORDS, *_QUICKER, *emulated, *self.plan.cmdline]


_making: Final = threading.Lock()


def _root(contents: Contents, say: Say) -> GuestRoot:
    """The root as it was when this process first asked: looking again takes 0.1 s."""
    with _making:
        root = _first_root(contents, say)
        if not root.path.exists():  # unused for long, and another process made room
            _first_root.cache_clear()
            root = _first_root(contents, say)
        return root


@functools.cache
def _first_root(contents: Contents, say: Say) -> GuestRoot:
    return guestroot.ensure(contents, say)


@functools.cache
def _processor() -> str:
    """The host's processor: its counter's speed, and with KVM its features, are the guest's."""
    text = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    first = text.split("\n\n", 1)[0].splitlines()
    told = {name.strip(): value.strip() for name, _, value in (x.partition(":") for x in first)}
    features = hashlib.sha256(told.get("flags", "").encode()).hexdigest()[:16]
    return f"{told.get('model name', 'unknown')}, features {features}"
