# SPDX-License-Identifier: Apache-2.0
"""Going on with what an agent left pinned: without a gap, and without a denial too many."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass

from refagent import hooks, layout, policypins
from refagent.errors import BpfError, Refused
from refagent.loaded import Loaded, Wanted
from refagent.pins import AGENT, OVERRIDE, POLICY, SENSOR, Base
from refagent.shared import SharedMaps
from refagent.site import Site
from refagent.state import SiteRecord, State


@dataclass(frozen=True)
class Found:
    """What was there.

    Attributes:
        maps: with the records.
        next_ids: a policy's and an override's, which have not been used yet.
        policies: in the order in which they were loaded.
        sites: the functions that they are on.
    """

    maps: SharedMaps
    next_ids: tuple[int, int]
    policies: tuple[Loaded, ...]
    sites: tuple[Site, ...]


def take_over(base: Base) -> Found | None:
    """Opens the pins of an agent, and clears away what was half done when it was killed.

    Returns:
        None if there was none.

    Raises:
        Refused: what is pinned is no agent's or another version's. It goes on as it is.
    """
    if strange := base.foreign() or policypins.foreign(base):
        raise Refused(f"{strange} is none of an agent's pins: take another folder, or remove it")
    if not base.folder(AGENT, "state").exists():
        _nothing_or_rests(base)
        return None
    try:
        return _found(base)
    except BpfError as failure:
        raise Refused(f"what is pinned at {base.path} is not complete: {failure}") from failure


def _found(base: Base) -> Found:
    with contextlib.ExitStack() as undo:
        maps = SharedMaps.pinned(base)
        undo.callback(maps.leave)
        assert maps.state is not None  # noqa: S101  a pinned agent has records
        next_ids = maps.state.next_ids()
        policies = tuple(_policies(maps.state))
        maps.restore(
            [each.rule.place for each in policies],
            [
                (each.wanted.binary, each.rule.binary)
                for each in policies
                if each.wanted.binary is not None and each.rule.binary is not None
            ],
        )
        sites = []
        for record in maps.state.sites():
            site = _site(base, maps, record, policies)
            undo.callback(site.leave)
            sites.append(site)
        _clear(base, maps, sites, policies)
        programs = {site.function: site.program for site in sites}
        policypins.settle(
            base,
            {
                each.wanted.policy.name: programs[each.wanted.hook.function]
                for each in policies
                if each.enabled
            },
        )
        undo.pop_all()
    return Found(maps, next_ids, policies, tuple(sites))


def _nothing_or_rests(base: Base) -> None:
    """An agent that was killed at its start or end leaves maps without records, at most."""
    if base.entries(base.folder(POLICY)) or any(base.functions(*each) for each in _FUNCTIONS):
        raise Refused(
            f"{base.path} has functions or policies pinned and no records of whose they are; "
            f"removing the folder ends what they enforce"
        )
    SharedMaps.unpin(base)


_FUNCTIONS = ((SENSOR,), (OVERRIDE, "fmod_ret"), (OVERRIDE, "kprobe"))


def _policies(state: State) -> list[Loaded]:
    found = []
    for record in state.policies():
        wanted = Wanted.of(record.policy)
        rule = wanted.rule(record.id, record.place, record.binary)
        found.append(Loaded(wanted, rule, record.enabled))
    return found


def _site(base: Base, maps: SharedMaps, record: SiteRecord, policies: tuple[Loaded, ...]) -> Site:
    hook = hooks.find(record.function)
    mine = [
        (each.wanted.key, each.rule)
        for each in policies
        if each.enabled and each.wanted.hook.function == record.function
    ]
    return Site.pinned(hook, record, maps.by_name, base, mine)


def _clear(base: Base, maps: SharedMaps, sites: list[Site], policies: tuple[Loaded, ...]) -> None:
    """Removes what no record speaks of: functions that were half opened, entries of the dead."""
    names = {site.function for site in sites}
    for each in _FUNCTIONS:
        for folder in base.functions(*each):
            if folder.name not in names:
                base.unpin(folder)
    tasks = maps.by_name["override_tasks"]
    overrides = {site.id for site in sites}
    known = {each.rule.policy for each in policies if each.enabled}
    for key, entry in tasks.items():
        override = layout.OVERRIDE_KEY.unpack(key)[1]
        if override not in overrides or layout.OVERRIDE_ENTRY.unpack(entry)[1] not in known:
            tasks.delete(key)
