# SPDX-License-Identifier: Apache-2.0
"""virtme-run and vng as the benchmark calls them, and what counts when they die."""

from __future__ import annotations

import json
import shlex
from pathlib import Path

import pytest

from hookproof import bind
from hookproof.bench import process, repeat
from hookproof.bench.peers import VIRTME_RUN, VNG, Lost, Peers
from hookproof.decode import read_scenario
from vm import accel, catalog, images, virtme
from vm.accel import Accel
from vm.default import default_catalog, default_lock
from vm.errors import HostProblem
from vm.kernel import Image, Kernel, LocalSource

SCENARIO = Path(__file__).parents[1] / "scenarios/override/denial.yaml"
CALLS = bind.bind(read_scenario(SCENARIO), {}, {})
KERNEL = Kernel("mine", LocalSource(Path("/x/vmlinuz")), cmdline=("lsm=a,b", "quiet"))
IMAGE = Image(KERNEL, "6.12", "6.12", Path("/x/vmlinuz"), None, None, "0")


@pytest.fixture
def peers(tmp_path: Path) -> Peers:
    return Peers(Accel.TCG, tmp_path, print)


def peer_that(does: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Puts another vng in the place of the installed one; its last argument but one is ours."""
    program = folder / "vng"
    program.write_text(f"#!/bin/sh\n{does}\n", encoding="utf-8")
    program.chmod(0o700)
    monkeypatch.setattr(virtme, "program", lambda: folder / VIRTME_RUN)


def test_one_that_dies_is_started_again_and_counted(
    peers: Peers, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = shlex.quote(str(tmp_path))
    peer_that(
        f"echo >>{here}/tries; [ $(wc -l <{here}/tries) = 3 ] || {{ echo gone >&2; exit 255; }}\n"
        "while [ $1 != --exec ]; do shift; done; eval $2",
        tmp_path,
        monkeypatch,
    )
    assert peers.run(VNG, IMAGE, "echo one; echo two").lines == ("one", "two")
    assert peers.lost == [Lost(VNG, "mine", 255, "gone")] * 2


def test_one_that_dies_four_times_is_a_problem(
    peers: Peers, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    peer_that("exit 255", tmp_path, monkeypatch)
    with pytest.raises(HostProblem, match="4 times: exit status 255"):
        peers.run(VNG, IMAGE)
    assert len(peers.lost) == 4


def test_a_script_that_fails_is_no_measure(
    peers: Peers, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    peer_that("while [ $1 != --exec ]; do shift; done; eval $2", tmp_path, monkeypatch)
    with pytest.raises(HostProblem, match="to the end"):
        peers.run(VNG, IMAGE, "false")


def test_peers_have_our_processor_and_the_kernels_own_words(peers: Peers) -> None:
    run, vng = (shlex.join(peers.command(peer, IMAGE, "true")) for peer in (VIRTME_RUN, VNG))
    assert run.endswith(f"--script-sh true --qemu-opts -cpu {virtme.CPU[Accel.TCG]}")
    assert "--kopt=lsm=a,b --kopt=quiet" in run
    assert vng.endswith(f"--exec true '--qemu-opts=-cpu {virtme.CPU[Accel.TCG]}'")
    assert "--append=lsm=a,b --append=quiet" in vng


def lines(*repetitions: list[object]) -> list[str]:
    per_call = [[[result] for result in results] for results in repetitions]
    return ["noise", *(f"hookproof-bench-results {json.dumps(each)}" for each in per_call)]


def test_what_the_guest_printed_is_judged_on_the_host() -> None:
    good: list[object] = ["ok", ["deny"], "EPERM", "ENOENT"]
    bad: list[object] = ["ok", ["deny"], "ok", "ENOENT"]
    assert repeat.wrong(CALLS, 2, lines(good, good)) == ""
    assert "expected EPERM, got ok" in repeat.wrong(CALLS, 2, lines(good, bad))
    assert repeat.wrong(CALLS, 3, lines(good, good)) == "2 of 3 repetitions gave results"


def image(name: str) -> Image:
    (kernel,) = catalog.select(catalog.read(default_catalog()), [name])
    return images.ensure(kernel, default_lock(), print)


@pytest.mark.vm
def test_virtme_run_takes_the_options(peers: Peers, tmp_path: Path) -> None:
    argv = peers.command(VIRTME_RUN, image("5.10"), "true")
    argv[1:1] = ["--dry-run", "--show-command"]
    done = process.run(argv, cwd=tmp_path, deadline=120)
    (line,) = [line for line in done.out.splitlines() if "-kernel" in line]
    words = shlex.split(line)
    assert words[words.index("-cpu", words.index("-cpu") + 1) + 1] == virtme.CPU[Accel.TCG]
    assert "lsm=lockdown" in words[words.index("-append") + 1]


@pytest.mark.vm
def test_vng_does_what_the_scenario_does(tmp_path: Path) -> None:
    peers = Peers(accel.choose("auto").accel, tmp_path, print)
    said = peers.run(VNG, image("6.12"), repeat.command(CALLS, 2))
    assert repeat.wrong(CALLS, 2, said.lines) == ""
