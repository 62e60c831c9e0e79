# SPDX-License-Identifier: Apache-2.0
"""The pytest plugin: scenarios as items, one machine after the other, reports at the end.

Scenarios are the `*.yaml` files below a folder called `scenarios`, and any YAML file named
on the command line. A session without them is not touched: no file is read, no machine
is looked for.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Generator
from pathlib import Path
from typing import Any, cast

import pytest

from hookproof.failure import Failure
from hookproof.hooks import RunsCases
from hookproof.items import SESSION, NotPassed, ScenarioFile, ScenarioItem
from hookproof.session import Session
from hookproof.settings import ACCELS, ISOLATES, MACHINES, Settings
from vm.errors import UsageProblem

FOLDER = "scenarios"


def pytest_addoption(parser: pytest.Parser) -> None:
    """Adds the options, and for each an ini value."""
    group = parser.getgroup("hookproof", "scenarios on kernels (hookproof)")
    group.addoption(
        "--kernel",
        action="append",
        default=[],
        dest="hookproof_kernel",
        metavar="PATTERN",
        help="kernels to run on: names, patterns such as '6.*', or 'all'; may be repeated or"
        " joined by commas (default: those marked default in kernels.txt)",
    )
    group.addoption(
        "--kernels",
        dest="hookproof_kernels",
        metavar="FILE",
        help="the list of kernels (default: kernels.txt in the root folder, else hookproof's)",
    )
    group.addoption(
        "--accel",
        dest="hookproof_accel",
        choices=ACCELS,
        help="how virtual machines run: kvm, tcg (software), or auto, which tries (default)",
    )
    group.addoption(
        "--machine",
        dest="hookproof_machine",
        choices=MACHINES,
        help="machines restored from a saved state (default), or booted by virtme-ng with this"
        " host's root file system",
    )
    group.addoption(
        "--isolate",
        dest="hookproof_isolate",
        choices=ISOLATES,
        help="a machine for each scenario (vm), or one for as many as pass (none); default:"
        " vm for restored machines under KVM, where it costs least, else none",
    )
    group.addoption(
        "--parallel",
        dest="hookproof_parallel",
        metavar="N",
        help="machines at a time (default: as many as processors and memory allow)",
    )
    group.addoption(
        "--results",
        dest="hookproof_results",
        metavar="DIR",
        help="where reports and evidence go (default: results in the root folder)",
    )
    group.addoption(
        "--repeat",
        dest="hookproof_repeat",
        metavar="N",
        help="run each case N times, and say how often it passed",
    )
    names = ("kernel", "kernels", "accel", "machine", "isolate", "parallel", "repeat", "results")
    for name in names:
        parser.addini(f"hookproof_{name}", f"default of --{name}", type="string", default="")


def pytest_addhooks(pluginmanager: pytest.PytestPluginManager) -> None:
    """Adds `pytest_hookproof_runner`."""
    from hookproof import hooks

    pluginmanager.add_hookspecs(hooks)


def pytest_configure(config: pytest.Config) -> None:
    """Refuses an unknown kernel before anything is collected."""
    config.stash[SESSION] = session = Session(config)
    if config.getoption("hookproof_kernel") or config.getoption("hookproof_kernels"):
        try:
            _ = session.settings
        except UsageProblem as problem:
            raise pytest.UsageError(str(problem)) from None


@pytest.hookimpl(trylast=True)
def pytest_hookproof_runner(settings: Settings, say: Callable[[str], None]) -> RunsCases:
    """The runner that boots machines."""
    from hookproof.runner import Runner

    return Runner(settings, say)


def pytest_collect_file(file_path: Path, parent: pytest.Collector) -> ScenarioFile | None:
    """A YAML file below a folder called scenarios, or named on the command line."""
    if file_path.suffix not in {".yaml", ".yml"}:
        return None
    root = parent.config.rootpath
    below = file_path.relative_to(root.parent) if file_path.is_relative_to(root) else file_path
    if FOLDER in below.parts[:-1] or parent.session.isinitpath(file_path):
        collector: ScenarioFile = ScenarioFile.from_parent(parent, path=file_path)
        return collector
    return None


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Brings the cases of one machine together, those that take longest in all first.

    Other items stay where they are.
    """
    cases = [item for item in items if isinstance(item, ScenarioItem)]
    if not cases:
        return
    state = cases[0].config.stash[SESSION]
    kernels = {kernel.name: place for place, kernel in enumerate(state.settings.kernels)}
    boots: dict[tuple[str, ...], int] = {}
    seconds: defaultdict[object, float] = defaultdict(float)
    for item in cases:
        boots.setdefault(item.case.scenario.boot, len(boots))
        seconds[item.case.machine] += state.seconds(item.nodeid)

    def place(item: ScenarioItem) -> tuple[float, int, int]:
        name, words = item.case.machine
        return -seconds[item.case.machine], kernels[name], boots[words]

    cases.sort(key=place)
    ordered = iter(cases)
    items[:] = [next(ordered) if isinstance(item, ScenarioItem) else item for item in items]


def pytest_collection_finish(session: pytest.Session) -> None:
    """Notes what is to run, after all have had their say about it."""
    state = session.config.stash[SESSION]
    state.cases = {
        item.nodeid: item.case for item in session.items if isinstance(item, ScenarioItem)
    }


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> Generator[None, None, None]:
    """Runs the case outside of pytest's capture, so that progress is seen."""
    if isinstance(item, ScenarioItem):
        item.run_case()
    return (yield)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Shows a verdict instead of a traceback."""
    report = yield
    if not isinstance(item, ScenarioItem) or item.verdict is None or call.excinfo is None:
        return report
    if isinstance(call.excinfo.value, NotPassed):
        # pytest asks of it no more than toterminal() and reprcrash.message.
        report.longrepr = cast("Any", Failure(item.case, item.verdict, item.evidence))
    elif report.skipped:
        where = item.case.scenario.where
        report.longrepr = (str(item.path), where.line, f"Skipped: {item.verdict.reason}")
    return report


def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    """Stops machines, writes reports; a scenario that ran nowhere fails the session."""
    state = session.config.stash[SESSION]
    state.finish()
    if state.objections and exitstatus == pytest.ExitCode.OK:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """The table kernel x scenario, what is not in it, and why the session fails if no item does."""
    state = terminalreporter.config.stash[SESSION]
    if state.done:
        from hookproof import report

        # As they are listed, and not as they came to be run: by how long they take.
        places = {kernel.name: place for place, kernel in enumerate(state.settings.kernels)}
        rows = sorted(state.rows(), key=lambda row: (places[row.kernel], row.path))
        terminalreporter.section("kernels x scenarios")
        terminalreporter.write_line(report.table(rows))
    for line in (*state.repeated(), *state.notes):
        terminalreporter.write_line(line)
    for line in state.objections:
        terminalreporter.write_line(f"ERROR: {line}", red=True)


def pytest_unconfigure(config: pytest.Config) -> None:
    """Stops machines if the session ended before it could finish."""
    if state := config.stash.get(SESSION, None):
        state.close()
