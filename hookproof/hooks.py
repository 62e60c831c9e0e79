# SPDX-License-Identifier: Apache-2.0
"""Hooks that the plugin adds to pytest's own."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

import pytest

from hookproof.case import Case
from hookproof.settings import Settings
from hookproof.verdict import Verdict
from vm.kernel import Image


class RunsCases(Protocol):
    """What runs the cases of one session."""

    @property
    def images(self) -> Mapping[str, Image]:
        """The images used so far, by the kernel's name."""

    @property
    def accel(self) -> str:
        """How machines run here: `kvm`, `tcg`, or empty before the first one."""

    def expect(self, cases: Sequence[Case], seconds: Sequence[float]) -> None:
        """Takes the cases that `run` will be asked for, in this order, unless it ends before.

        Args:
            cases: those that share a machine stand together.
            seconds: what each took the last time; 0 where that is not known.
        """

    def run(self, case: Case) -> Verdict:
        """Gives a case's verdict; waits for it. Raises KeyboardInterrupt."""

    def close(self) -> None:
        """Stops whatever still runs. Called once, at the session's end."""


@pytest.hookspec(firstresult=True)
def pytest_hookproof_runner(settings: Settings, say: Callable[[str], None]) -> RunsCases | None:
    """Makes what runs the cases; called before the session's first case.

    The first answer that is not None is used. The plugin's own, which boots virtual
    machines (`hookproof.runner.Runner`), comes last.

    Args:
        settings: the session's options.
        say: shows a line of progress to the user.
    """
