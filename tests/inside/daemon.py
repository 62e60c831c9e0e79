# SPDX-License-Identifier: Apache-2.0
"""Runs in a guest, as root: a daemon's life, and what was seen of it as one JSON object.

It judges nothing; tests/test_refagent_guest.py does.
"""

from __future__ import annotations

import contextlib
import errno
import io
import itertools
import json
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from refagent import cli, protocol
from refagent.client import Client
from refagent.errors import Refused
from refagent.libbpf import census

TOP = Path("/run/t")
EVENTS = Path("/run/events")
GOOD = TOP / "good.yaml"
BAD = TOP / "bad.yaml"
CALL = TOP / "call.yaml"
REFAGENT = [sys.executable, "-m", "refagent"]
#: Functions for policies that do nothing to us.
QUIET = ("security_path_rename", "security_path_link", "security_path_symlink")


def main() -> None:
    seen: dict[str, Any] = {}
    TOP.mkdir()
    GOOD.write_text(
        "- {name: a, hook: security_path_mkdir, path: /run/t, override: EPERM, post: true}\n"
        "- {name: b, hook: security_path_rmdir, prefix: /run/u/, override: EACCES}\n",
        encoding="utf-8",
    )
    BAD.write_text(
        "- {name: c, hook: security_path_mkdir, path: /run/v, override: EPERM}\n"
        "- {name: d, hook: security_path_mkdirr, path: /run/v, override: EPERM}\n",
        encoding="utf-8",
    )
    CALL.write_text(
        "{name: e, hook: __x64_sys_openat, path: /run/v, post: true}\n", encoding="utf-8"
    )
    before = taken()
    with daemon() as process:
        seen["commands"] = commands()
        seen["follow"] = followed()
        seen["stress"] = stress()
        process.kill()
    seen["after SIGKILL"] = settled(before)
    seen["stale"] = protocol.CONTROL.exists()
    EVENTS.unlink()
    with daemon() as process:
        refagent("load", str(GOOD))
        seen["overflow"] = overflow(process)
        seen["status"] = json.loads(refagent("status", "--json")["out"])
        process.terminate()
        process.send_signal(signal.SIGINT)
        process.send_signal(signal.SIGTERM)
        seen["exit"] = process.wait(120)
    seen["left"] = [line for line in taken() if line not in before]
    seen["socket"] = protocol.CONTROL.exists()
    seen["events"] = [json.loads(line) for line in EVENTS.read_text("utf-8").splitlines()][-2:]
    print(json.dumps(seen))


