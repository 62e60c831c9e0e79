# SPDX-License-Identifier: Apache-2.0
"""Kernels and machines: resolve, fetch, verify; boot, watch, talk, stop."""
