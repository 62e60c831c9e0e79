# SPDX-License-Identifier: Apache-2.0
"""A kernel function with policies: its sensor, and its override program while it needs one."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from pathlib import Path

from refagent.errors import AgentError, BpfError, Refused
from refagent.hooks import Hook
from refagent.libbpf import ids
from refagent.libbpf.maps import Map
from refagent.overrides import Override
from refagent.pins import OVERRIDE, SENSOR, Base
from refagent.rules import Rule
from refagent.sensor import Sensor
from refagent.state import SiteRecord


class Site:
    """The sensor runs from creation to `close`; for one thread at a time.

    Args:
        hook: the function.
        override_id: never used before by this agent.
        maps: the agent's, by their names in the C sources.
        base: where all of it is pinned; None: nowhere.
        path_argument: which argument its policies' paths are about, or None.
        by: the way to override that is asked for, or None: the first that the kernel has.

    Attributes:
        function: its name.
        id: the override's, and the function's in events.
        path_argument: as above.
        by_kprobe: whether the sensor itself overrides.
        rules: how many it has.
        given_up: whether it was to be closed and could not be unpinned; it can be tried again.

    Raises:
        Refused: the function cannot be probed.
        BpfError: the kernel failed; nothing is left.
    """

    def __init__(
        self,
        hook: Hook,
        override_id: int,
        maps: Mapping[str, Map],
        base: Base | None,
        *,
        path_argument: int | None,
        by: str | None,
    ) -> None:
        self.function, self.id = hook.function, override_id
        self.path_argument, self.rules, self.given_up = path_argument, 0, False
        self._hook, self._maps, self._base = hook, maps, base
        self._override: Override | None = None
        self._overriding = 0  # rules that need it
        self._no_override = hook.no_override
        self._unpin()  # what could not be removed once, and no record speaks of
        self.by_kprobe = hook.system_call and (by == "kprobe" or hook.no_override is not None)
        if self.by_kprobe:
            try:
                self._sensor = self._start()
            except (BpfError, Refused) as failure:
                if isinstance(failure, BpfError) and failure.lack:
                    raise
                self.by_kprobe = False
                words = failure.words if isinstance(failure, BpfError) else str(failure)
                tried = () if by else (hook.no_override,)
                self._no_override = "; ".join(filter(None, (*tried, f"kprobe override: {words}")))
            else:
                self._no_override = None
                return
        try:
            self._sensor = self._start()
        except BpfError as failure:
            if failure.lack:
                raise
            raise Refused(f"{hook.function} cannot be probed: {failure.words}") from failure

    @classmethod
    def pinned(
        cls,
        hook: Hook,
        record: SiteRecord,
        maps: Mapping[str, Map],
        base: Base,
        rules: Sequence[tuple[bytes, Rule]],
    ) -> Site:
        """A site that goes on, by its pins; with these rules from now on.

        Raises:
            Refused: other objects are pinned there.
            BpfError: some are missing, or the kernel failed.
        """
        site = cls.__new__(cls)
        site.function, site.id = record.function, record.id
        site.path_argument, site.rules = record.path_argument, len(rules)
        site.given_up = False
        site._hook, site._maps, site._base = hook, maps, base
        site.by_kprobe = record.by_kprobe
        site._no_override = None if record.by_kprobe else hook.no_override
        site._overriding = sum(rule.overrides for _, rule in rules)
        site._override = None
        # The override first: with fewer rules the sensor asks less of it.
        if site._overriding and not site.by_kprobe:
            site._override = Override.pinned(site.function, site._fmod_ret, site.id, maps)
        try:
            folder = base.folder(SENSOR, site.function)
            site._sensor = Sensor.pinned(hook, folder, maps, rules)
        except BaseException:
            if site._override is not None:
                site._override.leave()
            raise
        if not site._overriding:
            with contextlib.suppress(AgentError):  # a policy that goes on may deny it
                base.unpin(site._fmod_ret)
        return site

    @property
    def record(self) -> SiteRecord:
        """What has to be known to go on with it."""
        return SiteRecord(self.function, self.id, self.path_argument, self.by_kprobe)

    @property
    def kind(self) -> str | None:
        """How results are overridden: `fmod_ret`, `kprobe`, or None while no rule needs it."""
        if not self._overriding:
            return None
        return self.way

    @property
    def skipped(self) -> int:
        """How often the kernel skipped one of its programs, as it ran on that CPU already.

        A kernel that preempts itself can have another task in it then. That call is not enforced.
        """
        override = () if self._override is None else (self._override.objects,)
        found = 0
        for each in (self._sensor.program, *override):
            with contextlib.suppress(BpfError):  # it is just being closed
                found += ids.recursion_misses(each["prog"])
        return found

    @property
    def program(self) -> int:
        """The descriptor of its sensor's program."""
        return self._sensor.program["prog"]

    @property
    def way(self) -> str:
        """How it overrides, or would."""
        return "kprobe" if self.by_kprobe else "fmod_ret"

    def _start(self) -> Sensor:
        sensor = Sensor(
            self._hook,
            self.path_argument,
            self.id,
            self._maps,
            by_kprobe=self.by_kprobe,
            pinnable=self._base is not None,
        )
        with contextlib.ExitStack() as undo:
            undo.callback(sensor.close)
            sensor.attach()
            if self._base is not None:
                undo.callback(self._unpin)
                self._base.pin(self._base.folder(SENSOR, self.function), sensor.objects)
                if self.by_kprobe:
                    self._base.pin(self._kprobe, sensor.program)
            undo.pop_all()
        return sensor

    @property
    def _kprobe(self) -> Path:
        assert self._base is not None  # noqa: S101
        return self._base.folder(OVERRIDE, "kprobe", self.function)

    @property
    def _fmod_ret(self) -> Path:
        assert self._base is not None  # noqa: S101
        return self._base.folder(OVERRIDE, "fmod_ret", self.function)

    def _unpin(self) -> None:
        if self._base is not None:
            for folder in self._fmod_ret, self._kprobe, self._base.folder(SENSOR, self.function):
                self._base.unpin(folder)

    def add(self, key: bytes, rule: Rule) -> None:
        """Puts a rule into effect; the override comes first, or the first call would pass.

        Raises:
            Refused: the kernel takes no (further) override there, or the path has enough rules.
            AgentError: an override that is left from before cannot be unpinned.
            BpfError: the kernel failed.
            In all cases all is as before.
        """
        if rule.overrides and self._no_override is not None:
            raise Refused(f"{self.function} cannot be overridden: {self._no_override}")
        self._drop_unused_override()
        if rule.overrides and self._override is None and not self.by_kprobe:
            self._override = self._open_override()
        try:
            self._sensor.add(key, rule)
        except BaseException:
            self._drop_unused_override()
            raise
        self._overriding += rule.overrides
        self.rules += 1

    def _open_override(self) -> Override:
        override = Override(self.function, self._hook.btf_id, self.id, self._maps)
        try:
            if self._base is not None:
                self._base.unpin(self._fmod_ret)  # as in the beginning
                self._base.pin(self._fmod_ret, override.objects)
        except BaseException:
            override.close()
            raise
        return override

    def exclude(self, key: bytes, rule: Rule) -> None:
        """Takes a rule out of the table: no call that begins afterwards finds it.

        Raises:
            BpfError: no memory or descriptor for another table; all is as before.
        """
        self._sensor.remove(key, rule)

    def remove(self, rule: Rule) -> None:
        """Ends a rule that is excluded; no call that begins after this is denied for its sake.

        Raises:
            BpfError: the kernel failed at something; the rest is done.
        """
        self.rules -= 1
        self._overriding -= rule.overrides
        with contextlib.ExitStack() as stack:
            stack.callback(self._drop_unused_override)
            if self._override is not None and rule.overrides:
                self._override.purge(rule.policy)

    def silence(self) -> None:
        """Has no call that begins afterwards find a rule, before its end.

        Raises:
            BpfError: as for `exclude`.
        """
        self._sensor.silence()

    def close(self) -> None:
        """Gives everything back, whatever fails on the way; returns when the kernel has freed it.

        Its pins go first: what is open here goes on without them. With one that stays nothing else
        is done, as that keeps all of it attached.
        1. The sensor stops. 2. The override is detached; its program stays loaded. 3. Nothing
        runs in either any more. 4. What they left is purged. 5. The override's program goes.
        6. The sensor's program and tables go. A census finds none of them.

        Raises:
            AgentError: if it is `given_up`, a pin cannot be removed; a policy can deny that.
            BpfError: the kernel failed at something; the rest is done.
        """
        self.given_up = True
        self._unpin()
        self.given_up = False
        with contextlib.ExitStack() as stack:
            stack.callback(self._sensor.close)
            stack.callback(self._drop_override)
            stack.callback(self._sensor.detach)

    def leave(self) -> None:
        """Lets go of everything, and leaves what is pinned to itself."""
        self._sensor.leave()
        if self._override is not None:
            self._override.leave()

    def _drop_unused_override(self) -> None:
        if not self._overriding:
            self._drop_override()

    def _drop_override(self) -> None:
        if self._override is None:
            return
        if self._base is not None:  # with a pin that stays it does, and nobody asks it for anything
            self._base.unpin(self._fmod_ret)
        override, self._override = self._override, None
        with contextlib.ExitStack() as stack:
            stack.callback(override.close)
            stack.callback(override.purge)
            stack.callback(self._sensor.drain)
            stack.callback(override.detach)
