# SPDX-License-Identifier: Apache-2.0
"""An LSM hook with policies: three programs that work together on each of its calls.

`filter` finds the policies that fit, `ima` has the file hashed and sleeps for it, `send` decides
and tells (bpf/chain.h). However many policies: three links on the hook.
"""

from __future__ import annotations

import contextlib
import errno
import time
from collections.abc import Mapping, Sequence
from typing import Any, Final

from refagent import canary, digests, layout, naming, selftest, trampoline
from refagent.digests import Digest
from refagent.errors import AgentError, BpfError, Refused
from refagent.hooks import Hook, PathKind
from refagent.libbpf import template
from refagent.libbpf.links import Link
from refagent.libbpf.maps import Map
from refagent.libbpf.template import Loaded
from refagent.lsmmaps import LsmMaps
from refagent.policy import LSM
from refagent.rules import Rule, Rules
from refagent.tables import Table

#: In the order in which they have to run.
PROGRAMS: Final = ("filter", "ima", "send")
#: Maps of the first that the others use too.
_OF_THE_CHAIN: Final = ("frames", "chains", "settings")
#: What each has a frame remember; so this is said of a call that passed them in that order.
_STEPS: Final = 1 << 4 | 2 << 2 | 3
#: How long a task may be asleep in the ima program when it has to end: a slow disk's time.
_PATIENCE: Final = 30.0
#: And how long a call may then take to the chain's end, if it comes there at all: a stranger's
#: program may have denied it in between, which nobody tells.
_LAST_STEPS: Final = 1.0
#: The policy and the place of the agent's own calls.
_NOBODY: Final = 2**32 - 1
_PLACE: Final = layout.POLICIES - 1

_SLOT: Final = bytes(4)


