# SPDX-License-Identifier: Apache-2.0
"""The QEMU command line of a boot, as virtme-run would run it, with our ends.

virtme-ng has no programming interface, but `virtme-run --dry-run --show-command`
prints what it would start. We take kernel, modules, initramfs, root file system and
devices from there, and put in our own console, network, init and accelerator.
"""

from __future__ import annotations

import shlex
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from vm import kconfig, run
from vm.accel import Accel
from vm.errors import HostProblem, UsageProblem
from vm.kernel import DebianSource, Image

#: With 5-level page tables under software emulation 5.10 hangs while it decompresses
#: (QEMU 7.2, seen in each of four boots). A kernel that is told of quick string instructions
#: copies and clears memory by `rep movsb` and `rep stosb`, which are emulated byte by byte:
#: without them it takes eight bytes at a time, and boots in four fifths of the time.
CPU: Final = {Accel.TCG: "max,la57=off,erms=off,fsrm=off", Accel.KVM: "host"}
#: One thread for all virtual CPUs. With a thread each, QEMU before 8.1 can run code that the
#: kernel has just patched away ("Oops: int3" about once in fifty boots on a busy host; its
#: issue 1696, mended by "accel/tcg: Always lock pages before translation"), and on a host with
#: no spare cores a boot takes twice as long, as virtual CPUs spin for each other's locks.
ACCEL: Final = {Accel.TCG: "tcg,thread=single", Accel.KVM: "kvm"}

#: What the guest's root and the way in to the guest stand on, built in or as modules.
_NEEDS: Final = ("CONFIG_9P_FS", "CONFIG_NET_9P_VIRTIO", "CONFIG_VIRTIO_NET", "CONFIG_VIRTIO_PCI")

#: Options of virtme-run's interactive mode that connect the guest to its own terminal.
#: (option, a text in its value, why it goes)
_TERMINAL: Final = (
    ("-echr", "1", "no escape character: there is no terminal"),
    ("-chardev", "id=dmesg", "the kernel's log comes through the serial console"),
    ("-device", "virtconsole", "the same"),
    ("-chardev", "id=console", "the console is a pipe of ours"),
    ("-mon", "chardev=console", "no monitor on the console"),
    ("-machine", "", "with the accelerator, see below"),
    ("-cpu", "", "the same"),
    ("-netdev", "user,id=n0", "with its one way in, see below"),
)

#: Words of virtme-run's kernel command line that are replaced.
_WORDS: Final = ("init=", "console=", "virtme_console=", "quiet", "loglevel=", "TERM=")

#: The words that replace them. Warnings and worse reach the console, which is all that is
#: left of a guest that died; the whole log is read in the guest from /dev/kmsg.
CONSOLE_WORDS: Final = (
    "console=ttyS0",
    "earlyprintk=serial,ttyS0,115200",
    "loglevel=5",
    "panic=-1",
)


@dataclass(frozen=True)
class Size:
    """What a guest is given.

    Attributes:
        memory: MiB of RAM.
        cpus: virtual CPUs.
    """

    memory: int = 1024
    cpus: int = 2


def program() -> Path:
    """virtme-run, beside the Python that runs us."""
    found = Path(sys.prefix) / "bin" / "virtme-run"
    if not found.exists():
        raise HostProblem(
            "virtme-run is not installed", hint=f"{sys.executable} -m pip install virtme-ng"
        )
    return found


def lack(image: Image) -> str:
    """What of an image speaks against a boot with the host's root, in one line, or ''.

    The kernel's configuration decides. Where there is none, Debian's kernels are known to
    have 9p as a module, and any other may be tried.
    """
    options = kconfig.read(image.config)
    if options is None:
        lost = image.modules is None and isinstance(image.kernel.source, DebianSource)
        return "it has no modules here, and 9p is one of them" if lost else ""
    good = {"y", "m"} if image.modules else {"y"}
    missing = [
        f"{name}={options.get(name, 'n')}" for name in _NEEDS if options.get(name) not in good
    ]
    if not missing:
        return ""
    return f"it has {', '.join(missing)}" + ("" if image.modules else " and no modules here")


def require(image: Image) -> None:
    """Refuses an image that cannot boot with the host's root.

    Raises:
        UsageProblem: `lack` says why.
    """
    why = lack(image)
    if why:
        raise UsageProblem(
            f"kernel '{image.kernel.name}' cannot have this host's root: {why}",
            where=image.kernel.where,
            hint="use --machine snapshot",
        )


def command(
    image: Image,
    *,
    size: Size,
    accel: Accel,
    init: Path,
    port: int,
    folder: Path,
    words: Sequence[str] = (),
) -> list[str]:
    """QEMU's arguments for booting an image with the host's root and our init.

    Args:
        image: the kernel.
        size: memory and CPUs.
        accel: how to run it.
        init: the guest's PID 1, a path that the guest's root shows.
        port: TCP port on 127.0.0.1 that leads to the guest's port 22.
        folder: where the initramfs is written; must not hold one yet.
        words: further words for the kernel's command line.

    Raises:
        HostProblem: virtme-run failed, or its command line is not as we know it.
    """
    modules = "auto" if image.modules else "none"
    said = run.run(
        [
            program(), "--kimg", image.vmlinuz, "--mods", modules,
            "--disable-kvm", "--disable-microvm", "--force-9p",
            "--memory", f"{size.memory}M", "--cpus", str(size.cpus),
            "--net", "user", "--no-dhcp",
            # Also for a kernel that has all built in, which could do without.
            "--force-initramfs",
            "--dry-run", "--show-command", "--save-initramfs", folder / "initramfs",
        ],
        timeout=120,
        env={"TMPDIR": str(folder)},
        what=f"virtme-run cannot start {image.release}",
    ).stdout  # fmt: skip
    lines = [line for line in said.splitlines() if "-kernel" in line]
    if len(lines) != 1:
        raise HostProblem("virtme-run printed no QEMU command", hint="is virtme-ng damaged?")
    argv = shlex.split(lines[0])
    for option, text, why in _TERMINAL:
        _drop(argv, option, text, why)
    at = argv.index("-append") + 1
    theirs = [word for word in argv[at].split() if not word.startswith(_WORDS)]
    argv[at] = " ".join([*theirs, *CONSOLE_WORDS, *words, f"init={init}"])
    return [
        *argv,
        # fd 1 is the pipe of the console, fd 2 that of QEMU's own words (vm/qemu.py).
        "-chardev", "file,id=console,path=/proc/self/fd/1",
        "-netdev", f"user,id=n0,restrict=on,hostfwd=tcp:127.0.0.1:{port}-:22",
        "-machine", "q35", "-accel", ACCEL[accel], "-cpu", CPU[accel],
        "-no-reboot", "-nodefaults",
    ]  # fmt: skip


def _drop(argv: list[str], option: str, text: str, why: str) -> None:
    for at, word in enumerate(argv[:-1]):
        if word == option and text in argv[at + 1]:
            del argv[at : at + 2]
            return
    raise HostProblem(
        f"virtme-run's command has no {option} {text} (to be replaced: {why})",
        hint="a version of virtme-ng that we do not know; see pyproject.toml for the range",
    )
