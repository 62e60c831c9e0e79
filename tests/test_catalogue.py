# SPDX-License-Identifier: Apache-2.0
"""docs/catalogue.md names what is there, and no number twice."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
ROWS = re.findall(
    r"^\| (\d+) \| .* \| (.*) \|$", (ROOT / "docs/catalogue.md").read_text("utf-8"), re.MULTILINE
)
#: Those about LSM hooks.
LSM = range(28, 49)


def test_every_number_has_one_row() -> None:
    numbers = [int(number) for number, _ in ROWS]
    assert numbers == sorted(set(numbers))
    assert set(LSM) <= set(numbers)


@pytest.mark.parametrize(("number", "shown"), ROWS, ids=[number for number, _ in ROWS])
def test_what_shows_it_is_there(number: str, shown: str) -> None:
    named = re.findall(r"`((?:scenarios|tests)/[^`]+)`", shown)
    assert named, f"nothing shows {number}"
    for each in named:
        path, _, test = each.partition("::")
        text = (ROOT / path).read_text("utf-8")
        assert not test or f"def {test}(" in text, each


def test_every_scenario_about_lsm_hooks_is_in_it() -> None:
    shown = " ".join(shown for number, shown in ROWS if int(number) in LSM)
    there = {f"scenarios/lsm/{each.name}" for each in (ROOT / "scenarios/lsm").glob("*.yaml")}
    other = {f"scenarios/lsm/{name}.yaml" for name in OTHER}
    assert there - other == set(re.findall(r"scenarios/lsm/[^`]+", shown))


#: Scenarios that are about no number, and why they are.
OTHER = {
    "digests": "a policy about what a file is",
    "filesystems": "the digest of files on other file systems",
    "killed": "what ends with an agent without pins",
    "memfd": "the digest of a program without a path",
    "pinned": "what goes on without its agent",
    "replaced": "the digest of what is run, whoever has its name",
}
