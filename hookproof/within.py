# SPDX-License-Identifier: Apache-2.0
"""Steps within a step: what `hold` holds, what is done meanwhile, the branches of a storm."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from hookproof.fields import Decoded
from hookproof.forms import Schema, Scope
from hookproof.guest.points import AT_FUNCTION, PATHS, TWO_PATHS
from hookproof.scenario import Step
from hookproof.yamltree import Location, Mapping, Node, Sequence, blame

#: Each kind of step, in the JSON schema.
ANY_STEP: Schema = {"$ref": "#/$defs/step"}


@dataclass(frozen=True)
class OneStep:
    """A step that is one system call."""

    words: str = "a step that is one system call, such as {mkdir: /run/x, by: a, gives: EPERM}"

    def decode(self, node: Node, scope: Scope) -> Step:
        """The step."""
        from hookproof.verbs import VERBS

        if not isinstance(node, Mapping):
            raise blame(node.where, "this is no step", f"write {self.words}")
        step = _decoded(node, scope)
        if not VERBS[step.verb].calls:
            calls = ", ".join(name for name, verb in VERBS.items() if verb.calls)
            raise blame(step.where, f"'{step.verb}' is no call that can be held", f"use {calls}")
        if step.times != 1:
            raise blame(step.where, "one call is held", "remove 'times'")
        return step

    def schema(self) -> Schema:
        """Any step."""
        return ANY_STEP


@dataclass(frozen=True)
class Meanwhile:
    """Steps that are done while a call is held, each with `returns` if need be."""

    words: str = "a list of steps"

    def decode(self, node: Node, scope: Scope) -> tuple[Step, ...]:
        """The steps in order."""
        if not isinstance(node, Sequence) or not node.items:
            raise blame(node.where, "this is no list of steps", "begin each with '- VERB: …'")
        return tuple(_decoded(each, scope, held=True) for each in node.items)

    def schema(self) -> Schema:
        """Any steps."""
        return {"type": "array", "minItems": 1, "items": ANY_STEP}


@dataclass(frozen=True)
class Branches:
    """Lists of steps."""

    words: str = "a list of lists of steps"

    def decode(self, node: Node, scope: Scope) -> tuple[tuple[Step, ...], ...]:
        """The branches."""
        if not isinstance(node, Sequence) or not node.items:
            raise blame(
                node.where, "this is no list of lists", "begin each with '- [{VERB: …}, …]'"
            )
        return tuple(self._branch(each, scope) for each in node.items)

    @staticmethod
    def _branch(node: Node, scope: Scope) -> tuple[Step, ...]:
        if not isinstance(node, Sequence) or not node.items:
            raise blame(node.where, "this is no list of steps", "write [{VERB: …}, …]")
        return tuple(_decoded(each, scope) for each in node.items)

    def schema(self) -> Schema:
        """Any steps."""
        branch = {"type": "array", "minItems": 1, "items": ANY_STEP}
        return {"type": "array", "minItems": 1, "items": branch}


def check_hold(args: Decoded, where: Location) -> None:
    """What the keys of `hold` ask of each other.

    Raises:
        UsageProblem: one is missing or means nothing here.
    """
    point: str = args["point"][0]
    call: Step = args["call"][0]
    if point in AT_FUNCTION and "at" not in args:
        hint = "add 'at: FUNCTION', such as 'at: security_path_mkdir'"
        raise blame(where, f"'{point}' is a point of a function", hint)
    if point not in AT_FUNCTION and "at" in args:
        raise blame(args["at"][1], f"'{point}' is a point of no function", "remove 'at'")
    if point != "override" and "denied" in args:
        hint = "remove 'denied', or hold it at 'override'"
        raise blame(args["denied"][1], f"nothing can deny a call at '{point}'", hint)
    if point != "hashing" and "wakes" in args:
        hint = "remove 'wakes', or hold it at 'hashing'"
        raise blame(args["wakes"][1], f"a call at '{point}' is in no chain", hint)
    possible = {"path": tuple(PATHS), "second-path": TWO_PATHS, "hashing": ("exec",)}.get(point)
    if possible and call.verb not in possible:
        hint = f"use {', '.join(possible)}"
        raise blame(call.where, f"'{call.verb}' cannot be held at '{point}'", hint)


def _decoded(node: Node, scope: Scope, *, held: bool = False) -> Step:
    """A step that has none within it."""
    from hookproof.steps import decode_step  # which reads the table that these forms stand in
    from hookproof.verbs import VERBS

    step = decode_step(node, scope, held=held)
    if VERBS[step.verb].parts:
        hint = "put it into 'steps'"
        raise blame(step.where, f"'{step.verb}' cannot stand within a step", hint)
    return step


def steps_of(args: Any) -> tuple[tuple[Step, ...], ...]:
    """The steps within a step, by its decoded arguments."""
    if "branches" in args:
        branches: tuple[tuple[Step, ...], ...] = args["branches"]
        return branches
    return (args["call"],), args.get("meanwhile", ())
