# SPDX-License-Identifier: Apache-2.0
"""What a kernel is built from: each of it is in the digest, and what is wrong with it is told."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from hookproof.needs_build import BUILD_NEEDS
from tests.kerneltree import RELEASE, Tree
from vm import catalog, kconfig, recipe, run, toolchain
from vm.default import default_catalog
from vm.errors import UsageProblem
from vm.kernel import BuildSource
from vm.lockfile import Locked, Package


@pytest.fixture
def tree(tmp_path: Path) -> Tree:
    return Tree(tmp_path / "src")


@pytest.fixture
def programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder whose programs come before the host's."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")
    toolchain.versions.cache_clear()
    yield folder
    toolchain.versions.cache_clear()


def digest(tree: Tree, locked: Locked | None = None) -> str:
    source = tree.kernel.source
    assert isinstance(source, BuildSource)
    return recipe.of(tree.kernel, source, locked).digest


def add_option(tree: Tree) -> None:
    tree.config.write_text(tree.config.read_text() + "CONFIG_MORE=y\n")


def switch_option(tree: Tree) -> None:
    tree.config.write_text(tree.config.read_text().replace("BPF=y", "BPF=1"))


def edit_file(tree: Tree) -> None:
    (tree.path / "options").write_text("CONFIG_BPF=\nCONFIG_LSX=\n")


def add_file(tree: Tree) -> None:
    (tree.path / "mm").mkdir()
    (tree.path / "mm" / "slub.c").write_text("")


def touch_file(tree: Tree) -> None:
    os.utime(tree.path / "image", (1, 1))


def move_tree(tree: Tree) -> None:
    tree.path = tree.path.rename(tree.path.with_name("elsewhere"))


@pytest.mark.parametrize(
    "change", [add_option, switch_option, edit_file, add_file, touch_file, move_tree]
)
def test_each_input_is_in_the_digest(tree: Tree, change: Callable[[Tree], None]) -> None:
    before = digest(tree)
    assert digest(tree) == before
    change(tree)
    assert digest(tree) != before


def test_the_words_to_make_are_in_the_digest(tree: Tree, monkeypatch: pytest.MonkeyPatch) -> None:
    before = digest(tree)
    monkeypatch.setattr(recipe, "WORDS", (*recipe.WORDS, "V=1"))
    assert digest(tree) != before


@pytest.mark.parametrize("name", ["gcc", "ld", "pahole"])
def test_another_compiler_is_another_kernel(tree: Tree, programs: Path, name: str) -> None:
    before = digest(tree)
    other = programs / name
    other.write_text("#!/bin/sh\necho 99.9\n")
    other.chmod(0o755)
    toolchain.versions.cache_clear()
    assert digest(tree) != before


def test_the_package_is_in_the_digest_and_gives_the_release(tree: Tree) -> None:
    def locked(sha256: str) -> Locked:
        package = Package("linux-source-6.12", "6.12.10-1", 1, sha256)
        return Locked("build:debian:x/6.12.*", "6.12.10-1", "6.12.10", (package,))

    assert digest(tree, locked("0" * 64)) != digest(tree, locked("1" * 64))
    source = tree.kernel.source
    assert isinstance(source, BuildSource)
    made_of = recipe.of(tree.kernel, source, locked("0" * 64))
    assert (made_of.release, made_of.version) == ("6.12.10", "6.12.10-1")


@pytest.mark.parametrize("place", [".git/index", ".git"])
def test_what_git_keeps_is_no_input(tree: Tree, place: str) -> None:
    before = digest(tree)
    (tree.path / place).parent.mkdir(exist_ok=True)
    (tree.path / place).write_text("gitdir: elsewhere\n")
    assert digest(tree) == before


def test_a_trees_release_is_what_its_makefile_and_its_files_say(tree: Tree) -> None:
    (tree.path / "localversion-next").write_text("-next\n")
    (tree.path / "localversion-old~").write_text("-old\n")
    makefile = tree.path / "Makefile"
    makefile.write_text(makefile.read_text().replace("EXTRAVERSION =", "EXTRAVERSION = -rc3"))
    source = tree.kernel.source
    assert isinstance(source, BuildSource)
    assert recipe.of(tree.kernel, source, None).release == f"{RELEASE}-rc3-next"


@pytest.mark.parametrize("text", [None, "all:\n", "VERSION = 6\n"])
def test_a_folder_that_is_no_kernels_source(tree: Tree, text: str | None) -> None:
    makefile = tree.path / "Makefile"
    makefile.unlink() if text is None else makefile.write_text(text)
    with pytest.raises(UsageProblem, match=r"^kernels\.txt:3: .*(no source|cannot be read)"):
        digest(tree)


def test_options_are_read_in_order(tmp_path: Path) -> None:
    first, second = tmp_path / "a", tmp_path / "b"
    first.write_text('# A remark.\nCONFIG_A=y\n\n  CONFIG_B="x y"\nCONFIG_C=-1\nCONFIG_D=0x1f\n')
    second.write_text("# CONFIG_A is not set\nCONFIG_C=y\n")
    found = kconfig.asked([first, second])
    assert found == {"CONFIG_A": None, "CONFIG_B": '"x y"', "CONFIG_C": "y", "CONFIG_D": "0x1f"}
    again = tmp_path / "again"
    again.write_text(kconfig.text(found))
    assert kconfig.asked([again]) == found


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("CONFIG_A=m", "modules are not built"),
        ("CONFIG_A", "sets no option"),
        ("CONFIG_A=n", "is not set"),
        ("BPF=y", "'BPF=y' sets no option"),
        ('CONFIG_A="', "sets no option"),
    ],
)
def test_a_line_that_sets_nothing_is_named(tmp_path: Path, line: str, words: str) -> None:
    path = tmp_path / "wrong.config"
    path.write_text(f"# A remark.\n{line}\n")
    with pytest.raises(UsageProblem) as caught:
        kconfig.asked([path])
    assert str(caught.value).startswith(f"{path}:2: ")
    assert words in str(caught.value)


def test_options_that_are_not_as_asked_for() -> None:
    asked = {
        "CONFIG_A": "y",
        "CONFIG_B": '"x"',
        "CONFIG_C": None,
        "CONFIG_D": None,
        "CONFIG_E": "1",
    }
    there = {"CONFIG_A": "m", "CONFIG_B": "x", "CONFIG_C": "y"}
    assert kconfig.unmet(asked, there) == ["CONFIG_A=y", "# CONFIG_C is not set", "CONFIG_E=1"]


def test_the_projects_own_options_say_what_they_are_for() -> None:
    built = [k.source for k in catalog.read(default_catalog()) if isinstance(k.source, BuildSource)]
    assert built
    for source in built:
        asked = kconfig.asked(source.config)
        assert asked["CONFIG_BPF_KPROBE_OVERRIDE"] == asked["CONFIG_DEBUG_INFO_BTF"] == "y"
        assert asked["CONFIG_PVH"] == asked["CONFIG_BPF_LSM"] == "y"
        assert "bpf" in str(asked["CONFIG_LSM"])


def test_the_set_up_installs_what_a_build_needs() -> None:
    # These come with what is needed in any case, and with every system.
    others = {"gcc", "ld", "python3", "tar"}
    packages = {need.debian for need in BUILD_NEEDS}
    assert {run.PACKAGES[name] for name in toolchain.PROGRAMS if name not in others} <= packages
    assert set(toolchain.HEADERS.values()) <= packages
