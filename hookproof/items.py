# SPDX-License-Identifier: Apache-2.0
"""Scenario files and cases as pytest's collectors and items."""

from __future__ import annotations

import os
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from hookproof.case import Case, cases, strangers
from hookproof.session import Session
from hookproof.verdict import MARKS, Verdict
from vm import catalog
from vm.default import default_catalog
from vm.errors import UsageProblem
from vm.kernel import Kernel

SESSION = pytest.StashKey[Session]()


class NotPassed(Exception):  # noqa: N818  it carries a verdict
    """A case came to a verdict that is neither passed nor skipped."""

    def __init__(self, verdict: Verdict) -> None:
        super().__init__(verdict.reason)
        self.verdict = verdict


class ScenarioFile(pytest.File):
    """A file of the scenario language; a mistake in it is one line."""

    def collect(self) -> Iterator[ScenarioItem]:
        """Every case of the scenario on every selected kernel."""
        from hookproof.decode import read_scenario

        session = self.config.stash[SESSION]
        try:
            scenario = read_scenario(self.path, shown(self.path, self.config))
        except UsageProblem as problem:
            raise self.CollectError(str(problem)) from None
        try:
            kernels = session.settings.kernels
        except UsageProblem as problem:
            if session.complained:
                return
            session.complained = True
            raise self.CollectError(str(problem)) from None
        for what in strangers(scenario, [*session.settings.catalog, *own_kernels()]):
            try:
                self.warn(pytest.PytestWarning(f"{shown(self.path, self.config)}: {what}"))
            except pytest.PytestWarning as warning:  # where warnings are errors
                raise self.CollectError(str(warning)) from None
        for case in cases(scenario, kernels, session.settings.repeat):
            # Given as a text, pytest sees that what stands in brackets are parameters, and
            # --lf finds it again (pytest 9.2 and later take a name as it is).
            node = f"{self.nodeid}::{case.name}"
            yield ScenarioItem.from_parent(self, name=case.name, nodeid=node, case=case)


class ScenarioItem(pytest.Item):
    """One case.

    It runs before the set-up phase. What says nothing about the scenario (no boot, a lost
    machine) is raised by `setup` and so an error; what speaks against it is raised by
    `runtest` and so a failure.
    """

    def __init__(self, *, case: Case, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.case = case
        self.verdict: Verdict | None = None

    def run_case(self) -> None:
        """Runs it; the plugin calls this before output is captured."""
        self.verdict = self.config.stash[SESSION].run(self.case)

    def evidence(self) -> str:
        """The folder of its evidence, as messages show it."""
        assert self.verdict is not None  # noqa: S101
        return shown(self.config.stash[SESSION].evidence(self.verdict), self.config)

    def setup(self) -> None:
        """Raises for a verdict that says nothing about the scenario."""
        assert self.verdict is not None  # noqa: S101  run_case() was called
        mark = MARKS[self.verdict.outcome]
        if mark == "skipped":
            pytest.skip(self.verdict.reason)
        if mark == "error":
            raise NotPassed(self.verdict)

    def runtest(self) -> None:
        """Raises for a verdict against the scenario."""
        assert self.verdict is not None  # noqa: S101
        if MARKS[self.verdict.outcome] == "failure":
            raise NotPassed(self.verdict)

    def reportinfo(self) -> tuple[os.PathLike[str], int, str]:
        """The scenario's first line."""
        return self.path, self.case.scenario.where.line - 1, self.name


@cache
def own_kernels() -> tuple[Kernel, ...]:
    """Those of the list that comes with hookproof, whose scenarios are run on other lists too."""
    return tuple(catalog.read(default_catalog()))


def shown(path: Path, config: pytest.Config) -> str:
    """A path as messages show it: from where pytest was called, if it lies below."""
    here = config.invocation_params.dir
    return str(path.relative_to(here) if path.is_relative_to(here) else path)
