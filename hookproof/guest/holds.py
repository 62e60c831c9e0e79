# SPDX-License-Identifier: Apache-2.0
"""The verb `hold`: a call is frozen at a named point, others act meanwhile, it is let go.

docs/races.md says what the points are. Whatever happens, each hold ends: a gate's program leaves
by the clock, and a watchdog opens pages and gates before that.
"""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Protocol

from hookproof.guest import gates, pages, points, steps, threads
from hookproof.guest.threads import Answer, Thread

#: Seconds after which the watchdog lets a call go, and those after which a gate does by itself.
#: The kernel complains about a processor that makes no progress after 20 or 21.
PATIENCE: Final = 8.0
_BOUND: Final = 12.0
#: Seconds for the call to come to its point, and for what is to end after it.
_COMING: Final = 30.0
_GOING: Final = 40.0
#: What is to end after the hold is taken to wait for it if it was asleep at so many looks in a
#: row, or has not come back after so many looks.
_ASLEEP: Final = 30
_LOOKS: Final = 200
_LOOK: Final = 0.01

#: Bytes of a set of processors.
_MASK: Final = 128

#: The thread that makes the call if the scenario names none.
_NAME: Final = "held"

#: Does a call of a step: verb, arguments → result.
Do = Callable[[str, Mapping[str, Any]], Any]


class Place(Protocol):
    """Where a call is held."""

    def reached(self, seconds: float) -> bool:
        """Whether it has come, at the latest after so many seconds."""

    def open(self) -> None:
        """Lets it go."""


@dataclass
class Hold:
    """One that is under way.

    Attributes:
        place: where the call is held.
        over: whether it has been let go.
        expired: whether that was the watchdog.
    """

    place: Place
    over: bool = False
    expired: bool = False
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def end(self, *, expired: bool = False) -> None:
        """Lets the call go, the first time."""
        with self._lock:
            if not self.over:
                self.over, self.expired = True, expired
                self.place.open()


_NOW: list[Hold] = []


def hold(args: Mapping[str, Any], do: Do, agent: Callable[[], int]) -> Any:
    """Does the whole step.

    Args:
        args: `point`, `at`, `denied`, `wakes`, `call`, `meanwhile` as they come over the wire.
        do: does a call of any verb.
        agent: gives the agent's process, 0 if it does not run.

    Returns:
        `{"unreached": true}` if the call never came to the point; `{"overtime": true}` if it went
        on by itself; else `{"call": [RESULT], "meanwhile": [{"results": […], "when": …}]}`, where
        `when` is `during`, or `after` for what came back when the call had been let go.
    """
    call = args["call"]
    (arguments,) = call["calls"]
    thread = threads.named(arguments.get("by", _NAME))
    with contextlib.ExitStack() as stack:
        place, act = stack.enter_context(_place(args, thread.id, call["verb"], arguments))
        now = Hold(place)
        if not (isinstance(place, gates.Gate) and call["verb"] == "exec"):
            # Of a program's process the thread that waits for it must not share the processor: it
            # may hold Python's lock. There the kernel moves everybody away by itself.
            spins = isinstance(place, gates.Gate)
            stack.enter_context(_processors(thread, agent, spins=spins))
        held = thread.ask(act)
        try:
            reached = _reached(place, held)
            watchdog = threading.Timer(PATIENCE, now.end, kwargs={"expired": True})
            watchdog.start()
            stack.callback(watchdog.join)
            stack.callback(watchdog.cancel)
            _NOW.append(now)
            if reached and args.get("wakes") == "elsewhere" and isinstance(place, pages.Page):
                stack.callback(_moving(place.sleepers[0]))
            done = _meanwhile(args["meanwhile"], now, do, agent) if reached else []
        finally:
            now.end()
            if now in _NOW:
                _NOW.remove(now)
        result = held.get(_GOING)
        said = [each.said() for each in done]
        if not reached:
            return {"unreached": True, "call": [result]}
        # What began when the call had been let go did not meet it, whenever it ended.
        if (isinstance(place, gates.Gate) and place.overtime) or any(each.late for each in done):
            return {"overtime": True}
    return {"call": [result], "meanwhile": said}


def kill() -> None:
    """Kills the process whose call is held by a gate.

    Raises:
        ProcessLookupError: no call is held by a gate.
    """
    place = _NOW[-1].place if _NOW else None
    if not isinstance(place, gates.Gate) or place.caller in {0, os.getpid()}:
        raise ProcessLookupError(errno.ESRCH, "no call of another process is held")
    os.kill(place.caller, signal.SIGKILL)


def _reached(place: Place, held: Answer) -> bool:
    """Whether the call comes; one that ends first never will."""
    until = time.monotonic() + _COMING
    while not place.reached(_LOOK):
        if held.done() or time.monotonic() > until:
            return place.reached(0)
    return True


@contextlib.contextmanager
def _place(
    args: Mapping[str, Any], thread: int, verb: str, call: Mapping[str, Any]
) -> Iterator[tuple[Place, Callable[[], Any]]]:
    """The point, and the call that comes to it."""
    point = args["point"]
    if point in {"path", "second-path"}:
        with _paths(verb, call, only_second=point == "second-path") as found:
            yield found
        return

    def act() -> Any:
        return steps.act(verb, call)

    if point == "hashing":
        with pages.arguments_held() as page:
            yield page, act
        return
    kind = gates.BETWEEN if point == "override" else gates.ENTRY
    error = getattr(errno, args["denied"]) if "denied" in args else 0
    with gates.at(kind, args["at"], thread, _BOUND, error) as gate:
        yield gate, act


