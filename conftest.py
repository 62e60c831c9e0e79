# SPDX-License-Identifier: Apache-2.0
"""Registers the plugin, nothing else."""

pytest_plugins = ["hookproof.plugin"]
