# SPDX-License-Identifier: Apache-2.0
"""What docs/agent.md promises of policies and calls, with nothing of the kernel in it."""

from __future__ import annotations

import os
from dataclasses import dataclass, field

from refagent.events import Event
from refagent.policy import Policy
from refagent.shared import Counts


@dataclass(frozen=True)
class Call:
    """One call of a hook.

    Attributes:
        hook: the function.
        path: of the directory that it is about.
        arguments: the values of those that policies ask for, by their number.
    """

    hook: str
    path: str
    arguments: dict[int, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Told:
    """Of an event what can be known beforehand."""

    hook: str
    path: str
    policies: tuple[str, ...]
    decided: str | None
    override: int | None
    signal: int | None
    pid: int
    uid: int

    @classmethod
    def by(cls, event: Event) -> Told:
        """The same of what came."""
        return cls(**{each: getattr(event, each) for each in cls.__dataclass_fields__})


@dataclass(frozen=True)
class Outcome:
    """What a call must come to; 0 is no errno, and no signal."""

    error: int
    signal: int
    event: Told | None


@dataclass
class Loaded:
    """A policy, and what it must have counted."""

    policy: Policy
    enabled: bool = True
    matched: int = 0
    denied: int = 0
    outvoted: int = 0

    @property
    def counts(self) -> Counts:
        """As the agent says it."""
        return Counts(self.matched, self.denied, self.outvoted, 0)

    @property
    def decides(self) -> bool:
        """Whether it does anything about a call."""
        return not self.policy.monitor and bool(self.policy.override or self.policy.signal)


class Model:
    """Policies in the order in which they were loaded; what the caller is never changes."""

    def __init__(self) -> None:
        self.loaded: dict[str, Loaded] = {}
        self._binary = os.readlink("/proc/self/exe")  # noqa: PTH115

    def call(self, call: Call) -> Outcome:
        """Counts a call, and says what it comes to."""
        fitting = [
            each for each in self.loaded.values() if each.enabled and self._fits(each.policy, call)
        ]
        deciding = [each for each in fitting if each.decides]
        for each in fitting:
            each.matched += 1
        for each in deciding[1:]:
            each.outvoted += 1
        decided = deciding[0] if deciding else None
        error = (decided and decided.policy.override) or 0
        sent = (decided and decided.policy.signal) or 0
        if decided and error:
            decided.denied += 1
        posting = tuple(each.policy.name for each in fitting if each.policy.post)
        told = Told(
            call.hook,
            call.path,
            posting,
            decided.policy.name if decided else None,
            error or None,
            sent or None,
            os.getpid(),
            os.getuid(),
        )
        return Outcome(error, sent, told if posting else None)

    def functions(self) -> dict[str, str | None]:
        """The functions with enabled policies, and how they are overridden."""
        found: dict[str, str | None] = {}
        for each in self.loaded.values():
            if each.enabled:
                overrides = bool(each.policy.override) and not each.policy.monitor
                found.setdefault(each.policy.hook, None)
                if overrides:
                    lsm = each.policy.hook.startswith("lsm/")
                    found[each.policy.hook] = "lsm" if lsm else "fmod_ret"
        return found

    def _fits(self, policy: Policy, call: Call) -> bool:
        return (
            policy.hook == call.hook
            and policy.path in {None, call.path}
            and call.path.startswith(policy.prefix or "")
            and policy.uid in {None, os.getuid()}
            and policy.pid in {None, os.getpid()}
            and policy.binary in {None, self._binary}
            and (policy.argument is None or call.arguments[policy.argument] == policy.value)
        )
