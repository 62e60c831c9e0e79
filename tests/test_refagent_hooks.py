# SPDX-License-Identifier: Apache-2.0
"""What a function's types say about where its arguments are."""

from __future__ import annotations

import pytest

from refagent.errors import Refused
from refagent.hooks import Hook
from refagent.policy import Policy

#: security_socket_getpeersec_stream(sock, sockptr_t, sockptr_t, len) of 6.2 and later.
PEERSEC = Hook("security_socket_getpeersec_stream", 1, False, {}, (8, 16, 16, 4), None)
#: A function that ends in `...`.
MANY = Hook("security_of_many", 1, False, {}, (8, -1), None)


def test_an_argument_in_one_register_is_compared() -> None:
    assert PEERSEC.masked(Policy("a", PEERSEC.function, argument=0, value=7)) == (7, 2**64 - 1)


def test_as_many_bits_of_a_system_calls_argument_are_compared_as_are_asked_for() -> None:
    hook = Hook("__x64_sys_ftruncate", 1, True, {}, (), None)

    def mask(value: int, bits: int | None) -> int:
        policy = Policy("a", hook.function, argument=1, value=value, value_bits=bits)
        return hook.masked(policy)[1]

    assert mask(0, None) == mask(0, 32) == mask(-1, None) == 2**32 - 1
    assert mask(0, 64) == mask(-1, 64) == mask(2**32, None) == 2**64 - 1


def test_other_bits_than_the_argument_has_are_refused() -> None:
    with pytest.raises(Refused, match="has 64 bits, not 32"):
        PEERSEC.masked(Policy("a", PEERSEC.function, argument=0, value=7, value_bits=32))


@pytest.mark.parametrize(
    ("hook", "argument", "words"),
    [
        (PEERSEC, 1, "argument 1 of security_socket_getpeersec_stream cannot be found: argument 1"),
        (PEERSEC, 3, "argument 3 of security_socket_getpeersec_stream cannot be found: argument 1"),
        (MANY, 1, "or is one of many"),
    ],
)
def test_an_argument_behind_a_struct_of_two_words_is_refused(
    hook: Hook, argument: int, words: str
) -> None:
    with pytest.raises(Refused, match=words):
        hook.masked(Policy("a", hook.function, argument=argument, value=7))
