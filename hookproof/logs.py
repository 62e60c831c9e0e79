# SPDX-License-Identifier: Apache-2.0
"""A slice of a guest's kernel log, and whether anything in it is a finding."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from vm.errors import LostMachine
from vm.watch import Watch, kmsg_line, new_taints


@dataclass(frozen=True)
class Slice:
    """What the kernel logged between two readings.

    Attributes:
        text: as dmesg would print it.
        taint: the kernel's taint flags at its end.
    """

    text: str
    taint: int

    @classmethod
    def of(cls, reply: Mapping[str, Any]) -> Slice:
        """From the executor's reply to `log` or `end`.

        Raises:
            LostMachine: records were overwritten before they were read, or are none: what
                can't be scanned is never clean.
        """
        if reply["gaps"]:
            raise LostMachine("the kernel's log overflowed, so that it can't be scanned")
        try:
            lines = [kmsg_line(record) for record in reply["records"]]
        except ValueError as error:
            raise LostMachine(f"the kernel's log can't be scanned: {error}") from None
        return cls("\n".join(lines), reply["taint"])

    def wrong(self, watch: Watch, *, since: int) -> str:
        """One line saying what is wrong, or an empty string.

        Args:
            watch: the patterns.
            since: the taint flags when the slice began.
        """
        splats = watch.scan(self.text)
        if splats:
            more = f" and {len(splats) - 1} more" if len(splats) > 1 else ""
            return f"{splats[0]}{more}"
        taints = new_taints(since, self.taint)
        return f"the kernel is tainted: {', '.join(taints)}" if taints else ""
