# SPDX-License-Identifier: Apache-2.0
"""An LSM hook with policies: three programs that work together on each of its calls.

`filter` finds the policies that fit, `ima` has the file hashed and sleeps for it, `send` decides
and tells (bpf/chain.h). However many policies: three links on the hook.
"""

from __future__ import annotations

import contextlib
import errno
import functools
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Final

from refagent import canary, chainmaps, digests, layout, naming, proof, selftest, trampoline
from refagent.chainmaps import ChainMaps
from refagent.digests import Digest
from refagent.epochs import Epochs, Patience
from refagent.errors import BpfError, Refused
from refagent.hooks import Hook, PathKind
from refagent.libbpf import template
from refagent.libbpf.links import Link
from refagent.libbpf.maps import Map
from refagent.libbpf.template import Loaded
from refagent.lsmmaps import LsmMaps
from refagent.pins import LSM as PINS
from refagent.pins import Base
from refagent.policy import LSM
from refagent.rules import Rule, Rules
from refagent.state import SiteRecord
from refagent.tables import Table

PROGRAMS: Final = proof.ORDER

#: Constants of the ima program: by bpf_ima_file_hash, else by bpf_ima_inode_hash (bpf/ima.bpf.c).
_HELPERS: Final = ({"by_inode": 0}, {"by_inode": 1})
_SLOT: Final = bytes(4)


