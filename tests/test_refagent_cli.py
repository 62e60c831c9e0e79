# SPDX-License-Identifier: Apache-2.0
"""The command `refagent`: one line for each mistake, and an exit status that tells.

What its commands do to a kernel is tests/test_refagent_guest.py's.
"""

from __future__ import annotations

import ctypes
import importlib
import json
import os
import signal
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

from refagent import cli
from refagent.cli_show import columns, details, policy_row
from tests.test_repository import ROOT

Said = pytest.CaptureFixture[str]
PYTHON_M = [sys.executable, "-m", "refagent"]


def works(*argv: str) -> bool:
    """Whether this host lets a program run, and do what it is for."""
    return subprocess.run([*argv], cwd=ROOT, capture_output=True, check=False).returncode == 0


needs_bpf = pytest.mark.skipif(
    not works(sys.executable, "-c", "from refagent import ready; ready.prepare()"),
    reason="this process may not load BPF programs, or the host's kernel has no BTF",
)
NO_CAPABILITIES = ("setpriv", "--bounding-set=-all")
OWN_MOUNTS = ("unshare", "--mount")


def refagent(*words: object, before: tuple[str, ...] = ()) -> subprocess.CompletedProcess[str]:
    argv = [*before, *PYTHON_M, *map(str, words)]
    return subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, check=False, timeout=60)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "control.sock"


