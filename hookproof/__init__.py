# SPDX-License-Identifier: Apache-2.0
"""The harness: scenarios, the runner, verdicts and reports."""
