# SPDX-License-Identifier: Apache-2.0
"""Fixtures that several rooms' tests use."""

from tests.aptrepo import archive, cache, server, signer

__all__ = ["archive", "cache", "server", "signer"]
