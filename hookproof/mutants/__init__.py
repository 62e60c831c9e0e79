# SPDX-License-Identifier: Apache-2.0
"""Agents with a known bug, and which scenarios notice it; see docs/mutants.md."""
