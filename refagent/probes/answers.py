# SPDX-License-Identifier: Apache-2.0
"""How a probe ends: with a finding, with the kernel's no, or with an error of its own."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from refagent.errors import BpfError

#: By these the kernel says that it does not have something. 524 is ENOTSUPP, which has no
#: name outside the kernel. Others (EPERM, ENOMEM, EBUSY …) say nothing about it.
_NO = {errno.EINVAL, errno.EACCES, errno.ENOENT, errno.ESRCH, errno.EOPNOTSUPP, 524}


@dataclass(frozen=True)
class Finding:
    """Yes, and what was seen.

    Attributes:
        words: one line.
        value: a number or word that scenarios use.
    """

    words: str
    value: int | str | None = None


class Unsupported(Exception):  # noqa: N818  an answer, not an error
    """The kernel says no; the text is its words."""


class ConfiguredOut(Unsupported):
    """The kernel says no for how it was built or booted, whatever its version."""


@contextmanager
def kernel_says() -> Iterator[None]:
    """Turns an error by which the kernel says no into that answer; others pass.

    Raises:
        Unsupported: with the errno and the verifier's telling line.
    """
    try:
        yield
    except BpfError as failure:
        if failure.errno in _NO:
            raise Unsupported(failure.words) from failure
        raise
