# SPDX-License-Identifier: Apache-2.0
"""The executor as a service that a machine can start."""

from __future__ import annotations

import compileall
import functools
import importlib.util
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final

from hookproof.guest.executor import READY
from vm.machine import Service

if TYPE_CHECKING:
    from vm.snapshot import Resident

#: Any free port would do: it is the guest's own loopback.
_PORT: Final = 7121
_PACKAGES: Final = ("hookproof", "refagent", "_cffi_backend")


@functools.cache
def executor() -> Service:
    """The guest executor, run by this very Python over the shared root.

    It skips `site` and what it would import: under software emulation every file that
    is not opened is a millisecond, and byte code that is not there is many.
    """
    roots = list(dict.fromkeys(_root(name) for name in _PACKAGES))
    for name in _PACKAGES[:2]:
        compileall.compile_dir(_root(name) / name, quiet=2)
    start = f"import sys; sys.path[:0] = {[str(root) for root in roots]!r}; "
    start += "from hookproof.guest import executor; executor.main()"
    return Service(
        argv=(sys.executable, "-I", "-S", "-c", start, str(_PORT)),
        port=_PORT,
        ready=READY,
        folders=(*roots, Path(sys.prefix), Path(sys.base_prefix)),
    )


def resident() -> Resident:
    """The guest executor in a root of its own, on its machine's virtio port."""
    from vm import guestroot
    from vm.snapshot import PORT, Resident

    start = f"import sys; sys.path[:0] = [{guestroot.SITE!r}]; "
    start += "from hookproof.guest import executor; executor.main()"
    return Resident(
        argv=(guestroot.PYTHON, "-I", "-S", "-c", start, PORT),
        contents=guestroot.Contents(packages=("hookproof.guest", *_PACKAGES[1:])),
    )


def _root(name: str) -> Path:
    """The folder that must be on sys.path for a module to be found."""
    spec = importlib.util.find_spec(name)
    if spec is None or spec.origin is None:
        raise ImportError(f"{name} is not installed beside hookproof")
    found = Path(spec.origin).resolve().parent
    return found.parent if spec.submodule_search_locations else found
