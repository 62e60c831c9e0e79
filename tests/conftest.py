# SPDX-License-Identifier: Apache-2.0
"""Fixtures that several rooms' tests use."""

# pytester forgets the modules that a session inside this process was the first to import.
# Imported anew, yaml's C half would go on raising the errors of the forgotten half.
import yaml  # noqa: F401

from tests.aptrepo import archive, cache, server, signer

__all__ = ["archive", "cache", "server", "signer"]
