# SPDX-License-Identifier: Apache-2.0
"""Names in texts, and sums of names, numbers and facts."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hookproof.names import Mistake, Sum, fill, names_in, parse_sum


def test_fill_replaces_names_and_unescapes_dollars() -> None:
    values = {"i": "3", "n": "x"}
    assert fill("/run/$i/${n}y/$n-$i", values) == "/run/3/xy/x-3"
    assert fill("$$i costs $$5", values) == "$i costs $5"


def test_names_are_found_with_their_offsets() -> None:
    assert list(names_in("/a/$b/${cd}$$e")) == [("b", 3), ("cd", 6)]


@pytest.mark.parametrize(
    ("text", "offset"), [("a$", 1), ("$", 0), ("$5", 0), ("x${", 1), ("${A}", 0)]
)
def test_dollar_without_a_name_is_a_mistake(text: str, offset: int) -> None:
    with pytest.raises(Mistake) as caught:
        fill(text, {})
    assert caught.value.offset == offset


@given(st.text())
def test_escaped_text_comes_back_as_it_was(text: str) -> None:
    assert fill(text.replace("$", "$$"), {}) == text


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("38", 38),
        ("0", 0),
        ("-3", -3),
        ("+3", 3),
        ("0o755", 493),
        ("$n", 5),
        ("${n}+1", 6),
        ("limit", 38),
        ("limit - 1", 37),
        ("1+limit-$n-2", 32),
        ("$m", 39),
    ],
)
def test_sums(text: str, value: int) -> None:
    total = parse_sum(text)
    assert total is not None
    assert total.value({"n": 5, "m": parse_sum("limit+1") or 0}, {"limit": 38}) == value


@pytest.mark.parametrize(
    "text",
    [
        "",
        " ",
        "+",
        "1+",
        "1++2",
        "1 2",
        "0755",
        "00",
        "1_0",
        "1.5",
        "0x10",
        "1e3",
        "1:30",
        "limit*2",
        "(1)",
        "$",
        "$N",
        "Limit",
        "9" * 30,
        "²",
        "٣",
    ],
)
def test_what_is_no_sum(text: str) -> None:
    assert parse_sum(text) is None


@given(st.lists(st.integers(-(10**6), 10**6), min_size=1, max_size=8))
def test_sum_of_integers_is_their_sum(terms: list[int]) -> None:
    text = "".join(f"{term:+d}" for term in terms)
    total = parse_sum(text)
    assert total is not None
    assert total.number == sum(terms)


def test_word_in_a_sum_is_a_mistake() -> None:
    total = parse_sum("$n+1")
    assert isinstance(total, Sum)
    with pytest.raises(Mistake, match=r"\$n is 'three' here, not a number"):
        total.value({"n": "three"}, {})
