# SPDX-License-Identifier: Apache-2.0
"""What can go wrong below the scenarios, as types.

A `Problem` is shown to people as one line without a traceback. Its subclasses
tell apart what a verdict must tell apart: a mistake of the user's, a kernel
that did not boot, a machine that was lost, a fault of the harness itself.
"""

from __future__ import annotations


class Problem(Exception):  # noqa: N818  a name of the field's, not of Python's
    """Something a person has to know, in one line.

    Args:
        what: what is wrong, without a full stop.
        where: `file:line:column`, a command, or nothing.
        hint: the next step, in the imperative; may be empty.
    """

    def __init__(self, what: str, *, where: str = "", hint: str = "") -> None:
        super().__init__(what, where, hint)
        self.what, self.where, self.hint = what, where, hint

    def __str__(self) -> str:
        line = f"{self.where}: {self.what}" if self.where else self.what
        return f"{line}; {self.hint}" if self.hint else line


class UsageProblem(Problem):
    """A mistake in what the user wrote: a file, an option, a name."""


class FetchProblem(Problem):
    """A kernel could not be brought here: network, archive, signature, disk."""


class HostProblem(Problem):
    """This host lacks a program or a permission that is needed."""


class BootFailure(Problem):
    """A machine never answered its first request.

    Attributes:
        console: what its serial line said until then.
    """

    def __init__(self, what: str, *, where: str = "", hint: str = "", console: str = "") -> None:
        super().__init__(what, where=where, hint=hint)
        self.console = console


class LostMachine(Problem):
    """A machine that had answered stopped answering: the connection is gone."""


class GuestHang(Problem):
    """A machine is still there and says nothing within the deadline."""


class GuestPanic(Problem):
    """The guest's kernel died; the console said so."""
