# SPDX-License-Identifier: Apache-2.0
"""A policy as JSON, and a path as the kernel's table has it."""

from __future__ import annotations

import errno

import pytest
from hypothesis import given
from hypothesis import strategies as st

from refagent import layout
from refagent.errors import Refused
from refagent.policy import Policy

NAMES = st.text(st.characters(exclude_characters="/\0", exclude_categories=["Cs"]), min_size=1)


@given(
    st.builds(
        Policy,
        name=st.text(),
        hook=st.text(),
        path=st.none() | st.text(),
        override=st.none() | st.integers(1, 4095),
    )
)
def test_json_and_back(policy: Policy) -> None:
    assert Policy.from_json(policy.to_json()) == policy


def test_errnos_go_by_name() -> None:
    raw = Policy("a", "security_path_mkdir", "/x", errno.EPERM).to_json()
    assert raw == {"name": "a", "hook": "security_path_mkdir", "path": "/x", "override": "EPERM"}


@pytest.mark.parametrize(
    ("raw", "words"),
    [
        ({"name": "a", "hook": "h", "pth": "/"}, "unknown key 'pth'"),
        ({"name": "a", "hook": "h", "override": "EPREM"}, "'EPREM' is no errno"),
        ({"name": "a", "hook": "h", "override": 4096}, "outside 1..4095"),
        ({"name": "a", "hook": "h", "override": -1}, "outside 1..4095"),
        ({"name": "a", "hook": "h", "override": True}, "override of a policy cannot be True"),
        ({"name": "a", "hook": 7}, "hook of a policy cannot be 7"),
        ({"name": "a", "hook": "h", "path": ["/"]}, "path of a policy cannot be"),
        ({"name": "a"}, "needs 'hook'"),
        ([], "a policy is an object"),
    ],
)
def test_mistakes_are_named(raw: object, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        Policy.from_json(raw)


def test_every_call_is_the_empty_path() -> None:
    assert layout.path_key(None) == bytes(layout.PATH_SIZE)


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
        ("/a" * 65, "65 names deep, at most 64"),
        ("/\ud800", "not valid text"),
    ],
)
def test_paths_that_could_never_match_are_refused(path: str, words: str) -> None:
    with pytest.raises(Refused, match=words.replace(".", r"\.")):
        layout.path_key(path)


def test_the_longest_and_the_deepest_path_fit() -> None:
    assert layout.path_key("/" + "x" * 254).rstrip(b"\0") == b"/" + b"x" * 254
    assert layout.path_key("/a" * 64).rstrip(b"\0") == b"/a" * 64


def test_names_that_are_no_utf8_keep_their_bytes() -> None:
    assert layout.path_key("/\udcff").rstrip(b"\0") == b"/\xff"
