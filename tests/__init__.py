# SPDX-License-Identifier: Apache-2.0
"""Tests of everything; those that boot a machine are marked `vm`."""