@contextlib.contextmanager
def _paths(
    verb: str, call: Mapping[str, Any], *, only_second: bool
) -> Iterator[tuple[Place, Callable[[], Any]]]:
    """A call with a path on a page that nobody can read yet."""
    import ctypes

    values = [call[name] for name in points.PATHS[verb]]
    texts = [each for each in values if isinstance(each, str)]
    late = texts[1 if only_second else 0]
    with pages.holding(os.fsencode(late)) as page:
        given = [
            each
            if isinstance(each, int)
            else ctypes.c_void_p(page.address)
            if each is late
            else ctypes.c_char_p(os.fsencode(each))
            for each in values
        ]

        def act() -> Any:
            try:
                pages.called(verb, *given)
            except OSError as error:
                return steps.errno_name(error)
            return "ok"

        yield page, act


@contextlib.contextmanager
def _processors(thread: Thread, agent: Callable[[], int], *, spins: bool) -> Iterator[None]:
    """Who is on which processor while a call is held.

    Who spins has one of its own. With who sleeps everybody else shares one, so that what an agent
    keeps for each processor is found out.
    """
    cpus = os.sched_getaffinity(0)
    own = {max(cpus)}
    _spread(agent(), (cpus - own or own) if spins else own)
    os.sched_setaffinity(thread.id, own)
    try:
        yield
    finally:
        _spread(agent(), cpus)


def _moving(sleeper: int) -> Callable[[], None]:
    """Has who sleeps go on on another processor; gives what waits until it is there.

    A program is not moved while it runs, and who asks for it waits. So the task goes at the
    program's end, before the next one of the chain.

    Raises:
        OSError: of what is given: it was not moved.
    """
    others = set(range(os.cpu_count() or 1)) - os.sched_getaffinity(sleeper)
    mover = Thread()
    mask = sum(1 << cpu for cpu in others).to_bytes(_MASK, "little")
    # Python's own keeps its lock, and nobody would be left to wake the task.
    moved = mover.ask(lambda: pages.called("sched_setaffinity", sleeper, _MASK, mask))
    _settle(moved, mover.id, lambda: 0)

    def arrived() -> None:
        mover.end()
        moved.get()

    return arrived


def _spread(agent: int, cpus: set[int]) -> None:
    """Has all threads of ours and of the agent run on these processors."""
    for process in filter(None, (os.getpid(), agent)):
        with contextlib.suppress(FileNotFoundError):  # the agent has ended
            for each in os.listdir(f"/proc/{process}/task"):  # noqa: PTH208
                with contextlib.suppress(ProcessLookupError):  # this thread has
                    os.sched_setaffinity(int(each), cpus)


@dataclass
class Meanwhile:
    """A step while the call is held; `late`, if it began when the call had been let go."""

    answer: Answer
    when: str = ""
    late: bool = False

    def said(self) -> dict[str, Any]:
        """What came of it, as the wire has it."""
        return {"results": self.answer.get(_GOING), "when": self.when}


def _meanwhile(
    several: Sequence[Mapping[str, Any]], now: Hold, do: Do, agent: Callable[[], int]
) -> list[Meanwhile]:
    """Does the steps in order. Those that end after the hold are done by a thread of their own."""
    begun: list[Meanwhile] = []
    behind: Thread | None = None
    for step in several:
        later = step["returns"] != "during"
        if later:
            behind = behind or Thread()
        each, at_once = Meanwhile(Answer()), all(other.answer.done() for other in begun)
        begun.append(each)
        work = _work(each, step, now, do, at_once=at_once)
        if behind is not None and later:
            asked = behind.ask(work)
            if at_once:
                _settle(asked, behind.id, agent)
        else:
            work()
    now.end()
    if behind is not None:
        behind.end()
    return begun


def _work(
    each: Meanwhile, step: Mapping[str, Any], now: Hold, do: Do, *, at_once: bool
) -> Callable[[], None]:
    """A step; `at_once`, if none is before it that may wait for the held call."""

    def act() -> None:
        each.late = now.over if at_once else now.expired
        each.answer.fill(lambda: [do(step["verb"], call) for call in step["calls"]])
        each.when = "after" if now.over else "during"

    return act


def _settle(asked: Answer, thread: int, agent: Callable[[], int]) -> None:
    """Returns when the step has ended, or when those who do it have slept for a while.

    Both are signs, and no proof: who sleeps may wait for something else than the held call, and
    what has not ended yet may only be slow. So that a step ends after the call was let go is what
    is to be seen where it has to wait; that it would also have ended otherwise cannot be excluded.
    A step that does not wait at all is what `after` finds out.
    """
    asleep, before = 0, (0, True)
    for _ in range(_LOOKS):
        if asked.done(_LOOK):
            return
        spent, sleeping = _state(thread, agent())  # which the step may be about to start
        asleep = asleep + 1 if sleeping and spent == before[0] else 0
        before = spent, sleeping
        if asleep == _ASLEEP:
            return


def _state(thread: int, agent: int) -> tuple[int, bool]:
    """How much processor time a thread of ours and the agent have had, and whether both sleep."""
    ticks, sleeping = 0, True
    for place in (f"/proc/self/task/{thread}/stat", f"/proc/{agent}/stat"):
        with contextlib.suppress(OSError):  # it has ended
            fields = Path(place).read_text("utf-8", "replace").rpartition(")")[2].split()
            ticks += int(fields[11]) + int(fields[12])
            sleeping = sleeping and fields[0] in "SDZ"
    return ticks, sleeping
