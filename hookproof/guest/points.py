# SPDX-License-Identifier: Apache-2.0
"""Where a call can be held: tables for the decoder and for the executor."""

from __future__ import annotations

TYPE_CHECKING = False  # see executor.py
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Final

#: Point → what is true of the call there.
POINTS: Final[Mapping[str, str]] = {
    "path": "in the system call, whose path has not been read yet",
    "second-path": "in the system call, which has read the first path and not the second",
    "function": "at the entry of a kernel function, before it and its fmod_ret programs run",
    "override": "between the sensor and the override program of a function",
    "hashing": "asleep in a program of an LSM hook's chain, which reads the process's arguments",
}

#: The points at a kernel function, which `at` names.
AT_FUNCTION: Final = ("function", "override")

#: Verbs whose paths can be waited for → the arguments of the function of the C library.
PATHS: Final[Mapping[str, tuple[str, ...]]] = {
    "mkdir": ("path", "mode"),
    "rmdir": ("path",),
    "unlink": ("path",),
    "symlink": ("target", "path"),
    "rename": ("path", "to"),
}

#: Those with two paths.
TWO_PATHS: Final = ("symlink", "rename")

#: Where a call that sleeps in a chain goes on.
WAKES: Final[Mapping[str, str]] = {
    "here": "on the processor on which it fell asleep",
    "elsewhere": "on another one, as soon as the program in which it sleeps has ended",
}

#: When a step that is done meanwhile can end.
RETURNS: Final[Mapping[str, str]] = {
    "during": "while the call is held",
    "after": "once it was let go, and not before",
    "either": "whenever it does",
}
