# SPDX-License-Identifier: Apache-2.0
"""Kernels that are built here, out of a tree in miniature: what comes out and what goes wrong."""

from __future__ import annotations

import io
import lzma
import os
import signal
import subprocess
import sys
import tarfile
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.aptrepo import SUITE, Archive, Server
from tests.kerneltree import RELEASE, Tree
from vm import images, kbuild, kconfig, lockfile, run, store, toolchain
from vm.errors import FetchProblem, HostProblem, Problem
from vm.kernel import BuildSource, DebianSource, Image, Kernel

PATIENCE = 20.0
#: `ensure` in a process of its own: arguments are a tree and a file of options.
CHILD = """
import sys
from pathlib import Path
from vm import images, kbuild
from vm.kernel import BuildSource, Kernel
kbuild.ROOM = 0
kernel = Kernel("mine", BuildSource(Path(sys.argv[1]), (Path(sys.argv[2]),)))
print(images.ensure(kernel, Path("no.lock"), lambda line: None).digest)
"""


@pytest.fixture
def tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Tree:
    """A tree, and an empty cache in a folder that kbuild can work in."""
    monkeypatch.setenv("HOOKPROOF_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(kbuild, "ROOM", 0)
    return Tree(tmp_path / "src")


@pytest.fixture
def said() -> list[str]:
    return []


def build(tree: Tree, said: list[str] | None = None) -> Image:
    return images.ensure(tree.kernel, Path("no.lock"), (said if said is not None else []).append)


def refused(tree: Tree, kind: type[Problem] = FetchProblem) -> str:
    with pytest.raises(kind) as caught:
        build(tree)
    assert leftovers() == []
    return str(caught.value)


def leftovers() -> list[str]:
    return [path.name for path in (store.root() / "images").iterdir()]


def wait_for(condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, f"{what} did not come within {PATIENCE} s"
        time.sleep(0.01)


def child(tree: Tree) -> subprocess.Popen[str]:
    argv = [sys.executable, "-c", CHILD, str(tree.path), str(tree.config)]
    return subprocess.Popen(
        argv,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        start_new_session=True,
    )


def test_a_build_lays_out_kernel_and_configuration(tree: Tree, said: list[str]) -> None:
    image = build(tree, said)
    place = image.vmlinuz.parent.parent
    names = sorted(str(path.relative_to(place)) for path in place.rglob("*") if path.is_file())
    assert names == ["SHA256SUMS", f"boot/config-{RELEASE}", f"boot/vmlinuz-{RELEASE}", "checked"]
    assert image.vmlinuz.read_bytes() == (tree.path / "image").read_bytes()
    assert kconfig.read(image.config) == {"CONFIG_BPF": "y", "CONFIG_LSM": "a,bpf"}
    assert (image.release, image.modules) == (RELEASE, None)
    assert (place / "lib/modules").is_dir()
    assert said[0].startswith(f"mine: building {RELEASE} on ")
    assert said[-1].startswith("mine: ready after ")
    log = store.root() / "logs" / f"{place.name}.log"
    assert "  CC      init/main.o" in log.read_text().splitlines()


def test_what_is_built_is_built_once(tree: Tree, said: list[str]) -> None:
    assert images.find(tree.kernel, Path("no.lock")) == (None, [])
    image = build(tree)
    assert build(tree, said) == image
    assert images.find(tree.kernel, Path("no.lock")) == (image, [])
    assert images.check(image) == []
    assert image.vmlinuz.parent.parent in images.named([tree.kernel], Path("no.lock"))
    assert (tree.builds, said) == (1, [])


def test_a_damaged_one_is_built_again(tree: Tree, said: list[str]) -> None:
    image = build(tree)
    image.vmlinuz.write_bytes(b"damaged")
    assert images.check(image) == [f"boot/vmlinuz-{RELEASE}: SHA-256 differs"]
    build(tree, said)
    assert images.check(image) == []
    assert tree.builds == 2
    assert said[0].startswith("mine: damaged in the cache")


def test_options_that_do_not_hold_are_named_before_anything_is_compiled(tree: Tree) -> None:
    tree.config.write_text("CONFIG_BPF=y\nCONFIG_NO=y\nCONFIG_NEITHER=3\n")
    line = refused(tree)
    assert "kernel 'mine': options do not hold" in line
    assert "CONFIG_NO=y, CONFIG_NEITHER=3;" in line
    assert "CONFIG_BPF" not in line
    assert tree.builds == 0


def test_an_option_that_must_be_off_and_is_on_is_named(tree: Tree) -> None:
    makefile = tree.path / "Makefile"
    forced = "; echo CONFIG_VT=y >> $(O)/.config\nkernelrelease"
    makefile.write_text(makefile.read_text().replace("|| true\nkernelrelease", forced))
    assert "# CONFIG_VT is not set" in refused(tree)


def test_a_build_that_fails_is_one_line_and_a_log(tree: Tree) -> None:
    words = ["  CC      mm/slub.o", "mm/slub.c:7:1: error: 'x' undeclared", "make: *** [all] Error"]
    (tree.path / "broken").write_text("\n".join(words) + "\n")
    line = refused(tree)
    assert "\n" not in line
    assert "kernel 'mine': the build failed: mm/slub.c:7:1: error: 'x' undeclared; " in line
    log = Path(line.rpartition(" ")[2])
    assert words[2] in log.read_text().splitlines()


@pytest.mark.parametrize(
    ("lines", "telling"),
    [
        (["a: error: b", "c: error: d", "make: *** [x] Error 1"], "a: error: b"),
        (
            ["LD vmlinux", "ld: undefined reference to `f'", "make: *** x"],
            "ld: undefined reference to `f'",
        ),
        (["***", "*** The source tree is not clean", "***"], "*** The source tree is not clean"),
        (["one", "  two  ", ""], "two"),
        ([], ""),
    ],
)
def test_the_telling_line_of_a_log(tmp_path: Path, lines: list[str], telling: str) -> None:
    log = tmp_path / "log"
    log.write_text("\n".join(lines))
    assert kbuild.telling(log) == telling


def test_a_build_without_an_end_is_ended(tree: Tree, monkeypatch: pytest.MonkeyPatch) -> None:
    os.mkfifo(tree.hold)
    monkeypatch.setattr(kbuild, "TIMEOUT", 1.0)
    assert "the build failed: no end after 1 s" in refused(tree)
    shell = Path("/proc", tree.begun.read_text().strip())
    wait_for(lambda: not shell.exists(), "the end of what make had started")


def test_a_tree_that_changes_while_it_is_built_makes_no_kernel(tree: Tree) -> None:
    makefile = tree.path / "Makefile"
    makefile.write_text(makefile.read_text() + "\t@touch new.c\n")
    assert f"{tree.path} changed meanwhile" in refused(tree)


def test_progress_is_told_now_and_then(
    tree: Tree, said: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kbuild, "_PACE", 0.0)
    build(tree, said)
    assert "mine: 0 s, 1 files compiled, now init" in said


def test_a_source_of_another_release_is_refused_early(tree: Tree) -> None:
    makefile = tree.path / "Makefile"
    makefile.write_text(makefile.read_text().replace("echo 6.12.9$", "echo 6.12.9-dirty$"))
    assert "calls itself 6.12.9-dirty, not 6.12.9" in refused(tree)
    assert tree.builds == 0


def test_nothing_of_the_caller_gets_into_make(tree: Tree, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MAKEFLAGS", "--dry-run")
    monkeypatch.setenv("KCFLAGS", "-O0")
    monkeypatch.setenv("LOCALVERSION", "-mine")
    assert build(tree).release == RELEASE
    assert tree.builds == 1


def test_missing_programs_are_named_together(tree: Tree, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(toolchain, "PROGRAMS", ("make", "no-flex", "no-bison"))
    monkeypatch.setattr(run, "PACKAGES", {**run.PACKAGES, "no-flex": "a", "no-bison": "b"})
    line = refused(tree, HostProblem)
    assert line.startswith("mine: to build it takes no-flex, no-bison; ")
    assert line.endswith("(Debian: a b)")
    assert tree.builds == 0


def test_too_little_room_is_told_before_the_build(
    tree: Tree, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kbuild, "ROOM", 1 << 60)
    assert "a build takes 1073741824 GiB" in refused(tree, HostProblem)
    assert tree.builds == 0


def test_a_cache_that_kbuild_cannot_work_in_is_told(
    tree: Tree, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOOKPROOF_CACHE", str(tmp_path / "the cache"))
    assert "neither space nor colon" in refused(tree, HostProblem)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_a_build_ended_half_way_leaves_no_process_and_is_made_again(
    tree: Tree, number: signal.Signals
) -> None:
    os.mkfifo(tree.hold)
    with child(tree) as ended:
        wait_for(lambda: tree.builds == 1, "the build")
        os.killpg(ended.pid, number)
    shell = Path("/proc", tree.begun.read_text().strip())
    wait_for(lambda: not shell.exists(), "the end of what make had started")
    assert bool(leftovers()) == (number is signal.SIGKILL)
    tree.hold.unlink()
    image = build(tree)
    assert images.check(image) == []
    assert leftovers() == [image.vmlinuz.parent.parent.name]


def test_of_two_at_once_one_builds(tree: Tree) -> None:
    os.mkfifo(tree.hold)
    with child(tree) as first, child(tree) as second:
        wait_for(lambda: tree.builds == 1, "the build")
        tree.hold.read_text()
        digests = {first.communicate(timeout=PATIENCE)[0], second.communicate(timeout=PATIENCE)[0]}
    assert (first.returncode, second.returncode) == (0, 0)
    assert (len(digests), tree.builds) == (1, 1)


def source_package(tree: Tree) -> bytes:
    """The tree as the tarball in a package of Debian's."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        tar.add(tree.path, "linux-source-6.12")
    return lzma.compress(out.getvalue())


def test_a_package_of_source_is_fetched_and_built(
    tree: Tree, archive: Archive, server: Server, tmp_path: Path
) -> None:
    content = {"usr/src/linux-source-6.12.tar.xz": source_package(tree)}
    for version in ("6.12.10-1", "6.12.9-2", "6.12.9-1"):
        archive.add("linux-source-6.12", version, content)
    archive.add("linux-source-7.3", "7.3.4-1", {})
    archive.publish()
    source = BuildSource(DebianSource(SUITE, "6.12.9"), (tree.config,))
    kernel = Kernel("mine", source, where="kernels.txt:3")
    lock, said = tmp_path / "kernels.lock", list[str]()

    images.update([kernel], lock, said.append)
    locked = lockfile.read(lock)["mine"]
    assert locked.source == f"build:debian:{SUITE}/6.12.9"
    assert (locked.version, locked.release) == ("6.12.9-2", RELEASE)
    image = images.ensure(kernel, lock, said.append)
    assert image.vmlinuz.read_bytes() == (tree.path / "image").read_bytes()
    assert leftovers() == [image.vmlinuz.parent.parent.name]
    assert sum(path.endswith(".deb") for path in server.requests) == 1

    none = Kernel("none", BuildSource(DebianSource(SUITE, "5.*"), (tree.config,)))
    with pytest.raises(FetchProblem, match=r"no kernel's source that matches '5\.\*'; it has 6\."):
        images.update([none], lock, said.append)
