# SPDX-License-Identifier: Apache-2.0
"""Random sequences of requests and calls, against a model; nothing is left after any of them.

In those with pins the agent is also killed, or leaves, and another one goes on: calls in between
are denied and counted all the same.
"""

from __future__ import annotations

import errno
import functools
import os
import shutil
import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar, TypeAlias

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import seed as seeded
from hypothesis import strategies as st
from hypothesis.internal.conjecture import providers
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    rule,
    run_state_machine_as_test,
)

from refagent.agent import Agent
from refagent.errors import Refused
from refagent.policy import Policy
from refagent.sensor import Sensor
from tests.inside.chains import require_chains
from tests.inside.model import Call, Loaded, Model, Told
from tests.inside.remote import Remote
from tests.inside.things import Inventory, error_of

MKDIR, RMDIR, SYMLINK = (f"security_path_{each}" for each in ("mkdir", "rmdir", "symlink"))
#: Which functions a sequence is about: each one that is used costs as much as all the rest of it.
HOOKS = (*((MKDIR,),) * 4, (RMDIR,), (MKDIR, SYMLINK), (MKDIR, RMDIR, SYMLINK))
OPEN = "lsm/file_open"
#: With a chain; and, that it may be the only one, without any function.
CHAINS = ((OPEN,), (OPEN, MKDIR))
#: Below the test's folder; "ab" begins with "a" and is not below it.
FOLDERS = ("", "/a", "/a/b", "/ab")
MODES = (0o700, 0o750)
NAMES = ("p", "q", "r", "s", "t")
ROOT = f"{tempfile.gettempdir()}/sequences"

#: Where agents pin.
BASE = Path("/sys/fs/bpf/sequences")

#: Of what policies are made. Lists, as each further choice has its price under emulation.
WHERE: tuple[dict[str, Any], ...] = (
    {},
    *({"path": f"{ROOT}{each}"} for each in FOLDERS),
    *({"prefix": f"{ROOT}{each}"} for each in (*FOLDERS, "/a/")),
    {"prefix": "/"},
)
WHO: tuple[dict[str, Any], ...] = (
    *({},) * 8,
    *({"uid": each} for each in (os.getuid(), 1000)),
    *({"pid": each} for each in (os.getpid(), 1)),
    *({"binary": each} for each in (os.readlink("/proc/self/exe"), "/bin/true")),  # noqa: PTH115
    *({"argument": 2, "value": each} for each in MODES),
)
WHAT: tuple[dict[str, Any], ...] = tuple(
    {"override": error, "signal": sent, "post": post, "monitor": monitor}
    for error in (errno.EPERM, errno.EXDEV, 4095, None)
    for sent in (None, None, int(signal.SIGUSR2))
    for post in (False, True)
    for monitor in (False, False, True)
    if error or sent or post or monitor
)

#: Which function, and one of each of the above.
Drawn: TypeAlias = tuple[int, dict[str, Any], dict[str, Any], dict[str, Any]]
POLICIES: st.SearchStrategy[Drawn] = st.tuples(
    st.integers(0, 5), st.sampled_from(WHERE), st.sampled_from(WHO), st.sampled_from(WHAT)
)
CHANGES = ("unload", "unload", "disable", "enable")

_sent: list[int] = []


