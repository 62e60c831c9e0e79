# SPDX-License-Identifier: Apache-2.0
"""`hookproof mutants`: what it says before anything is built."""

from __future__ import annotations

from pathlib import Path

import pytest

from hookproof.cli import main


def test_the_list(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["mutants", "--list", "no-purge"]) == 0
    assert capsys.readouterr().out == (
        "no-purge  Entries that wait for an override stay when their policy goes.\n"
    )


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["no-purse"], "there is no mutant 'no-purse'; did you mean 'no-purge'?"),
        (["--repeat", "0"], "--repeat: 0 times show nothing"),
        (["--parallel", "-1"], "--parallel: '-1' is no number of machines"),
    ],
)
def test_a_mistake_is_one_line(
    capsys: pytest.CaptureFixture[str], words: list[str], said: str
) -> None:
    assert main(["mutants", *words]) == 2
    assert capsys.readouterr().err == f"hookproof: {said}\n"


def test_results_that_cannot_be_written_are_told_first(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    file = tmp_path / "file"
    file.write_text("", encoding="ascii")
    assert main(["mutants", "--results", str(file), "no-purge"]) == 2
    assert capsys.readouterr().err == (
        f"hookproof: {file}: the results cannot be written: File exists; "
        "name another folder with --results\n"
    )
