# SPDX-License-Identifier: Apache-2.0
"""What becomes of lines that cannot be written; how they are is tests/test_refagent_daemon.py's."""

from __future__ import annotations

import os
import threading

import pytest

from refagent.outlet import Line, Outlet, lost
from tests.test_refagent_daemon import wait_for


def test_a_file_that_is_full_for_a_while_is_told_what_it_lost(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """The kernel's own full device, then a pipe under the same descriptor."""
    read, write = os.pipe()
    fd = os.open("/dev/full", os.O_WRONLY)
    out = Outlet(fd, client=False)
    writer = threading.Thread(target=out.run)
    writer.start()
    try:
        out.put([Line(b"1\n"), lost(5), Line(b"2\n")])
        wait_for(lambda: out.failure, "the write to fail")
        assert (out.failure, out.lost) == ("No space left on device", 2)
        os.dup2(write, fd)
        out.put([Line(b"3\n")])
        wait_for(lambda: not out.failure, "the write to succeed")
        out.put([Line(b"4\n")])
    finally:
        out.close()
        writer.join(60)
        os.close(fd)
        os.close(write)
    with os.fdopen(read) as lines:
        assert lines.read() == '{"lost": 8}\n4\n'
    assert [record.message for record in caplog.records] == [
        "events are lost, as they cannot be written: No space left on device"
    ]


def test_a_line_that_was_torn_gets_an_end() -> None:
    read, write = os.pipe()
    os.set_blocking(write, False)
    out = Outlet(write, client=False)
    out._torn = True
    out.put([Line(b"1\n")])
    out.close()
    out.run()
    os.close(write)
    with os.fdopen(read) as lines:
        assert lines.read() == "\n1\n"