@contextlib.contextmanager
def daemon() -> Iterator[subprocess.Popen[str]]:
    """A daemon that is ready; killed if it is still there at the end."""
    argv = [*REFAGENT, "run", "--no-pin", "--events", str(EVENTS)]
    with subprocess.Popen(argv, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        try:
            line = process.stderr.readline()
            assert line == f"refagent: ready at {protocol.CONTROL}\n", line
            yield process
        finally:
            process.kill()
            sys.stderr.write(process.stderr.read())


def refagent(*words: str) -> dict[str, Any]:
    """What a command said, and its status; in this process, as Python is slow to start here."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        status = cli.main(words)
    return {"status": status, "out": out.getvalue(), "err": err.getvalue()}


def commands() -> dict[str, Any]:
    """Each command once, with a call between that tells what holds."""
    return {
        "load": refagent("load", str(GOOD)),
        "denied": mkdir(),
        "load bad": refagent("load", str(BAD)),
        "list": refagent("list"),
        "stats": refagent("stats"),
        "disable": refagent("disable", "a"),
        "allowed": mkdir(),
        "list disabled": refagent("list", "--json"),
        "enable": refagent("enable", "a"),
        "denied again": mkdir(),
        "stats of one": json.loads(refagent("stats", "a", "--json")["out"]),
        "load a system call": refagent("load", str(CALL)),
        "uncovered": json.loads(refagent("status", "--json")["out"])["uncovered"],
        "unload the call": refagent("unload", "e"),
        "unload": refagent("unload", "b", "bb"),
        "status": refagent("status"),
    }


def mkdir() -> str:
    try:
        (TOP / "new").mkdir()
    except OSError as failure:
        return errno.errorcode[failure.errno or 0]
    (TOP / "new").rmdir()
    return "ok"


def followed() -> dict[str, Any]:
    """What `refagent events` prints for one denied call, and how it ends at Ctrl-C."""
    argv = [*REFAGENT, "events"]
    with Client() as client, subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            wait_for(lambda: client.request("status")["events_readers"] == 2, "a reader")
            mkdir()
            line = process.stdout.readline()
            process.send_signal(signal.SIGINT)
            return {"line": json.loads(line), "status": process.wait(60)}
        finally:
            process.kill()  # or the block's end waits for it


def stress() -> dict[str, Any]:
    """Somebody loads and unloads while another asks; how often it was answered meanwhile."""
    changes: list[tuple[float, float]] = []
    answers: list[tuple[float, float]] = []
    wrong: list[str] = []
    done = threading.Event()

    def change() -> None:
        with Client() as client:
            for number in range(12):
                name, hook = f"s{number}", QUIET[number % len(QUIET)]
                policy = {"name": name, "hook": hook, "path": "/run/v", "override": "EPERM"}
                with timed(changes):
                    client.request("load", policy=policy)
                with timed(changes):
                    client.request("unload", name=name)

    def ask() -> None:
        with Client() as client:
            for number in itertools.count():
                if done.is_set():
                    return
                with timed(answers):
                    wrong.extend(asked(client, number % 12))

    asking = threading.Thread(target=ask)
    asking.start()
    try:
        change()
    finally:
        done.set()
        asking.join()
    within = [sum(start <= a and b <= end for a, b in answers) for start, end in changes]
    return {"changes": len(changes), "answers within": within, "wrong": wrong}


@contextlib.contextmanager
def timed(times: list[tuple[float, float]]) -> Iterator[None]:
    start = time.monotonic()
    yield
    times.append((start, time.monotonic()))


def asked(client: Client, number: int) -> Iterator[str]:
    """What in the answers contradicts itself."""
    policies = client.request("policies")
    names = [each["policy"]["name"] for each in policies]
    if names[:1] != ["a"] or len(names) > 2:
        yield f"policies {names}"
    for each in policies[1:]:
        if each["counts"] != dict.fromkeys(("matched", "denied", "outvoted", "lost"), 0):
            yield f"counts {each}"
    status = client.request("status")
    if len(status["policies"]) > 2 or len(status["functions"]) > 2:
        yield f"status {status}"
    try:
        counts = client.request("counts", name=f"s{number}")
        if set(counts.values()) != {0}:
            yield f"counts {counts}"
    except Refused as refusal:
        if not str(refusal).startswith(f"no policy s{number} is loaded"):
            yield str(refusal)


def overflow(process: subprocess.Popen[str]) -> dict[str, int]:
    """More events than the kernel's buffer holds, while nobody reads."""
    count = 4000
    process.send_signal(signal.SIGSTOP)
    for _ in range(count):
        mkdir()
    process.send_signal(signal.SIGCONT)
    wait_for(lambda: told()["lost"] > 0, "the loss to be told")
    return told() | {"calls": count}


def told() -> dict[str, int]:
    """How many events are in the file, and how many are said to be lost."""
    with EVENTS.open(encoding="utf-8") as file:
        lines = [json.loads(line) for line in file if line.endswith("\n")]
    return {
        "events": sum("lost" not in line for line in lines),
        "lost": sum(line.get("lost", 0) for line in lines),
    }


def taken() -> list[str]:
    """All programs, maps and links in the kernel."""
    return [str(each) for each in (*census.programs(), *census.maps(), *census.links())]


def settled(before: list[str]) -> list[str]:
    """What is left when the kernel has had the time to free it."""
    with contextlib.suppress(TimeoutError):
        wait_for(lambda: set(taken()) <= set(before), "the kernel to free all")
    return [line for line in taken() if line not in before]


def wait_for(condition: Callable[[], bool], what: str) -> None:
    end = time.monotonic() + 60
    while not condition():
        if time.monotonic() > end:
            raise TimeoutError(f"waited in vain for {what}")
        time.sleep(0.02)


if __name__ == "__main__":
    main()
