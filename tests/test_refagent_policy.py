# SPDX-License-Identifier: Apache-2.0
"""A policy as JSON, and a path as the kernel's table has it."""

from __future__ import annotations

import errno
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from refagent import layout
from refagent.errors import Refused
from refagent.libbpf.maps import Map
from refagent.policy import Policy
from refagent.rules import PrefixRules, Rule

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


def test_a_prefix_may_end_within_a_name() -> None:
    assert layout.prefix_text("/run/t") == b"/run/t"
    assert layout.prefix_text("/run/") == b"/run/"
    assert layout.prefix_text("/") == b"/"
    assert layout.prefix_text("/run/.") == b"/run/."
    assert layout.prefix(b"/run") == b"\x20\0\0\0/run".ljust(4 + layout.PATH_SIZE, b"\0")


@pytest.mark.parametrize("text", ["", "run", "/run//t", "/./", "/a/../b", "/" + "a" * 255])
def test_a_prefix_that_fits_nothing_is_refused(text: str) -> None:
    with pytest.raises(Refused):
        layout.prefix_text(text)


def rule(policy: int) -> Rule:
    return Rule(policy, place=policy)


class Trie:
    """Takes what is written to a map."""

    def __init__(self) -> None:
        self.content: dict[bytes, list[int]] = {}

    def set(self, key: bytes, value: bytes) -> None:
        count, _, plain = layout.RULES_OF_PATH.unpack(value)
        size = layout.RULE.size
        rules = [layout.RULE.unpack_from(plain, at * size)[0] for at in range(count)]
        self.content[_text(key)] = rules

    def delete(self, key: bytes) -> bool:
        return bool(self.content.pop(_text(key)))


def _text(key: bytes) -> bytes:
    bits, text = layout.PREFIX.unpack(key)
    return bytes(text[: bits // 8])


@given(st.lists(st.text("ab/", max_size=5).map(lambda text: f"/{text}".encode()), max_size=15))
def test_each_prefix_has_the_rules_of_those_it_begins_with(prefixes: list[bytes]) -> None:
    trie = Trie()
    rules = PrefixRules(cast("Map", trie))
    for number, prefix in enumerate(prefixes, 1):
        rules.add(prefix, rule(number))
        check(trie, dict(enumerate(prefixes[:number], 1)))
    left = dict(enumerate(prefixes, 1))
    for number in sorted(left, key=lambda each: each % 3):
        rules.remove(left.pop(number), number)
        check(trie, left)


def check(trie: Trie, there: dict[int, bytes]) -> None:
    assert trie.content == {
        prefix: [number for number, each in there.items() if prefix.startswith(each)]
        for prefix in there.values()
    }


def test_too_many_that_fit_one_path_are_refused_and_change_nothing() -> None:
    trie = Trie()
    rules = PrefixRules(cast("Map", trie))
    for number in range(1, 17):
        rules.add(b"/" + number * b"a", rule(number))
    before = dict(trie.content)
    for prefix in (b"/", b"/aaa", b"/" + 17 * b"a"):
        with pytest.raises(Refused, match="16 policies"):
            rules.add(prefix, rule(17))
        assert trie.content == before
