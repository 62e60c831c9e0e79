# SPDX-License-Identifier: Apache-2.0
"""Calls about which policies want to be told, as the sensors send them."""

from __future__ import annotations

import errno
import math
import os
import select
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Final

from refagent import layout
from refagent.digests import Digest, why_none
from refagent.libbpf.maps import Map
from refagent.libbpf.ringbuf import RingBuffer


@dataclass(frozen=True)
class Process:
    """Who made a call.

    Attributes:
        started: nanoseconds since the boot; with the pid it names the process for good.
        binary: the path of the program that it runs, or its first 256 bytes.
        command: its arguments, or their first 256 bytes.
    """

    started: int
    binary: str
    command: tuple[str, ...]


@dataclass(frozen=True)
class Event:
    """One call, however many policies ask to be told of it.

    Attributes:
        time: nanoseconds of the kernel's monotonic clock, at the function's entry.
        hook: the function.
        pid: of the caller, as the first pid namespace has it.
        tid: of its thread.
        uid: its real user, as the first user namespace has it.
        comm: the thread's name.
        path: the call's, or its first 256 bytes; empty if it has none.
        arguments: the function's first six as registers of 64 bits; what it does not have is noise.
        policies: the names of those that ask, in the order in which they were loaded.
        decided: the name of the one that decided about the call, or None.
        override: the errno that the call is to return, or None.
        signal: that the caller was sent, or None.
        process: more of the caller, at LSM hooks.
        hash: the digest of the call's file, `sha256:` and hexadecimal, where a policy asks for it.
        no_hash: or why there is none, beginning with the errno.
    """

    time: int
    hook: str
    pid: int
    tid: int
    uid: int
    comm: str
    path: str
    arguments: tuple[int, ...]
    policies: tuple[str, ...]
    decided: str | None
    override: int | None
    signal: int | None
    process: Process | None = None
    hash: str | None = None
    no_hash: str | None = None

    def to_json(self) -> dict[str, Any]:
        """As JSON values; the errno by its name. What only LSM hooks have is left out elsewhere."""
        named = errno.errorcode.get(self.override or 0, self.override)
        plain = {
            key: value
            for key, value in asdict(self).items()
            if value is not None or key not in {"process", "hash", "no_hash"}
        }
        return plain | {"override": named}


class Names:
    """Who is meant by the ids in events: functions by their overrides' ids, and policies.

    A name that is no longer in use is kept until no event can have its id.
    """

    def __init__(self) -> None:
        self.hooks: dict[int, str] = {}
        self.policies: dict[int, str] = {}
        self._gone: list[tuple[dict[int, str], int]] = []

    def forget_hook(self, number: int) -> None:
        """Its last event may not have been read."""
        self._gone.append((self.hooks, number))

    def forget_policy(self, number: int) -> None:
        """Its last event may not have been read."""
        self._gone.append((self.policies, number))

    def reading(self) -> Callable[[], None]:
        """What is to be called when all events have been read that are there now."""
        gone = list(self._gone)

        def read() -> None:
            for names, number in gone:
                names.pop(number, None)
            del self._gone[: len(gone)]

        return read


#: Seconds until it is looked for another buffer, where nobody can be told that there is one.
_LOOK_AGAIN: Final = 0.1


