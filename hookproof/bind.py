# SPDX-License-Identifier: Apache-2.0
"""A scenario meets a kernel: names get values, steps become calls for the guest."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from typing import Any, TypeAlias

from hookproof.declare import SWITCHES
from hookproof.forms import Env, Unbound
from hookproof.names import COUNTER, Value, fill
from hookproof.scenario import Call, Scenario, Step
from hookproof.verbs import VERBS
from hookproof.within import steps_of
from refagent.policy import Policy

#: (arguments, what they must give) of each call of a step.
Calls: TypeAlias = Iterable[tuple[dict[str, Any], Any]]


def bind(
    scenario: Scenario, params: Mapping[str, Value], facts: Mapping[str, int]
) -> tuple[Call, ...]:
    """Puts in every name.

    Args:
        scenario: what was read.
        params: one value for each of its parameters.
        facts: what the kernel's probes found, for at least `scenario.facts`.

    Returns:
        Its steps in order.

    Raises:
        UsageProblem: a sum comes to something out of range on this kernel, or a fact is
            not known.
    """
    env = Env(params, facts)
    return tuple(_call(scenario, step, env) for step in scenario.steps)


def _call(scenario: Scenario, step: Step, env: Env) -> Call:
    times = resolve(step.times, env)
    binder = _BINDERS.get(step.verb, _each)
    calls = [] if VERBS[step.verb].parts else list(binder(scenario, step, env, times))
    parts = tuple(
        tuple(_call(scenario, each, env) for each in part)
        for part in (steps_of(step.args) if VERBS[step.verb].parts else ())
    )
    if parts:
        calls = [(_with_parts(step, env, parts), "ok")]
    text = _said(step, env, parts)
    return Call(
        verb=step.verb,
        calls=tuple(args for args, _ in calls),
        gives=tuple(gives for _, gives in calls),
        where=step.where,
        text=f"{text} (x{times})" if times > 1 else text,
        parts=parts,
        returns=step.returns,
    )


def _with_parts(step: Step, env: Env, parts: tuple[tuple[Call, ...], ...]) -> dict[str, Any]:
    """The one call of a step that has others within it."""
    inner = [[_wired(each) for each in part] for part in parts]
    plain = {name: each for name, each in step.args.items() if name not in _PARTS}
    own: dict[str, Any] = resolve(plain, env)
    if step.verb == "storm":
        return {**own, "branches": inner}
    (held,), meanwhile = inner
    return {**own, "call": held, "meanwhile": meanwhile}


#: The arguments that are steps.
_PARTS = frozenset({"branches", "call", "meanwhile"})


def _wired(call: Call) -> dict[str, Any]:
    return {
        "verb": call.verb,
        "calls": [dict(each) for each in call.calls],
        "returns": call.returns,
    }


def _said(step: Step, env: Env, parts: tuple[tuple[Call, ...], ...]) -> str:
    """The step as one would say it."""
    if not parts:
        return _text(step, env)
    if step.verb == "storm":
        return _text(replace(step, args={**step.args, "branches": len(parts)}), env)
    at = f" of {step.args['at']}" if "at" in step.args else ""
    plain = {"point": f"{step.args['point']}{at}", "call": parts[0][0].text}
    return _text(replace(step, args=plain), env)


def _each(_scenario: Scenario, step: Step, env: Env, times: int) -> Calls:
    """The step's own arguments, once per repetition."""
    for here in _repetitions(env, times):
        yield resolve(step.args, here), resolve(step.gives, here)


def _load(scenario: Scenario, step: Step, env: Env, times: int) -> Calls:
    for here in _repetitions(env, times):
        for name in resolve(step.args["names"], here):
            yield {"policy": _policy(scenario, name, env).to_json()}, resolve(step.gives, here)


def _by_name(_scenario: Scenario, step: Step, env: Env, times: int) -> Calls:
    for here in _repetitions(env, times):
        for name in resolve(step.args["names"], here):
            yield {"name": name}, resolve(step.gives, here)


def _loaded(_scenario: Scenario, step: Step, env: Env, times: int) -> Calls:
    """One call; `times` says how many instances there are."""
    names = {n for here in _repetitions(env, times) for n in resolve(step.args["names"], here)}
    yield {}, sorted(names)


_Binder: TypeAlias = Callable[[Scenario, Step, Env, int], Calls]
_BINDERS: dict[str, _Binder] = {
    "load": _load,
    **dict.fromkeys(("unload", "enable", "disable"), _by_name),
    "loaded": _loaded,
}


def _text(step: Step, env: Env) -> str:
    """The step with its parameters put in, and `$i` as it stands."""
    texts = env.texts()

    def symbolic(value: Any) -> Any:
        if isinstance(value, Unbound):
            return fill(value.text, texts)
        return [symbolic(each) for each in value] if isinstance(value, tuple) else value

    args = {name: symbolic(value) for name, value in step.args.items()}
    if "names" in args:
        return f"{step.verb} {' '.join(args['names'])}"
    return VERBS[step.verb].say(args)


def _repetitions(env: Env, times: int) -> Iterator[Env]:
    return (_at(env, number) for number in range(1, times + 1))


def _at(env: Env, counter: Value) -> Env:
    return Env({**env.values, COUNTER: counter}, env.facts)


def resolve(value: Any, env: Env) -> Any:
    """The same value with every `Unbound` in it read, and tuples as JSON's lists."""
    if isinstance(value, Unbound):
        return value.value(env)
    if isinstance(value, Mapping):
        return {name: resolve(each, env) for name, each in value.items()}
    if isinstance(value, tuple | list):
        return [resolve(each, env) for each in value]
    return value


def _policy(scenario: Scenario, name: str, env: Env) -> Policy:
    """A policy by its name in the agent: `deny`, or the instance `deny-3`."""
    key, number = name, ""
    if name not in scenario.policies:
        key, _, number = name.rpartition("-")
    fields = resolve(scenario.policies[key], _at(env, int(number)) if number else env)
    switches = {key: fields.get(key) == "true" for key in SWITCHES}
    return Policy.from_json({**fields, "name": name, **switches})
