# SPDX-License-Identifier: Apache-2.0
"""File systems that a kernel may have as a module, which need not be at hand."""

from __future__ import annotations

import ctypes
import errno
import os

from refagent.probes.answers import Finding, Unsupported


def overlayfs() -> Finding:
    """Asks for an overlay of nothing: mount(2) refuses that, by ENODEV where it knows none.

    Raises:
        Unsupported: there is no overlay here, nor a module of it.
        OSError: the kernel did not refuse it as either.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    libc.mount(b"overlay", b"/", b"overlay", 0, None)
    code = ctypes.get_errno()
    if code == errno.ENODEV:
        raise Unsupported("mount gives ENODEV: no overlay in this kernel, and no module of it here")
    if code != errno.EINVAL:
        raise OSError(code, f"mount of an overlay of nothing: {os.strerror(code)}")
    return Finding("mount knows it")