class Chain:
    """Attached and proved on creation, and running until `close`; for one thread at a time.

    Args:
        hook: an LSM hook.
        number: never used before by this agent.
        maps: the agent's, by their names in the C sources.
        lsm: what all chains share.
        order: in which the programs are to run; only the right one is ever proved.

    Attributes:
        function: `lsm/` and the hook's name.
        id: as above.
        path_argument: which argument its policies' paths are about, or None.
        rules: how many it has.
        digest: what IMA gave for a file of the agent's own, or a negative errno.

    Raises:
        Refused: this kernel has no such chain, and why; or the programs run in another order.
        BpfError: the kernel failed.
        In both cases nothing is left.
    """

    way: Final = "lsm"

    def __init__(
        self,
        hook: Hook,
        number: int,
        maps: Mapping[str, Map],
        lsm: LsmMaps,
        *,
        path_argument: int | None,
        order: Sequence[str] = PROGRAMS,
    ) -> None:
        self.function, self.id, self.path_argument = hook.function, number, path_argument
        self.rules = self._overriding = self._binaries = 0
        self._name, self._hook, self._lsm = hook.function.removeprefix(LSM), hook, lsm
        self._links: dict[str, Link] = {}
        self._programs: dict[str, Loaded] = {}
        self._epoch = 0
        self._denied = [0, 0]  # calls of an epoch that a stranger has denied inside the chain
        self.digest: Digest | int = -errno.ENODATA
        if self._name not in selftest.HOOKS:
            raise Refused(f"{hook.function}: chains can be on {', '.join(sorted(selftest.HOOKS))}")
        last_first = canary.last_attached_runs_first()
        with contextlib.ExitStack() as undo:
            self._rules = Rules(Table(naming.on(hook.function)))
            undo.callback(self._rules.close)
            undo.callback(self._close_programs)
            self._load({**maps, **lsm.by_name, "policies": self._rules.slot})
            undo.callback(self._detach)
            for name in reversed(order) if last_first else order:
                self._attach(name)
            self._prove()
            undo.pop_all()

    @property
    def kind(self) -> str | None:
        """How results are overridden: `lsm`, or None while no rule does."""
        return self.way if self._overriding else None

    @property
    def skipped(self) -> int:
        """How often the kernel skipped one of its programs: LSM programs never are."""
        return 0

    def add(self, key: bytes, rule: Rule) -> None:
        """Puts a rule into effect.

        Raises:
            Refused: the path has enough rules, or its digests are of another algorithm than IMA's.
            BpfError: the kernel failed.
            In both cases all is as before.
        """
        self._check_digests(rule.digests)
        with contextlib.ExitStack() as undo:
            self._lsm.list_digests(rule.policy, rule.digests)
            undo.callback(self._lsm.forget_digests, rule.policy, rule.digests)
            self._count_binaries(+1 if rule.binary else 0)
            undo.callback(self._count_binaries, -1 if rule.binary else 0)
            self._rules.add(key, rule)
            undo.pop_all()
        self._overriding += rule.overrides
        self.rules += 1

    def remove(self, key: bytes, rule: Rule) -> None:
        """Takes a rule out of effect; returns when no call is in the chain that it fits.

        Raises:
            AgentError: one has been asleep there for too long.
            BpfError: the kernel failed at something.
            In both cases the rest is done.
        """
        self.rules -= 1
        self._overriding -= rule.overrides
        with contextlib.ExitStack() as stack:
            stack.callback(self._lsm.forget_digests, rule.policy, rule.digests)
            stack.callback(self._count_binaries, -1 if rule.binary else 0)
            self._rules.remove(key, rule.policy)
            self._drain()

    def leave(self) -> None:
        """Lets go of everything, which ends it: chains are not pinned."""
        self.close()

    def close(self) -> None:
        """Gives everything back; returns when the kernel has freed it.

        1. The filter stops: no call is given a frame any more. 2. The ima program is detached.
        3. Nobody is asleep in it, and those who were have passed `send`. 4. That is detached, too.
        5. Only now the programs go: a kernel without 0fb5751a6e41 and 17637e1a581a would otherwise
        free one under a task that comes back to it.

        Raises:
            AgentError: a task is still asleep in the ima program. Its programs stay loaded.
        """
        self._detach()
        with contextlib.ExitStack() as stack:
            stack.callback(self._rules.close)
            self._close_programs()

    def _load(self, maps: Mapping[str, Map]) -> None:
        shared = dict(maps)
        file_kind = int(self._hook.paths.get(0, PathKind.NONE))
        constants = {
            "filter": {
                "override_id": self.id,
                "path_kind": self._hook.path_kind(self.path_argument),
                "path_argument": self.path_argument or 0,
                "argument_count": len(self._hook.sizes),
            },
            "ima": {},
            "send": {},
        }
        for name in PROGRAMS:
            try:
                program = template.prepare(name).load(
                    shared,
                    names=naming.on(self.function),
                    target=self._hook.btf_id,
                    file_kind=file_kind,
                    **constants[name],
                )
            except BpfError as failure:
                raise Refused(
                    f"{self.function}: this kernel does not take the {name} program: "
                    f"{failure.words}"
                ) from failure
            self._programs[name] = program
            if name == "filter":
                shared |= {own: program.map(own) for own in _OF_THE_CHAIN}

    def _attach(self, name: str) -> None:
        function = f"bpf_lsm_{self._name}"
        self._links[name] = trampoline.attach(self._programs[name], function)

    def _prove(self) -> None:
        """Makes a call, and looks which programs it met, and what IMA says."""
        rule = Rule(_NOBODY, _PLACE, hash=True)
        with selftest.file() as path:
            key = layout.path_text(str(path))
            self._rules.add(key, rule)
            try:
                self._tell(proving=True)
                selftest.call(self._name, path)
            finally:
                self._rules.remove(key, rule.policy)
        self._tell()
        *_, steps, algorithm, digest = self._told()
        if not steps:
            raise Refused(
                f"{self.function}: a call of the agent's own did not come through the chain"
                f"{canary.why_silent()}"
            )
        if steps != _STEPS:
            raise Refused(
                f"{self.function}: its programs do not run in the order {', '.join(PROGRAMS)}"
            )
        self.digest = algorithm if algorithm < 0 else Digest.of_kernel(algorithm, digest)
        name, right = selftest.DIGESTS.get(algorithm, ("", ""))
        if not digest.hex().startswith(right):
            raise AgentError(
                f"{self.function}: IMA gives {self.digest} where {name}:{right} is right"
            )

    def _check_digests(self, wanted: Sequence[Digest]) -> None:
        """A list that no file can ever be on would be in force and mean nothing."""
        if not wanted:
            return
        if isinstance(self.digest, int):
            why = digests.why_none(-self.digest)
            raise Refused(f"{self.function}: there is no digest to compare: {why}")
        for each in wanted:
            if each.algorithm != self.digest.algorithm:
                have = digests.algorithm_name(self.digest.algorithm)
                asked = digests.algorithm_name(each.algorithm)
                raise Refused(f"{self.function}: this kernel's IMA gives {have} and no {asked}")

    def _tell(self, *, proving: bool = False) -> None:
        told = layout.CHAIN_SETTINGS.pack(self._epoch, proving)
        self._programs["filter"].map("settings").set(_SLOT, told)

    def _told(self) -> tuple[Any, ...]:
        """What the programs tell: layout.CHAIN."""
        raw = self._programs["filter"].map("chains").get(_SLOT) or bytes(layout.CHAIN.size)
        return layout.CHAIN.unpack(raw)

    def _count_binaries(self, change: int) -> None:
        self._binaries += change
        if change:
            wanted = bool(self._binaries).to_bytes(4, "little")
            self._programs["filter"].map("by_binary").set(_SLOT, wanted)

    def _detach(self) -> None:
        try:
            for name in ("filter", "ima"):
                self._close_link(name)
            self._drain()
        finally:
            self._close_link("send")

    def _close_link(self, name: str) -> None:
        link = self._links.pop(name, None)
        if link is not None:
            link.close()

    def _drain(self) -> None:
        """Returns when all calls have ended that are in the chain now."""
        self._rules.drain()  # who ran the filter has been given a frame, or none
        old, self._epoch = self._epoch, 1 - self._epoch
        self._tell()
        start = awake = time.monotonic()
        while (inside := self._inside(old)) > self._denied[old]:
            now = time.monotonic()
            if self._asleep(old):
                awake = now
            if now - start > _PATIENCE:
                raise AgentError(
                    f"{self.function}: a task has been asleep in the ima program for "
                    f"{_PATIENCE:.0f} s; the programs stay loaded until this process ends"
                )
            if now - awake > _LAST_STEPS:
                self._denied[old] = inside
            time.sleep(0.002)
        self._rules.drain()  # who ran `send` has come to its end

    def _inside(self, epoch: int) -> int:
        """Calls that were given a frame in an epoch and have not given it back."""
        told = self._told()
        inside: int = told[epoch] - told[2 + epoch]
        return inside

    def _asleep(self, epoch: int) -> int:
        asleep: int = self._told()[4 + epoch]
        return asleep

    def _close_programs(self) -> None:
        template.close_all(self._programs.values())