class Events:
    """The reading end of an agent's events; for any thread. Nobody waits holding a lock.

    Args:
        names: somebody else keeps them.
    """

    def __init__(self, names: Names) -> None:
        self._names = names
        self._lock = threading.Lock()
        self._source: Map | None = None
        self._ring: RingBuffer | None = None
        self._left: list[bytes] = []  # of a buffer that is gone
        self._waiting = threading.Lock()  # one thread waits, others wait for it
        self._stirred = -1  # an eventfd while somebody waits

    def open(self, source: Map) -> None:
        """Reads from this buffer from now on.

        Raises:
            BpfError: it is none.
        """
        with self._lock:
            self._source, self._ring = source, RingBuffer(source)
            self._stir()

    def close(self) -> None:
        """Ends the reading; what was in the buffer is kept until it is read."""
        self._end(lambda ring: self._left.extend(ring.poll(0)))

    def leave(self) -> None:
        """Ends the reading; what is in the buffer stays there, and is the next agent's."""
        self._end(lambda _: None)

    def _end(self, last: Callable[[RingBuffer], None]) -> None:
        with self._lock:
            if self._ring is None:
                return
            ring, self._ring, self._source = self._ring, None, None
            try:
                last(ring)
            finally:
                ring.close()
                # Who waits for the buffer keeps it in the kernel.
                self._stir()

    def _stir(self) -> None:
        if self._stirred >= 0:
            os.eventfd_write(self._stirred, 1)

    def read(self, seconds: float = 0.0) -> list[Event]:
        """The events that are there, in the order in which the kernel took them.

        Args:
            seconds: how long to wait for a first one.

        Raises:
            BpfError: the reading failed.
        """
        end = time.monotonic() + seconds
        while not (events := self._take()) and (left := end - time.monotonic()) > 0:
            self._wait(left)
        return events

    def _take(self) -> list[Event]:
        with self._lock:
            read = self._names.reading()
            raw, self._left = self._left, []
            if self._ring is not None:
                raw += self._ring.poll(0)
            events = [_unpacked(each, self._names) for each in raw]
            read()
        return events

    def _wait(self, seconds: float) -> None:
        """Returns when there is something to read, the buffer is another one, or it is time."""
        with self._waiting:
            poll, stirred = select.poll(), -1
            try:
                stirred = os.eventfd(0, os.EFD_CLOEXEC)
                poll.register(stirred, select.POLLIN)
            except OSError:  # no descriptor is left
                seconds = min(seconds, _LOOK_AGAIN)
            with self._lock:
                self._stirred = stirred
                if self._source is not None:
                    poll.register(self._source.fd, select.POLLIN)
            try:
                # Closed or even another's by now, it ends the wait at worst for nothing.
                poll.poll(math.ceil(1000 * seconds))
            finally:
                with self._lock:
                    self._stirred = -1
                if stirred >= 0:
                    os.close(stirred)


def _unpacked(raw: bytes, names: Names) -> Event:
    """A struct event."""
    (time, pid_tgid, *arguments, decided, _, error, signal, uid, function, count, _) = (
        layout.EVENT.unpack_from(raw)
    )
    policies = layout.EVENT_POLICIES.unpack_from(raw, layout.EVENT.size)
    comm, path = layout.EVENT_TEXTS.unpack_from(raw, layout.EVENT.size + layout.EVENT_POLICIES.size)
    more = raw[_PLAIN:]
    return Event(
        time=time,
        hook=_name(names.hooks, function),
        pid=pid_tgid >> 32,
        tid=pid_tgid & 0xFFFFFFFF,
        uid=uid,
        comm=_text(comm),
        path=_text(path),
        arguments=tuple(arguments),
        policies=tuple(_name(names.policies, each) for each in policies[:count]),
        decided=_name(names.policies, decided) if decided else None,
        override=-error or None,
        signal=signal or None,
        **(_of_chain(more) if more else {}),
    )


#: Bytes of an event without what only LSM hooks add.
_PLAIN: Final = layout.EVENT.size + layout.EVENT_POLICIES.size + layout.EVENT_TEXTS.size


def _of_chain(raw: bytes) -> dict[str, Any]:
    """What a struct chain_event has more than a struct event."""
    (started, algorithm, asked, digest, binary, _, size, command) = layout.CHAIN_EVENT.unpack(raw)
    words = tuple(_text(each) for each in command[:size].removesuffix(b"\0").split(b"\0"))
    process = Process(started, _text(binary), words if size else ())
    if not asked:
        return {"process": process}
    if algorithm < 0:
        return {"process": process, "no_hash": why_none(-algorithm)}
    return {"process": process, "hash": str(Digest.of_kernel(algorithm, digest))}


def _name(names: Mapping[int, str], number: int) -> str:
    return names.get(number, f"#{number}")


def _text(raw: bytes) -> str:
    return raw.partition(b"\0")[0].decode("utf-8", "surrogateescape")