class Chain:
    """Loaded on creation, running from `start` to `close`; for one thread at a time.

    Args:
        hook: an LSM hook.
        number: never used before by this agent.
        maps: the agent's, by their names in the C sources.
        lsm: what all chains share.
        base: where all of it is pinned; None: nowhere.
        patience: the agent's, with those that are asleep in it.

    Attributes:
        function: `lsm/` and the hook's name.
        id: as above.
        path_argument: which argument its policies' paths are about, or None.
        rules: how many it has.
        digest: what IMA gave for a file of the agent's own, or a negative errno.
        given_up: whether it was to be ended and could not be. What it needs to be ended later is
            still there.

    Raises:
        Refused: this kernel has no such chain, and why.
        BpfError: the kernel failed.
        In both cases nothing is left.
    """

    way: Final = "lsm"
    by_kprobe: Final = False

    def __init__(
        self,
        hook: Hook,
        number: int,
        maps: Mapping[str, Map],
        lsm: LsmMaps,
        *,
        path_argument: int | None,
        base: Base | None = None,
        patience: Patience,
    ) -> None:
        self._begin(SiteRecord(hook.function, number, path_argument), lsm, base, patience)
        if self._name not in selftest.HOOKS:
            raise Refused(f"{hook.function}: chains can be on {', '.join(sorted(selftest.HOOKS))}")
        self._last_first = canary.last_attached_runs_first()
        names = naming.on(hook.function)
        with contextlib.ExitStack() as undo:
            self._rules = Rules(Table(names))
            undo.callback(self._rules.close)
            self._maps = ChainMaps(names)
            undo.callback(self._maps.close)
            undo.callback(self._close_programs)
            self._load(hook, {**maps, **lsm.by_name, **self._own})
            undo.pop_all()
        self._watch()

    def start(self, order: Sequence[str] = PROGRAMS) -> None:
        """Pins, attaches and proves it; it is closed if one of that fails.

        Args:
            order: in which the programs are to run; only the right one is ever proved.

        Raises:
            Refused: no program fits on the hook any more, or they run in another order.
            AgentError: if it is `given_up`, it could not be closed: who is asleep in its programs
                needs them, and so does who is to close it later.
            BpfError: the kernel failed.
        """
        try:
            # With all that is needed to end a chain, before anything runs; see `close`.
            self._pin(self._folder, {**self._maps.objects, "policies": self._rules.slot.fd})
            for name, program in self._programs.items():
                self._pin(self._folder / name, {"prog": program.fd})
            for name in reversed(order) if self._last_first else order:
                self._attach(name)
            prove([self])
        except BaseException:
            self.close()
            raise

    def _begin(
        self, record: SiteRecord, lsm: LsmMaps, base: Base | None, patience: Patience
    ) -> None:
        self.function, self.id = record.function, record.id
        self.path_argument = record.path_argument
        self.rules = self._overriding = self._binaries = 0
        self._name, self._lsm, self._base = record.function.removeprefix(LSM), lsm, base
        self._folder = Path() if base is None else base.folder(PINS, self._name)
        self._links: dict[str, Link] = {}
        self._programs: dict[str, Loaded] = {}
        self._patience = patience
        self._epochs: Epochs | None = None
        self.given_up = False
        self._gone: list[Rule] = []  # whose digests a call that is still inside may ask for
        self.digest: Digest | int = -errno.ENODATA

    @classmethod
    def pinned(
        cls,
        record: SiteRecord,
        maps: Mapping[str, Map],
        lsm: LsmMaps,
        base: Base,
        rules: Sequence[tuple[bytes, Rule]],
        *,
        patience: Patience,
    ) -> Chain:
        """A chain that goes on, by its pins; with these rules from now on. It is to be proved.

        Without rules it is one that was half made or half ended, of which anything can be missing,
        and that is to be closed.

        Raises:
            Refused: other objects are pinned there.
            BpfError: some are missing, or the kernel failed.
        """
        chain = cls.__new__(cls)
        chain._begin(record, lsm, base, patience)
        names = naming.on(record.function)
        with contextlib.ExitStack() as undo:
            slot = chain._folder / "policies"
            table = Table.pinned(slot, names) if rules or slot.exists() else Table(names)
            undo.callback(table.leave)
            chain._rules = Rules(table)
            chain._maps = ChainMaps.pinned(chain._folder, whole=bool(rules))
            undo.callback(chain._maps.leave)
            undo.callback(chain._leave_programs)
            everybodys = {**maps, **lsm.by_name, **chain._own}
            for name in PROGRAMS:
                chain._open(name, names(name), everybodys, whole=bool(rules))
            chain._rules.restore(rules)
            chain._watch()
            chain._count_binaries(sum(1 for _, rule in rules if rule.binary))
            chain._overriding = sum(rule.overrides for _, rule in rules)
            chain.rules = len(rules)
            undo.pop_all()
        chain.given_up = not rules
        return chain

    @property
    def record(self) -> SiteRecord:
        """What has to be known to go on with it."""
        return SiteRecord(self.function, self.id, self.path_argument)

    @property
    def program(self) -> int:
        """The descriptor of the program that finds its policies."""
        return self._programs["filter"].fd

    @property
    def settled(self) -> bool:
        """Whether no call can be inside that knows a policy which is gone."""
        return self._epochs is None or self._epochs.settled

    @property
    def held(self) -> bool:
        """Whether it could not be ended, and still cannot, as a call is inside."""
        return self.given_up and self._epochs is not None and self._epochs.occupied

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
        back = [each for each in self._gone if each.policy == rule.policy]  # of one enabled again
        with contextlib.ExitStack() as undo:
            self._lsm.list_digests(rule.policy, rule.digests)
            if back:
                self._gone = [each for each in self._gone if each not in back]
                undo.callback(self._gone.extend, back)
            else:
                undo.callback(self._lsm.forget_digests, rule.policy, rule.digests)
            self._count_binaries(+1 if rule.binary else 0)
            undo.callback(self._count_binaries, -1 if rule.binary else 0)
            self._rules.add(key, rule)
            undo.pop_all()
        self._overriding += rule.overrides
        self.rules += 1

    def exclude(self, key: bytes, rule: Rule) -> None:
        """Takes a rule out of the table: no call that begins afterwards finds it.

        Raises:
            BpfError: no memory or descriptor for another table; all is as before.
        """
        self._rules.remove(key, rule.policy)
        self._gone.append(rule)

    def remove(self, rule: Rule) -> None:
        """Ends a rule that is excluded; returns when no call is in the chain that it fits.

        Raises:
            AgentError: one has been asleep there for too long.
            BpfError: the kernel failed at something.
            In both cases the rest is done.
        """
        self.rules -= 1
        self._overriding -= rule.overrides
        with contextlib.ExitStack() as stack:
            stack.callback(self._count_binaries, -1 if rule.binary else 0)
            self._drain()

    def leave(self) -> None:
        """Lets go of everything; what is pinned goes on, and what is not ends."""
        if self._base is None:
            if not self.held:  # or its programs stay as long as this process
                self.close()
            return
        self._leave_programs()
        self._maps.leave()
        self._rules.leave()

    def silence(self) -> None:
        """Has no call that begins afterwards find a rule, before its end.

        Raises:
            BpfError: no memory or descriptor for another table; the rules are as before.
        """
        self._rules.clear()

    def close(self) -> None:
        """Gives everything back; returns when the kernel has freed it.

        1. The filter stops: no call is given a frame any more. 2. The ima program is detached.
        3. Nobody is asleep in it, and those who were have passed `send`. 4. That is detached, too.
        5. Only now the programs go, and their pins: a kernel without 0fb5751a6e41 and 17637e1a581a
        would otherwise free one under a task that comes back to it. Who is killed meanwhile leaves
        as much pinned as the next agent needs to go on with this.

        Raises:
            AgentError: if it is `given_up`, a call is still inside, or a pin cannot be removed:
                all programs stay loaded, and what is not detached yet attached; it can be tried
                again. Else the kernel has not freed something yet, and it is over.
        """
        try:
            self._detach()
            self._unpin()
        except BaseException:
            self.given_up = True
            raise
        self.given_up = False
        with contextlib.ExitStack() as stack:
            stack.callback(self._rules.close)
            stack.callback(self._maps.close)
            self._close_programs()

    @property
    def _own(self) -> dict[str, Map]:
        return {**self._maps.by_name, "policies": self._rules.slot}

    def _watch(self) -> None:
        """Of a chain that lacks one of these maps nothing has ever run, or not any more."""
        with contextlib.suppress(KeyError):
            maps = self._own["settings"], self._own["chains"], self._own["frames"]
            self._epochs = Epochs(self.function, *maps, self._patience)

    def _load(self, hook: Hook, maps: Mapping[str, Map]) -> None:
        file_kind = int(hook.paths.get(0, PathKind.NONE))
        constants = {
            "filter": {
                "override_id": self.id,
                "path_kind": hook.path_kind(self.path_argument),
                "path_argument": self.path_argument or 0,
                "argument_count": len(hook.sizes),
            },
            "send": {},
        }
        for name in PROGRAMS:
            load = functools.partial(
                template.prepare(name).load,
                maps,
                names=naming.on(self.function),
                target=hook.btf_id,
                file_kind=file_kind,
            )
            choices = _HELPERS if name == "ima" else (constants[name],)
            self._programs[name] = self._first_taken(name, load, choices)

    def _first_taken(
        self, name: str, load: Callable[..., Loaded], choices: Sequence[Mapping[str, int]]
    ) -> Loaded:
        """The program with the first of these constants that the kernel takes."""
        said: list[str] = []
        for constants in choices:
            try:
                return load(**constants)
            except BpfError as failure:
                if failure.lack:
                    raise
                said.append(failure.words)
        why = "; ".join(dict.fromkeys(said))
        raise Refused(f"{self.function}: this kernel does not take the {name} program: {why}")

    def _attach(self, name: str) -> None:
        function = f"bpf_lsm_{self._name}"
        self._links[name] = trampoline.attach(self._programs[name], function)
        self._pin(self._folder / name, {"link": self._links[name].fd})

    def _open(self, name: str, called: str, maps: Mapping[str, Map], *, whole: bool) -> None:
        """Opens one of the programs, and its link, by their pins."""
        folder = self._folder / name
        if whole or (folder / "prog").exists():
            used = {each for _, each in template.prepare(name).uses}
            uses = [each for known, each in maps.items() if known in used]
            self._programs[name] = Loaded.pinned(folder / "prog", called, {}, uses)
        if whole or (folder / "link").exists():
            program = self._programs[name].fd
            self._links[name] = Link.pinned(folder / "link", program, name)

    def aside(self, path: Path) -> contextlib.AbstractContextManager[None]:
        """While this lasts none of its policies is about a path."""
        return self._rules.only(layout.path_text(str(path)))

    def prove(self, path: Path) -> None:
        """Makes a call with a file of the agent's own, and looks what came of it.

        Raises:
            Refused, AgentError, BpfError: as `proof.digest` does.
        """
        assert self._epochs is not None  # noqa: S101  it is whole
        self.digest = proof.digest(self.function, path, self._rules, self._epochs)

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

    def _count_binaries(self, change: int) -> None:
        self._binaries += change
        if change:
            wanted = bool(self._binaries).to_bytes(4, "little")
            self._own["by_binary"].set(_SLOT, wanted)

    def _detach(self) -> None:
        """A kernel with the two commits lets who wakes pass by what is detached: `send` waits."""
        for name in ("filter", "ima"):
            self._close_link(name)
        self._drain()
        self._close_link("send")

    def _close_link(self, name: str) -> None:
        """Its pin goes first: a link that is open and nowhere else ends at once when it closes."""
        if self._base is not None:
            self._base.remove(self._folder / name / "link")
        link = self._links.pop(name, None)
        if link is not None:
            link.close()

    def _drain(self) -> None:
        """Returns when all calls have ended that are in the chain now."""
        if self._epochs is not None:
            self._epochs.drain(self._rules.drain)
        while self._gone:
            rule = self._gone.pop()
            self._lsm.forget_digests(rule.policy, rule.digests)

    def _pin(self, folder: Path, objects: Mapping[str, int]) -> None:
        if self._base is not None:
            self._base.pin(folder, objects)

    def _unpin(self) -> None:
        """The maps last, by which a chain is ended that is there by half.

        By their names, as a list takes a descriptor, and there may be none left.
        """
        if self._base is not None:
            for name in PROGRAMS:
                folder = self._folder / name
                self._base.remove(folder / "link", folder / "prog")
                self._base.prune(folder)
            self._base.remove(*(self._folder / each for each in ("policies", *chainmaps.NAMES)))
            self._base.prune(self._folder)

    def _leave_programs(self) -> None:
        for link in self._links.values():
            link.close()
        for program in self._programs.values():
            program.leave()

    def _close_programs(self) -> None:
        for link in self._links.values():
            link.close()
        template.close_all(self._programs.values())


def prove(chains: Collection[Chain]) -> None:
    """Makes a call of the agent's own through each of these, about which no policy of theirs is.

    Raises:
        Refused, AgentError, BpfError: as `proof.digest` does.
    """
    with selftest.file([each.aside for each in chains if each.rules]) as path:
        for each in chains:
            each.prove(path)
