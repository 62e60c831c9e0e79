# SPDX-License-Identifier: Apache-2.0
"""The threads that work through a session's cases, each with a machine at a time.

Cases that may share a machine are one job. Before the first job on a saved state, one thread
makes sure that the state is there, while others go on with what is ready. And where each case
has a machine of its own, the next one is restored while the current one is in use.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, replace
from typing import TypeAlias

from hookproof import bind, splats
from hookproof.case import Case
from hookproof.fleet import Fleet, Unsupported
from hookproof.stage import Stage
from hookproof.verdict import Outcome, Verdict
from vm.errors import BootFailure, LostMachine, Problem
from vm.kernel import Kernel

Key: TypeAlias = tuple[str, tuple[str, ...]]
#: Takes a case's verdict, or what no verdict can be made of.
Deliver: TypeAlias = Callable[[Case, Verdict | BaseException], None]


@dataclass(frozen=True)
class Job:
    """Cases for one machine, or, where there are none, the saved state that is to be made.

    Attributes:
        kernel: to be booted.
        words: for its command line.
        cases: to be run, in order.
        once: whether they are the session's only ones on such a machine, which then is booted:
            to save it would take as long again.
    """

    kernel: Kernel
    words: tuple[str, ...]
    cases: tuple[Case, ...]
    once: bool = False

    @property
    def key(self) -> Key:
        """Jobs with the same key need the same saved state."""
        return self.kernel.name, self.words


class Line:
    """The jobs that wait, in the order in which they are to be done."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._jobs: list[Job] = []
        self._made: dict[Key, bool] = {}  # False: somebody is at it
        self._closed = False

    def add(self, jobs: Iterable[Job]) -> None:
        """Puts jobs at the end."""
        with self._changed:
            self._jobs += jobs
            self._changed.notify_all()

    def take(self) -> Job | None:
        """The next job that can be done, waiting for one; None when there will be no more."""
        with self._changed:
            while not self._closed:
                if job := self._ready():
                    return job
                for job in self._jobs:
                    if job.once:
                        self._jobs.remove(job)
                        return job
                    if job.key not in self._made:
                        self._made[job.key] = False
                        return replace(job, cases=())
                self._changed.wait()
            return None

    def take_ready(self) -> Job | None:
        """The next job whose saved state is there, if there is one now."""
        with self._changed:
            return self._ready()

    def _ready(self) -> Job | None:
        for job in self._jobs:
            if self._made.get(job.key):
                self._jobs.remove(job)
                return job
        return None

    def made(self, kernel: str, words: tuple[str, ...]) -> None:
        """Says that a saved state is there, or that it can't be made."""
        with self._changed:
            self._made[kernel, words] = True
            self._changed.notify_all()

    def close(self) -> None:
        """Lets nobody take any more."""
        with self._changed:
            self._closed = True
            self._jobs.clear()
            self._changed.notify_all()


