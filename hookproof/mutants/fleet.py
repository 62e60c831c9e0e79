# SPDX-License-Identifier: Apache-2.0
"""Machines with another agent than the checkout's, without a boot or a saved state for each.

All are restored from one saved state of a kernel, in which nothing of the agent is loaded yet;
each is then given the files that the mutant changes, and loads the agent. That takes half the
time of a boot, and nothing is kept of it.
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Final

from hookproof.answers import Answer
from hookproof.fleet import Fleet
from hookproof.service import executor, resident
from hookproof.settings import Settings
from hookproof.stage import Stage
from vm import images
from vm.accel import Calibration
from vm.errors import Problem
from vm.kernel import Kernel
from vm.machine import Machine, Plan
from vm.snapshot import SnapshotMachine
from vm.watch import Watch

#: In units of a payload's boot (vm/accel.py), with the least seconds.
_PLANT: Final = (400.0, 60.0)
#: A word that the service does not read: a state without an agent is another state.
_WITHOUT_AGENT: Final = "without-agent"


class Broken(Problem):
    """The agent does not start."""


class PlantedStage(Stage):
    """A stage on which some of the agent's files are others.

    Args:
        machine: restored, with nothing of the agent loaded.
        calibration: for the deadlines.
        watch: for the kernel's log.
        say: takes lines of progress.
        files: by their paths; None: there is to be no agent at all.
    """

    def __init__(
        self,
        machine: Machine,
        calibration: Calibration,
        watch: Watch,
        say: Callable[[str], None],
        files: Mapping[str, bytes] | None,
    ) -> None:
        super().__init__(machine, calibration, watch, say)
        self._files = files

    def __enter__(self) -> PlantedStage:
        """Restores, and loads the agent.

        Raises:
            Broken: it cannot be loaded.
            Problem: the machine was lost.
        """
        super().__enter__()
        try:
            if self._files is not None:
                files = {n: base64.b64encode(c).decode() for n, c in self._files.items()}
                self._ask("plant", _PLANT, files=files)
                try:
                    self._ask("warm", _PLANT, agent=True)
                except Problem as problem:
                    raise Broken(self.post_mortem(problem).reason) from None
        except BaseException:
            self.close()
            raise
        return self

    def prepare(self) -> dict[str, Any]:
        """As of `Stage`, but with nothing loaded."""
        self.settle()
        return {"taint": self._taint}


class PlantedFleet(Fleet):
    """Makes machines on which the agent has some other files.

    Args:
        settings: of this session.
        say: takes lines of progress.
        files: by their paths from the checkout's root; with none it is the checkout's agent.
        calibration: how guests run here, and how fast.
    """

    def __init__(
        self,
        settings: Settings,
        say: Callable[[str], None],
        files: Mapping[str, bytes],
        calibration: Calibration,
    ) -> None:
        super().__init__(settings, say)
        self._files = files
        self.calibration = calibration

    def stage(
        self,
        kernel: Kernel,
        words: tuple[str, ...],
        *,
        once: bool = False,  # noqa: ARG002  each mutant is given the same machine
    ) -> PlantedStage:
        """See `Fleet.stage`; no machine is for once."""
        return self._make(kernel, words, self._files)

    def answers(self, stage: Stage, names: Sequence[str]) -> dict[str, Answer]:
        """See `Fleet.answers`; the checkout's probes are asked, whatever the agent is."""
        unplanted = PlantedFleet(self._settings, self._say, {}, self.calibration)
        return Fleet.answers(unplanted, stage, names)

    def _make(
        self, kernel: Kernel, words: tuple[str, ...], files: Mapping[str, bytes] | None
    ) -> PlantedStage:
        image = images.ensure(kernel, lock=self._settings.lock, say=self._say)
        calibration, watch = self.calibration, Watch.load(image.release)
        plan, ours = Plan(image, executor(), words), resident()
        service = replace(ours, argv=(*ours.argv, _WITHOUT_AGENT))

        def prepare(booted: Machine) -> dict[str, Any]:
            return PlantedStage(booted, calibration, watch, self._say, None).prepare()

        machine = SnapshotMachine(plan, service, calibration, watch, prepare, self._say)
        return PlantedStage(machine, calibration, watch, self._say, files)
