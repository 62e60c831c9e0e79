# SPDX-License-Identifier: Apache-2.0
"""Measures ours beside virtme-ng, all in one run on one machine.

Single times mean nothing on a shared machine, so ours and theirs alternate, and what is
compared are medians. Each part is a module with `measure`, a generator of its result so far,
so that an interrupted run keeps what it has.
"""
