# SPDX-License-Identifier: Apache-2.0
"""What all parts of a measurement share."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from hookproof.bench.peers import Peers
from vm import images
from vm.accel import Calibration
from vm.default import default_lock
from vm.kernel import Image, Kernel


@dataclass(frozen=True)
class Setup:
    """What to measure, and with what.

    Attributes:
        kernels: for the parts that compare kernels.
        one: for the parts that need a single one.
        scenario: a file without parameters, which passes on `one`.
        rounds: how often each thing is measured.
        folder: for temporary files; somebody else removes it.
        calibration: how machines run here.
        peers: runs virtme-run and vng.
        say: takes lines of progress.
    """

    kernels: tuple[Kernel, ...]
    one: Kernel
    scenario: Path
    rounds: int
    folder: Path
    calibration: Calibration
    peers: Peers
    say: Callable[[str], None]

    def image(self, kernel: Kernel) -> Image:
        """A kernel's files, fetched if they are not there.

        Raises:
            Problem: they can't be had.
        """
        return images.ensure(kernel, default_lock(), self.say)
