# SPDX-License-Identifier: Apache-2.0
"""What the agent says when it cannot do what it was asked."""

from __future__ import annotations

import errno as _errno
from typing import Final


class AgentError(Exception):
    """Anything the agent raises on purpose; its text is one line for people."""


class Refused(AgentError):  # noqa: N818  the word people read
    """A request the agent does not carry out; everything is as it was before."""


class BadFile(Refused):
    """A mistake in a file that somebody wrote; its text is `where: what; hint`.

    Attributes:
        what: what is wrong, without a full stop.
        where: `file:line:column`, or the file.
        hint: the next step, in the imperative; may be empty.
    """

    def __init__(self, what: str, *, where: str, hint: str = "") -> None:
        super().__init__(what, where, hint)
        self.what, self.where, self.hint = what, where, hint

    def __str__(self) -> str:
        return f"{self.where}: {self.what}" + (f"; {self.hint}" if self.hint else "")


class Unreachable(AgentError):  # noqa: N818  what the agent is
    """There is no daemon to ask, or no longer one."""


class BuildFailed(AgentError):  # noqa: N818
    """A BPF object is missing or does not compile."""


#: What a process or system can lack for the moment. By these errnos the kernel says nothing about
#: what it can do, and no answer may be taken from them. (EAGAIN: a signal ended the verifier.)
LACKS: Final = frozenset(
    {
        _errno.EMFILE,
        _errno.ENFILE,
        _errno.ENOMEM,
        _errno.EPERM,
        _errno.EAGAIN,
        _errno.EINTR,
    }
)


class BpfError(AgentError):
    """An operation of libbpf's, or of the kernel's behind it, failed.

    Attributes:
        op: what was tried, such as `load object override`.
        errno: positive; libbpf's own errors start at 4000.
        text: what libbpf said while it failed, or what the errno means.
        verifier_log: the kernel's verifier in full, or empty.
    """

    def __init__(self, op: str, errno: int, text: str, verifier_log: str = "") -> None:
        super().__init__(op, errno, text, verifier_log)
        self.op, self.errno, self.text, self.verifier_log = op, errno, text, verifier_log

    @property
    def lack(self) -> bool:
        """Whether it says that this process lacks something, and nothing about the kernel."""
        return self.errno in LACKS

    @property
    def words(self) -> str:
        """The errno's name and the one line that tells most."""
        name = _errno.errorcode.get(self.errno, str(self.errno))
        return f"{name}: {telling_line(self.verifier_log) or self.text}"

    def __str__(self) -> str:
        return f"{self.op}: {self.words}"


#: How lines of the verifier's log begin that come after the reason.
_STATISTICS = ("processed ", "verification time", "stack depth", "max_states", "mark_read")

#: How the explanation begins that kernels from 7.3 on add to the reason: long, and with advice.
_EXPLANATION = "\nVerification failed:"


def telling_line(verifier_log: str) -> str:
    """The last line of a verifier's log that is no statistics: the reason it refused."""
    log = verifier_log.partition(_EXPLANATION)[0]
    lines = (line.strip() for line in reversed(log.splitlines()))
    return next((line for line in lines if line and not line.startswith(_STATISTICS)), "")
