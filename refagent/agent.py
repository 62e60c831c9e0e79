# SPDX-License-Identifier: Apache-2.0
"""The reference agent: policies go in, the kernel denies, policies come out without a trace.

On each function that has policies runs one sensor (a kprobe, which does not count
towards the trampoline's limit; refagent/sensor.py says where it is none), and, if one of
them overrides, one override program (fmod_ret). The sensor comes first in every call: it
finds the policy and leaves an entry in `override_tasks` under the thread and the
override's id; the override program takes it.

Several policies that match one call: the one loaded first decides. Its errno is returned,
and after its unload the next one's. All count the call (refagent/shared.py). A policy
without override and signal only looks on: it decides nothing.
"""

from __future__ import annotations

import contextlib
import difflib
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from refagent import hooks, naming, policypins, takeover
from refagent.chain import Chain
from refagent.epochs import Patience
from refagent.errors import AgentError, Refused
from refagent.events import Event, Events, Names
from refagent.hooks import Hook
from refagent.leftovers import Leftovers
from refagent.libbpf import ids
from refagent.loaded import Loaded, Wanted
from refagent.lsmmaps import LsmMaps
from refagent.pins import Base
from refagent.policy import Policy
from refagent.shared import Counts, SharedMaps, Totals
from refagent.site import Site
from refagent.state import PolicyRecord, State, build
from refagent.tables import Table


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
        skipped: function → how often the kernel skipped one of the programs there, as it ran on
            that CPU already: calls that were not enforced.
        uncovered: a system call's function → the one that 32-bit programs come in by, if no
            policy is there: their calls are not looked at.
    """

    policies: tuple[str, ...]
    disabled: tuple[str, ...]
    functions: dict[str, str | None]
    totals: Totals
    skipped: dict[str, int] = field(default_factory=dict)
    uncovered: dict[str, str] = field(default_factory=dict)


class Agent:
    """A context manager; leaving it unloads all policies. Safe to use from several threads.

    What asks (`policies`, `states`, `counts`, `status`, `events`) never waits for a load or an
    unload that is under way: a policy is there from the end of its load to the end of its unload.
    Nothing is in the kernel while no policy is loaded.

    Args:
        base: a folder in a bpffs where everything is pinned, so that it goes on if this process
            is killed; the next agent with this base takes it over. None: nothing is pinned, and
            everything ends with this process at the latest.

    Raises:
        Refused: the folder cannot be used, or what is pinned there is no agent's, or that of
            another version; it goes on as it is.
        BpfError: the kernel failed.
    """

    def __init__(self, base: Path | None = None) -> None:
        # Held by whoever changes something, for as long as the kernel takes for it.
        self._changing = threading.Lock()
        # Held for no more than a look or an entry. Who changes anything below holds both.
        self._lock = threading.Lock()
        self._policies: dict[str, Loaded] = {}
        self._sites: dict[str, Site | Chain] = {}
        # Ids name policies and overrides in entries that may outlive them by a moment: never
        # used again. At a thousand loads a second 32 bits last for 49 days.
        self._next_policy = self._next_override = 1
        self._lsm: LsmMaps | None = None  # made with the first chain, gone with the last
        self._shared: SharedMaps | None = None  # made with the first policy, gone with the last
        self._totals = Totals(0, 0, 0)  # of shared maps that are gone
        self._names = Names()
        self._nameless: list[int] = []  # policies that are gone, and still have a name
        self._pinned_still: set[Path] = set()  # pins that are to go, and could not be removed
        self._events = Events(self._names)
        self._leftovers = Leftovers()
        self._base: Base | None = None
        self._patience = Patience()
        if base is not None:
            self.pin(base)

    def pin(self, folder: Path) -> None:
        """Pins everything from now on, and goes on with what an agent has pinned there before.

        Args:
            folder: in a bpffs.

        Raises:
            Refused: some policy is loaded already; or as for `Agent`.
            BpfError: the kernel failed.
        """
        with self._change():
            if self._policies or self._base is not None:
                raise Refused("an agent that has policies or pins cannot be given a folder")
            self._base = base = Base(folder)
            try:
                build()  # now, as a load may come when there is no descriptor left to read it by
                self._take_over(base)
            except BaseException:
                if self._shared is not None:  # taken over, and then something failed
                    self._leave_all()
                self._close_base()
                raise

    def load(self, policy: Policy) -> None:
        """Puts a policy into effect, for the next matching call.

        Raises:
            Refused: and why. Nothing has changed.
            BpfError: the kernel failed. Nothing has changed.
        """
        with self._change():
            if policy.name in self._policies:
                raise Refused(f"policy {policy.name} is loaded already")
            wanted = Wanted.of(policy)
            with contextlib.ExitStack() as undo:
                undo.callback(self._close_unused)
                place = self._take_place()
                undo.callback(self._maps.give_back, place)
                binary = None
                if wanted.binary is not None:
                    binary = self._maps.take_binary(wanted.binary)
                    undo.callback(self._maps.give_back_binary, wanted.binary)
                loaded = Loaded(wanted, wanted.rule(self._new_policy(), place, binary))
                self._names.policies[loaded.rule.policy] = policy.name
                undo.callback(self._names.forget_policy, loaded.rule.policy)
                self._enable(loaded)
                undo.pop_all()
            with self._lock:
                self._policies[policy.name] = loaded
            self._close_held()

    def unload(self, name: str) -> None:
        """Takes a policy out of effect: nothing is done for its sake to a call that begins later.

        Raises:
            Refused: no such policy.
            BpfError: the kernel had no memory for a table without it, or this process no
                descriptor: nothing has changed. Or it failed to detach something: all else is done.
        """
        with self._change(), ids.together(), contextlib.ExitStack() as stack:
            loaded = self._find(name)
            self._exclude(loaded)
            stack.callback(self._close_unused)
            if loaded.wanted.binary is not None:
                stack.callback(self._maps.give_back_binary, loaded.wanted.binary)
            stack.callback(self._maps.give_back, loaded.rule.place)
            stack.callback(self._forget_name, loaded.rule.policy)
            stack.callback(self._forget, name)  # before its place can be another's
            if loaded.enabled:
                stack.callback(self._disable, loaded)
            if self._state is not None:
                self._state.drop_policy(loaded.rule.policy)

    def enable(self, name: str) -> None:
        """Puts a disabled policy into effect again, in its old place among those of its hook.

        Raises:
            Refused: no such policy, or others have taken the room it needs.
            BpfError: the kernel failed. Nothing has changed.
        """
        with self._change():
            loaded = self._find(name)
            if not loaded.enabled:
                with contextlib.ExitStack() as undo:
                    undo.callback(self._close_unused)
                    self._enable(loaded)
                    undo.pop_all()
                self._close_held()

    def disable(self, name: str) -> None:
        """Takes a policy out of effect as `unload` does, but keeps it and its counts.

        Raises:
            Refused: no such policy.
            BpfError: as for `unload`.
        """
        with self._change(), ids.together(), contextlib.ExitStack() as stack:
            loaded = self._find(name)
            if loaded.enabled:
                self._note(loaded, enabled=False)
                try:
                    self._exclude(loaded)
                except BaseException:
                    self._note(loaded, enabled=True)
                    raise
                stack.callback(self._close_unused)
                stack.callback(self._disable, loaded)

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
            return [self._policies[name].wanted.policy for name in sorted(self._policies)]

    def states(self) -> list[PolicyState]:
        """What is loaded, in the order in which it was, which is that in which it decides."""
        with self._lock:
            return [
                PolicyState(each.wanted.policy, each.enabled, self._maps.counts(each.rule.place))
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

    def sweep(self) -> int:
        """Deletes what strangers' denials have left behind of threads that have ended since.

        To be called now and then, as `refagent run` does twice a second; it looks at some numbers
        and does nothing more while there can be little, or while a load or unload is under way.
        Without it the map of pending denials fills in time, and then calls go through.

        Returns:
            how many entries.

        Raises:
            BpfError: the kernel failed.
        """
        if not self._changing.acquire(blocking=False):
            return 0
        try:
            if self._shared is None:
                return 0
            rules = [each.rule for each in self._policies.values() if each.rule.overrides]
            counts = {each.policy: self._shared.counts(each.place) for each in rules}
            if not self._leftovers.due(counts):
                return 0
            return self._leftovers.sweep(self._shared.by_name["override_tasks"], counts)
        finally:
            self._changing.release()

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
            skipped = {name: self._sites[name].skipped for name in functions}
            twins = {name: twin for name in functions if (twin := hooks.twin(name))}
            uncovered = {name: twin for name, twin in twins.items() if twin not in functions}
            states = (by_state[True], by_state[False])
            return Status(*states, functions, self._sum(), skipped, uncovered)

    def totals(self) -> Totals:
        """What belongs to no single policy, since the agent began."""
        with self._lock:
            return self._sum()

    def leave(self) -> None:
        """Ends the agent; what is pinned goes on, and is the next agent's with this base."""
        with self._change():
            self._leave_all()
            self._close_base()

    def close(self) -> None:
        """Unloads everything and gives all back to the kernel."""
        with self._change(), ids.together(), contextlib.ExitStack() as stack:
            stack.callback(self._close_base)
            stack.callback(self._leave_all)  # a chain that could not be ended, if there is one
            stack.callback(self._close_maps)
            for site in self._sites.values():
                stack.callback(self._end, site)
            if self._base is not None:
                stack.callback(self._unpin_left)
                for name in self._policies:
                    stack.callback(self._unpin, name)
            if self._state is not None:
                for each in self._policies.values():
                    stack.callback(self._state.drop_policy, each.rule.policy)
            with self._lock:
                self._policies.clear()
            stack.callback(self._silence)

    def __enter__(self) -> Agent:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    @contextlib.contextmanager
    def _change(self) -> Iterator[None]:
        """One after the other; each waits in all for no longer than its patience lasts."""
        with self._changing:
            self._patience.begin()
            yield

    def _find(self, name: str) -> Loaded:
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

    def _enable(self, loaded: Loaded) -> None:
        """Gives the kernel a policy's rule; what was opened for it is for the caller to close."""
        site = self._site(loaded)
        with contextlib.ExitStack() as undo:
            if self._base is not None:  # first, as the policy may be about such calls
                policypins.add(self._base, loaded.wanted.policy.name, site.program)
                self._pinned_still.discard(policypins.place(self._base, loaded.wanted.policy.name))
                undo.callback(self._unpin, loaded.wanted.policy.name)
            site.add(loaded.wanted.key, loaded.rule)
            undo.callback(site.remove, loaded.rule)
            undo.callback(site.exclude, loaded.wanted.key, loaded.rule)
            self._note(loaded, enabled=True)
            undo.pop_all()
        loaded.enabled = True

    def _exclude(self, loaded: Loaded) -> None:
        """Has no call find a policy any more, which is what can fail with nothing changed."""
        if loaded.enabled:
            self._sites[loaded.wanted.hook.function].exclude(loaded.wanted.key, loaded.rule)

    def _silence(self) -> None:
        """Has no call find any policy, if there are pins: one may be about their removal."""
        if self._base is not None:
            for site in self._sites.values():
                with contextlib.suppress(AgentError):
                    site.silence()

    def _disable(self, loaded: Loaded) -> None:
        """Ends a policy's rule, which is excluded."""
        try:
            self._sites[loaded.wanted.hook.function].remove(loaded.rule)
        finally:
            loaded.enabled = False
            self._unpin(loaded.wanted.policy.name)  # before the program can go, which it would keep
        # It has waited for all programs that ran when the places before this one came back.
        if self._settled:
            self._maps.drained()

    def _unpin(self, policy: str) -> None:
        """Removes a policy's pin, at once or once that is possible."""
        if self._base is not None:
            self._pinned_still.add(policypins.place(self._base, policy))
            self._unpin_left()

    def _unpin_left(self) -> None:
        with contextlib.ExitStack() as stack:
            for each in list(self._pinned_still):
                stack.callback(self._unpin_one, each)

    def _unpin_one(self, pin: Path) -> None:
        if self._base is not None:
            self._base.remove(pin)
            self._base.prune(pin.parent)
            self._pinned_still.discard(pin)

    @property
    def _settled(self) -> bool:
        """Whether no call is in a chain that knows a policy which is gone."""
        chains = [each for each in self._sites.values() if isinstance(each, Chain)]
        return all(each.settled for each in chains)

    def _forget_name(self, policy: int) -> None:
        """When no call can give an event any more that is about it."""
        self._nameless.append(policy)
        if self._settled:
            while self._nameless:
                self._names.forget_policy(self._nameless.pop())

    @property
    def _maps(self) -> SharedMaps:
        """Made when they are first needed."""
        if self._shared is None:
            self._shared = SharedMaps(self._base)
            self._note_ids()
            self._events.open(self._shared.by_name["events"])
        return self._shared

    @property
    def _state(self) -> State | None:
        """The records of a pinned agent."""
        return None if self._shared is None else self._shared.state

    def _note(self, loaded: Loaded, *, enabled: bool) -> None:
        """Has the next agent know whether a policy is in effect."""
        if self._state is not None:
            rule = loaded.rule
            numbers = (rule.policy, rule.place, rule.binary)
            self._state.add_policy(PolicyRecord(loaded.wanted.policy, *numbers, enabled))

    def _take_place(self) -> int:
        """A policy's in `policy_counts`; loads that failed have given theirs back unwaited for."""
        if self._maps.spent and self._settled:
            with Table(naming.on("places")) as table:
                table.drain()
            self._maps.drained()
        return self._maps.take_place()

    def _new_policy(self) -> int:
        number, self._next_policy = self._next_policy, self._next_policy + 1
        self._note_ids()
        return number

    def _new_override(self) -> int:
        number, self._next_override = self._next_override, self._next_override + 1
        self._note_ids()
        return number

    def _note_ids(self) -> None:
        if self._shared is not None and self._state is not None:
            self._state.begin(self._next_policy, self._next_override, self._shared.used)

    def _site(self, loaded: Loaded) -> Site | Chain:
        """The site of a policy's function; it may be there already, for other policies."""
        hook, path, by = loaded.wanted.hook, loaded.wanted.path_argument, loaded.wanted.policy.by
        site = self._sites.get(hook.function)
        if site is not None and not site.rules:  # it could not be ended
            self._end(site)
            site = None
        if site is None:
            argument = next(iter(hook.paths), None) if path is None else path
            number = self._new_override()
            site = self._open(hook, number, argument, by)
            self._add_site(site)  # from now on it is for `_close_unused` to end
            if self._state is not None:
                self._state.add_site(site.record)
            return site
        for what, mine, theirs in (
            ("are about path argument", path, site.path_argument),
            ("are overridden by", by, site.way),
        ):
            if mine not in {None, theirs}:
                raise Refused(
                    f"policies on {hook.function} that are loaded {what} {theirs}, not {mine}; "
                    "unload them first"
                )
        return site

    def _open(self, hook: Hook, number: int, argument: int | None, by: str | None) -> Site | Chain:
        maps = self._maps.by_name
        if not hook.lsm:
            site = Site(hook, number, maps, self._base, path_argument=argument, by=by)
            left = self._pinned_still  # the new ones are not to go, whatever was there before
            self._pinned_still = {each for each in left if each.parent.name != hook.function}
            return site
        if self._lsm is None:
            self._lsm = LsmMaps(self._base)
        chain = Chain(
            *(hook, number, maps, self._lsm),
            path_argument=argument,
            base=self._base,
            patience=self._patience,
        )
        try:
            chain.start()
        except BaseException:
            if chain.given_up:  # so that it is ended once it can be
                self._add_site(chain)
            raise
        return chain

    def _add_site(self, site: Site | Chain) -> None:
        with self._lock:
            self._sites[site.function] = site
        self._names.hooks[site.id] = site.function

    def _close_unused(self) -> None:
        """Gives back the sites without a rule, and the shared maps where no policy is left."""
        with contextlib.ExitStack() as stack:
            stack.callback(self._close_maps)
            for site in [each for each in self._sites.values() if not each.rules]:
                if isinstance(site, Chain) and site.held:
                    continue  # until its sleepers wake, or the agent ends
                stack.callback(self._end, site)
            stack.callback(self._unpin_left)

    def _close_held(self) -> None:
        """Gives back chains whose sleepers have woken; the next request is for the others."""
        with contextlib.suppress(AgentError):
            self._close_unused()

    def _end(self, site: Site | Chain) -> None:
        """Closes a site without rules.

        Of a function the record goes first: what is left of it the next agent removes. Of a chain
        it goes last: the next agent goes on with what is there by half. One that cannot be ended
        stays.

        Raises:
            AgentError, BpfError: as its `close` does.
        """
        if isinstance(site, Site):
            self._drop_record(site)
        try:
            site.close()
        finally:
            if not site.given_up:
                with self._lock:
                    del self._sites[site.function]
                self._names.forget_hook(site.id)
                self._drop_record(site)

    def _drop_record(self, site: Site | Chain) -> None:
        if self._state is not None:
            self._state.drop_site(site.id)

    def _close_maps(self) -> None:
        if self._lsm is not None and not any(isinstance(s, Chain) for s in self._sites.values()):
            lsm, self._lsm = self._lsm, None
            lsm.close()
        if self._pinned_still:
            return  # or the records would go before what they are about
        if self._shared is not None and not self._sites and not self._policies:
            maps = self._shared
            with contextlib.ExitStack() as stack:
                stack.callback(maps.close)
                stack.callback(self._events.close)
                with self._lock:
                    self._shared = None
                    self._totals = self._totals.plus(maps.totals())

    def _leave_all(self) -> None:
        with self._lock:
            sites, self._sites = self._sites, {}
            maps, self._shared = self._shared, None
            self._policies.clear()
        for site in sites.values():
            site.leave()
        if self._base is None:
            self._events.close()
        else:
            self._events.leave()
        lsm, self._lsm = self._lsm, None
        for each in (lsm, maps):
            if each is not None:
                each.leave()

    def _close_base(self) -> None:
        base, self._base = self._base, None
        if base is not None:
            base.close()

    def _take_over(self, base: Base) -> None:
        """Goes on with what an agent has left that was here before, if one was."""
        found = takeover.take_over(base, self._patience)
        if found is None:
            return
        self._shared, self._lsm = found.maps, found.lsm
        self._next_policy, self._next_override = found.next_ids
        with self._lock:
            self._policies = {each.wanted.policy.name: each for each in found.policies}
        for each in found.policies:
            self._names.policies[each.rule.policy] = each.wanted.policy.name
        for site in found.sites:
            self._add_site(site)
        self._pinned_still.update(found.pinned_still)
        self._events.open(found.maps.by_name["events"])
        # A policy that goes on may be what keeps it from being ended.
        with contextlib.suppress(AgentError):
            self._close_unused()
