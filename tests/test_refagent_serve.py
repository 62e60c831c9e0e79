# SPDX-License-Identifier: Apache-2.0
"""The agent behind a socket: one line in, one line out, and no line ends it by mistake."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from refagent.serve import serve

Ask = Callable[[object], Any]

_NOT_VFS_READ = "vfs_read cannot be overridden: only security_* functions and system calls can be"

needs_btf = pytest.mark.skipif(
    not Path("/sys/kernel/btf/vmlinux").exists(), reason="this host's kernel has no BTF"
)


@pytest.fixture
def ask() -> Iterator[Ask]:
    """Sends a request, or bytes as they are, to an agent; gives its answer."""
    ours, theirs = socket.socketpair()
    ours.settimeout(30)
    agent = threading.Thread(target=serve, args=(theirs,))
    agent.start()
    with ours, theirs, ours.makefile("rwb") as stream:

        def ask(request: object) -> Any:
            line = request if isinstance(request, bytes) else json.dumps(request).encode()
            stream.write(line + b"\n")
            stream.flush()
            return json.loads(stream.readline())

        yield ask
        ours.shutdown(socket.SHUT_WR)
        agent.join(timeout=10)
        assert not agent.is_alive()


def _policy(**fields: object) -> dict[str, object]:
    policy = {"name": "a", "hook": "security_path_mkdir", "path": "/x", "override": "EPERM"}
    return {"op": "load", "policy": policy | fields}


def test_nothing_is_loaded_at_first(ask: Ask) -> None:
    assert ask({"op": "list"}) == {"ok": []}


@pytest.mark.parametrize(
    ("request_", "words"),
    [
        (_policy(path="x"), "the path 'x' is not absolute"),
        (
            _policy(override=None),
            "policy a does nothing: it needs one of override, signal, post and monitor",
        ),
        (_policy(override="EPREM"), "'EPREM' is no errno"),
        (_policy(override=0), "override 0 is outside 1..4095"),
        (_policy(colour="red"), "unknown key 'colour' in a policy"),
        (_policy(path=7), "path of a policy cannot be 7"),
        ({"op": "load", "policy": 7}, "a policy is an object of keys and values"),
        (_policy(hook="vfs_read"), _NOT_VFS_READ),
        ({"op": "unload", "name": "a"}, "no policy a is loaded"),
        ({"op": "counts", "name": "a"}, "no policy a is loaded"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_refusals(ask: Ask, request_: object, words: str) -> None:
    assert ask(request_) == {"refused": words}
    assert ask({"op": "list"}) == {"ok": []}


@needs_btf
@pytest.mark.parametrize(
    ("hook", "words"),
    [
        ("security_path_mkdirr", "did you mean security_path_mkdir?"),
        ("security_inode_mkdir", "has no argument that is a path"),
        (
            "security_d_instantiate",
            "cannot be overridden: it returns void, so there is no errno to override",
        ),
    ],
)
def test_hooks_that_cannot_serve_are_refused(ask: Ask, hook: str, words: str) -> None:
    assert words in ask(_policy(hook=hook))["refused"]


@pytest.mark.parametrize(
    ("request_", "words"),
    [
        (b"{", "not understood"),
        (b"\xff", "not understood"),
        (b"[1]", "not understood"),
        (b"7", "not understood"),
        (
            {"op": "lsit"},
            "'lsit' is missing or unknown; ops are load, unload, enable, disable,",
        ),
        ({}, "'op' is missing"),
        ({"op": "load"}, "'policy' is missing"),
        ({"op": "unload", "name": 7}, "name is to be a string"),
        ({"op": ["load"]}, "not understood"),
    ],
)
def test_what_is_no_request_is_an_error_and_the_next_one_is_heard(
    ask: Ask, request_: object, words: str
) -> None:
    assert words in ask(request_)["error"]
    assert ask({"op": "list"}) == {"ok": []}


def test_stop_is_answered(ask: Ask) -> None:
    assert ask({"op": "stop"}) == {"ok": "stopped"}
