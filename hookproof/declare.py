# SPDX-License-Identifier: Apache-2.0
"""What a scenario declares before its steps: probes it needs, parameters, policies."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

from hookproof.fields import Field, mapping_schema, record
from hookproof.forms import Many, Schema, Scope, Unbound
from hookproof.kinds import Choice, Errno, Number, Path, Text, errnos
from hookproof.names import COUNTER, FACTS, NAME, Value, parse_sum
from hookproof.verbs import HOOK, SIGNALS
from hookproof.yamltree import Mapping, Node, Scalar, Sequence, blame
from refagent import probes
from refagent.policy import WAYS
from vm.suggest import closest

#: A policy's name never ends in `-NUMBER`: that is how its instances are called.
POLICY_NAME = re.compile(r"[a-z][a-z0-9_]*(-[a-z][a-z0-9_]*)*")
#: A parameter's value goes into a node id.
PARAM_WORD = re.compile(r"[\x21-\x7e]+")

SWITCH = Choice(lambda: ("true", "false"), "true or false")

DIGESTS = Many(
    Text("a digest", "[a-z0-9-]+:[0-9a-f]+|.*\\$.*", "such as sha256: and 64 hexadecimal digits"),
    "a digest, or a list of them",
)

POLICY = (
    Field(
        "hook",
        HOOK,
        "the kernel function, such as security_path_mkdir, or the LSM hook with lsm/ before it",
        required=True,
    ),
    Field(
        "path",
        Path(),
        "acts on calls whose path argument is this (for security_path_mkdir the directory"
        " in which something is made); without it, on every call",
    ),
    Field("prefix", Path(), "acts on calls whose path argument begins with this"),
    Field(
        "path_argument", Number(0, 5), "which argument the path is, if not the first that is one"
    ),
    Field("argument", Number(0, 5), "which argument `value` is about, from 0"),
    Field("value", Number(-(2**63), 2**64 - 1), "acts on calls whose argument is this number"),
    Field(
        "value_bits",
        Number(32, 64),
        "how many bits of the argument are compared, 32 or 64; needed for system calls alone",
    ),
    Field("binary", Path(), "acts on calls of processes that run this program"),
    Field("uid", Number(0, 2**32 - 2), "acts on calls of processes of this user"),
    Field(
        "override",
        Errno(errnos, "an errno", "such as EPERM"),
        "the errno that the caller gets instead of the function's work",
    ),
    Field(
        "by",
        Choice(lambda: WAYS, "a way to override"),
        "fmod_ret or kprobe; if not said, what the kernel can",
    ),
    Field("signal", Choice(lambda: SIGNALS, "a signal", "such as SIGKILL"), "what the caller gets"),
    Field("post", SWITCH, "whether each call gives an event"),
    Field("monitor", SWITCH, "whether nothing is done about the calls"),
    Field("hash", SWITCH, "whether the events have the file's digest; at LSM hooks"),
    Field("digest_in", DIGESTS, "acts on calls whose file has one of these; at LSM hooks"),
    Field("digest_not_in", DIGESTS, "acts on calls whose file has none of these; at LSM hooks"),
)


#: The keys of a policy that are true or false.
SWITCHES = tuple(field.name for field in POLICY if field.form is SWITCH)

PROBE = Choice(lambda: probes.NAMES, "a probe")


class Params:
    """`params`: a mapping of names to a value or a list of values."""

    words = "a mapping of parameters"

    def decode(self, node: Node, scope: Scope) -> dict[str, tuple[Value, ...]]:
        """The values by name; tells `scope` about them."""
        if not isinstance(node, Mapping):
            raise blame(node.where, "this is no mapping", "write NAME: [VALUE, …]")
        located = {}
        for key, value in node.pairs:
            taken = key.text == COUNTER or key.text in FACTS
            if taken or not NAME.fullmatch(key.text):
                what = f"'{key.text}' is no name for a parameter"
                hint = "use small letters, digits and _, and begin with a letter"
                if taken:
                    what, hint = f"'{key.text}' means something already", "choose another name"
                raise blame(key.where, what, hint)
            items = value.items if isinstance(value, Sequence) else (value,)
            if not items:
                raise blame(value.where, f"'{key.text}' has no values", "give it one or more")
            located[key.text] = tuple((_param(item, scope), item.where) for item in items)
            seen: set[str] = set()
            for one, where in located[key.text]:
                if str(one) in seen:
                    raise blame(where, f"'{one}' stands here twice", "keep one of them")
                seen.add(str(one))
        scope.params = located
        return {name: tuple(value for value, _ in values) for name, values in located.items()}

    def schema(self) -> Schema:
        """Any name, and one value or several."""
        word = {"type": ["string", "integer"]}
        several = {"type": "array", "items": word, "minItems": 1}
        return {
            "type": "object",
            "propertyNames": {"pattern": f"^{NAME.pattern}$"},
            "additionalProperties": {"anyOf": [word, several]},
        }


def _param(node: Node, scope: Scope) -> Value:
    if not isinstance(node, Scalar) or not PARAM_WORD.fullmatch(node.text):
        what = "a parameter's value is a number or a word without spaces"
        raise blame(node.where, what, "such as 64, EPERM, /run/x or limit+1")
    if not node.plain:
        return node.text
    if "$" in node.text:
        what = "a parameter's value cannot name another"
        raise blame(node.where, what, "quote it if a word with '$' is meant")
    total = parse_sum(node.text)
    if total is None:
        return node.text
    for _, fact in total.facts:
        if fact not in FACTS:
            hint = closest(fact, FACTS)
            if hint.startswith("did you mean"):
                hint += " (quote it if a word is meant)"
                raise blame(node.where, f"there is no fact '{fact}'", hint)
            return node.text
        scope.facts.add(fact)
    return total if total.facts else total.number


class Policies:
    """`policies`: a mapping of names to policies."""

    words = "a mapping of policies"

    def decode(self, node: Node, scope: Scope) -> dict[str, dict[str, Any]]:
        """The policies' fields by name; tells `scope` about them."""
        if not isinstance(node, Mapping):
            raise blame(node.where, "this is no mapping", "write NAME: {hook: …, …}")
        out = {}
        inner = replace(scope, counter=True)
        for key, value in node.pairs:
            if not POLICY_NAME.fullmatch(key.text):
                hint = "use small letters, digits, _ and -; no '-' before a digit"
                raise blame(key.where, f"'{key.text}' is no name for a policy", hint)
            fields = {name: v for name, (v, _) in record(value, POLICY, inner, "a policy").items()}
            out[key.text] = fields
            scope.policies[key.text] = any(
                isinstance(each, Unbound) and each.counts() for each in fields.values()
            )
        return out

    def schema(self) -> Schema:
        """Any name, and a policy."""
        return {
            "type": "object",
            "propertyNames": {"pattern": f"^{POLICY_NAME.pattern}$"},
            "additionalProperties": mapping_schema(POLICY),
        }
