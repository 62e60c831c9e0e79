# SPDX-License-Identifier: Apache-2.0
"""Going on with what an agent left pinned: without a gap, and without a denial too many."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from refagent import chain, hooks, layout, policypins
from refagent.chain import Chain
from refagent.epochs import Patience
from refagent.errors import AgentError, BpfError, Refused
from refagent.loaded import Loaded, Wanted
from refagent.lsmmaps import LsmMaps
from refagent.pins import AGENT, LSM, OVERRIDE, POLICY, SENSOR, Base
from refagent.policy import LSM as HOOK
from refagent.rules import Rule
from refagent.shared import SharedMaps
from refagent.site import Site
from refagent.state import SiteRecord, State
from refagent.tables import Table


@dataclass(frozen=True)
class Found:
    """What was there.

    Attributes:
        maps: with the records.
        lsm: what chains share, or None where there is no chain.
        next_ids: a policy's and an override's, which have not been used yet.
        policies: in the order in which they were loaded.
        sites: the functions and LSM hooks that they are on, and chains without any that are to be
            closed.
        pinned_still: pins of what is gone, which cannot be removed yet.
    """

    maps: SharedMaps
    lsm: LsmMaps | None
    next_ids: tuple[int, int]
    policies: tuple[Loaded, ...]
    sites: tuple[Site | Chain, ...]
    pinned_still: tuple[Path, ...]


def take_over(base: Base, patience: Patience) -> Found | None:
    """Opens the pins of an agent, and clears away what was half done when it was killed.

    Args:
        base: the folder.
        patience: of the agent that goes on.

    Returns:
        None if there was none.

    Raises:
        Refused: what is pinned is no agent's or another version's. It goes on as it is.
        BpfError: this process lacks what it takes. Likewise.
    """
    if strange := base.foreign() or policypins.foreign(base):
        raise Refused(f"{strange} is none of an agent's pins: take another folder, or remove it")
    if not base.folder(AGENT, "state").exists() and _something(base):
        raise Refused(
            f"{base.path} has functions or policies pinned and no records of whose they are; "
            f"removing the folder ends what they enforce"
        )
    if not (SharedMaps.complete(base) or _something(base)):
        # Killed at its start or end: nothing ran yet, or any more.
        LsmMaps.unpin(base)
        SharedMaps.unpin(base)
        return None
    try:
        return _found(base, patience)
    except BpfError as failure:
        if failure.lack:
            raise
        raise Refused(f"what is pinned at {base.path} is not complete: {failure}") from failure


def _found(base: Base, patience: Patience) -> Found:
    with contextlib.ExitStack() as undo:
        maps = SharedMaps.pinned(base)
        undo.callback(maps.leave)
        assert maps.state is not None  # noqa: S101  a pinned agent has records
        *next_ids, places = maps.state.next_ids()
        policies = tuple(_policies(maps.state))
        records = {each.function: each for each in maps.state.sites()}
        sites = []
        for record in records.values():
            if not record.function.startswith(HOOK):
                site = _site(base, maps, record, policies)
                undo.callback(site.leave)
                sites.append(site)
        lsm, chains = _chains(base, maps, records, policies, undo, patience=patience)
        settled = all(each.settled for each in chains)
        maps.restore(
            [each.rule.place for each in policies],
            [
                (each.wanted.binary, each.rule.binary)
                for each in policies
                if each.wanted.binary is not None and each.rule.binary is not None
            ],
            places,
            settled=settled,
        )
        if lsm is not None and settled:
            lsm.restore(each.rule.policy for each in policies if each.enabled)
        stay = _clear(base, maps, sites, policies)
        whole = [each for each in chains if each.rules]
        if whole:
            chain.prove(whole)
        programs = {site.function: site.program for site in sites}
        programs |= {each.function: each.program for each in whole}
        stay += policypins.settle(
            base,
            {
                each.wanted.policy.name: programs[each.wanted.hook.function]
                for each in policies
                if each.enabled
            },
        )
        undo.pop_all()
    ids = (next_ids[0], next_ids[1])
    return Found(maps, lsm, ids, policies, (*sites, *chains), tuple(stay))


def _chains(
    base: Base,
    maps: SharedMaps,
    records: Mapping[str, SiteRecord],
    policies: tuple[Loaded, ...],
    undo: contextlib.ExitStack,
    *,
    patience: Patience,
) -> tuple[LsmMaps | None, list[Chain]]:
    """The chains, whole or not, and what they share."""
    assert maps.state is not None  # noqa: S101  a pinned agent has records
    there = {HOOK + folder.name for folder in base.functions(LSM)}
    rules = {function: _rules(function, policies) for function in {*there, *records}}
    for record in records.values():
        if record.function.startswith(HOOK) and record.function not in there:
            if rules[record.function]:
                raise Refused(f"{base.folder(LSM)} lacks the programs of {record.function}")
            maps.state.drop_site(record.id)  # all but this was done
    if not there:
        LsmMaps.unpin(base)
        return None, []
    lsm, chains = LsmMaps.pinned(base), []
    undo.callback(lsm.leave)
    for function in there:
        record = records.get(function, SiteRecord(function, 0, None))
        found = Chain.pinned(record, maps.by_name, lsm, base, rules[function], patience=patience)
        undo.callback(found.leave)
        chains.append(found)
    return lsm, chains


def _something(base: Base) -> bool:
    """Whether anything is pinned that belongs to a function or a policy."""
    functions = (base.functions(*each) for each in (*_FUNCTIONS, (LSM,)))
    return bool(base.entries(base.folder(POLICY))) or any(functions)


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
    return Site.pinned(hook, record, maps.by_name, base, _rules(record.function, policies))


def _rules(function: str, policies: tuple[Loaded, ...]) -> list[tuple[bytes, Rule]]:
    return [
        (each.wanted.key, each.rule)
        for each in policies
        if each.enabled and each.wanted.hook.function == function
    ]


def _silence(folder: Path) -> None:
    """Has no call find a rule of a sensor that goes: one may be about the removal of its pins."""
    if (folder / "policies").exists():
        table = Table.pinned(folder / "policies")
        try:
            table.restore({})
        finally:
            table.leave()


def _clear(
    base: Base, maps: SharedMaps, sites: list[Site], policies: tuple[Loaded, ...]
) -> list[Path]:
    """Removes what no record speaks of: functions that were half opened, entries of the dead.

    Returns:
        Pins that cannot be removed: a policy that goes on may deny it.
    """
    names, stay = {site.function for site in sites}, []
    for each in _FUNCTIONS:
        for folder in base.functions(*each):
            if folder.name in names:
                continue
            try:
                _silence(folder)
                base.unpin(folder)
            except AgentError:
                stay += base.entries(folder)
    tasks = maps.by_name["override_tasks"]
    overrides = {site.id for site in sites}
    known = {each.rule.policy for each in policies if each.enabled}
    for key, entry in tasks.items():
        override = layout.OVERRIDE_KEY.unpack(key)[1]
        if override not in overrides or layout.OVERRIDE_ENTRY.unpack(entry)[1] not in known:
            tasks.delete(key)
    return stay
