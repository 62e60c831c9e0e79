# SPDX-License-Identifier: Apache-2.0
"""Fixtures that several rooms' tests use."""

import signal

# pytester forgets the modules that a session inside this process was the first to import.
# Imported anew, yaml's C half would go on raising the errors of the forgotten half.
import yaml  # noqa: F401

from tests.aptrepo import archive, cache, server, signer

# In the background a shell starts commands that ignore it, and what tests start and interrupt
# would ignore it too.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

__all__ = ["archive", "cache", "server", "signer"]
