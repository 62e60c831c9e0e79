# SPDX-License-Identifier: Apache-2.0
"""Why a machine did not come up, by the best witness: the kernel, QEMU, the console's end."""

from __future__ import annotations

from vm.console import Console
from vm.errors import BootFailure


def boot_failure(name: str, error: Exception, console: Console, words: str) -> BootFailure:
    """The failure to show for an error that was met while a machine started.

    Args:
        name: the kernel's.
        error: what was met, a symptom often.
        console: of the machine.
        words: what QEMU said of itself.
    """
    fatal, text = console.fatal, console.text
    said = [line.strip() for line in text.splitlines() if line.strip()]
    if fatal is not None:
        what = f"the kernel died while booting: {fatal.line}"
    elif words and console.ended:
        what = f"QEMU ended: {words.splitlines()[-1]}"
    elif said:
        what = f"{error}, the console's last line is: {said[-1]}"
    else:
        what = f"{error}, the console is empty"
    return BootFailure(f"{name}: {what}", console=text)
