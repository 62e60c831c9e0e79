# SPDX-License-Identifier: Apache-2.0
"""libbpf for Python: what the agent, its probes and the census need, typed, closed in order.

`_libbpf` is compiled by `build.py` with cffi in API mode: a call that does not
fit the header installed on this host fails when it is built, not when it runs.
"""
