# SPDX-License-Identifier: Apache-2.0
"""One step of a scenario, or a list of them: decoded by the verb's entry in the table."""

from __future__ import annotations

from dataclasses import replace

from hookproof.fields import Decoded, Field, mapping_schema, record
from hookproof.forms import Schema, Scope
from hookproof.scenario import Step
from hookproof.verbs import BY, RETURNING, TIMES, VERBS, Verb
from hookproof.within import ANY_STEP
from hookproof.yamltree import Mapping, Node, Scalar, Sequence, blame
from vm.suggest import closest


class Steps:
    """A list of steps."""

    words = "a list of steps"

    def decode(self, node: Node, scope: Scope) -> tuple[Step, ...]:
        """Every step in order."""
        if not isinstance(node, Sequence):
            raise blame(node.where, "this is no list", "begin each step with '- VERB: …'")
        if not node.items:
            raise blame(node.where, "a scenario without steps shows nothing", "add a step")
        return tuple(decode_step(each, scope) for each in node.items)

    def schema(self) -> Schema:
        """Any of the verbs."""
        return {"type": "array", "minItems": 1, "items": ANY_STEP}


def any_step_schema() -> Schema:
    """The JSON schema of a step with any of the verbs."""
    return {"anyOf": [step_schema(verb) for verb in VERBS.values()]}


def step_schema(verb: Verb) -> Schema:
    """The JSON schema of a step with this verb."""
    if isinstance(verb.value, tuple):
        value: Schema = mapping_schema((*verb.value, *verb.expects))
    else:
        value = verb.value.form.schema()
    schema = mapping_schema((*keys_of(verb), RETURNING))
    schema["properties"] = {verb.name: {"description": verb.doc, **value}, **schema["properties"]}
    schema["required"] = [verb.name, *schema["required"]]
    return schema


def keys_of(verb: Verb) -> tuple[Field, ...]:
    """What may stand in a step after its verb."""
    beside = () if isinstance(verb.value, tuple) else verb.expects
    gives = () if verb.gives is None else (Field("gives", verb.gives, GIVES),)
    by = (BY,) if verb.calls else ()
    times = () if verb.parts else (TIMES,)
    return (*verb.options, *beside, *by, *times, *gives)


GIVES = "what every call of it must give; ok if not said"


def decode_step(node: Node, scope: Scope, *, held: bool = False) -> Step:
    """One step; its first key is its verb.

    Args:
        node: the step.
        scope: what names mean here.
        held: whether it is done while a call is held.

    Raises:
        UsageProblem: it is none, or something is wrong in it.
    """
    if not isinstance(node, Mapping) or not node.pairs:
        kinds = {Scalar: "a word alone", Sequence: "a list", Mapping: "empty"}
        got = kinds[type(node)]
        hint = "write VERB: VALUE, such as 'mkdir: /run/x'"
        raise blame(node.where, f"this is {got}, not a step", hint)
    (first, value), *rest = node.pairs
    verb = VERBS.get(first.text)
    if verb is None:
        if later := next((key.text for key, _ in rest if key.text in VERBS), ""):
            hint = f"put '{later}' before '{first.text}'"
            raise blame(first.where, "a step's first key is its verb", hint)
        raise blame(first.where, f"there is no verb '{first.text}'", closest(first.text, VERBS))
    keys = (*keys_of(verb), *((RETURNING,) if held else ()))
    for key, _ in rest:
        if key.text in VERBS.keys() - {each.name for each in keys}:
            hint = f"begin a step of its own with '- {key.text}: …'"
            raise blame(key.where, f"'{key.text}' is a second verb in this step", hint)
    scope = replace(scope, counter=any(key.text == "times" for key, _ in rest))
    what = f"'{verb.name}'"
    if isinstance(verb.value, tuple):
        args = record(value, (*verb.value, *verb.expects), scope, f"the value of {what}")
    else:
        args = {verb.value.name: (verb.value.form.decode(value, scope), value.where)}
    args |= record(Mapping(first.where, tuple(rest)), keys, scope, what)
    if verb.check is not None:
        verb.check(args, first.where)
    return _step(verb, first, value, args)


def _step(verb: Verb, first: Scalar, value: Node, args: Decoded) -> Step:
    """Tells arguments from expectations."""
    times, _ = args.pop("times", (TIMES.default, None))
    wanted, _ = args.pop("gives", (None, None))
    returns, _ = args.pop("returns", (RETURNING.default, None))
    expected = {each.name: args.pop(each.name) for each in verb.expects if each.name in args}
    if wanted and expected:
        name, (_, where) = next(iter(expected.items()))
        raise blame(where, f"'{name}' and 'gives' exclude each other", "keep one of them")
    if verb.expects and verb.gives is None and not expected:
        hint = f"add one of {', '.join(each.name for each in verb.expects)}"
        raise blame(value.where, f"'{verb.name}' compares nothing", hint)
    defaults = {each.name: each.default for each in verb.options if each.default is not None}
    return Step(
        verb=verb.name,
        args=defaults | {name: each for name, (each, _) in args.items()},
        where=first.where,
        times=times,
        gives={name: each for name, (each, _) in expected.items()} or wanted or "ok",
        returns=returns,
    )
