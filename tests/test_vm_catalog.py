# SPDX-License-Identifier: Apache-2.0
"""kernels.txt: what is read, what is refused and where, and how kernels are chosen."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vm import catalog, suggest
from vm.errors import UsageProblem
from vm.kernel import BuildSource, DebianSource, Kernel, LocalSource

ROOT = Path(__file__).parent.parent


def read(folder: Path, text: str | bytes) -> tuple[Kernel, ...]:
    path = folder / "kernels.txt"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return catalog.read(path)


def test_the_projects_own_list() -> None:
    kernels = catalog.read(ROOT / "kernels.txt")
    names = [kernel.name for kernel in kernels]
    fetched = "5.10 6.1 6.12 6.16 6.17 6.18 6.19 7.0 7.1 7.2 7.3"
    assert " ".join(names) == f"{fetched} 6.1-kprobe 6.12-kprobe"
    assert [kernel.name for kernel in catalog.select(kernels)] == ["5.10", "6.12", "7.3"]
    (lsm,) = kernels[0].cmdline
    assert lsm.startswith("lsm=")
    assert lsm.endswith(",bpf")


def test_reads_every_form(tmp_path: Path) -> None:
    kernels = read(
        tmp_path,
        "# a comment\n\n"
        "6.12 debian:trixie/6.12.*   # another\n"
        "\t6.18\tdebian:trixie-backports/6.18.[0-9]* default=no append='a=b,c  d=\"e\"'\n"
        'mine local:build/bzImage,modules="m m"/lib append=x=#1\n'
        "bare local:/boot/vmlinuz default=yes\r\n"
        "7.0 debian:trixie/7.0.*,modules=none,flavour=cloud-amd64\n"
        "7.3 debian:trixie/7.3.*,flavour=amd64\n"
        "built build:debian:trixie/6.12.*,config=lean+kprobe\n"
        "own build:../linux,config=lean\n",
    )
    one, two, three, four, five, six, seven, eight = kernels
    assert one == Kernel(
        "6.12", DebianSource("trixie", "6.12.*"), (), True, f"{tmp_path}/kernels.txt:3"
    )
    assert two.source == DebianSource("trixie-backports", "6.18.[0-9]*")
    assert (two.default, two.cmdline) == (False, ("a=b,c", 'd="e"'))
    assert three.source == LocalSource(tmp_path / "build/bzImage", tmp_path / "m m/lib")
    assert three.cmdline == ("x=#1",)
    assert four.source == LocalSource(Path("/boot/vmlinuz"), None)
    assert five.source == DebianSource("trixie", "7.0.*", "cloud-amd64", modules=False)
    assert six.source == DebianSource("trixie", "7.3.*")
    lean, kprobe = (catalog.CONFIGS / f"{name}.config" for name in ("lean", "kprobe"))
    assert seven.source == BuildSource(DebianSource("trixie", "6.12.*"), (lean, kprobe))
    assert str(seven.source) == "build:debian:trixie/6.12.*,config=lean+kprobe"
    assert seven.archived == "build:debian:trixie/6.12.*"
    assert eight.source == BuildSource(tmp_path / "../linux", (lean,))
    assert (eight.archived, one.archived, four.archived) == ("", "debian:trixie/6.12.*", "")


def test_options_of_ones_own_lie_beside_the_list(tmp_path: Path) -> None:
    own = tmp_path / "mine.config"
    own.write_text("CONFIG_A=y\n")
    (kernel,) = read(tmp_path, "a build:linux,config=lean+mine.config\n")
    assert kernel.source == BuildSource(tmp_path / "linux", (catalog.CONFIGS / "lean.config", own))


@pytest.mark.parametrize(
    "source",
    [
        "debian:trixie/7.3.*",
        "debian:trixie/7.3.*,flavour=rt-amd64",
        "debian:trixie/7.3.*,modules=none",
        "debian:trixie/7.3.*,flavour=cloud-amd64,modules=none",
    ],
)
def test_a_source_is_written_as_it_is_read(tmp_path: Path, source: str) -> None:
    (kernel,) = read(tmp_path, f"a {source}\n")
    assert str(kernel.source) == source


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "1:1: names no kernel; add a line such as '6.12 debian:trixie/6.12.*'"),
        ("# nothing\n", "1:1: names no kernel; add a line such as '6.12 debian:trixie/6.12.*'"),
        (
            "a local:x\n\na local:y\n",
            "3:1: kernel 'a' was named before, on line 1; give each kernel a name of its own",
        ),
        (
            "a local:x\n  6.12\n",
            (
                "2:7: kernel '6.12' has no source; write NAME SOURCE, such as "
                "'6.12 debian:trixie/6.12.*'"
            ),
        ),
        ("a debain:trixie/6.12.*\n", "1:3: unknown source 'debain'; did you mean 'debian'?"),
        ("a trixie\n", "1:3: unknown source 'trixie'; known: build, debian, local"),
        (
            "a debian:trixie\n",
            (
                "1:3: 'debian:trixie' names no suite and version pattern; "
                "write debian:SUITE/PATTERN, such as debian:trixie/6.12.*"
            ),
        ),
        (
            "a debian:/6.*\n",
            (
                "1:3: 'debian:/6.*' names no suite and version pattern; "
                "write debian:SUITE/PATTERN, such as debian:trixie/6.12.*"
            ),
        ),
        (
            "a debian:trixie/6.*,flavor=amd64\n",
            (
                "1:3: 'flavor=amd64' cannot follow a kernel of the archive; "
                "write debian:SUITE/PATTERN[,flavour=FLAVOUR][,modules=none]"
            ),
        ),
        (
            "a debian:trixie/6.*,modules=none,modules=none\n",
            (
                "1:3: 'modules=none' cannot follow a kernel of the archive; "
                "write debian:SUITE/PATTERN[,flavour=FLAVOUR][,modules=none]"
            ),
        ),
        (
            "a debian:trixie/6.*,flavour=cloud\n",
            "1:3: unknown flavour 'cloud'; did you mean 'cloud-amd64'?",
        ),
        (
            "a debian:trixie/6.*,modules=no\n",
            (
                "1:3: modules=no cannot follow a kernel of the archive; leave it out, or write "
                "modules=none: the archive has the kernel without them"
            ),
        ),
        (
            "a local:x,modules=y,modules=z\n",
            (
                "1:3: 'modules=z' cannot follow a local kernel; write "
                "local:VMLINUZ or local:VMLINUZ,modules=DIR"
            ),
        ),
        (
            "a local:\n",
            ("1:3: a local kernel needs a path; write local:VMLINUZ or local:VMLINUZ,modules=DIR"),
        ),
        (
            "a local:x,module=y\n",
            (
                "1:3: 'module=y' cannot follow a local kernel; write "
                "local:VMLINUZ or local:VMLINUZ,modules=DIR"
            ),
        ),
        ("a local:x  defualt=no\n", "1:12: unknown option 'defualt'; did you mean 'default'?"),
        ("a local:x cmdline=y\n", "1:11: unknown option 'cmdline'; known: append, default"),
        ("a local:x default=No\n", "1:11: default=No is neither yes nor no; write default=no"),
        (
            "a local:x default\n",
            (
                "1:11: option 'default' has no value; write default=…: yes or no: "
                "whether a run without --kernel includes it"
            ),
        ),
        (
            "a local:x append=a append=b\n",
            ("1:20: option 'append' stands here twice; keep one of them"),
        ),
        (
            "a local:x append='b\n",
            ("1:18: a quote is not closed; close it, or write a backslash before it"),
        ),
        (
            "all local:x\n",
            (
                "1:1: 'all' cannot be a kernel's name; use letters, digits and "
                ". _ + -, and not 'all'"
            ),
        ),
        (
            "6.* local:x\n",
            (
                "1:1: '6.*' cannot be a kernel's name; use letters, digits and "
                ". _ + -, and not 'all'"
            ),
        ),
        (
            "a build:linux\n",
            (
                "1:3: a kernel to build needs a source and the names of its options; "
                "write build:debian:SUITE/PATTERN,config=NAMES or build:DIR,config=NAMES"
            ),
        ),
        (
            "a build:linux,config=laen\n",
            (
                "1:3: there are no options 'laen'; did you mean 'lean'? "
                "a path to others ends in .config"
            ),
        ),
        (
            "a build:debian:trixie,config=lean\n",
            (
                "1:3: 'debian:trixie' names no suite and version pattern; "
                "write debian:SUITE/PATTERN, such as debian:trixie/6.12.*"
            ),
        ),
        (b"a local:x\nb\xff local:x\n", "2:2: is not UTF-8; save the file as UTF-8"),
    ],
)
def test_refuses(tmp_path: Path, text: str | bytes, message: str) -> None:
    with pytest.raises(UsageProblem) as caught:
        read(tmp_path, text)
    assert str(caught.value) == f"{tmp_path}/kernels.txt:{message}"


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(UsageProblem, match=r"none\.txt: cannot be read: No such file"):
        catalog.read(tmp_path / "none.txt")


@given(st.binary(max_size=200))
def test_any_bytes_give_kernels_or_a_problem(
    tmp_path_factory: pytest.TempPathFactory, data: bytes
) -> None:
    folder = tmp_path_factory.getbasetemp()
    try:
        said = str(read(folder, data)[0].where)
    except UsageProblem as problem:
        said = str(problem)
    assert said.startswith(f"{folder}/kernels.txt:")
    assert "\n" not in said


@pytest.mark.parametrize(
    ("patterns", "names"),
    [
        ([], ["6.1", "7.3"]),
        (["all"], ["6.1", "6.12", "7.3"]),
        (["7.3", "6.1"], ["6.1", "7.3"]),
        (["7.3,6.12", "7.3"], ["6.12", "7.3"]),
        (["6.*"], ["6.1", "6.12"]),
        (["6.1?"], ["6.12"]),
    ],
)
def test_selects(tmp_path: Path, patterns: list[str], names: list[str]) -> None:
    kernels = read(tmp_path, "6.1 local:a\n6.12 local:b default=no\n7.3 local:c\n")
    assert [kernel.name for kernel in catalog.select(kernels, patterns)] == names


def test_selecting_nothing(tmp_path: Path) -> None:
    kernels = read(tmp_path, "6.1 local:a default=no\n7.3 local:b default=no\n")
    with pytest.raises(UsageProblem) as caught:
        catalog.select(kernels, ["6.2"])
    assert str(caught.value) == "no kernel matches '6.2'; did you mean '6.1'? known: 6.1, 7.3"
    with pytest.raises(UsageProblem) as caught:
        catalog.select(kernels, ["6.1", "bookworm"])
    assert str(caught.value) == "no kernel matches 'bookworm'; known: 6.1, 7.3"
    with pytest.raises(UsageProblem) as caught:
        catalog.select(kernels)
    assert str(caught.value) == "no kernel is marked default; name some: 6.1, 7.3, all"


def test_suggests() -> None:
    assert suggest.closest("EPREM", ["EPERM", "EACCES"]) == "did you mean 'EPERM'?"
    assert suggest.closest("mkdri", ["rmdir", "mkdir"]) == "did you mean 'mkdir'?"
    assert suggest.closest("zzz", ["b", "a"]) == "known: b, a"
    assert suggest.closest("zzz", []) == "nothing is known here"
