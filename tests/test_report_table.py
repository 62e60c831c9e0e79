# SPDX-License-Identifier: Apache-2.0
"""The table at the end of a run, as people see it."""

from __future__ import annotations

from pathlib import Path
from textwrap import dedent

import pytest

from hookproof.report import Row, table, totals_line
from hookproof.report.table import WORDS
from hookproof.verdict import Outcome, Verdict

PASS, FAIL, SKIP = Outcome.PASS, Outcome.FAIL, Outcome.UNSUPPORTED


def rows(kernel: str, path: str, *outcomes: Outcome) -> list[Row]:
    return [
        Row(kernel, Path(path).stem, Path(path), {"n": n}, f"{kernel}-{n}", Verdict(outcome))
        for n, outcome in enumerate(outcomes)
    ]


MATRIX = [
    *rows("5.10", "scenarios/boot/clean.yaml", PASS),
    *rows("5.10", "scenarios/override/limit.yaml", *[PASS] * 5),
    *rows("5.10", "scenarios/lsm/fires.yaml", SKIP, SKIP),
    *rows("6.12", "scenarios/boot/clean.yaml", PASS),
    *rows("6.12", "scenarios/override/limit.yaml", PASS, FAIL, PASS, PASS, SKIP),
    *rows("6.12", "scenarios/lsm/fires.yaml", PASS, SKIP),
    *rows("7.3", "scenarios/boot/clean.yaml", Outcome.BOOT),
    *rows("7.3", "scenarios/override/limit.yaml", Outcome.HANG, FAIL, Outcome.PANIC, PASS, FAIL),
]


def test_the_whole_table() -> None:
    assert table(MATRIX) == dedent(
        """\
                        5.10    6.12          7.3
        boot/clean      ok      ok            BOOT
        override/limit  5 ok    1/5 FAIL      4/5 PANIC,FAIL,HANG
        lsm/fires       2 skip  1 ok, 1 skip  -

        PANIC  the kernel died
        FAIL   a step gave another result
        HANG   a step did not answer in time
        BOOT   the machine did not boot
        skip   the kernel cannot do what the scenario needs

        12 passed, 4 failed, 2 errors, 4 skipped on 3 kernels"""
    )


def test_kernels_that_do_not_fit_follow_below() -> None:
    lines = table(MATRIX, width=40).split("\n")
    assert max(map(len, lines[: lines.index("PANIC  the kernel died")])) <= 40
    assert lines[0].split() == ["5.10", "6.12"]
    assert lines[5].split() == ["7.3"]
    assert lines[6].split() == ["boot/clean", "BOOT"]


def test_a_table_too_narrow_for_anything_still_shows_all() -> None:
    text = table(MATRIX, width=1)
    assert all(f" {kernel}" in text for kernel in ("5.10", "6.12", "7.3"))


def test_all_well_needs_no_legend() -> None:
    assert table(rows("6.12", "scenarios/boot/clean.yaml", PASS)) == dedent(
        """\
               6.12
        clean  ok

        1 passed, 0 failed, 0 errors, 0 skipped on 1 kernel"""
    )


def test_scenarios_of_one_name_are_two_lines() -> None:
    both = rows("6.12", "a/x.yaml", PASS) + rows("6.12", "b/x.yaml", FAIL)
    assert [line.split() for line in table(both).split("\n")[1:3]] == [
        ["a/x", "ok"],
        ["b/x", "FAIL"],
    ]


def test_nothing_ran() -> None:
    assert table([]) == "0 passed, 0 failed, 0 errors, 0 skipped on 0 kernels"
    assert totals_line([]) == table([])


@pytest.mark.parametrize("outcome", Outcome)
def test_each_outcome_has_a_word(outcome: Outcome) -> None:
    assert WORDS[outcome][0] in table(rows("6.12", "a.yaml", outcome))
