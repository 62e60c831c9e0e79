# SPDX-License-Identifier: Apache-2.0
"""Results against what a scenario says."""

from typing import Any

import pytest

from hookproof.judge import fits, judge
from hookproof.scenario import Call
from hookproof.yamltree import Location
from vm.errors import Problem

WHERE = Location("case.yaml", 3, 5)


def mkdirs(count: int, gives: Any) -> Call:
    calls = tuple({"path": f"/run/t/{n}/x", "mode": 493} for n in range(1, count + 1))
    return Call("mkdir", calls, (gives,) * count, WHERE, "mkdir /run/t/$i/x")


@pytest.mark.parametrize(
    ("gives", "result"),
    [
        ("ok", "ok"),
        ("ok", {"text": "whatever"}),
        ("EPERM", "EPERM"),
        ("EAGAIN", "EWOULDBLOCK"),
        ("EDEADLK", "EDEADLOCK"),
        ({"exit": 3}, {"exit": 3}),
        ({"signal": "SIGKILL"}, {"signal": "SIGKILL"}),
        ({"refused": "no such function"}, {"refused": "x: no such function in BTF"}),
        ({"contains": "b"}, {"text": "abc"}),
        ({"text": "abc", "contains": "b"}, {"text": "abc"}),
        ({"text": ""}, {"text": ""}),
        ({"fmod_ret": 1}, {"fmod_ret": 1, "kprobe": 7}),
        (["a", "b"], ["a", "b"]),
        ([], []),
    ],
)
def test_what_fits(gives: Any, result: Any) -> None:
    assert fits(gives, result)


@pytest.mark.parametrize(
    ("gives", "result"),
    [
        ("ok", "EPERM"),
        ("ok", {"refused": "no"}),
        ("ok", {"exit": 1}),
        ("ok", {"signal": "SIGKILL"}),
        ("ok", None),
        ("EPERM", "ok"),
        ("EPERM", "EACCES"),
        ("EPERM", "SOMETHING"),
        ("EPERM", {"exit": 1}),
        ({"exit": 3}, {"exit": 4}),
        ({"exit": 3}, "ok"),
        ({"refused": "no such function"}, {"refused": "out of memory"}),
        ({"refused": "x"}, "ok"),
        ({"contains": "b"}, {"text": "ac"}),
        ({"contains": "b"}, "ENOENT"),
        ({"text": "a"}, {"text": "a\n"}),
        ({"fmod_ret": 1}, {"fmod_ret": 2}),
        ({"fmod_ret": 0}, {}),
        (["a"], ["a", "b"]),
        (["a", "b"], ["a"]),
        ([], "ok"),
    ],
)
def test_what_does_not_fit(gives: Any, result: Any) -> None:
    assert not fits(gives, result)


def test_all_right_is_silent() -> None:
    assert judge(mkdirs(3, "EPERM"), ["EPERM"] * 3) == ""


def test_wrong_call_is_named_with_its_number() -> None:
    results = ["EPERM", "EPERM", "ok", *["EPERM"] * 35]
    got = judge(mkdirs(38, "EPERM"), results)
    assert got == "expected EPERM, got ok (call 3 of 38: mkdir /run/t/3/x)"


def test_further_wrong_calls_are_counted() -> None:
    got = judge(mkdirs(3, "EPERM"), ["ok", "EPERM", "ok"])
    assert got == "expected EPERM, got ok (call 1 of 3: mkdir /run/t/1/x; 1 more went wrong)"


def test_single_call_needs_no_number() -> None:
    assert judge(mkdirs(1, "ok"), ["EPERM"]) == "expected ok, got EPERM (mkdir /run/t/1/x)"


def test_policies_that_miss_and_that_should_not_be_there() -> None:
    names = [f"deny-{n}" for n in range(1, 9)]
    call = Call("loaded", ({},), (names,), WHERE, "loaded deny")
    assert judge(call, [["deny-8", "other"]]) == (
        "expected 8 policies, got 2; missing: deny-1, deny-2, deny-3, deny-4, deny-5 and 2 more; "
        "unexpected: other (loaded)"
    )


def test_refusal_and_program_read_as_words() -> None:
    call = Call("load", ({"policy": {"name": "a"}},), ("ok",), WHERE, "load a")
    assert judge(call, [{"refused": "no such function"}]) == (
        "expected ok, got refused 'no such function' (load a)"
    )
    ran = Call("exec", ({"argv": ["/bin/false", "x"]},), ({"exit": 2},), WHERE, "exec")
    assert judge(ran, [{"exit": 1}]) == "expected exit 2, got exit 1 (exec /bin/false x)"


def test_only_the_links_asked_for_are_shown() -> None:
    call = Call("links", ({"function": "f"},), ({"fmod_ret": 1},), WHERE, "links on f")
    assert judge(call, [{"fmod_ret": 2, "kprobe": 9}]) == (
        "expected fmod_ret 1, got fmod_ret 2 (links on f)"
    )


def test_long_texts_are_shortened() -> None:
    call = Call("read", ({"path": "/x"},), ({"contains": "b"},), WHERE, "read /x")
    assert len(judge(call, [{"text": "a" * 10_000}])) < 250


def test_results_that_do_not_belong_to_the_calls_are_a_problem() -> None:
    with pytest.raises(Problem, match=r"case\.yaml:3:5: 3 calls gave 2 results"):
        judge(mkdirs(3, "ok"), ["ok", "ok"])
