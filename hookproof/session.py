# SPDX-License-Identifier: Apache-2.0
"""One pytest session's scenarios: its settings, the runner, and what came of each case."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Final

import pytest

from hookproof import repeats
from hookproof.case import Case
from hookproof.hooks import RunsCases
from hookproof.settings import ACCELS, ISOLATES, MACHINES, Settings
from hookproof.verdict import Outcome, Verdict
from vm.errors import Problem, UsageProblem
from vm.suggest import closest

if TYPE_CHECKING:
    from hookproof import report


#: Where pytest's cache has them: node id → seconds.
_DURATIONS: Final = "hookproof/durations"


class Session:
    """What the plugin keeps from the first option to the last report.

    Args:
        config: pytest's.
    """

    def __init__(self, config: pytest.Config) -> None:
        self._config = config
        self._runner: RunsCases | None = None
        #: Every case that is to run, by its item's node id, in order.
        self.cases: dict[str, Case] = {}
        #: Every case that came to a verdict, in the order in which they ran.
        self.done: list[tuple[Case, Verdict]] = []
        #: Lines about what was not run.
        self.notes: list[str] = []
        #: Lines that make the session fail although no item did.
        self.objections: list[str] = []
        self._started = datetime.now(UTC)
        self._folders: list[PurePosixPath] = []
        #: Whether a collector has told about settings that cannot be read.
        self.complained = False

    @cached_property
    def settings(self) -> Settings:
        """The options, resolved; reads kernels.txt.

        Raises:
            UsageProblem: kernels.txt is wrong, a kernel is not in it, or an ini value is
                wrong.
        """
        from vm import catalog, choice

        path = self._catalog()
        kernels, lock = catalog.read(path), path.with_suffix(".lock")
        patterns = self._config.getoption("hookproof_kernel") or [self._ini("kernel")]
        return Settings(
            accel=self._choice("accel", ACCELS),
            machine=self._choice("machine", MACHINES),
            isolate=self._choice("isolate", ("", *ISOLATES)),
            parallel=self._number("parallel", "machines"),
            repeat=self._number("repeat", "turns") or 1,
            results=self._path("results") or self._config.rootpath / "results",
            catalog=kernels,
            kernels=choice.choose(kernels, patterns, lock, self.notes.append),
            lock=lock,
        )

    def run(self, case: Case) -> Verdict:
        """Runs a case; the first one makes the runner.

        A `Problem` on the way is a verdict as well: infrastructure.
        """
        try:
            if self._runner is None:
                hook = self._config.hook.pytest_hookproof_runner
                self._runner = hook(settings=self.settings, say=self.say)
                seconds = [self.seconds(node) for node in self.cases]
                self._runner.expect(list(self.cases.values()), seconds)
            verdict = self._runner.run(case)
        except Problem as problem:
            verdict = Verdict(Outcome.INFRA, str(problem))
        self.done.append((case, verdict))
        return verdict

    def seconds(self, node: str) -> float:
        """What a case took the last time, or 0; pytest keeps it in its cache."""
        return float(self._durations.get(node, 0.0))

    @cached_property
    def _durations(self) -> dict[str, float]:
        cache = getattr(self._config, "cache", None)  # -p no:cacheprovider
        found = cache.get(_DURATIONS, {}) if cache else {}
        return found if isinstance(found, dict) else {}

    def _keep_durations(self) -> None:
        took = {id(case): verdict.seconds for case, verdict in self.done}
        fresh = {node: took[id(case)] for node, case in self.cases.items() if id(case) in took}
        if fresh and (cache := getattr(self._config, "cache", None)):
            cache.set(_DURATIONS, self._durations | fresh)

    def close(self) -> None:
        """Closes the runner, if one was made."""
        runner, self._runner = self._runner, None
        if runner is not None:
            runner.close()

    def say(self, line: str) -> None:
        """Shows a line of progress; not with `-q`."""
        reporter = self._config.pluginmanager.get_plugin("terminalreporter")
        if reporter is not None and self._config.get_verbosity() >= 0:
            reporter.ensure_newline()
            reporter.write_line(f"  {line}")
            reporter.flush()

    def finish(self) -> None:
        """Stops the machines, writes the reports, and notes what the session fails for."""
        runner = self._runner
        try:
            self.close()
            if self.done and runner is not None:
                self._report(runner)
                self._keep_durations()
        except (Problem, OSError) as error:
            self.objections.append(str(error))
        self.objections += shown_nothing(self.cases.values(), self.done)

    def rows(self) -> list[report.Row]:
        """The cases that ran, as the reports take them."""
        from hookproof import report

        here = self._config.invocation_params.dir
        return [report.Row.of(case, verdict, here) for case, verdict in self.done]

    def evidence(self, verdict: Verdict) -> Path:
        """The folder that has, or will have, all that was seen on the way to a verdict."""
        from hookproof.report import evidence

        if len(self._folders) != len(self.done):
            self._folders = evidence.folders(self.rows())
        place = next(n for n, (_, each) in enumerate(self.done) if each is verdict)
        return self.settings.results / self._folders[place]

    def _report(self, runner: RunsCases) -> None:
        from hookproof import report

        names = dict.fromkeys(case.kernel.name for case, _ in self.done)
        images = [(name, runner.images.get(name)) for name in names]
        about = report.Session(
            started=self._started,
            seconds=(datetime.now(UTC) - self._started).total_seconds(),
            cores=os.cpu_count() or 1,
            accel=runner.accel,
            kernels=tuple(
                report.KernelFacts(name, image.release, image.version, image.digest)
                if image
                else report.KernelFacts(name)
                for name, image in images
            ),
        )
        report.write(self.settings.results, self.rows(), about)

    def _catalog(self) -> Path:
        from vm.default import default_catalog

        own = self._config.rootpath / "kernels.txt"
        return self._path("kernels") or (own if own.is_file() else default_catalog())

    def _choice(self, name: str, values: Sequence[str]) -> str:
        """A word from the command line or the ini file; the first of the values by default."""
        given = self._config.getoption(f"hookproof_{name}") or self._ini(name) or values[0]
        if given not in values:
            where = f"{self._config.inipath}: hookproof_{name}"
            what = f"'{given}' is no value of --{name}"
            raise UsageProblem(what, where=where, hint=closest(given, [*filter(None, values)]))
        return str(given)

    def _number(self, name: str, what: str) -> int:
        """A number from the command line or the ini file; 0 if none is given."""
        given = self._config.getoption(f"hookproof_{name}") or self._ini(name) or "0"
        if given != "0" and (not str(given).isdecimal() or int(given) < 1):
            raise UsageProblem(f"'{given}' is no number of {what}", where=f"--{name}")
        return int(given)

    def repeated(self) -> list[str]:
        """A line for each case that ran several times, with the command for one that failed."""
        if not any(case.turn for case, _ in self.done):
            return []
        return repeats.lines(self.done, self.settings)

    def _path(self, name: str) -> Path | None:
        """A path from the command line (relative to where we are) or the ini file (to it)."""
        if given := self._config.getoption(f"hookproof_{name}"):
            return Path(self._config.invocation_params.dir / given)
        value = self._ini(name)
        return self._config.rootpath / value if value else None

    def _ini(self, name: str) -> str:
        return str(self._config.getini(f"hookproof_{name}"))


def shown_nothing(collected: Iterable[Case], done: Iterable[tuple[Case, Verdict]]) -> list[str]:
    """A line for each scenario that every one of its kernels skipped.

    A scenario of which a case did not run (`-x`, an interrupt) is not blamed. On a single kernel,
    as in a job of a matrix of jobs, none is, if another one did run: what that kernel cannot do is
    no news there.
    """
    waiting = Counter(case.scenario.path for case in collected)
    done = list(done)
    alone = len({case.kernel.name for case, _ in done}) == 1
    if alone and any(verdict.outcome is not Outcome.UNSUPPORTED for _, verdict in done):
        return []
    verdicts: dict[Path, list[tuple[Case, Verdict]]] = {}
    for case, verdict in done:
        verdicts.setdefault(case.scenario.path, []).append((case, verdict))
    lines = []
    for path, ran in verdicts.items():
        unsupported = all(verdict.outcome is Outcome.UNSUPPORTED for _, verdict in ran)
        if len(ran) < waiting[path] or not unsupported:
            continue
        names = ", ".join(dict.fromkeys(case.kernel.name for case, _ in ran))
        where = ran[0][0].scenario.where.path
        lines.append(f"{where}: skipped on every selected kernel ({names}), so it shows nothing")
    return lines
