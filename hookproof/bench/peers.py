# SPDX-License-Identifier: Apache-2.0
"""virtme-run and vng, as their users call them, with our size and processor."""

from __future__ import annotations

import os
import shlex
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from hookproof.bench import process
from hookproof.bench.process import Finished
from hookproof.bench.spread import Cost
from vm import virtme
from vm.accel import Accel
from vm.errors import HostProblem
from vm.kernel import Image
from vm.virtme import Size

#: Their exit status 255 is a script's own as well as "nothing ran"; a text tells.
_DONE: Final = "hookproof-bench-done"
#: Seconds after which one is taken for dead.
_DEAD: Final = 600.0
#: How often one that died before its script's end is started again.
_AGAIN: Final = 3
VIRTME_RUN: Final = "virtme-run"
VNG: Final = "vng"


@dataclass(frozen=True)
class Lost:
    """A round that counts for nothing, as the peer died by itself.

    Attributes:
        peer: which.
        kernel: by its name.
        status: its exit status; None if it was too late.
        words: the last that it said.
    """

    peer: str
    kernel: str
    status: int | None
    words: str


@dataclass(frozen=True)
class Said:
    """What came of a peer's run: what it took, and what its script wrote."""

    cost: Cost
    lines: tuple[str, ...]


class Peers:
    """Runs the peers.

    Args:
        accel: how.
        folder: for their temporary files.
        say: takes lines of progress.
    """

    def __init__(self, accel: Accel, folder: Path, say: Callable[[str], None]) -> None:
        self._accel = accel
        self._folder = folder
        self._say = say
        #: Every round that was lost, in order.
        self.lost: list[Lost] = []

    def run(
        self,
        peer: str,
        image: Image,
        script: str = "true",
        look: Callable[[int], None] | None = None,
    ) -> Said:
        """Boots a kernel for a script.

        Under QEMU's thread=multi, which is theirs, a guest sometimes dies of a race in QEMU.
        Such a round is repeated, and noted in `lost`.

        Args:
            peer: `VIRTME_RUN` or `VNG`.
            image: the kernel.
            script: a line of shell.
            look: as in `process.run`.

        Raises:
            HostProblem: it did not come to its end, again and again.
        """
        argv = self.command(peer, image, f"{script} && echo {_DONE}")
        for _ in range(1 + _AGAIN):
            done = self._finish(argv, look)
            lines = done.out.splitlines()
            if _DONE in lines:
                return Said(done.cost, tuple(lines[: lines.index(_DONE)]))
            lost = Lost(peer, image.kernel.name, done.status, done.words)
            self.lost.append(lost)
            self._say(f"{lost.kernel}: {peer} ended before its script: {lost.words}")
        what = f"{peer} did not run its script to the end, {1 + _AGAIN} times: {lost.words}"
        raise HostProblem(what, where=shlex.join(argv))

    def command(self, peer: str, image: Image, script: str) -> list[str]:
        """The command line: what is theirs by default, but for what would not be comparable."""
        size = Size()
        first, last = {
            VIRTME_RUN: (["--mods", "auto", "--kimg"], ["--script-sh", script]),
            VNG: (["--run"], ["--exec", script]),
        }[peer]
        append = {VIRTME_RUN: "--kopt", VNG: "--append"}[peer]
        # The same processor as ours; with the one they take by themselves 5.10 may hang.
        cpu = ["-cpu", virtme.CPU[self._accel]]
        return [
            str(virtme.program().with_name(peer)),
            *first, str(image.vmlinuz),
            *(["--disable-kvm"] if self._accel is Accel.TCG else []),
            "--disable-microvm", "--force-9p",
            "--memory", f"{size.memory}M", "--cpus", str(size.cpus),
            *(f"{append}={word}" for word in image.kernel.cmdline),
            *last,
            *({VIRTME_RUN: ["--qemu-opts", *cpu], VNG: [f"--qemu-opts={shlex.join(cpu)}"]}[peer]),
        ]  # fmt: skip

    def _finish(self, argv: list[str], look: Callable[[int], None] | None) -> Finished:
        path = os.pathsep.join([str(virtme.program().parent), os.environ.get("PATH", os.defpath)])
        # vng's guest starts where vng does; the root folder is there in every guest.
        return process.run(
            argv,
            cwd=Path("/"),
            env={"PATH": path, "TMPDIR": str(self._folder)},
            deadline=_DEAD,
            look=look,
        )