class Crew:
    """Runs cases on `lanes` machines at a time.

    Args:
        fleet: makes the machines.
        lanes: how many.
        deliver: takes each verdict, in the thread that came to it.
    """

    def __init__(self, fleet: Fleet, lanes: int, deliver: Deliver) -> None:
        self._fleet, self._deliver = fleet, deliver
        self._isolate = fleet.isolates
        self._line = Line()
        self._live: set[Stage] = set()
        self._lock = threading.Lock()
        self._stopped = False
        self._broken: dict[Key, BaseException] = {}
        self._threads = [
            threading.Thread(target=self._work, name=f"lane-{number + 1}", daemon=True)
            for number in range(lanes)
        ]
        for thread in self._threads:
            thread.start()

    def add(self, cases: Sequence[Case], seconds: Sequence[float]) -> None:
        """Puts cases at the end of the line; of each kernel's, the longest comes first.

        So what is left for the end, when there is not enough to do for all lanes, is short.
        """
        weight = {id(case): length for case, length in zip(cases, seconds, strict=True)}
        groups: dict[Key, list[Case]] = {}
        for case in cases:
            groups.setdefault(case.machine, []).append(case)
        # In a session of nothing but such ones somebody is at work on them, and will come again.
        single = all(len(group) == 1 for group in groups.values())
        for group in groups.values():
            group.sort(key=lambda each: -weight[id(each)])
            hands = self._hands(len(group), len(groups))
            kernel, words = group[0].kernel, group[0].scenario.boot
            once = bool(words) and len(group) == 1 and not single
            self._line.add(
                Job(kernel, words, tuple(group[hand::hands]), once) for hand in range(hands)
            )

    def _hands(self, cases: int, kernels: int) -> int:
        """Into how many jobs a kernel's cases are dealt.

        Each its own, or all one where a machine is expensive, or, where there are fewer kernels
        than lanes, as many as keep the lanes busy.
        """
        if self._isolate:
            return cases
        return min(cases, max(1, len(self._threads) // kernels)) if self._fleet.saves else 1

    def close(self) -> None:
        """Stops all machines and threads; what had no verdict yet gets none."""
        self._line.close()
        with self._lock:
            self._stopped = True
            live = list(self._live)
        for stage in live:
            stage.close()
        for thread in self._threads:
            thread.join()

    def _work(self) -> None:
        """A thread's life."""
        with ThreadPoolExecutor(1, "start") as pool:
            following: tuple[Job, Future[Stage]] | None = None
            while True:
                if following is None:
                    job = self._line.take()
                    if job is None:
                        return
                    if not job.cases:
                        self._make_state(job)
                        continue
                    following = job, pool.submit(self._start, job)
                job, starting = following
                following = None
                if self._isolate and self._fleet.saves:
                    wait([starting])
                    if ahead := self._line.take_ready():
                        following = ahead, pool.submit(self._start, ahead)
                self._play(job, starting)

    def _make_state(self, job: Job) -> None:
        """Makes sure of the saved state; where that fails, all jobs on it will know."""
        try:
            stage = self._stage(job)
            try:
                stage.machine.save()
            finally:
                self._end(stage)
        except BaseException as why:
            self._broken[job.key] = why
        finally:
            self._line.made(*job.key)

    def _start(self, job: Job) -> Stage:
        """Boots or restores.

        Raises:
            Unsupported: machines of this kind can't boot this kernel.
            Problem: it could not, or it is time to stop.
        """
        if job.key in self._broken:
            raise self._broken[job.key]
        stage = self._stage(job)
        try:
            return stage.__enter__()
        except BaseException:
            self._end(stage)
            raise

    def _stage(self, job: Job) -> Stage:
        """A new stage that `close` knows of."""
        stage = self._fleet.stage(job.kernel, job.words, once=job.once)
        with self._lock:
            if self._stopped:
                raise LostMachine("the session has ended")
            self._live.add(stage)
        return stage

    def _end(self, stage: Stage) -> None:
        stage.close()
        with self._lock:
            self._live.discard(stage)

    def _play(self, job: Job, starting: Future[Stage]) -> None:
        """Runs a job's cases; the first on the machine that is starting."""
        stage: Stage | None = None
        first = True
        for case in job.cases:
            verdict: Verdict | BaseException
            try:
                if stage is None:
                    stage = starting.result() if first else self._start(job)
                    first = False
                verdict = run_case(self._fleet, stage, case)
            except BootFailure as error:
                verdict = Verdict(Outcome.BOOT, str(error), console=error.console)
            except Problem as error:
                verdict = Verdict(Outcome.INFRA, str(error))
            except Unsupported as why:
                verdict = Verdict(Outcome.UNSUPPORTED, str(why), where=str(case.scenario.where))
            except BaseException as error:
                verdict = error
            last = self._isolate or case is job.cases[-1]
            if stage is not None and (last or not harmless(verdict)):
                self._end(stage)
                stage = None
            if isinstance(verdict, Verdict):
                verdict = splats.expected(case, verdict)
            self._deliver(case, verdict)


def run_case(fleet: Fleet, stage: Stage, case: Case) -> Verdict:
    """A case's verdict on a stage that was started; its seconds are without the boot."""
    begun = time.monotonic()
    try:
        facts = fleet.facts(stage, case.scenario)
        verdict = stage.play(bind.bind(case.scenario, case.params, facts))
    except Unsupported as why:
        where = str(case.scenario.where)
        verdict = Verdict(Outcome.UNSUPPORTED, str(why), where=where)
    except Problem as error:
        verdict = stage.post_mortem(error)
    except (KeyError, TypeError) as error:
        verdict = stage.post_mortem(LostMachine(f"a reply is not understood: {error!r}"))
    return replace(verdict, seconds=time.monotonic() - begun)


def harmless(verdict: Verdict | BaseException) -> bool:
    """Whether the machine can be used for another case."""
    return isinstance(verdict, Verdict) and verdict.outcome in {Outcome.PASS, Outcome.UNSUPPORTED}