@pytest.fixture
def daemon(path: Path) -> Iterator[subprocess.Popen[str]]:
    """A daemon, its events on its output; what it has said on stderr is what it should."""
    argv = [*PYTHON_M, "run", "--no-pin", "--socket", str(path), "--events", "-"]
    with subprocess.Popen(
        argv, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stderr is not None
        try:
            assert process.stderr.readline() == f"refagent: ready at {path}\n"
            yield process
        finally:
            process.kill()
            assert process.stderr.read() == ""


def test_the_command_is_the_modules() -> None:
    scripts = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["scripts"]
    module, _, name = scripts["refagent"].partition(":")
    assert getattr(importlib.import_module(module), name) is cli.main


def test_help_names_all_commands(capsys: Said) -> None:
    with pytest.raises(SystemExit) as end:
        cli.main(["--help"])
    assert end.value.code == 0
    said = capsys.readouterr().out
    for name in ("run", "load", "unload", "enable", "disable", "list", "stats", "status", "events"):
        assert f"\n    {name} " in said


@pytest.mark.parametrize("words", [[], ["lsit"], ["load"], ["unload"], ["list", "a"]])
def test_wrong_usage_is_status_2(words: list[str], capsys: Said) -> None:
    with pytest.raises(SystemExit) as end:
        cli.main(words)
    assert end.value.code == 2
    assert capsys.readouterr().err.startswith("usage: refagent")


@pytest.mark.parametrize("command", ["list", "stats", "status", "events", "unload a", "enable a"])
def test_without_a_daemon(command: str, path: Path, capsys: Said) -> None:
    assert cli.main([*command.split(), "--socket", str(path)]) == 1
    assert capsys.readouterr() == (
        "",
        f"refagent: no daemon listens at {path}; start one with refagent run\n",
    )


def test_who_asks_needs_neither_libbpf_nor_yaml() -> None:
    """Both take long to import, and a machine may lack yaml."""
    code = (
        "import sys; from refagent import cli; cli.main(['list', '--socket', '/nowhere'])\n"
        "sys.exit(any(name in sys.modules for name in ('yaml', '_cffi_backend', 'refagent.agent')))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, check=False)
    assert done.returncode == 0


def test_who_runs_needs_no_yaml() -> None:
    code = "import sys, refagent.cli_run; sys.exit('yaml' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, check=False)
    assert done.returncode == 0


def test_a_mistake_in_a_file_is_found_before_anybody_is_asked(
    path: Path, tmp_path: Path, capsys: Said
) -> None:
    good, bad = tmp_path / "good.yaml", tmp_path / "bad.yaml"
    good.write_text("{name: a, hook: security_path_mkdir, override: EPERM}\n")
    bad.write_text("name: a\nhook: security_path_mkdir\noveride: EPERM\n")
    assert cli.main(["load", str(good), str(bad), "--socket", str(path)]) == 1
    said = capsys.readouterr()
    assert said.err.startswith(f"refagent: {bad}:3:1: ")
    assert (said.out, said.err.count("\n")) == ("", 1)
    assert cli.main(["load", str(tmp_path / "none.yaml"), "--socket", str(path)]) == 1
    assert capsys.readouterr().err == (
        f"refagent: {tmp_path / 'none.yaml'}: cannot be read: No such file or directory\n"
    )


@needs_bpf
def test_a_daemons_answers(daemon: subprocess.Popen[str], path: Path, capsys: Said) -> None:
    def ask(*words: str) -> tuple[int, str, str]:
        status = cli.main([*words, "--socket", str(path)])
        return status, *capsys.readouterr()

    assert ask("list") == (0, "NAME  HOOK  ACTS ON  DOES  ENABLED\n", "")
    assert ask("list", "--json") == (0, "[]\n", "")
    assert ask("stats") == (0, "NAME  MATCHED  DENIED  OUTVOTED  LOST\n", "")
    assert ask("stats", "a") == (1, "", "refagent: no policy a is loaded\n")
    status, out, err = ask("status", "--json")
    assert (status, json.loads(out)["pid"], err) == (0, daemon.pid, "")
    for command in ("unload", "enable", "disable"):
        assert ask(command, "a", "b") == (
            1,
            "",
            "refagent: no policy a is loaded\nrefagent: no policy b is loaded\n",
        )


@needs_bpf
def test_a_refused_policy_is_named_with_its_file(
    daemon: subprocess.Popen[str], path: Path, tmp_path: Path, capsys: Said
) -> None:
    file = tmp_path / "policy.yaml"
    file.write_text("- {name: a, hook: security_path_mkdirr, override: EPERM}\n")
    assert cli.main(["load", str(file), "--socket", str(path)]) == 1
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err == (
        f"refagent: {file}: policy a: security_path_mkdirr is no function of this kernel, "
        "or the compiler inlined it; did you mean security_path_mkdir?\n"
    )


@needs_bpf
def test_a_second_daemon_is_refused(daemon: subprocess.Popen[str], path: Path) -> None:
    second = refagent("run", "--no-pin", "--socket", path)
    assert (second.returncode, second.stdout, second.stderr) == (
        1,
        "",
        f"refagent: {path}: a daemon runs there already; stop it, or choose another --socket\n",
    )
    assert daemon.poll() is None


@needs_bpf
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_and_more_of_them_end_it_well(
    daemon: subprocess.Popen[str], path: Path, number: int
) -> None:
    for _ in range(20):
        daemon.send_signal(number)
    assert daemon.wait(60) == 0
    assert not path.exists()


@needs_bpf
def test_a_signal_ends_it_that_does_not_interrupt_its_wait(
    daemon: subprocess.Popen[str], path: Path
) -> None:
    """Another thread is given the signal: as if it came a moment before the wait began."""
    threads = {int(each.name) for each in Path(f"/proc/{daemon.pid}/task").iterdir()}
    other = min(threads - {daemon.pid})
    tgkill = 234  # on x86-64
    assert ctypes.CDLL(None).syscall(tgkill, daemon.pid, other, signal.SIGTERM) == 0
    assert daemon.wait(60) == 0
    assert not path.exists()


@needs_bpf
def test_following_ends_at_an_interrupt_and_fails_with_the_daemon(
    daemon: subprocess.Popen[str], path: Path, capsys: Said
) -> None:
    argv = [*PYTHON_M, "events", "--socket", str(path)]
    for ended_by, status, words in (
        (None, -signal.SIGINT, ""),
        (daemon, 1, f"refagent: the daemon at {path} has ended\n"),
    ):
        with subprocess.Popen(argv, cwd=ROOT, stderr=subprocess.PIPE, text=True) as reader:
            while _readers(path, capsys) != 2:  # the file, and it
                assert reader.poll() is None
            (ended_by or reader).send_signal(signal.SIGINT)
            assert reader.stderr is not None
            assert (reader.stderr.read(), reader.wait(60)) == (words, status)


def _readers(path: Path, capsys: Said) -> int:
    assert cli.main(["status", "--json", "--socket", str(path)]) == 0
    return int(json.loads(capsys.readouterr().out)["events_readers"])


@needs_bpf
@pytest.mark.skipif(not works(*NO_CAPABILITIES, "true"), reason="this is a container's root")
def test_who_may_not_load_is_told_so(path: Path) -> None:
    done = refagent("run", "--no-pin", "--socket", path, before=NO_CAPABILITIES)
    assert (done.returncode, done.stdout, done.stderr) == (
        1,
        "",
        "refagent: this process may not load BPF programs; run it as root\n",
    )
    assert not path.exists()


@needs_bpf
@pytest.mark.skipif(not works(*OWN_MOUNTS, "true"), reason="this is a container's root")
def test_a_kernel_without_btf_is_named(path: Path) -> None:
    hidden = 'mount -t tmpfs none /sys/kernel/btf && exec "$@"'
    before = (*OWN_MOUNTS, "sh", "-c", hidden, "sh")
    done = refagent("run", "--no-pin", "--socket", path, before=before)
    assert done.returncode == 1
    assert done.stderr.startswith("refagent: this kernel has no BTF (")
    assert done.stderr.endswith("); use one with CONFIG_DEBUG_INFO_BTF\n")
    assert done.stderr.count("\n") == 1


def test_an_events_file_that_cannot_be(path: Path, tmp_path: Path) -> None:
    done = refagent("run", "--no-pin", "--socket", path, "--events", tmp_path)
    assert (done.returncode, done.stderr) == (1, f"refagent: {tmp_path}: Is a directory\n")


@needs_bpf
def test_a_reader_that_has_gone_is_no_error(daemon: subprocess.Popen[str], path: Path) -> None:
    read, write = os.pipe()
    os.close(read)
    argv = [*PYTHON_M, "status", "--socket", str(path)]
    done = subprocess.run(
        argv, cwd=ROOT, stdout=write, stderr=subprocess.PIPE, text=True, check=False
    )
    os.close(write)
    assert (done.returncode, done.stderr) == (128 + signal.SIGPIPE, "")


FULL = "No space left on device"


@pytest.mark.parametrize("unbuffered", ["", "1"])
@pytest.mark.parametrize(
    ("code", "output", "said"),
    [
        ("print('few')", "/dev/full", f"Unwritable: standard output: {FULL}"),
        ("print('many' * 9999)", "/dev/full", f"Unwritable: standard output: {FULL}"),
        ("sys.stdout.buffer.write(b'x')", "/dev/full", f"Unwritable: standard output: {FULL}"),
        ("sys.stdout.buffer.write(b'x')", "/dev/null", None),
        ("sys.stdout.buffer.write(b'x')", "&-", None),
        ("open('/dev/full', 'wb', 0).write(b'x')", "/dev/null", f"OSError: [Errno 28] {FULL}"),
        ("open('/dev/full', 'wb', 0).write(b'x')", "/dev/full", f"OSError: [Errno 28] {FULL}"),
    ],
)
def test_an_output_that_takes_nothing_is_told_from_another_files_error(
    code: str, output: str, said: str | None, unbuffered: str
) -> None:
    whole = f"import sys; from refagent import stdout\nwith stdout.written(): {code}"
    shell = ["sh", "-c", f'exec "$0" -c "$1" >{output}', sys.executable, whole]
    env = os.environ | {"PYTHONUNBUFFERED": unbuffered}
    done = subprocess.run(shell, cwd=ROOT, capture_output=True, text=True, check=False, env=env)
    assert done.returncode == (said is not None)
    *_, last = ["", *done.stderr.splitlines()]
    assert last.removeprefix("refagent.stdout.") == (said or "")


def test_what_a_terminal_would_obey_is_escaped(path: Path, capsys: Said) -> None:
    assert cli.main(["list", "--socket", f"{path}\x1b]0;x\x07"]) == 1
    said = capsys.readouterr().err
    assert "\\x1b]0;x\\x07" in said
    assert said.removesuffix("\n").isprintable()


def test_rows_say_what_a_policy_acts_on_and_does() -> None:
    named = {"name": "a", "hook": "security_path_chmod"}
    full = {"path": "/x", "path_argument": 0, "argument": 1, "value": 73, "uid": 7}
    assert policy_row(named | full | {"override": "EPERM", "post": True}, True) == [
        "a",
        "security_path_chmod",
        "path /x (argument 0), uid 7, argument 1 is 73",
        "override EPERM, post",
        "yes",
    ]
    wide = {"argument": 1, "value": 0, "value_bits": 64, "post": True}
    assert policy_row(named | wide, True)[2] == "argument 1 is 0 in 64 bits"
    listed = {"hash": True, "post": True, "digest_not_in": ["sha256:00", "sha256:01"]}
    assert policy_row(named | listed, True)[2:4] == ["digest is none of 2", "post, hash"]
    assert policy_row(named | {"monitor": True}, False)[2:] == ["every call", "monitor", "no"]


def test_columns_stand_under_each_other_and_hold_no_escapes() -> None:
    assert list(columns([["A", "B"], ["\x1b[1m", "b"], ["é", ""]])) == [
        "A        B",
        "\\x1b[1m  b",
        "é",
    ]


def test_details_of_a_status() -> None:
    status = {
        "policies": ["a", "b"],
        "disabled": [],
        "functions": {"f": "kprobe", "g": None, "lsm/h": "lsm"},
        "skipped": {"f": 2},
        "uncovered": {"f": "h"},
        "totals": {"events_lost": 3},
        "pid": 7,
    }
    assert list(details(status)) == [
        ["policies", "a, b"],
        ["disabled", "-"],
        ["on f", "a sensor and kprobe"],
        ["on g", "a sensor"],
        ["on lsm/h", "filter, ima and send"],
        ["skipped on f", "2"],
        ["not covered by f", "32-bit programs: h"],
        ["events lost", "3"],
        ["pid", "7"],
    ]
