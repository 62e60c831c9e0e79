# SPDX-License-Identifier: Apache-2.0
"""The reference agent: policies go in, the kernel denies, policies come out without a trace.

On each function that has policies run one sensor (a kprobe, which does not count
towards the trampoline's limit) and one override program (fmod_ret). The sensor comes
first in every call: it finds the policy and leaves an entry in `override_tasks` under
the thread and the override's id; the override program takes it.

Two policies that match one call: the one loaded first decides. Its errno is returned,
and after its unload the other one's. Both count the call (refagent/shared.py).
"""

from __future__ import annotations

import contextlib
import difflib
import itertools
import threading
from dataclasses import dataclass

from refagent import hooks, layout
from refagent.errors import BpfError, Refused
from refagent.overrides import Override
from refagent.policy import Policy
from refagent.sensor import Rule, Sensor
from refagent.shared import Counts, SharedMaps


@dataclass(frozen=True)
class _Loaded:
    policy: Policy
    id: int
    key: bytes
    place: int


@dataclass
class _Site:
    """A function with policies on it."""

    override: Override
    sensor: Sensor
    users: int = 0


class Agent:
    """A context manager; leaving it unloads all policies. Safe to use from several threads.

    Nothing is pinned: everything ends with this process at the latest. And nothing is in the
    kernel while no policy is loaded.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._policies: dict[str, _Loaded] = {}
        self._sites: dict[str, _Site] = {}
        # Ids name policies and overrides in entries that may outlive them by a moment: never
        # used again. At a thousand loads a second 32 bits last for 49 days.
        self._policy_ids = itertools.count(1)
        self._override_ids = itertools.count(1)
        self._shared: SharedMaps | None = None  # made with the first site, gone with the last

    def load(self, policy: Policy) -> None:
        """Puts a policy into effect; the next matching call is denied.

        Raises:
            Refused: and why. Nothing has changed.
            BpfError: the kernel failed. Nothing has changed.
        """
        key = layout.path_key(policy.path)
        if policy.override is None:
            raise Refused(f"policy {policy.name} does nothing: it needs an override")
        if not 1 <= policy.override <= 4095:
            raise Refused(f"override {policy.override} is outside 1..4095")
        with self._lock:
            if policy.name in self._policies:
                raise Refused(f"policy {policy.name} is loaded already")
            hook = hooks.resolve(policy)
            with contextlib.ExitStack() as undo:
                site = self._sites.get(policy.hook) or self._open_site(hook)
                undo.callback(self._close_unused, site)
                place = self._maps.take_place()
                undo.callback(self._maps.give_back, place)
                loaded = _Loaded(policy, next(self._policy_ids), key, place)
                site.sensor.add(key, Rule(loaded.id, policy.override, place))
                undo.pop_all()
            site.users += 1
            self._policies[policy.name] = loaded

    def unload(self, name: str) -> None:
        """Takes a policy out of effect: no call that begins after this is denied for its sake.

        Raises:
            Refused: no such policy.
            BpfError: the kernel failed to detach something; the rest is given back.
        """
        with self._lock:
            loaded = self._find(name)
            site = self._sites[loaded.policy.hook]
            del self._policies[name]
            site.users -= 1
            try:
                site.sensor.remove(loaded.key, loaded.id)
                self._maps.drained()
                site.override.purge(loaded.id)
                self._maps.give_back(loaded.place)
            finally:
                self._close_unused(site)

    def counts(self, name: str) -> Counts:
        """What became of the calls that a policy matched.

        Raises:
            Refused: no such policy.
            BpfError: the kernel failed.
        """
        with self._lock:
            return self._maps.counts(self._find(name).place)

    def policies(self) -> list[Policy]:
        """What is loaded, by name."""
        with self._lock:
            return [self._policies[name].policy for name in sorted(self._policies)]

    def close(self) -> None:
        """Unloads everything and gives all back to the kernel."""
        with self._lock, contextlib.ExitStack() as stack:
            self._policies.clear()
            for site in self._sites.values():
                stack.callback(self._close_site, site)

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

    @property
    def _maps(self) -> SharedMaps:
        """Made when they are first needed."""
        if self._shared is None:
            self._shared = SharedMaps()
        return self._shared

    def _open_site(self, hook: hooks.Hook) -> _Site:
        """Override first, then sensor: a sensor alone would let the first matching call pass."""
        with contextlib.ExitStack() as undo:
            undo.callback(self._close_maps)
            maps = self._maps.by_name
            override = Override(hook.function, hook.btf_id, next(self._override_ids), maps)
            undo.callback(override.close)
            sensor = Sensor(hook.function, override.id, hook.path_argument, maps)
            undo.callback(sensor.close)
            try:
                sensor.attach()
            except BpfError as failure:
                raise Refused(f"{hook.function} cannot be probed: {failure.words}") from failure
            undo.pop_all()
        site = self._sites[hook.function] = _Site(override, sensor)
        return site

    def _close_unused(self, site: _Site) -> None:
        if not site.users:
            self._close_site(site)

    def _close_site(self, site: _Site) -> None:
        """In this order, whatever fails on the way.

        1. The sensor stops. 2. The override is detached; its program stays loaded. 3. Nothing
        runs in either any more. 4. What they left is purged. 5. Programs and maps go, the
        override's last, and the kernel has freed them: a census finds none of them.
        """
        del self._sites[site.sensor.function]
        with contextlib.ExitStack() as stack:
            stack.callback(self._close_maps)
            stack.callback(site.override.close)
            stack.callback(site.sensor.close)
            stack.callback(site.override.purge)
            stack.callback(site.sensor.drain)
            stack.callback(site.override.detach)
            stack.callback(site.sensor.detach)

    def _close_maps(self) -> None:
        """Gives the shared maps back if no site is left to use them."""
        if self._shared is not None and not self._sites:
            maps, self._shared = self._shared, None
            maps.close()
