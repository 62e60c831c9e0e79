# SPDX-License-Identifier: Apache-2.0
"""What kernels can do, as probes found out: once for each, kept where it may be."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from vm import store


@dataclass(frozen=True)
class Answer:
    """What a probe said about a kernel.

    Attributes:
        name: of the probe.
        answer: `yes`, `no` or `broken`.
        words: its reason, in one line.
        value: a number or a word that it found, if it looks for one.
    """

    name: str
    answer: str
    words: str
    value: Any = None


class Answers:
    """The answers for one saved state, or for one kernel in one session.

    Args:
        key: of the saved state, whose digest covers kernel, command line and probes, so that
            answers for it hold for good and are kept in the cache; empty: for this session.
    """

    def __init__(self, key: str) -> None:
        self._key = key
        self._lock = threading.Lock()
        self._known = self._read() if key else {}

    def get(
        self, names: Sequence[str], ask: Callable[[Sequence[str]], dict[str, Answer]]
    ) -> dict[str, Answer]:
        """The answers of some probes.

        Args:
            names: of the probes.
            ask: tries on the kernel those that have not been tried yet.

        Raises:
            Problem: from `ask`.
        """
        with self._lock:
            unknown = [name for name in dict.fromkeys(names) if name not in self._known]
            if unknown:
                self._known.update(ask(unknown))
                if self._key:
                    self._write()
            return {name: self._known[name] for name in names}

    def _file(self) -> Path:
        return store.folder("answers") / f"{self._key}.json"

    def _read(self) -> dict[str, Answer]:
        """What was kept; what can't be read is asked for again."""
        with suppress(OSError, ValueError, TypeError):
            kept = [Answer(**raw) for raw in json.loads(self._file().read_text("utf-8"))]
            return {answer.name: answer for answer in kept}
        return {}

    def _write(self) -> None:
        """Keeps the answers, but not a broken one, which may be better the next time."""
        good = [asdict(each) for each in self._known.values() if each.answer != "broken"]
        new = self._file().with_suffix(f".{os.getpid()}")
        with suppress(OSError):  # a cache that may only be read
            new.write_text(json.dumps(good), "utf-8")
            new.replace(self._file())
