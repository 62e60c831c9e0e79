# SPDX-License-Identifier: Apache-2.0
"""A hold that shows nothing is no pass, and one that cannot end as it should ends all the same."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from hookproof.case import Case
from hookproof.decode import read_scenario
from hookproof.runner import Runner
from hookproof.settings import Settings
from hookproof.verdict import Outcome, Verdict
from vm import catalog
from vm.default import default_catalog, default_lock

pytestmark = pytest.mark.vm

KNOWN = catalog.read(default_catalog())
(KERNEL,) = catalog.select(KNOWN, ["6.12"])

NEVER_THERE = """\
steps:
  - hold: override
    at: security_path_rmdir
    call: {mkdir: /run/t/x}
"""
NOT_IN_THE_CHAIN = """\
steps:
  - hold: hashing
    call: {exec: /bin/true}
"""
WAITS = """\
policies:
  deny: {hook: security_path_mkdir, path: /run/t, override: EPERM}
steps:
  - load: deny
  - hold: override
    at: security_path_mkdir
    call: {mkdir: /run/t/x, gives: EPERM}
    meanwhile:
      - unload: deny
"""
WAITS_NOT = """\
steps:
  - hold: path
    call: {mkdir: /run/t/x}
    meanwhile:
      - {mkdir: /run/t/y, returns: after}
"""
GIVES_ELSE = """\
steps:
  - hold: path
    call: {mkdir: /run/t/x, gives: EPERM}
"""
RUNS_AS_WELL = """\
needs: [lsm_sleepable, ima_file_hash, task_storage, userfaultfd]
policies:
  deny: {hook: lsm/bprm_check_security, prefix: /run/t/, override: EPERM, post: true, hash: true}
steps:
  - {write: /run/t/x, text: "#!/bin/true", mode: 0o755}
  - load: deny
  - hold: hashing
    call: {exec: /run/t/x, gives: EPERM}
    meanwhile:
      - {exec: /run/t/x, gives: EPERM}
"""
NO_SUCH_MAP = """\
steps:
  - entries: {map: nobodys, count: 0}
"""
STORM = """\
steps:
  - storm:
      - - {mkdir: /run/t/x}
      - - {mkdir: /run/t/y}
        - {rmdir: /run/t/y}
"""


@pytest.fixture(scope="module")
def runner(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Runner]:
    results = tmp_path_factory.mktemp("results")
    settings = Settings("auto", results, KNOWN, (KERNEL,), default_lock(), isolate="none")
    with Runner(settings, lambda _line: None) as made:
        yield made


def run(runner: Runner, folder: Path, text: str) -> Verdict:
    path = folder / "it.yaml"
    path.write_text(f"about: A test.\n{text}", encoding="utf-8")
    return runner.run(Case(read_scenario(path), KERNEL, {}))


@pytest.mark.parametrize(
    ("text", "outcome", "words"),
    [
        (NEVER_THERE, Outcome.INFRA, "was to be held at 'override', and never came there"),
        (NOT_IN_THE_CHAIN, Outcome.INFRA, "was to be held at 'hashing', and never came there"),
        (WAITS, Outcome.FAIL, "unload deny did not return until the held call was let go"),
        (WAITS_NOT, Outcome.FAIL, "mkdir /run/t/y returned before the held call was let go"),
        (RUNS_AS_WELL, Outcome.FAIL, "exec /run/t/x did not return until the held call was let"),
        (NO_SUCH_MAP, Outcome.FAIL, "expected count 0, got ENOENT"),
        (GIVES_ELSE, Outcome.FAIL, "expected EPERM, got ok (mkdir /run/t/x)"),
        (STORM, Outcome.FAIL, "expected ok, got EEXIST (branch 1: mkdir /run/t/x; "),
    ],
)
def test_what_a_hold_comes_to(
    runner: Runner, tmp_path: Path, text: str, outcome: Outcome, words: str
) -> None:
    verdict = run(runner, tmp_path, text)
    assert words in verdict.reason
    assert verdict.outcome is outcome


AMONG_STRANGERS = """\
policies:
  deny: {hook: security_path_mkdir, path: /run/t, override: EPERM}
steps:
  - {attach: bpf_lsm_file_open, kind: lsm}
  - {attach: security_path_mkdir, kind: fmod_ret, denies: EXDEV}
  - kill: agent
  - start: plain
  - detach: security_path_mkdir
  - links: {function: security_path_mkdir, fmod_ret: 0}
  - load: deny
  - {mkdir: /run/t/x, gives: EPERM}
"""


def test_an_agent_that_is_started_holds_nothing_of_what_the_executor_has(
    runner: Runner, tmp_path: Path
) -> None:
    assert run(runner, tmp_path, AMONG_STRANGERS).outcome is Outcome.PASS
