# SPDX-License-Identifier: Apache-2.0
"""A scenario file → `Scenario`, or one line that says where it is wrong and what was meant."""

from __future__ import annotations

import itertools
import re
from pathlib import Path

from hookproof.declare import PROBE, Params, Policies
from hookproof.fields import Field, record
from hookproof.forms import Many, Scope
from hookproof.kinds import Verbatim
from hookproof.scenario import Scenario
from hookproof.steps import Steps
from hookproof.yamltree import Mapping, Node, Scalar, blame, read
from vm.errors import UsageProblem

STEM = re.compile(r"[a-z0-9]+([-_][a-z0-9]+)*")
#: More cases than this in one file are a slip of the finger.
MOST_CASES = 2000

#: The keys of a file, in the order in which they are decoded: names before their uses.
SCENARIO = (
    Field("about", Verbatim("a sentence"), "one sentence: what must hold", required=True),
    Field("origin", Verbatim("an address or a commit"), "where the bug was seen"),
    Field(
        "no_mutant",
        Verbatim("a sentence"),
        "why no bug of the agent's can fail it, such as that it is about the kernel alone",
    ),
    Field("needs", Many(PROBE, "a list of probes"), "probes that must say yes, else it is skipped"),
    Field(
        "only",
        Many(Verbatim("a pattern of kernels' names", r"\S+"), "a list of patterns"),
        "kernels that it is for, such as '*-kprobe'; on others it is not run, and not skipped",
    ),
    Field(
        "splats",
        Many(Verbatim("a pattern of kernels' names", r"\S+"), "a list of patterns"),
        "kernels with a bug that it shows: there it passes if the kernel's log reports one, and"
        " fails if not",
    ),
    Field(
        "boot",
        Many(Verbatim("a word", r"\S+", "write one word per entry"), "a list of words"),
        "further words for the kernel's command line; such scenarios get a machine of their own",
    ),
    Field("params", Params(), "parameters and their values; every combination is a case"),
    Field("policies", Policies(), "policies by name, in the short form"),
    Field("steps", Steps(), "what is done, in order", required=True),
)


def read_scenario(path: Path, shown: str | None = None) -> Scenario:
    """Reads and checks one scenario.

    Args:
        path: the file.
        shown: how messages call it; the path itself if not given.

    Raises:
        UsageProblem: the first thing that is wrong, as `file:line:column: what; hint`.
    """
    shown = shown or str(path)
    if path.suffix != ".yaml" or not STEM.fullmatch(path.stem):
        hint = "use small letters and digits with - or _ between, such as first-call.yaml"
        raise UsageProblem(f"'{path.name}' is no name for a scenario", where=shown, hint=hint)
    root = read(path, shown)
    scope = Scope()
    decoded = record(_in_order(root), SCENARIO, scope, "a scenario")
    scenario = Scenario(
        name=path.stem,
        path=path,
        where=root.where,
        facts=tuple(sorted(scope.facts)),
        **{name: value for name, (value, _) in decoded.items()},
    )
    assert isinstance(root, Mapping)  # noqa: S101  record() has refused anything else
    _all_used(
        root, "params", scope.used, "never used", "remove it, or write '${}' where it belongs"
    )
    _all_used(root, "policies", scope.loaded, "never used", "remove it, or add '- load: {}'")
    _ids_differ(scenario, root)
    return scenario


def _in_order(root: Node) -> Node:
    """The same mapping with its keys in the order of `SCENARIO`, unknown ones first."""
    if not isinstance(root, Mapping):
        return root
    rank = {each.name: number for number, each in enumerate(SCENARIO)}
    return Mapping(root.where, tuple(sorted(root.pairs, key=lambda kv: rank.get(kv[0].text, -1))))


def _keys(root: Mapping, key: str) -> list[Scalar]:
    for name, value in root.pairs:
        if name.text == key and isinstance(value, Mapping):
            return [each for each, _ in value.pairs]
    return []


def _all_used(root: Mapping, key: str, used: set[str], what: str, hint: str) -> None:
    for each in _keys(root, key):
        if each.text not in used:
            raise blame(each.where, f"'{each.text}' is {what}", hint.format(each.text))


def _ids_differ(scenario: Scenario, root: Mapping) -> None:
    """Refuses more cases than sensible, and two cases with one id."""
    count = 1
    for values in scenario.params.values():
        count *= len(values)
    where = next((name.where for name, _ in root.pairs if name.text == "params"), root.where)
    if count > MOST_CASES:
        raise blame(where, f"the parameters make {count} cases", f"stay below {MOST_CASES}")
    seen: set[str] = set()
    for values in itertools.product(*scenario.params.values()):
        label = "-".join(str(each) for each in values)
        if label in seen:
            raise blame(where, f"two cases would be called '{label}'", "choose other values")
        seen.add(label)
