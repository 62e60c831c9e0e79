# SPDX-License-Identifier: Apache-2.0
"""Can this host run a guest with KVM, and how fast is it?

A /dev/kvm that opens proves nothing: on nested hosts of the paravirtual kind it
creates a machine and then never runs it. So a payload of 43 bytes is booted, once
under software emulation and once under KVM, each with a deadline; it counts down
and tells QEMU through the isa-debug-exit device that it arrived. The time it took
is this host's unit, from which every deadline of the harness is derived.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import statistics
import struct
import subprocess
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from enum import Enum
from pathlib import Path
from typing import Final

from vm import run, store
from vm.errors import HostProblem

_LOAD: Final = 0x100000
_ARRIVED: Final = 42
#: isa-debug-exit makes QEMU leave with (value << 1) | 1.
_EXIT: Final = (_ARRIVED << 1) | 1
_COUNTDOWN: Final = 50_000_000
_QEMU: Final = "qemu-system-x86_64"
_TRIES: Final = 3
#: What the payload may take: thousands of times what a sound machine needs.
_GIVE_UP: Final = 20.0


class Accel(Enum):
    """How guests run on this host."""

    KVM = "kvm"
    TCG = "tcg"


@dataclass(frozen=True)
class Calibration:
    """What a boot of the payload told about this host.

    Attributes:
        accel: the accelerator to use.
        words: why, in one line.
        unit: median seconds from starting QEMU to the payload's arrival.
    """

    accel: Accel
    words: str
    unit: float

    def deadline(self, units: float, *, least: float) -> float:
        """Seconds for a wait that takes `units` payload boots, never below `least`."""
        return max(least, units * self.unit)


def payload() -> bytes:
    """A flat multiboot image (specification 0.6.96, 3.1) that counts down and arrives."""
    flags = 1 << 16  # the header itself says where to load and to start
    checksum = -(0x1BADB002 + flags) & 0xFFFFFFFF
    header = struct.pack("<8I", 0x1BADB002, flags, checksum, _LOAD, _LOAD, 0, 0, _LOAD + 32)
    code = (
        b"\xb9" + struct.pack("<I", _COUNTDOWN)  # mov ecx, countdown
        + b"\x49\x75\xfd"  # 1: dec ecx; jnz 1b
        + b"\xb0" + bytes([_ARRIVED])  # mov al, 42
        + b"\xe6\xf4"  # out 0xf4, al
        + b"\xf4\xeb\xfd"  # 2: hlt; jmp 2b
    )  # fmt: skip
    return header + code


@contextlib.contextmanager
def _payload_file() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="hookproof-") as folder:
        image = Path(folder) / "payload"
        image.write_bytes(payload())
        yield image


def _boot(image: Path, accel: Accel, give_up: float) -> tuple[float, str]:
    """Boots the payload once; the seconds it took and '' or why it did not arrive."""
    cpu = "host" if accel is Accel.KVM else "max"
    argv = [
        _QEMU, "-accel", accel.value, "-cpu", cpu, "-machine", "q35", "-m", "32M",
        "-nodefaults", "-net", "none", "-display", "none", "-no-reboot",
        "-device", "isa-debug-exit,iobase=0xf4,iosize=1", "-kernel", str(image),
    ]  # fmt: skip
    start = time.monotonic()
    try:
        done = subprocess.run(
            argv,
            env=run.environment(),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=give_up,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return give_up, f"a tiny payload did not arrive within {give_up:.1f} s"
    except FileNotFoundError:
        raise HostProblem(f"{_QEMU} is not installed", hint="run `hookproof doctor`") from None
    took = time.monotonic() - start
    if done.returncode == _EXIT:
        return took, ""
    last = done.stderr.decode(errors="replace").strip().splitlines()[-1:] or ["no message"]
    return took, f"a tiny payload did not boot: {last[0]}"


def _measure(image: Path, accel: Accel, give_up: float) -> tuple[float, str]:
    took = []
    for _ in range(_TRIES):
        seconds, wrong = _boot(image, accel, give_up)
        if wrong:
            return seconds, wrong
        took.append(seconds)
    return statistics.median(took), ""


def _try_kvm(image: Path, give_up: float) -> tuple[float, str]:
    device = Path("/dev/kvm")
    if not device.exists():
        return 0.0, "there is no /dev/kvm"
    if not os.access(device, os.R_OK | os.W_OK):
        return 0.0, "/dev/kvm may not be opened by this user (group kvm)"
    return _measure(image, Accel.KVM, give_up)


def _host_key() -> str:
    """What the verdict holds for: this boot of this host, this QEMU, this access to KVM."""
    qemu = shutil.which(_QEMU)
    if qemu is None:
        raise HostProblem(f"{_QEMU} is not installed", hint="run `hookproof doctor`")
    boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    state = Path(qemu).stat()
    kvm = os.access("/dev/kvm", os.R_OK | os.W_OK)
    return f"{boot} {qemu} {state.st_mtime_ns} {state.st_size} {kvm} {_COUNTDOWN}"


def _recall(note: Path, key: str) -> Calibration | None:
    try:
        raw = json.loads(note.read_text(encoding="utf-8"))
        if raw["key"] != key:
            return None
        return Calibration(Accel(raw["accel"]), str(raw["words"]), float(raw["unit"]))
    except (OSError, ValueError, KeyError, TypeError):
        return None  # absent or damaged: measured again


def _remember(note: Path, key: str, found: Calibration) -> None:
    text = json.dumps({"key": key, **asdict(found), "accel": found.accel.value})
    with tempfile.NamedTemporaryFile("w", dir=note.parent, delete=False, encoding="utf-8") as out:
        out.write(text)
    Path(out.name).replace(note)


def calibrate(*, refresh: bool = False) -> Calibration:
    """This host's accelerator and unit, measured once per boot of the host.

    Args:
        refresh: measure even if a verdict of this boot of the host is known.

    Raises:
        HostProblem: QEMU is missing, or does not even run the payload in software.
    """
    key, note = _host_key(), store.folder() / "acceleration.json"
    if not refresh and (known := _recall(note, key)) is not None:
        return known
    with _payload_file() as image:
        tcg, wrong = _measure(image, Accel.TCG, _GIVE_UP)
        if wrong:
            raise HostProblem(f"QEMU does not work here: {wrong}", hint="run `hookproof doctor`")
        # KVM is never slower than software emulation, unless it hangs.
        kvm, words = _try_kvm(image, give_up=max(2.0, 10 * tcg))
    if words:
        found = Calibration(Accel.TCG, f"no KVM: {words}", tcg)
    else:
        found = Calibration(Accel.KVM, "KVM boots a tiny payload", kvm)
    with contextlib.suppress(OSError):  # a note that can't be kept costs a second, not the run
        _remember(note, key, found)
    return found


def choose(wish: str) -> Calibration:
    """The calibration to use for `--accel auto|kvm|tcg`.

    Raises:
        HostProblem: KVM was asked for and does not work.
    """
    found = calibrate()
    if wish == "kvm" and found.accel is not Accel.KVM:
        raise HostProblem(f"--accel kvm: {found.words}", hint="use --accel tcg or auto")
    if wish == "tcg" and found.accel is Accel.KVM:
        with _payload_file() as image:
            unit, wrong = _measure(image, Accel.TCG, _GIVE_UP)
        if wrong:
            raise HostProblem(f"--accel tcg: {wrong}", hint="run `hookproof doctor`")
        return Calibration(Accel.TCG, "asked for", unit)
    return found
