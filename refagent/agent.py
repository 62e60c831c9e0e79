# SPDX-License-Identifier: Apache-2.0
"""The reference agent: policies go in, the kernel denies, policies come out without a trace.

On each function that has policies runs one sensor (a kprobe, which does not count
towards the trampoline's limit), and, if one of them overrides, one override program
(fmod_ret). The sensor comes first in every call: it finds the policy and leaves an entry
in `override_tasks` under the thread and the override's id; the override program takes it.

Several policies that match one call: the one loaded first decides. Its errno is returned,
and after its unload the next one's. All count the call (refagent/shared.py). A policy
without override and signal only looks on: it decides nothing.
"""

from __future__ import annotations

import contextlib
import difflib
import itertools
import threading
from dataclasses import dataclass

from refagent import hooks, layout
from refagent.errors import Refused
from refagent.events import Event, Events, Names
from refagent.policy import Policy
from refagent.rules import Rule, key_of
from refagent.shared import Counts, SharedMaps, Totals
from refagent.site import Site


@dataclass
class _Loaded:
    """A policy, in the kernel or, while it is disabled, not."""

    policy: Policy
    hook: hooks.Hook
    path_argument: int | None
    key: bytes
    rule: Rule
    enabled: bool = False


@dataclass(frozen=True)
class PolicyState:
    """A policy that is loaded, whether it is in effect, and what became of its calls."""

    policy: Policy
    enabled: bool
    counts: Counts


@dataclass(frozen=True)
class Status:
    """What an agent has in the kernel.

    Attributes:
        policies: the names of those that are enabled.
        disabled: and of those that are not.
        functions: where sensors run, and how the result is overridden there: `fmod_ret`,
            `kprobe`, or nothing while no policy does.
        totals: what belongs to no single policy.
    """

    policies: tuple[str, ...]
    disabled: tuple[str, ...]
    functions: dict[str, str | None]
    totals: Totals


