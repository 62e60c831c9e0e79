# SPDX-License-Identifier: Apache-2.0
"""Hooks that the plugin adds to pytest's own."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Protocol

import pytest

from hookproof.case import Case
from hookproof.settings import Settings
from hookproof.verdict import Verdict
from vm.kernel import Image


class RunsCases(Protocol):
    """What runs the cases of one session, one after the other."""

    @property
    def images(self) -> Mapping[str, Image]:
        """The images used so far, by the kernel's name."""

    @property
    def accel(self) -> str:
        """How machines run here: `kvm`, `tcg`, or empty before the first one."""

    def run(self, case: Case) -> Verdict:
        """Runs a case to its verdict. Raises KeyboardInterrupt."""

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
