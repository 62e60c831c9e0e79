# SPDX-License-Identifier: Apache-2.0
"""What a step gave against what it must give."""

from __future__ import annotations

import errno
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from hookproof.scenario import Call
from hookproof.verbs import VERBS
from vm.errors import Problem

#: Longer texts than this are shortened in messages.
SHOWN = 120

#: What is compared as a part of a text: key in the scenario → key in the result.
_PARTS = {"refused": "refused", "contains": "text"}


def judge(call: Call, results: Sequence[Any]) -> str:
    """Compares the results of a step with what the scenario says.

    Args:
        call: the step.
        results: from the guest, one per call.

    Returns:
        Empty if every call gave what it must; else one line such as
        `expected EPERM, got ok (call 3 of 38: mkdir /run/t/3/x)`.

    Raises:
        Problem: the guest gave more or fewer results than there were calls.
    """
    if call.verb in _WITHIN:
        return _WITHIN[call.verb](call, results[0])
    if len(results) != len(call.calls):
        what = f"{len(call.calls)} calls gave {len(results)} results"
        raise Problem(what, where=str(call.where), hint="see the executor's log in the evidence")
    wrong = [
        index
        for index, (gives, result) in enumerate(zip(call.gives, results, strict=True))
        if not fits(gives, result)
    ]
    if not wrong:
        return ""
    first = wrong[0]
    said = VERBS[call.verb].say(dict(call.calls[first]))
    place = f"call {first + 1} of {len(results)}: {said}" if len(results) > 1 else said
    more = f"; {len(wrong) - 1} more went wrong" if len(wrong) > 1 else ""
    return f"{_difference(call.gives[first], results[first])} ({place}{more})"


def _hold(call: Call, result: Any) -> str:
    """What the call gave that was held, what the others gave, and when.

    Raises:
        Problem: the call was not held where it should have been.
    """
    (held,), meanwhile = call.parts
    place = f"{held.text} was to be held at '{call.calls[0]['point']}'"
    if result.get("unreached"):
        what = f"{place}, and never came there: it gave {_said(result['call'][0])}"
        raise Problem(what, where=str(call.where), hint="this scenario shows nothing here")
    if result.get("overtime"):
        what = f"{place}, and went on by itself before it was let go"
        raise Problem(what, where=str(call.where), hint="do less meanwhile")
    if wrong := judge(held, result["call"]):
        return wrong
    for step, done in zip(meanwhile, result["meanwhile"], strict=True):
        if wrong := judge(step, done["results"]):
            return f"meanwhile: {wrong}"
        if step.returns not in {done["when"], "either"}:
            late = done["when"] == "after"
            what = "did not return until" if late else "returned before"
            return f"{step.text} {what} the held call was let go ({held.text})"
    return ""


def _storm(call: Call, result: Any) -> str:
    """The first step of a branch that gave something else in one of its rounds."""
    for number, (branch, said) in enumerate(zip(call.parts, result["branches"], strict=True), 1):
        for step, given in zip(branch, said, strict=True):
            for args, gives, seen in zip(step.calls, step.gives, given, strict=True):
                rounds = sum(count for _, count, _ in seen)
                for each, count, first in seen:
                    if not fits(gives, each):
                        text = VERBS[step.verb].say(dict(args))
                        where = f"branch {number}: {text}"
                        how = f"{count} of {rounds} rounds, first in round {first}"
                        return f"{_difference(gives, each)} ({where}; {how}; {call.text})"
    return ""


#: The verbs with steps within them.
_WITHIN: dict[str, Callable[[Call, Any], str]] = {"hold": _hold, "storm": _storm}


def fits(gives: Any, result: Any) -> bool:
    """Whether a result is what the scenario says."""
    if isinstance(gives, Mapping):
        return isinstance(result, Mapping) and all(
            _fits_key(key, value, result) for key, value in gives.items()
        )
    if gives == "ok":
        return result == "ok" or (isinstance(result, Mapping) and "text" in result)
    if isinstance(gives, str) and isinstance(result, str):
        return result == gives or 0 != _number(result) == _number(gives)
    return bool(gives == result)


def _fits_key(key: str, value: Any, result: Mapping[str, Any]) -> bool:
    if key in _PARTS:
        return value in str(result.get(_PARTS[key], ""))
    return fits(value, result.get(key))


def _number(name: str) -> int:
    """An errno's number, so that EAGAIN and EWOULDBLOCK are the same; 0 for other words."""
    number = getattr(errno, name, 0)
    return number if isinstance(number, int) else 0


def _difference(gives: Any, result: Any) -> str:
    if isinstance(gives, list) and isinstance(result, list):
        parts = [("missing", sorted(set(gives) - set(result)))]
        parts.append(("unexpected", sorted(set(result) - set(gives))))
        named = "; ".join(f"{word}: {_listed(names)}" for word, names in parts if names)
        return f"expected {len(gives)} policies, got {len(result)}; {named}"
    if isinstance(gives, Mapping) and isinstance(result, Mapping):
        # Only what was asked for: `links` answers with every kind there is.
        result = {key: value for key, value in result.items() if key in gives} or result
    return f"expected {_said(gives)}, got {_said(result)}"


def _said(value: Any) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {_short(each)}" for key, each in value.items())
    return _short(value)


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= SHOWN else f"{text[:SHOWN]}…"


def _listed(names: Sequence[str]) -> str:
    shown = ", ".join(names[:5])
    return f"{shown} and {len(names) - 5} more" if len(names) > 5 else shown
