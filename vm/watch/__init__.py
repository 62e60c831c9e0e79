# SPDX-License-Identifier: Apache-2.0
"""Watches a kernel's log and console for reports of trouble; see docs/watch.md."""

from vm.watch.console import ConsoleScanner
from vm.watch.lines import kmsg_line
from vm.watch.scan import Splat, Watch
from vm.watch.taint import new_taints, taints

__all__ = ["ConsoleScanner", "Splat", "Watch", "kmsg_line", "new_taints", "taints"]
