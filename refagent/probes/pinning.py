# SPDX-License-Identifier: Apache-2.0
"""Probe of pins: what is attached can go on without the process that attached it."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from refagent.errors import AgentError
from refagent.libbpf import ids, pins
from refagent.libbpf.links import Link
from refagent.libbpf.programs import Program
from refagent.probes.answers import Finding, Unsupported
from refagent.probes.trying import SYSCALL, trying

_BPFFS = Path("/sys/fs/bpf")


def kprobe_link() -> Finding:
    """Pins a kprobe's link, and opens it by its pin."""

    def attach(program: Program) -> Link:
        link = program.attach_kprobe(SYSCALL)
        if not link.can_be_pinned:
            link.close()
            raise Unsupported("a kprobe hangs on a perf event, which has no pins and no link")
        try:
            _pin_and_open(link, ids.program_id(program.fd))
        except BaseException:
            link.close()
            raise
        return link

    with trying("probe_ringbuf", {"emit": ""}, attach):
        return Finding("a kprobe's link was pinned and opened by its pin")


def _pin_and_open(link: Link, program: int) -> None:
    try:
        folder = Path(tempfile.mkdtemp(dir=_BPFFS))
    except OSError as error:
        raise AgentError(f"nothing can be pinned at {_BPFFS}: {error.strerror}") from None
    place = folder / "link"
    try:
        pins.pin(link.fd, place)
        again = pins.opened(place)
        try:
            theirs = ids.link_program(again)
        finally:
            os.close(again)
        place.unlink()
    finally:
        folder.rmdir()
    if theirs != program:
        raise AgentError(f"the pin of program {program}'s link opened that of {theirs}")
