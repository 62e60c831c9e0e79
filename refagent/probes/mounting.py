# SPDX-License-Identifier: Apache-2.0
"""File systems: whether they are there, and what they take."""

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


def direct() -> Finding:
    """Opens a file that lies in memory with O_DIRECT, as kernels do since 6.6.

    Raises:
        Unsupported: such a file cannot be opened so.
        OSError: it failed for another reason.
    """
    memory = os.memfd_create("hookproof", os.MFD_CLOEXEC)
    try:
        os.close(os.open(f"/proc/self/fd/{memory}", os.O_RDONLY | os.O_DIRECT | os.O_CLOEXEC))
    except OSError as failure:
        if failure.errno != errno.EINVAL:
            raise
        raise Unsupported("open with O_DIRECT gives EINVAL for a file in memory") from None
    finally:
        os.close(memory)
    return Finding("a file in memory was opened with O_DIRECT")
