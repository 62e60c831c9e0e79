# SPDX-License-Identifier: Apache-2.0
"""Policies → a TracingPolicy → the same policies; what it cannot say is refused."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from refagent.errors import Refused
from refagent.policy import Policy
from refagent.policyfile import read, words, write

PUBLISHED = sorted(
    path
    for path in (Path(__file__).parent / "policies").glob("*.yaml")
    if not path.name.endswith(".short.yaml")
)
MKDIR = Policy("a", "security_path_mkdir", override=1)


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("written") / "policy.yaml"


def again(file: Path, policies: tuple[Policy, ...]) -> tuple[Policy, ...]:
    """What is read of what is written."""
    file.write_text(write(policies), encoding="utf-8")
    return read(file)


PATHS = (
    st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=60)
    .map("/{}".format)
    .filter(lambda path: not words.unmatched(path))
)
WORDS = st.from_regex(r"[A-Za-z_][A-Za-z0-9_.]*", fullmatch=True)
HOOKS = st.one_of(
    st.sampled_from(["security_path_mkdir", "security_file_open", "__x64_sys_symlinkat"]),
    WORDS.filter(lambda word: not word.startswith(("sys_", "__x64_sys_", "__ia32_", "__arm64_"))),
    WORDS.map("__x64_sys_{}".format),
)
LABEL = "[a-z0-9]([a-z0-9-]*[a-z0-9])?"
NAMES = st.from_regex(rf"{LABEL}(\.{LABEL})?", fullmatch=True).filter(lambda name: len(name) < 240)


@st.composite
def policies(draw: st.DrawFn) -> tuple[Policy, ...]:
    """Policies that one TracingPolicy can say."""
    least, most = draw(st.sampled_from([(0, 2**64 - 1), (-(2**63), 2**63 - 1), (-1, 1)]))
    small = (least, most) == (-1, 1)
    monitor = draw(st.booleans())
    name = draw(NAMES)
    kprobes = draw(st.lists(HOOKS, max_size=3))
    lsm = draw(st.lists(WORDS.map("lsm/{}".format), min_size=not kprobes, max_size=2))
    hooks = [hook for hook in kprobes + lsm for _ in range(draw(st.integers(1, 3)))]
    out = []
    for number, hook in enumerate(hooks, 1):
        about: dict[str, Any] = {}
        kind = draw(st.sampled_from(["path", "prefix", None]))
        if kind is not None:
            about = {kind: draw(PATHS), "path_argument": draw(st.sampled_from([0, 2, 4]))}
        if draw(st.booleans()):
            about["argument"] = draw(st.sampled_from([1, 3, 5]))
            about["value"] = draw(st.integers(least, most))
            if hook.startswith("__x64_sys_") and -(2**31) <= about["value"] < 2**32 and not small:
                about["value_bits"] = 64
        override = draw(st.none() | st.integers(1, 4095))
        sig = draw(st.none() | st.integers(1, 64))
        post = draw(st.booleans()) or (override is None and sig is None)
        out.append(
            Policy(
                name=name if len(hooks) == 1 else f"{name}-{number}",
                hook=hook,
                binary=draw(st.none() | PATHS),
                pid=draw(st.none() | st.integers(1, 2**22)),
                override=override,
                signal=sig,
                post=post,
                hash=post and hook.startswith("lsm/") and draw(st.booleans()),
                monitor=monitor,
                **about,
            )
        )
    return tuple(out)


@given(policies())
def test_what_is_written_is_read_as_it_was(file: Path, given: tuple[Policy, ...]) -> None:
    assert again(file, given) == given


@pytest.mark.parametrize("path", PUBLISHED, ids=lambda path: path.stem)
def test_a_published_policy_stays_what_it_is(file: Path, path: Path) -> None:
    policies = read(path)
    assert again(file, policies) == policies
    assert write(again(file, policies)) == write(policies)


def test_what_is_written_reads_like_a_published_one() -> None:
    policies = (
        Policy(
            "x-1",
            "__x64_sys_linkat",
            path="/etc/shadow",
            path_argument=1,
            argument=4,
            value=2**31,
            override=1,
        ),
        Policy("x-2", "__x64_sys_linkat", binary="/bin/ln", pid=7, signal=9, post=True),
        Policy("x-3", "lsm/file_open", prefix="/srv", path_argument=0, signal=15, post=True),
    )
    assert write(policies) == (
        "apiVersion: cilium.io/v1alpha1\n"
        "kind: TracingPolicy\n"
        "metadata:\n"
        "  name: x\n"
        "spec:\n"
        "  kprobes:\n"
        "  - call: sys_linkat\n"
        "    syscall: true\n"
        "    args:\n"
        "    - index: 1\n"
        "      type: string\n"
        "    - index: 4\n"
        "      type: uint32\n"
        "    selectors:\n"
        "    - matchArgs:\n"
        "      - index: 1\n"
        "        operator: Equal\n"
        "        values:\n"
        "        - /etc/shadow\n"
        "      - index: 4\n"
        "        operator: Equal\n"
        "        values:\n"
        "        - '2147483648'\n"
        "      matchActions:\n"
        "      - action: Override\n"
        "        argError: -1\n"
        "      - action: NoPost\n"
        "    - matchBinaries:\n"
        "      - operator: In\n"
        "        values:\n"
        "        - /bin/ln\n"
        "      matchPIDs:\n"
        "      - operator: In\n"
        "        values:\n"
        "        - 7\n"
        "      matchActions:\n"
        "      - action: Sigkill\n"
        "      - action: Post\n"
        "  lsmhooks:\n"
        "  - hook: file_open\n"
        "    args:\n"
        "    - index: 0\n"
        "      type: file\n"
        "    selectors:\n"
        "    - matchArgs:\n"
        "      - index: 0\n"
        "        operator: Prefix\n"
        "        values:\n"
        "        - /srv\n"
        "      matchActions:\n"
        "      - action: Signal\n"
        "        argSig: 15\n"
        "      - action: Post\n"
    )


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"uid": 0}, "policy a: a TracingPolicy cannot say uid"),
        ({"by": "kprobe", "override": 1}, "policy a: a TracingPolicy cannot say by"),
        ({"path": "/x"}, "give it path_argument"),
        ({"override": None, "monitor": True}, "counted and post no event: give it post"),
        ({"override": None}, "policy a does nothing"),
        ({"override": 4096}, "outside 1..4095"),
        ({"path": "x", "path_argument": 0}, "cannot say the path 'x'"),
        ({"path": "/\0", "path_argument": 0}, "cannot say the path"),
        ({"prefix": "/\udcff", "path_argument": 0}, "cannot say the prefix"),
        ({"binary": "sh"}, "cannot say the binary 'sh'"),
        ({"hook": "a b"}, "cannot say the hook 'a b'"),
        ({"hook": ""}, "cannot say the hook ''"),
        ({"hook": "lsm/"}, "cannot say the hook"),
        ({"hook": "sys_mkdir"}, "cannot say the hook"),
        ({"hook": "__ia32_sys_mkdir"}, "cannot say the hook"),
        ({"hook": "__x64_sys_"}, "cannot say the hook"),
        ({"name": ""}, "policy '': a TracingPolicy's name has"),
        ({"name": "A"}, "policy 'A': a TracingPolicy's name has"),
        ({"name": "a."}, "policy 'a.': a TracingPolicy's name has"),
        ({"name": "a" * 254}, "a TracingPolicy's name has"),
        (
            {"path": "/x", "path_argument": 0, "argument": 0, "value": 1},
            "no type of a TracingPolicy fits all that is asked of argument 0 of security_path",
        ),
    ],
)
def test_what_cannot_be_said_is_refused(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(Refused, match=words.replace(".", r"\.").replace("..", ".")):
        write([replace(MKDIR, **changes)])


@pytest.mark.parametrize(
    ("several", "words"),
    [
        ([], "there are no policies"),
        ([{"name": "a"}, {"name": "b"}], "policy a: a TracingPolicy has one name; call this one"),
        ([{"name": "a-1"}, {"name": "a-3"}], "policy a-3: .* call this one a-2"),
        ([{"name": "a-2"}, {"name": "a-1"}], "policy a-2: "),
        ([{"name": "a-1", "monitor": True}, {"name": "a-2"}], "has one mode"),
        ([{"name": "a-1", "hook": "lsm/file_open"}, {"name": "a-2"}], "put those policies last"),
        (
            [
                {"name": "a-1", "argument": 1, "value": -1},
                {"name": "a-2", "argument": 1, "value": 2**64 - 1},
            ],
            "no type of a TracingPolicy fits all that is asked of argument 1 of security_path_mk",
        ),
    ],
)
def test_what_cannot_be_said_together_is_refused(several: list[dict[str, Any]], words: str) -> None:
    with pytest.raises(Refused, match=words):
        write([replace(MKDIR, **changes) for changes in several])


def test_more_than_a_file_holds_is_refused() -> None:
    many = [replace(MKDIR, name=f"a-{each}", pid=each) for each in range(1, 4001)]
    with pytest.raises(Refused, match=r"make a file of \d+ KiB, and 256 is the most"):
        write(many)
