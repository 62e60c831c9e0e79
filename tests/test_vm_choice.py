# SPDX-License-Identifier: Apache-2.0
"""Kernels that have to be built first are built for those who name them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from tests.kerneltree import Tree
from vm import choice, images, kbuild
from vm.errors import UsageProblem
from vm.kernel import DebianSource, Kernel

LOCK = Path("no.lock")


@pytest.fixture
def kernels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Kernel, Kernel]:
    """One that is fetched and one that is built, which it is not yet."""
    monkeypatch.setenv("HOOKPROOF_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(kbuild, "ROOM", 0)
    built = replace(Tree(tmp_path / "src").kernel, default=False)
    return Kernel("6.12", DebianSource("trixie", "6.12.*")), built


def names(kernels: tuple[Kernel, ...], patterns: list[str], said: list[str]) -> list[str]:
    return [kernel.name for kernel in choice.choose(kernels, patterns, LOCK, said.append)]


@pytest.mark.parametrize("patterns", [["all"], ["*"], ["6.12", "m*"], ["6.12,*"]])
def test_a_pattern_leaves_out_what_is_not_built(
    kernels: tuple[Kernel, Kernel], patterns: list[str]
) -> None:
    said: list[str] = []
    assert names(kernels, patterns, said) == ["6.12"]
    (line,) = said
    assert line.startswith("left out: mine would have to be built first")
    assert line.endswith("hookproof kernels fetch mine")


def test_a_pattern_takes_what_is_built(kernels: tuple[Kernel, Kernel]) -> None:
    said: list[str] = []
    images.ensure(kernels[1], LOCK, lambda _: None)
    assert names(kernels, ["all"], said) == ["6.12", "mine"]
    assert said == []


@pytest.mark.parametrize("patterns", [["mine"], ["all", "mine"], ["6.12, mine"]])
def test_a_name_takes_it_in_any_case(kernels: tuple[Kernel, Kernel], patterns: list[str]) -> None:
    said: list[str] = []
    assert "mine" in names(kernels, patterns, said)
    assert said == []


@pytest.mark.parametrize("patterns", [[], [""]])
def test_a_default_takes_it_in_any_case(
    kernels: tuple[Kernel, Kernel], patterns: list[str]
) -> None:
    said: list[str] = []
    default = (kernels[0], replace(kernels[1], default=True))
    assert names(default, patterns, said) == ["6.12", "mine"]
    assert names(kernels, patterns, said) == ["6.12"]
    assert said == []


def test_nothing_left_is_an_error(kernels: tuple[Kernel, Kernel]) -> None:
    with pytest.raises(UsageProblem, match=r"^m\*: mine would have to be built first"):
        choice.choose(kernels, ["m*"], LOCK, print)


def test_a_wrong_line_is_not_passed_over(kernels: tuple[Kernel, Kernel], tmp_path: Path) -> None:
    (tmp_path / "src" / "linux" / "Makefile").unlink()
    assert names(kernels, ["all"], []) == ["6.12", "mine"]
