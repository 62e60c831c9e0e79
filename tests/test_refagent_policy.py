# SPDX-License-Identifier: Apache-2.0
"""A policy as JSON, and a path as the kernel's table has it."""

from __future__ import annotations

import errno
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from refagent import layout
from refagent.errors import Refused
from refagent.policy import Policy

NAMES = st.text(st.characters(exclude_characters="/\0", exclude_categories=["Cs"]), min_size=1)


@st.composite
def policies(draw: st.DrawFn) -> Policy:
    """A policy that makes sense."""
    numbers = st.integers(0, 5)
    override = draw(st.none() | st.integers(1, 4095))
    path = draw(st.sampled_from(["path", "prefix", None]))
    about: dict[str, Any] = {} if path is None else {path: draw(st.text())}
    if path is not None and draw(st.booleans()):
        about["path_argument"] = draw(numbers)
    if draw(st.booleans()):
        value = draw(st.integers(-(2**63), 2**64 - 1))
        about |= {"argument": draw(numbers), "value": value}
    return Policy(
        name=draw(st.text()),
        hook=draw(st.text()),
        binary=draw(st.none() | st.text()),
        pid=draw(st.none() | st.integers(1, 2**22)),
        uid=draw(st.none() | st.integers(0, 2**32 - 2)),
        override=override,
        signal=draw(st.none() | st.integers(1, 64)),
        post=draw(st.booleans()),
        monitor=draw(st.booleans()) or override is None,
        **about,
    )


@given(policies())
def test_json_and_back(policy: Policy) -> None:
    assert Policy.from_json(policy.to_json()) == policy


def test_errnos_and_signals_go_by_name() -> None:
    policy = Policy("a", "security_path_mkdir", "/x", override=errno.EPERM, signal=9)
    assert policy.to_json() == {
        "name": "a",
        "hook": "security_path_mkdir",
        "path": "/x",
        "override": "EPERM",
        "signal": "SIGKILL",
    }


@pytest.mark.parametrize(
    ("raw", "words"),
    [
        ({"name": "a", "hook": "h", "pth": "/"}, "unknown key 'pth'"),
        ({"name": "a", "hook": "h", "override": "EPREM"}, "'EPREM' is no errno"),
        ({"name": "a", "hook": "h", "override": 4096}, "outside 1..4095"),
        ({"name": "a", "hook": "h", "override": -1}, "outside 1..4095"),
        ({"name": "a", "hook": "h", "override": True}, "override of a policy cannot be True"),
        ({"name": "a", "hook": "h", "signal": "SIGKIL"}, "'SIGKIL' is no signal"),
        ({"name": "a", "hook": "h", "signal": 65}, "outside 1..64"),
        ({"name": "a", "hook": "h", "pid": 0}, "outside 1.."),
        ({"name": "a", "hook": "h", "uid": 2**32 - 1}, "outside 0.."),
        ({"name": "a", "hook": "h", "monitor": 1}, "monitor of a policy cannot be 1"),
        ({"name": "a", "hook": 7}, "hook of a policy cannot be 7"),
        ({"name": "a", "hook": "h", "path": ["/"]}, "path of a policy cannot be"),
        ({"name": "a", "hook": "h"}, "needs one of override, signal, post and monitor"),
        ({"name": "a", "hook": "h", "post": True, "path": "/", "prefix": "/"}, "both path and"),
        ({"name": "a", "hook": "h", "post": True, "argument": 1}, "needs both argument and value"),
        ({"name": "a", "hook": "h", "post": True, "argument": 6, "value": 0}, "outside 0..5"),
        ({"name": "a", "hook": "h", "post": True, "path_argument": 0}, "and no path"),
        ({"name": "a"}, "needs 'hook'"),
        ([], "a policy is an object"),
    ],
)
def test_mistakes_are_named(raw: object, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        Policy.from_json(raw).checked()


def test_every_call_is_the_empty_beginning() -> None:
    assert layout.prefix_text("") == b""
    assert layout.prefix(b"") == bytes(4 + layout.PATH_SIZE)


@given(st.lists(NAMES.filter(lambda name: name not in {".", ".."}), max_size=8))
def test_a_key_is_the_path_padded_with_zeros(names: list[str]) -> None:
    path = "/" + "/".join(names)
    if len(path.encode()) >= layout.PATH_SIZE:
        with pytest.raises(Refused, match="bytes long"):
            layout.path_key(path)
        return
    key = layout.path_key(path)
    assert len(key) == layout.PATH_SIZE
    assert key.rstrip(b"\0") == path.encode()


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("run/x", "not absolute"),
        ("", "not absolute"),
        ("/run/\0x", "holds a NUL"),
        ("/run/", "empty name"),
        ("//run", "empty name"),
        ("/run/../x", "'..'"),
        ("/./x", "'.'"),
        ("/" + "x" * 255, "256 bytes long, at most 255"),
        ("/\ud800", "not valid text"),
    ],
)
def test_paths_that_could_never_match_are_refused(path: str, words: str) -> None:
    with pytest.raises(Refused, match=words.replace(".", r"\.")):
        layout.path_key(path)


def test_the_longest_and_the_deepest_path_fit() -> None:
    assert layout.path_key("/" + "x" * 254).rstrip(b"\0") == b"/" + b"x" * 254
    assert layout.path_key("/a" * 127).rstrip(b"\0") == b"/a" * 127


def test_names_that_are_no_utf8_keep_their_bytes() -> None:
    assert layout.path_key("/\udcff").rstrip(b"\0") == b"/\xff"


def test_a_prefix_may_end_within_a_name() -> None:
    assert layout.prefix_text("/run/t") == b"/run/t"
    assert layout.prefix_text("/run/") == b"/run/"
    assert layout.prefix_text("/") == b"/"
    assert layout.prefix_text("/run/.") == b"/run/."
    assert layout.prefix(b"/run") == b"\x20\0\0\0/run".ljust(4 + layout.PATH_SIZE, b"\0")


@pytest.mark.parametrize("text", ["run", "/run//t", "/./", "/a/../b", "/" + "a" * 255])
def test_a_prefix_that_fits_nothing_is_refused(text: str) -> None:
    with pytest.raises(Refused):
        layout.prefix_text(text)
