# SPDX-License-Identifier: Apache-2.0
"""Stands in a guest for `_sysconfigdata_…`, which says how and where Python was built.

The module `sysconfig` imports it, as does `zoneinfo` through that; nothing in a guest asks
for more than is not known.
"""

from __future__ import annotations

build_time_vars: dict[str, str] = {}
