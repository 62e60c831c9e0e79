# SPDX-License-Identifier: Apache-2.0
"""Waking: a restored machine goes on with another's clock and another's random numbers.

Nearly all that a restored machine takes to its first answer is QEMU's translation of code that
runs for the first time, so here it counts how much code runs, not how long.
"""

from __future__ import annotations

import fcntl
import os
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final

#: ioctls of /dev/urandom: _IOW('R', 3, int[2]) and _IO('R', 7), linux/random.h.
_RNDADDENTROPY: Final = 0x40085203
_RNDRESEEDCRNG: Final = 0x5207
#: The host's random numbers are that many bytes: struct rand_pool_info's two integers, which
#: are the bits to credit and the bytes that follow.
_ENTROPY: Final = 64
_POOL_INFO: Final = (8 * _ENTROPY).to_bytes(4, "little") + _ENTROPY.to_bytes(4, "little")

#: Open since the first wake, which is before the save.
_urandom = -1


def wake(line: bytes) -> bytes:
    """Sets the clock, credits the entropy, and has the kernel's generator use it at once.

    Python's own generator is not loaded here (tests/test_guest_awake.py), so it needs nothing.

    Args:
        line: `wake TIME_NS ENTROPY`, the time since 1970, 64 bytes in hexadecimal.

    Returns:
        The line `awake`, or one that says what went wrong.
    """
    global _urandom  # noqa: PLW0603  one process, one clock, one generator
    try:
        _, now, entropy = line.split(b" ")
        if _urandom < 0:
            _urandom = os.open("/dev/urandom", os.O_WRONLY | os.O_CLOEXEC)
        time.clock_settime_ns(time.CLOCK_REALTIME, int(now))
        fcntl.ioctl(_urandom, _RNDADDENTROPY, _POOL_INFO + bytes.fromhex(entropy.decode()))
        fcntl.ioctl(_urandom, _RNDRESEEDCRNG)
    except (OSError, ValueError) as error:
        return f"{type(error).__name__}: {error}\n".encode()
    return b"awake\n"
