# SPDX-License-Identifier: Apache-2.0
"""What the benchmark runs and looks at: commands, copies of a scenario, memory, the disk."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from hookproof.bench import memory, ours, process
from hookproof.bench.ours import Way
from hookproof.decode import read_scenario
from vm.errors import HostProblem, UsageProblem

SCENARIO = Path(__file__).parents[1] / "scenarios/override/denial.yaml"
BUSY = "i=0; while [ $i -lt 50000 ]; do i=$((i + 1)); done"


def test_a_command_has_a_status_an_output_and_a_cost(tmp_path: Path) -> None:
    script = f"sh -c '{BUSY}'; pwd; echo $HERE; echo oh >&2; exit 7"
    done = process.run(["sh", "-c", script], cwd=tmp_path, deadline=60, env={"HERE": "x"})
    assert (done.status, done.out, done.err) == (7, f"{tmp_path}\nx\n", "oh\n")
    assert done.words == "oh"
    assert done.cost.wall > 0
    assert done.cost.cpu > 0.001  # of the grandchild, which was waited for


def test_of_a_command_that_is_too_late_nothing_is_left(tmp_path: Path) -> None:
    done = process.run(
        ["sh", "-c", "sleep 60 >/dev/null 2>&1 & echo $!; wait"], cwd=tmp_path, deadline=0.5
    )
    assert done.status is None
    assert wait_gone(int(done.out))


def wait_gone(pid: int) -> bool:
    until = time.monotonic() + 10
    while time.monotonic() < until:
        try:
            if Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2][0] == "Z":
                return True
        except OSError:
            return True
        time.sleep(0.02)
    return False


def test_an_interrupted_measurement_leaves_no_command_behind(tmp_path: Path) -> None:
    pids: list[int] = []

    def interrupt(pid: int) -> None:
        pids.append(pid)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        process.run(["sleep", "60"], cwd=tmp_path, deadline=60, look=interrupt)
    assert wait_gone(pids[0])


def test_copies_are_scenarios_of_their_own(tmp_path: Path) -> None:
    place = ours.copies(SCENARIO, 3, tmp_path)
    found = sorted(place.iterdir())
    assert [path.name for path in found] == [f"denial-{n}.yaml" for n in (1, 2, 3)]
    assert all(read_scenario(path).steps for path in found)


def test_a_scenario_with_parameters_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageProblem, match="with parameters"):
        ours.copies(SCENARIO.with_name("limit.yaml"), 3, tmp_path)


def test_a_run_that_fails_says_why(tmp_path: Path) -> None:
    place = tmp_path / "scenarios"
    place.mkdir()
    (place / "bad.yaml").write_text("about: nothing\n")
    with pytest.raises(HostProblem, match=r"hookproof run ended with 2: ERROR .*bad\.yaml"):
        ours.run([place], ["6.12"], Way(), tmp_path)


def test_ways_are_options_of_the_command_line() -> None:
    assert Way("virtme", "none", 2).options == [
        "--machine=virtme",
        "--isolate=none",
        "--parallel=2",
    ]


#: Writes to 32 MiB, maps 16 MiB of a file and reads all of it, waits.
HOLD = """
import mmap, sys
kept = bytearray(32 << 20)
with open(sys.argv[1], "rb") as file:
    read = mmap.mmap(file.fileno(), 0, mmap.MAP_PRIVATE, mmap.PROT_READ)
sum(read[:: mmap.PAGESIZE])
print(flush=True)
sys.stdin.read()
"""


def test_peaks_are_those_of_a_qemu_far_below_the_command(tmp_path: Path) -> None:
    qemu, file = tmp_path / "qemu-system-x", tmp_path / "file"
    qemu.symlink_to(Path(sys.executable).resolve())
    with file.open("wb") as out:
        out.write(bytes(16 << 20))
        out.flush()
        os.fsync(out.fileno())
    inner = 'sh -c \'"$0" -I -S -c "$1" "$2"; true\' "$0" "$1" "$2"; true'
    with subprocess.Popen(
        ["sh", "-c", inner, str(qemu), HOLD, str(file)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as command:
        assert command.stdout is not None
        command.stdout.readline()
        seen = memory.Peaks()
        seen.look(command.pid)
        command.communicate()
    assert 32 <= seen.machine_written < 48 <= seen.machine_private <= seen.machine_rss
    assert 0 < seen.command_rss < 16
    before = vars(seen).copy()
    seen.look(command.pid)  # it has ended: the peaks stay
    assert vars(seen) == before


def test_what_the_disk_holds_is_counted_by_blocks_and_once(tmp_path: Path) -> None:
    for name in ("images", "saved"):
        (tmp_path / name / "entry").mkdir(parents=True)
    with (tmp_path / "images/entry/sparse").open("wb") as file:
        file.truncate(1 << 30)
    written = tmp_path / "saved/entry/ram"
    written.write_bytes(os.urandom(2 << 20))
    os.sync()
    (tmp_path / "saved/entry/again").hardlink_to(written)
    (tmp_path / "note.json").write_text("{}")
    found = memory.disk(tmp_path)
    assert list(found) == ["images", "saved"]
    assert found["images"] < 1
    assert 2 <= found["saved"] < 3
