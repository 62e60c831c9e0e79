# SPDX-License-Identifier: Apache-2.0
"""A scenario as data: decoded, checked, and not yet bound to a kernel."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


@dataclass(frozen=True, order=True)
class Location:
    """A place in a file, 1-based, printed as `file:line:column`."""

    path: str
    line: int
    column: int

    def __str__(self) -> str:
        return f"{self.path}:{self.line}:{self.column}"


@dataclass(frozen=True)
class Step:
    """One step: a verb, its arguments, and what it must give.

    Attributes:
        verb: a key of `hookproof.verbs.VERBS`.
        args: the verb's arguments by name, decoded to their declared types; strings may
            still hold `$names`.
        times: how often it is done; an expression (`"$n"`, `"limit+1"`) or a number.
            Within it `$i` counts from 1.
        gives: what every call must give, see `hookproof.verbs`.
        where: of the step.
    """

    verb: str
    args: Mapping[str, Any]
    where: Location
    times: str | int = 1
    gives: Any = None


@dataclass(frozen=True)
class Scenario:
    """One file of the scenario language.

    Attributes:
        name: the file's stem.
        path: the file.
        about: one sentence: what must hold.
        origin: where the bug was seen (an address or a commit).
        needs: names of probes that must say yes.
        boot: further words for the kernel's command line.
        params: parameter name → its values as written (`limit+1`, 64).
        policies: policy name → its fields as written; strings may hold `$names`.
        steps: in order.
        where: of the file's first key.
    """

    name: str
    path: Path
    about: str
    steps: tuple[Step, ...]
    where: Location
    origin: str = ""
    needs: tuple[str, ...] = ()
    boot: tuple[str, ...] = ()
    params: Mapping[str, tuple[str | int, ...]] = field(default_factory=dict)
    policies: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)


@dataclass(frozen=True)
class Call:
    """One step with every name put in, ready to be sent to the guest.

    Attributes:
        verb: as in `Step`.
        calls: the arguments of each repetition, plain JSON values.
        gives: what each of them must give; one entry per call.
        where: of the step.
        text: the step as one would say it.
    """

    verb: str
    calls: tuple[Mapping[str, Any], ...]
    gives: tuple[Any, ...]
    where: Location
    text: str
