# SPDX-License-Identifier: Apache-2.0
"""`hookproof kernels …` as somebody types it, against a small signed archive."""

from __future__ import annotations

import argparse
import json
import os
import time
from pathlib import Path

import pytest

from hookproof import cli_kernels
from tests.aptrepo import SUITE, Archive, Server, vmlinuz
from tests.kerneltree import Tree
from vm import kbuild, store
from vm.errors import FetchProblem, UsageProblem


@pytest.fixture
def folder(
    archive: Archive, server: Server, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Path:
    """A working folder with a kernels.txt of two kernels that the archive has."""
    archive.whole("6.12.9-1", "6.12.9-amd64")
    archive.split("7.3.4-1", "7.3.4-amd64")
    archive.publish()
    path = tmp_path / "work"
    path.mkdir()
    (path / "kernels.txt").write_text(
        f"6.12 debian:{SUITE}/6.12.* append='lsm=a,bpf quiet'\n"
        f"7.3  debian:{SUITE}/7.3.* default=no\n"
    )
    monkeypatch.chdir(path)
    return path


def hookproof(*words: str) -> int:
    parser = argparse.ArgumentParser()
    cli_kernels.add_parser(parser.add_subparsers())
    args = parser.parse_args(["kernels", *words])
    status: int = args.run(args)
    return status


def test_from_nothing_to_everything(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert hookproof("list") == 0
    assert capsys.readouterr().out.splitlines() == [
        "NAME  SOURCE                          VERSION  RELEASE  CACHED      DEFAULT",
        f"6.12  debian:{SUITE}/6.12.*  -        -        not locked  yes",
        f"7.3   debian:{SUITE}/7.3.*   -        -        not locked  no",
    ]
    with pytest.raises(UsageProblem, match=r"run: hookproof kernels fetch --update 6\.12"):
        hookproof("fetch")
    assert hookproof("fetch", "--update", "6.12") == 0
    out, err = capsys.readouterr()
    assert out == "6.12: 6.12.9-1 is ready\n"
    assert "6.12: 6.12.9-1, new" in err
    assert hookproof("fetch", "--update") == 0
    capsys.readouterr()
    assert hookproof("list") == 0
    assert capsys.readouterr().out.splitlines()[1:] == [
        f"6.12  debian:{SUITE}/6.12.*  6.12.9-1  6.12.9-amd64  yes     yes",
        f"7.3   debian:{SUITE}/7.3.*   7.3.4-1   7.3.4-amd64   yes     no",
    ]


def test_list_as_json(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    hookproof("fetch", "--update", "6.12")
    capsys.readouterr()
    assert hookproof("list", "--json") == 0
    first, second = json.loads(capsys.readouterr().out)
    assert first == {
        "name": "6.12",
        "source": f"debian:{SUITE}/6.12.*",
        "version": "6.12.9-1",
        "release": "6.12.9-amd64",
        "cached": "yes",
        "default": True,
    }
    assert (second["name"], second["cached"], second["version"]) == ("7.3", "not locked", None)


def test_updating_one_kernel_keeps_the_others(folder: Path) -> None:
    hookproof("fetch", "--update")
    before = json.loads((folder / "kernels.lock").read_text())
    hookproof("fetch", "--update", "7.3")
    assert json.loads((folder / "kernels.lock").read_text()) == before
    (folder / "kernels.txt").write_text(f"7.3 debian:{SUITE}/7.3.*\n")
    hookproof("fetch", "--update")
    assert list(json.loads((folder / "kernels.lock").read_text())["kernels"]) == ["7.3"]


def test_one_that_cannot_be_had_does_not_stop_the_others(
    folder: Path, archive: Archive, capsys: pytest.CaptureFixture[str]
) -> None:
    hookproof("fetch", "--update")
    capsys.readouterr()
    for entry in (folder.parent / "the cache" / "images").iterdir():
        (entry / "SHA256SUMS").unlink()
    for deb in archive.pool.glob("linux-image-6.12*"):
        deb.unlink()
    archive.publish()
    assert hookproof("fetch") == 1
    out, err = capsys.readouterr()
    assert out == "7.3: 7.3.4-1 is ready\n"
    assert [line for line in err.splitlines() if line.startswith("error: ")] == [
        (
            "error: kernels.txt:1: kernel '6.12': linux-image-6.12.9-amd64 6.12.9-1 has left "
            f"{SUITE}; {SUITE} has no kernel that matches '6.12.*'; it has 7.3.4"
        )
    ]


def test_verify(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    hookproof("fetch", "--update", "6.12")
    hookproof("fetch", "--update", "7.3")
    capsys.readouterr()
    assert hookproof("verify") == 0
    assert capsys.readouterr().out.startswith("6.12: good (")
    (config,) = (folder.parent / "the cache").glob("images/7.3*/boot/config-*")
    config.write_text("CONFIG_IMA=n\n")
    assert hookproof("verify") == 1
    assert capsys.readouterr().out.splitlines()[1:] == [
        "7.3: boot/config-7.3.4-amd64: SHA-256 differs",
        "7.3: damaged; run: hookproof kernels fetch 7.3",
    ]
    assert hookproof("list", "7.3") == 0
    assert "damaged" in capsys.readouterr().out
    assert hookproof("fetch", "7.3") == 0
    assert hookproof("verify", "7.3") == 0


def test_verify_wants_what_is_named(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    hookproof("fetch", "--update")
    for entry in (folder.parent / "the cache" / "images").glob("7.3*"):
        entry.rename(folder / "away")
    assert hookproof("verify") == 0
    assert hookproof("verify", "7.3") == 1
    assert "7.3: not in the cache" in capsys.readouterr().out


def test_info(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    hookproof("fetch", "--update", "6.12")
    capsys.readouterr()
    assert hookproof("info", "--json", "6.12", "7.3") == 0
    facts, other = json.loads(capsys.readouterr().out)
    assert facts["where"] == "kernels.txt:1"
    assert facts["append"] == ["lsm=a,bpf", "quiet"]
    assert list(facts["packages"]) == ["linux-image-6.12.9-amd64"]
    assert (facts["modules"]["files"], facts["modules"]["size"]) == (2, 3012)
    assert facts["vmlinuz"]["size"] == len(vmlinuz("6.12.9-amd64"))
    assert facts["config"]["CONFIG_BPF_LSM"] == "y"
    assert facts["config"]["CONFIG_IMA"] is None
    assert facts["problems"] == []
    assert "packages" not in other
    Path(facts["vmlinuz"]["path"]).unlink()
    assert hookproof("info", "6.12") == 0
    lines = dict(line.split("  ", 1) for line in capsys.readouterr().out.splitlines())
    assert lines["cached"].strip() == "damaged"
    assert lines["vmlinuz size"].strip() == "-"


def test_info_on_a_kernel_without_modules(
    folder: Path, archive: Archive, capsys: pytest.CaptureFixture[str]
) -> None:
    archive.split("7.0.1-1", "7.0.1-amd64", base=False, modules=False)
    archive.publish()
    (folder / "kernels.txt").write_text(f"7.0 debian:{SUITE}/7.0.*,modules=none\n")
    assert hookproof("fetch", "--update") == 0
    assert hookproof("verify") == 0
    capsys.readouterr()
    assert hookproof("info", "7.0") == 0
    lines = dict(line.split("  ", 1) for line in capsys.readouterr().out.splitlines())
    there = {key: value.strip() for key, value in lines.items()}
    assert there["source"] == f"debian:{SUITE}/7.0.*,modules=none"
    assert (there["modules path"], there["modules files"], there["modules size"]) == ("-", "0", "0")
    assert there["config path"] == "-"
    assert not [key for key in there if key.startswith("config CONFIG_")], "nothing is known of it"


@pytest.fixture
def replaced(folder: Path, archive: Archive, capsys: pytest.CaptureFixture[str]) -> Path:
    """The entry of a version that an update replaced."""
    hookproof("fetch", "--update")
    (old,) = (folder.parent / "the cache").glob("images/6.12.9-*")
    archive.whole("6.12.10-1", "6.12.10-amd64")
    archive.publish()
    hookproof("fetch", "--update")
    capsys.readouterr()
    return old


def in_cache(old: Path) -> list[str]:
    return sorted(path.name.partition("-")[0] for path in old.parent.iterdir())


def idle(place: Path, days: float) -> None:
    then = time.time() - days * 24 * 3600
    for name in ("used", "SHA256SUMS"):
        if (place / name).exists():
            os.utime(place / name, (then, then))


def test_prunes_what_nobody_has_used_for_long(
    replaced: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for place in replaced.parent.iterdir():
        idle(place, 31.5)
    assert hookproof("prune", "--dry-run") == 0
    assert capsys.readouterr().out.splitlines() == [
        f"{replaced.name}: 0 MB, unused for 31 days: would remove",
        "would remove 0 MB",
    ]
    assert in_cache(replaced) == ["6.12.10", "6.12.9", "7.3.4"]
    assert hookproof("prune") == 0
    assert capsys.readouterr().out.splitlines() == [
        f"{replaced.name}: 0 MB, unused for 31 days: removed",
        "removed 0 MB",
    ]
    assert in_cache(replaced) == ["6.12.10", "7.3.4"], "what kernels.lock names stays"


def test_prune_keeps_what_somebody_uses(
    replaced: Path, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Another project, with the older version in its lock, has the same cache."""
    idle(replaced, 31)
    other = folder / "other.txt"
    other.write_text(f"old debian:{SUITE}/6.12.9\n")
    entry = json.loads((folder / "kernels.lock").read_text())["kernels"]["6.12"]
    hookproof("fetch", "--update", "--catalog", "other.txt")
    assert entry["version"] == "6.12.10-1"
    capsys.readouterr()
    assert hookproof("prune") == 0
    assert capsys.readouterr().out.splitlines() == [
        f"{replaced.name}: 0 MB, unused for 0 days: kept",
        "removed 0 MB",
        "1 of them may be another project's; to remove these too: --all",
    ]
    assert in_cache(replaced) == ["6.12.10", "6.12.9", "7.3.4"]
    idle(replaced, 1)
    assert hookproof("prune", "--days", "2") == 0
    assert "unused for 1 day: kept" in capsys.readouterr().out
    assert in_cache(replaced) == ["6.12.10", "6.12.9", "7.3.4"]
    assert hookproof("prune", "--days", "1") == 0
    assert in_cache(replaced) == ["6.12.10", "7.3.4"]


def test_prune_all(replaced: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with store.locked(store.lock_of(replaced), "x", print):
        assert hookproof("prune", "--all") == 0
    assert "kept, as another process is at it\nremoved 0 MB\n" in capsys.readouterr().out
    assert hookproof("prune", "--all") == 0
    assert in_cache(replaced) == ["6.12.10", "7.3.4"]
    with pytest.raises(UsageProblem, match="--days: -1 days are yet to come"):
        hookproof("prune", "--days", "-1")


def test_prune_counts_megabytes(replaced: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (replaced / "boot" / "more").write_bytes(os.urandom(3_000_000))
    hookproof("prune", "--all")
    assert "removed 3 MB" in capsys.readouterr().out


def test_prune_keeps_local_kernels_that_are_named(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    local = folder.parent / "the cache" / "local"
    (folder / "bzImage").write_bytes(vmlinuz("6.12.0-mine"))
    (folder / "kernels.txt").write_text("mine local:bzImage\ngone local:none\n")
    assert hookproof("fetch", "mine") == 0
    (first,) = local.iterdir()
    (folder / "bzImage").write_bytes(vmlinuz("6.12.0-mine") + b"rebuilt")
    assert hookproof("fetch", "mine") == 0
    assert hookproof("prune", "--all") == 0
    assert f"{first.name}: 0 MB" in capsys.readouterr().out
    assert [path == first for path in local.iterdir()] == [False]


def test_a_local_kernel(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "bzImage").write_bytes(vmlinuz("6.12.0-mine"))
    (folder / "kernels.txt").write_text("mine local:bzImage\n")
    assert hookproof("fetch", "--update") == 0
    assert hookproof("verify") == 0
    assert hookproof("info", "mine") == 0
    capsys.readouterr()
    assert hookproof("list") == 0
    assert capsys.readouterr().out.splitlines()[1].split() == [
        "mine",
        "local:bzImage",
        "6.12.0-mine",
        "6.12.0-mine",
        "local",
        "yes",
    ]
    (folder / "bzImage").write_bytes(b"")
    with pytest.raises(UsageProblem, match=r"kernels\.txt:1: bzImage is no x86 Linux kernel"):
        hookproof("fetch")


def test_an_unknown_kernel(folder: Path) -> None:
    with pytest.raises(UsageProblem, match=r"no kernel matches '6\.21'; did you mean '6\.12'"):
        hookproof("info", "6.21")


def test_another_list(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "my.txt").write_text(f"six debian:{SUITE}/6.*\n")
    assert hookproof("fetch", "--update", "--catalog", "my.txt") == 0
    assert (folder / "my.lock").is_file()
    assert capsys.readouterr().out == "six: 6.12.9-1 is ready\n"


def test_an_update_that_finds_nothing(folder: Path) -> None:
    (folder / "kernels.txt").write_text(f"6.13 debian:{SUITE}/6.13.*\n")
    with pytest.raises(
        FetchProblem, match=r"kernels\.txt:1: kernel '6\.13': .* it has 6\.12\.9, 7"
    ):
        hookproof("fetch", "--update")
    assert not (folder / "kernels.lock").exists()


def test_what_has_to_be_built_is_built_for_its_name(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("HOOKPROOF_CACHE", str(folder / "cache"))
    monkeypatch.setattr(kbuild, "ROOM", 0)
    Tree(folder)
    (folder / "kernels.txt").write_text(
        f"6.12 debian:{SUITE}/6.12.*\nmine build:linux,config=mine.config default=no\n"
    )
    assert hookproof("fetch", "--update") == 0
    out, err = capsys.readouterr()
    assert out == "6.12: 6.12.9-1 is ready\n"
    assert "left out: mine would have to be built first" in err
    assert hookproof("list", "mine") == 0
    assert capsys.readouterr().out.splitlines()[1].split() == [
        *("mine", "build:linux,config=mine", "-", "-", "no", "no"),
    ]
    assert hookproof("fetch", "mine") == 0
    assert capsys.readouterr().out == "mine: 6.12.9 is ready\n"
    assert hookproof("list", "mine") == 0
    assert capsys.readouterr().out.splitlines()[1].split()[2:5] == ["6.12.9", "6.12.9", "yes"]
    assert hookproof("verify", "mine") == 0
    assert hookproof("info", "mine", "--json") == 0
    (facts,) = json.loads(capsys.readouterr().out.split("\n", 1)[1])
    assert facts["config"]["CONFIG_LSM"] == "a,bpf"