class Agent:
    """A context manager; leaving it unloads all policies. Safe to use from several threads.

    What asks (`policies`, `states`, `counts`, `status`, `events`) never waits for a load or an
    unload that is under way: a policy is there from the end of its load to the end of its unload.
    Nothing is pinned: everything ends with this process at the latest. And nothing is in the
    kernel while no policy is loaded.
    """

    def __init__(self) -> None:
        # Held by whoever changes something, for as long as the kernel takes for it.
        self._changing = threading.Lock()
        # Held for no more than a look or an entry. Who changes anything below holds both.
        self._lock = threading.Lock()
        self._policies: dict[str, _Loaded] = {}
        self._sites: dict[str, Site] = {}
        # Ids name policies and overrides in entries that may outlive them by a moment: never
        # used again. At a thousand loads a second 32 bits last for 49 days.
        self._policy_ids = itertools.count(1)
        self._override_ids = itertools.count(1)
        self._shared: SharedMaps | None = None  # made with the first policy, gone with the last
        self._totals = Totals(0, 0)  # of shared maps that are gone
        self._names = Names()
        self._events = Events(self._names)

    def load(self, policy: Policy) -> None:
        """Puts a policy into effect, for the next matching call.

        Raises:
            Refused: and why. Nothing has changed.
            BpfError: the kernel failed. Nothing has changed.
        """
        try:
            key = key_of(policy.checked())
        except ValueError as mistake:
            raise Refused(str(mistake)) from None
        binary = None if policy.binary is None else layout.path_key(policy.binary)
        with self._changing:
            if policy.name in self._policies:
                raise Refused(f"policy {policy.name} is loaded already")
            hook = hooks.resolve(policy)
            if policy.override is not None:
                hook.check_override()
            path, (value, mask) = hook.path_argument(policy), hook.masked(policy)
            with contextlib.ExitStack() as undo:
                undo.callback(self._close_unused)
                place = self._maps.take_place()
                undo.callback(self._maps.give_back, place)
                program = None
                if binary is not None:
                    program = self._maps.take_binary(binary)
                    undo.callback(self._maps.give_back_binary, binary)
                rule = Rule(
                    next(self._policy_ids),
                    place,
                    error=policy.override or 0,
                    signal=policy.signal or 0,
                    post=policy.post,
                    argument=policy.argument or 0,
                    value=value,
                    value_mask=mask,
                    pid=policy.pid,
                    uid=policy.uid,
                    binary=program,
                    monitor=policy.monitor,
                )
                self._names.policies[rule.policy] = policy.name
                undo.callback(self._names.forget_policy, rule.policy)
                loaded = _Loaded(policy, hook, path, key, rule)
                self._enable(loaded)
                undo.pop_all()
            with self._lock:
                self._policies[policy.name] = loaded

    def unload(self, name: str) -> None:
        """Takes a policy out of effect: nothing is done for its sake to a call that begins later.

        Raises:
            Refused: no such policy.
            BpfError: the kernel failed to detach something; the rest is given back.
        """
        with self._changing, contextlib.ExitStack() as stack:
            loaded = self._find(name)
            stack.callback(self._close_unused)
            if loaded.policy.binary is not None:
                path = layout.path_key(loaded.policy.binary)
                stack.callback(self._maps.give_back_binary, path)
            stack.callback(self._maps.give_back, loaded.rule.place)
            stack.callback(self._names.forget_policy, loaded.rule.policy)
            stack.callback(self._forget, name)  # before its place can be another's
            if loaded.enabled:
                self._disable(loaded)

    def enable(self, name: str) -> None:
        """Puts a disabled policy into effect again, in its old place among those of its hook.

        Raises:
            Refused: no such policy, or others have taken the room it needs.
            BpfError: the kernel failed. Nothing has changed.
        """
        with self._changing:
            loaded = self._find(name)
            if not loaded.enabled:
                with contextlib.ExitStack() as undo:
                    undo.callback(self._close_unused)
                    self._enable(loaded)
                    undo.pop_all()

    def disable(self, name: str) -> None:
        """Takes a policy out of effect as `unload` does, but keeps it and its counts.

        Raises:
            Refused: no such policy.
            BpfError: the kernel failed to detach something; the rest is given back.
        """
        with self._changing, contextlib.ExitStack() as stack:
            loaded = self._find(name)
            if loaded.enabled:
                stack.callback(self._close_unused)
                self._disable(loaded)

    def counts(self, name: str) -> Counts:
        """What became of the calls that a policy matched.

        Raises:
            Refused: no such policy.
        """
        with self._lock:
            place = self._find(name).rule.place
            return self._maps.counts(place)

    def policies(self) -> list[Policy]:
        """What is loaded, by name; disabled ones too."""
        with self._lock:
            return [self._policies[name].policy for name in sorted(self._policies)]

    def states(self) -> list[PolicyState]:
        """What is loaded, in the order in which it was, which is that in which it decides."""
        with self._lock:
            return [
                PolicyState(each.policy, each.enabled, self._maps.counts(each.rule.place))
                for each in self._policies.values()
            ]

    def events(self, seconds: float = 0.0) -> list[Event]:
        """The events that have come since the last call, of policies that post.

        Args:
            seconds: how long to wait for a first one.

        Raises:
            BpfError: the wait failed.
        """
        return self._events.read(seconds)

    def status(self) -> Status:
        """What is in the kernel."""
        with self._lock:
            by_state = {
                state: tuple(
                    n for n in sorted(self._policies) if self._policies[n].enabled is state
                )
                for state in (True, False)
            }
            functions = {name: self._sites[name].kind for name in sorted(self._sites)}
            return Status(by_state[True], by_state[False], functions, self._sum())

    def totals(self) -> Totals:
        """What belongs to no single policy, since the agent began."""
        with self._lock:
            return self._sum()

    def close(self) -> None:
        """Unloads everything and gives all back to the kernel."""
        with self._changing, contextlib.ExitStack() as stack:
            stack.callback(self._close_maps)
            for site in self._sites.values():
                stack.callback(site.close)
            with self._lock:
                self._policies.clear()
                self._sites.clear()

    def __enter__(self) -> Agent:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def _find(self, name: str) -> _Loaded:
        found = self._policies.get(name)
        if found is None:
            near = difflib.get_close_matches(name, self._policies, 1)
            meant = f"; did you mean {near[0]}?" if near else ""
            raise Refused(f"no policy {name} is loaded{meant}")
        return found

    def _sum(self) -> Totals:
        now = self._shared
        return self._totals if now is None else self._totals.plus(now.totals())

    def _forget(self, name: str) -> None:
        with self._lock:
            del self._policies[name]

    def _enable(self, loaded: _Loaded) -> None:
        """Gives the kernel a policy's rule; what was opened for it is for the caller to close."""
        self._site(loaded.hook, loaded.path_argument).add(loaded.key, loaded.rule)
        loaded.enabled = True

    def _disable(self, loaded: _Loaded) -> None:
        try:
            self._sites[loaded.hook.function].remove(loaded.key, loaded.rule)
        finally:
            loaded.enabled = False
        # It has waited for all programs that ran when the places before this one came back.
        self._maps.drained()

    @property
    def _maps(self) -> SharedMaps:
        """Made when they are first needed."""
        if self._shared is None:
            self._shared = SharedMaps()
            self._events.open(self._shared.by_name["events"])
        return self._shared

    def _site(self, hook: hooks.Hook, path: int | None) -> Site:
        """The function's site, whose policies are about that argument, if about any."""
        site = self._sites.get(hook.function)
        if site is None:
            argument = next(iter(hook.paths), None) if path is None else path
            site = Site(hook, argument, next(self._override_ids), self._maps.by_name)
            with self._lock:
                self._sites[hook.function] = site
            self._names.hooks[site.id] = hook.function
        elif path not in {None, site.path_argument}:
            raise Refused(
                f"policies on {hook.function} that are loaded look at argument "
                f"{site.path_argument}, not {path}; unload them first"
            )
        return site

    def _close_unused(self) -> None:
        """Gives back the sites without a rule, and the shared maps where no policy is left."""
        with contextlib.ExitStack() as stack:
            stack.callback(self._close_maps)
            for site in [each for each in self._sites.values() if not each.rules]:
                with self._lock:
                    del self._sites[site.function]
                self._names.forget_hook(site.id)
                stack.callback(site.close)

    def _close_maps(self) -> None:
        if self._shared is not None and not self._sites and not self._policies:
            maps = self._shared
            with contextlib.ExitStack() as stack:
                stack.callback(maps.close)
                stack.callback(self._events.close)
                with self._lock:
                    self._shared = None
                    self._totals = self._totals.plus(maps.totals())
