# SPDX-License-Identifier: Apache-2.0
"""From what a kernel prints to the text it meant: times, ids and noise of the line taken off.

Three shapes come in: the serial console (CR LF, escape sequences, a user's words cut in
two by the kernel's), `dmesg` with or without `--raw`, and records of /dev/kmsg
(Documentation/ABI/testing/dev-kmsg).
"""

from __future__ import annotations

import re

_ESCAPE = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)|[ -/]*[0-~])")
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f]")
_PRIORITY = re.compile(r"<(\d{1,4})>(?=\[ *\d+\.\d{6}\])")
#: `[   12.345678] ` and, with CONFIG_PRINTK_CALLER, `[   12.345678][    T1] `.
_STAMP = re.compile(r"\[ *\d+\.\d{6}\](?:\[ *[TC]\d+\])? ?")
_KMSG = re.compile(r"(\d+),\d+,(\d+),[^;]*;")
_HEX = re.compile(r"\\x([0-9a-f]{2})")
_FACILITIES = 8  # syslog(2): a priority of 8 and more is not the kernel's own


def texts(line: str) -> tuple[str, ...]:
    """The kernel's messages in one line, without what stands in front of each.

    A line of the console can hold several: the kernel does not wait for a user's
    process to end its line. What a process wrote to /dev/kmsg is not the kernel's
    word and is left out, where the line still says so (`<12>[ …] text`).
    """
    priority = _PRIORITY.match(line)
    if priority:
        if int(priority[1]) >= _FACILITIES:
            return ()
        line = line[priority.end() :]
    # Times first: a process that was cut short in an escape sequence must not swallow one.
    pieces = (part for text in _STAMP.split(line) for part in _ESCAPE.sub("", text).split("\r"))
    return tuple(text for piece in pieces if (text := _CONTROL.sub("", piece)))


def kmsg_line(record: str) -> str:
    r"""One record of /dev/kmsg as `dmesg` would print it.

    `6,339,5140900,-;text` becomes `[    5.140900] text`. A record that a process wrote
    (facility other than kernel) keeps its priority in front as `dmesg --raw` does, so
    that it can never pass for a report of the kernel's. `\xNN` becomes the character;
    a record of several lines becomes several. The ` KEY=value` lines are dropped.

    Raises:
        ValueError: this is no record of /dev/kmsg.
    """
    head = _KMSG.match(record)
    if head is None:
        raise ValueError(f"no record of /dev/kmsg: {record[:80]!r}")
    priority, micros = int(head[1]), int(head[2])
    prefix = f"[{micros // 1_000_000:5d}.{micros % 1_000_000:06d}] "
    if priority >= _FACILITIES:
        prefix = f"<{priority}>{prefix}"
    raw = _HEX.sub(lambda code: chr(int(code[1], 16)), record[head.end() :].split("\n", 1)[0])
    text = raw.encode("latin-1", "replace").decode("utf-8", "replace")
    return "\n".join(prefix + part for part in text.split("\n"))
