# SPDX-License-Identifier: Apache-2.0
"""How much of a system call's argument is compared, of which the kernel does not tell the size."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from refagent.agent import Agent
from refagent.policy import Policy


@pytest.mark.parametrize(
    ("bits", "fitting"),
    [(None, [0, 1 << 32]), (32, [0, 1 << 32]), (64, [0])],
)
def test_a_length_is_compared_in_the_bits_that_are_said(
    place: Path, bits: int | None, fitting: list[int]
) -> None:
    path = place / "x"
    path.touch()
    with Agent() as agent:
        agent.load(
            Policy(
                "a",
                "__x64_sys_truncate",
                path=str(path),
                argument=1,
                value=0,
                value_bits=bits,
                post=True,
            )
        )
        for length in (0, 1, 1 << 32, (1 << 32) + 1):
            os.truncate(path, length)
        assert [event.arguments[1] for event in agent.events()] == fitting
    path.unlink()
