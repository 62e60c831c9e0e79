# SPDX-License-Identifier: Apache-2.0
"""A scenario as data: decoded, checked, and not yet bound to a kernel."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from refagent.yamltree import Location

if TYPE_CHECKING:
    from hookproof.names import Value


@dataclass(frozen=True)
class Step:
    """One step: a verb, its arguments, and what it must give.

    Attributes:
        verb: a key of `hookproof.verbs.VERBS`.
        args: the verb's arguments by name, decoded to their declared types; a value that
            holds `$names` is still a `hookproof.forms.Unbound`.
        where: of the step.
        times: how often it is done: a number or an `Unbound` one. In its other values
            `$i` counts from 1.
        gives: what every call must give: `"ok"`, an errno's name, or a mapping of what is
            compared, such as `{"exit": 3}`; may hold `Unbound`.
        returns: of a step that is done while a call is held: `during`, `after` or `either`.
    """

    verb: str
    args: Mapping[str, Any]
    where: Location
    times: Any = 1
    gives: Any = "ok"
    returns: str = "during"


@dataclass(frozen=True)
class Scenario:
    """One file of the scenario language.

    Attributes:
        name: the file's stem.
        path: the file.
        about: one sentence: what must hold.
        steps: in order.
        where: of the file's first key.
        origin: where the bug was seen (an address or a commit).
        no_mutant: why no bug of the agent's can fail it; empty: one can.
        needs: names of probes that must say yes.
        only: patterns of kernels' names; on others it is no case. Empty: on all.
        splats: patterns of kernels' names; those have to report a bug of theirs.
        boot: further words for the kernel's command line.
        params: parameter name → its values: numbers, words, and sums with facts.
        policies: policy name → its fields, decoded; may hold `Unbound`.
        facts: the facts that it names (`hookproof.names.FACTS`), sorted.
    """

    name: str
    path: Path
    about: str
    steps: tuple[Step, ...]
    where: Location
    origin: str = ""
    no_mutant: str = ""
    needs: tuple[str, ...] = ()
    only: tuple[str, ...] = ()
    splats: tuple[str, ...] = ()
    boot: tuple[str, ...] = ()
    params: Mapping[str, tuple[Value, ...]] = field(default_factory=dict)
    policies: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    facts: tuple[str, ...] = ()


@dataclass(frozen=True)
class Call:
    """One step with every name put in, ready to be sent to the guest.

    Attributes:
        verb: as in `Step`.
        calls: the arguments of each repetition, plain JSON values.
        gives: what each of them must give; one entry per call.
        where: of the step.
        text: the step as one would say it, such as `mkdir /run/t/$i (x38)`.
        parts: the steps within it: of `hold` the call that is held, and what is done meanwhile;
            of `storm` its branches.
        returns: as in `Step`.
    """

    verb: str
    calls: tuple[Mapping[str, Any], ...]
    gives: tuple[Any, ...]
    where: Location
    text: str
    parts: tuple[tuple[Call, ...], ...] = ()
    returns: str = "during"
