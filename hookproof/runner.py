# SPDX-License-Identifier: Apache-2.0
"""Runs a session's cases on several machines at a time and gives each verdict when asked."""

from __future__ import annotations

import queue
from collections.abc import Callable, Mapping, Sequence
from typing import Final

from hookproof.case import Case
from hookproof.crew import Crew
from hookproof.fleet import Fleet
from hookproof.settings import Settings
from hookproof.verdict import Verdict
from vm import capacity
from vm.kernel import Image
from vm.virtme import Size

#: A machine's next one waits beside it.
_AHEAD: Final = 2


class Runner:
    """A context manager; its methods belong to one thread.

    Args:
        settings: of this session.
        say: takes lines of progress, in the thread that calls `run`.
    """

    def __init__(self, settings: Settings, say: Callable[[str], None]) -> None:
        self._settings = settings
        self._say = say
        self._inbox: queue.SimpleQueue[str | tuple[Case, Verdict | BaseException]]
        self._inbox = queue.SimpleQueue()
        self._fleet = Fleet(settings, self._inbox.put)
        self._crew: Crew | None = None
        self._expected: set[int] = set()
        self._verdicts: dict[int, Verdict | BaseException] = {}

    def __enter__(self) -> Runner:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    @property
    def images(self) -> Mapping[str, Image]:
        """The images used so far, by the kernel's name."""
        return self._fleet.images

    @property
    def accel(self) -> str:
        """How machines run here: `kvm`, `tcg`, or empty before the first one."""
        return self._fleet.calibration.accel.value if self._fleet.images else ""

    def expect(self, cases: Sequence[Case], seconds: Sequence[float]) -> None:
        """Begins to run cases, in about this order; `run` gives their verdicts.

        Args:
            cases: those that share a machine stand together.
            seconds: what each took the last time; 0 where that is not known.
        """
        if self._crew is None:
            lanes = self._settings.parallel or capacity.machines(Size().memory * _AHEAD)
            self._crew = Crew(self._fleet, lanes, self._deliver)
        self._expected.update(map(id, cases))
        self._crew.add(cases, seconds)

    def run(self, case: Case) -> Verdict:
        """Waits for a case's verdict; whatever goes wrong becomes one.

        Raises:
            KeyboardInterrupt: the user's; the machines still run until `close`.
        """
        if id(case) not in self._expected:
            self.expect([case], [0.0])
        while id(case) not in self._verdicts or not self._inbox.empty():
            news = self._inbox.get()
            if isinstance(news, str):
                self._say(news)
            else:
                self._verdicts[id(news[0])] = news[1]
        self._expected.remove(id(case))
        verdict = self._verdicts.pop(id(case))
        if isinstance(verdict, BaseException):
            raise verdict
        return verdict

    def close(self) -> None:
        """Stops the machines that still run."""
        crew, self._crew = self._crew, None
        if crew is not None:
            crew.close()

    def _deliver(self, case: Case, verdict: Verdict | BaseException) -> None:
        self._inbox.put((case, verdict))
