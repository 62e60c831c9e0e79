# SPDX-License-Identifier: Apache-2.0
"""The next step for a misspelt word: what was meant, or what there is."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


def closest(word: str, known: Iterable[str]) -> str:
    """Says which of the known words was meant, for a `Problem`'s hint.

    Args:
        word: what somebody wrote.
        known: the words that are right here, in the order to show them.

    Returns:
        `did you mean 'x'?` if one known word is close, else `known: a, b, c`, and
        `nothing is known here` without any.
    """
    words = list(dict.fromkeys(known))
    if not words:
        return "nothing is known here"
    folded = {each.lower(): each for each in reversed(words)}
    near = difflib.get_close_matches(word.lower(), folded, n=1, cutoff=0.6)
    return f"did you mean '{folded[near[0]]}'?" if near else f"known: {', '.join(words)}"