@pytest.fixture
def _root(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The folders, each with one in it that cannot be removed; signals are noted."""
    for folder in FOLDERS:
        Path(f"{ROOT}{folder}/full/x").mkdir(parents=True)
    # Else it reads all of our sources for their numbers: ten seconds under emulation.
    monkeypatch.setattr(providers, "is_local_module_file", lambda _path: False, raising=False)
    before = signal.signal(signal.SIGUSR2, lambda number, _frame: _sent.append(number))
    yield
    signal.signal(signal.SIGUSR2, before)
    shutil.rmtree(ROOT)


class Sequence(RuleBasedStateMachine):
    """An agent beside the model."""

    ran: ClassVar[int] = 0
    calls: ClassVar[int] = 0
    before: ClassVar[Inventory]
    alive = True

    def __init__(self) -> None:
        super().__init__()
        type(self).ran += 1
        self.agent, self.model = self.start(), Model()
        self.hooks: tuple[str, ...] = (MKDIR,)
        self.told: list[Told] = []

    def start(self) -> Agent | Remote:
        return Agent()

    @initialize(hooks=st.sampled_from(HOOKS), policies=st.lists(POLICIES, min_size=1, max_size=2))
    def begin(self, hooks: tuple[str, ...], policies: list[Drawn]) -> None:
        self.hooks = hooks
        for each in policies:
            self.load(each)

    @rule(drawn=POLICIES)
    def load(self, drawn: Drawn) -> None:
        which, where, who, what = drawn
        hook = self.hooks[which % len(self.hooks)]
        if hook != MKDIR and "argument" in who:
            who = {}  # only it has the mode
        who = self.without_agent(where, who)
        free = [each for each in NAMES if each not in self.model.loaded]
        policy = Policy(
            free[0] if free else NAMES[which % len(NAMES)], hook, **where, **who, **what
        )
        if free:
            self.agent.load(policy)
            self.model.loaded[policy.name] = Loaded(policy)
        else:
            with pytest.raises(Refused, match="loaded already"):
                self.agent.load(policy)

    def without_agent(self, _where: dict[str, Any], who: dict[str, Any]) -> dict[str, Any]:
        return who

    @rule(which=st.integers(0, len(NAMES) - 1), change=st.sampled_from(CHANGES))
    def change(self, which: int, change: str) -> None:
        request = getattr(self.agent, change)
        if not self.model.loaded:
            with pytest.raises(Refused, match="no policy"):
                request(NAMES[which])
            return
        names = list(self.model.loaded)
        name = names[which % len(names)]
        request(name)
        if change == "unload":
            del self.model.loaded[name]
        else:
            self.model.loaded[name].enabled = change == "enable"

    @rule(which=st.integers(0, 5), mode=st.sampled_from(MODES))
    def call(self, which: int, mode: int) -> None:
        hook = self.hooks[which % len(self.hooks)]
        for folder in FOLDERS:
            type(self).calls += 1
            place = f"{ROOT}{folder}"
            new = f"{place}/{self.calls}"
            must = self.model.call(Call(hook, place, {2: mode}))
            _sent.clear()
            if hook == MKDIR:
                assert error_of(os.mkdir, new, mode) == must.error
            elif hook == OPEN:
                assert error_of(look, place) == must.error
            elif hook == SYMLINK:
                assert error_of(os.symlink, "x", new) == must.error
            else:
                assert error_of(os.rmdir, f"{place}/full") == (must.error or errno.ENOTEMPTY)
            assert _sent == [must.signal] * bool(must.signal)
            if must.event is not None:
                self.told.append(must.event)
        if mode == MODES[0] and self.alive:  # else they wait
            self.events()

    def events(self) -> None:
        assert [Told.by(each) for each in self.agent.events()] == self.told
        self.told.clear()

    @invariant()
    def status(self) -> None:
        assert {name: self.agent.counts(name) for name in self.model.loaded} == {
            name: each.counts for name, each in self.model.loaded.items()
        }
        status = self.agent.status()
        enabled = {name for name, each in self.model.loaded.items() if each.enabled}
        assert set(status.policies) == enabled
        assert set(status.disabled) == self.model.loaded.keys() - enabled
        assert status.functions == self.model.functions()
        assert (status.totals.events_lost, status.totals.paths_unread) == (0, 0)

    def teardown(self) -> None:
        self.agent.close()
        self.model.loaded.clear()
        for which in range(len(self.hooks)):
            self.call(which, MODES[0])
        self.events()  # they outlive the policies
        self.check_nothing_left()

    def check_nothing_left(self) -> None:
        assert Inventory.now().since(self.before) == []


def look(place: str) -> None:
    """Opens a folder and closes it."""
    os.close(os.open(place, os.O_RDONLY | os.O_DIRECTORY))


class PinnedSequence(Sequence):
    """An agent that can be killed, beside the model, which does not mind."""

    ran: ClassVar[int] = 0
    #: Whether some event is about what is no longer there: who is meant only the agent knows.
    past = False

    def start(self) -> Agent | Remote:
        if BASE.exists():  # a sequence that failed before this one
            shutil.rmtree(BASE)
        return Remote(BASE)

    def without_agent(self, where: dict[str, Any], who: dict[str, Any]) -> dict[str, Any]:
        """The agent makes and removes folders for its pins, and may not deny that to itself."""
        everywhere = not where.get("path") and not where.get("prefix", "").startswith(ROOT)
        return {"pid": os.getpid()} if everywhere else who

    @rule(which=st.integers(0, len(NAMES) - 1), change=st.sampled_from(CHANGES))
    def change(self, which: int, change: str) -> None:
        super().change(which, change)
        self.past = self.past or bool(self.told)

    def events(self) -> None:
        super().events()
        self.past = False

    @rule(leaves=st.booleans(), which=st.integers(0, 5), mode=st.sampled_from(MODES))
    def again(self, leaves: bool, which: int, mode: int) -> None:
        """The agent ends, calls are made while there is none, and another one goes on."""
        if self.past:
            self.events()
        if leaves:
            self.agent.leave()
        self.kill()
        self.call(which, mode)
        self.restart()

    def kill(self) -> None:
        assert isinstance(self.agent, Remote)
        self.agent.kill()
        self.alive = False

    def restart(self) -> None:
        self.agent, self.alive = Remote(BASE), True

    def teardown(self) -> None:
        if not self.alive:
            self.restart()
        try:
            super().teardown()
        finally:
            if self.alive:
                self.kill()

    def check_nothing_left(self) -> None:
        self.kill()
        super().check_nothing_left()
        assert not BASE.exists()


class ChainSequence(PinnedSequence):
    """The same with policies on an LSM hook."""

    ran: ClassVar[int] = 0

    @initialize(hooks=st.sampled_from(CHAINS), policies=st.lists(POLICIES, min_size=1, max_size=2))
    def begin(self, hooks: tuple[str, ...], policies: list[Drawn]) -> None:
        super().begin(hooks, policies)

    @rule(drawn=POLICIES)
    def load(self, drawn: Drawn) -> None:
        which, where, who, what = drawn
        hook = self.hooks[which % len(self.hooks)]
        if hook == OPEN and ROOT not in str(where):
            where = {"prefix": ROOT}  # everybody opens files all the time
        super().load((which, where, who, what))


@pytest.mark.usefixtures("_root", "_expedited")
@pytest.mark.parametrize("fentry", [False, True], ids=["kprobe", "fentry"])
def test_any_sequence_is_as_the_model_has_it(
    sequences: int, seed: int, monkeypatch: pytest.MonkeyPatch, *, fentry: bool
) -> None:
    """With both forms of the sensor. Without pins, as the agent's own calls would be counted."""
    if fentry:
        monkeypatch.setattr("refagent.sensor.kprobes_have_links", lambda: False)
        pinnable = functools.partialmethod(Sensor.__init__, pinnable=True)
        monkeypatch.setattr(
            "refagent.site.Sensor", type("Sensor", (Sensor,), {"__init__": pinnable})
        )
        sequences = max(5, sequences // 3)
    run(Sequence, sequences, seed)


@pytest.mark.usefixtures("_root", "_expedited")
def test_any_sequence_with_kills_and_restarts_is_as_the_model_has_it(
    sequences: int, seed: int
) -> None:
    run(PinnedSequence, sequences // 2, seed)


@pytest.mark.usefixtures("_root", "_expedited")
def test_any_sequence_with_chains_kills_and_restarts_is_as_the_model_has_it(
    sequences: int, seed: int
) -> None:
    require_chains()
    run(ChainSequence, sequences // 2, seed)


def run(machine: type[Sequence], sequences: int, seed: int) -> None:
    machine.before = Inventory.now()
    machine.calls = 0
    run_state_machine_as_test(
        seeded(seed)(machine),
        settings=settings(
            max_examples=sequences,
            stateful_step_count=8,
            deadline=None,
            database=None,
            suppress_health_check=list(HealthCheck),
        ),
    )
    print(f"{machine.ran} sequences with {machine.calls} calls")
    assert machine.ran >= sequences
