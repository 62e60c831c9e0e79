# SPDX-License-Identifier: Apache-2.0
"""BPF objects follow their sources: by content, whole, and in two processes at once."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from refagent import objects
from refagent.errors import BuildFailed

SOURCE = """\
#include "number.h"
int number(void *ctx) { return NUMBER; }
char _license[] __attribute__((section("license"))) = "GPL";
"""


@pytest.fixture
def sources(tmp_path: Path) -> Path:
    directory = tmp_path / "bpf"
    directory.mkdir()
    (directory / "one.bpf.c").write_text(SOURCE)
    (directory / "two.bpf.c").write_text(SOURCE)
    (directory / "number.h").write_text("#define NUMBER 1\n")
    return directory


def test_what_is_fresh_stays(sources: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert [built.name for built in objects.refresh(sources, out)] == ["one.bpf.o", "two.bpf.o"]
    os.utime(sources / "one.bpf.c")
    assert objects.refresh(sources, out) == []


def test_a_changed_source_is_compiled_and_no_other(sources: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    objects.refresh(sources, out)
    (sources / "two.bpf.c").write_text(SOURCE.replace("NUMBER; ", "NUMBER + 1; "))
    assert [built.name for built in objects.refresh(sources, out)] == ["two.bpf.o"]


def test_a_changed_header_compiles_all_even_with_an_old_date(sources: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    objects.refresh(sources, out)
    before = (out / "one.bpf.o").read_bytes()
    (sources / "number.h").write_text("#define NUMBER 2\n")
    os.utime(sources / "number.h", (0, 0))
    assert len(objects.refresh(sources, out)) == 2
    assert (out / "one.bpf.o").read_bytes() != before


def test_a_lost_object_is_compiled_again(sources: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    objects.refresh(sources, out)
    (out / "one.bpf.o").unlink()
    assert [built.name for built in objects.refresh(sources, out)] == ["one.bpf.o"]


def test_a_mistake_is_in_the_compilers_words_and_the_old_object_stays(
    sources: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    objects.refresh(sources, out)
    before = (out / "one.bpf.o").read_bytes()
    (sources / "one.bpf.c").write_text("int broken(\n")
    with pytest.raises(BuildFailed, match=r"one\.bpf\.c:1:12: error"):
        objects.refresh(sources, out)
    assert (out / "one.bpf.o").read_bytes() == before
    assert not list(out.glob(".one.bpf-*"))


def test_a_warning_is_a_mistake(sources: Path, tmp_path: Path) -> None:
    (sources / "one.bpf.c").write_text("static int unused(void) { return 0; }\n")
    with pytest.raises(BuildFailed, match="unused-function"):
        objects.compile_all(sources, tmp_path / "out")


def test_no_compiler_is_said(
    sources: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(BuildFailed, match="clang is not installed"):
        objects.compile_all(sources, tmp_path / "out")


def test_two_processes_share_the_work(sources: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    code = (
        "import sys; from pathlib import Path; from refagent import objects;"
        "print(*(o.name for o in objects.refresh(Path(sys.argv[1]), Path(sys.argv[2]))))"
    )
    command = [sys.executable, "-c", code, str(sources), str(out)]
    both = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    names = [name for each in both for name in each.communicate(timeout=60)[0].split()]
    assert [each.returncode for each in both] == [0, 0]
    assert sorted(names) == ["one.bpf.o", "two.bpf.o"]
    assert objects.refresh(sources, out) == []


def test_a_wheel_without_sources_has_nothing_to_do(tmp_path: Path) -> None:
    assert objects.refresh(tmp_path / "absent", tmp_path / "out") == []
    assert not (tmp_path / "out").exists()


def test_a_missing_object_says_what_to_run() -> None:
    with pytest.raises(BuildFailed, match=r"run `python -m refagent\.objects`"):
        objects.path("never-written")
