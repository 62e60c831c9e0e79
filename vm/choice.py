# SPDX-License-Identifier: Apache-2.0
"""Which kernels a command works on, where one that has to be built first costs minutes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from vm import catalog
from vm.errors import UsageProblem
from vm.kernel import BuildSource, Kernel


def choose(
    kernels: Sequence[Kernel], patterns: Sequence[str], lock: Path, say: Callable[[str], None]
) -> tuple[Kernel, ...]:
    """Chooses kernels as `catalog.select` does, and leaves out what nobody meant to build.

    `all` and other patterns choose a kernel that has to be built only if it has been. Its
    own name, and the mark that makes it a default, choose it in any case.

    Args:
        kernels: what there is.
        patterns: as of `catalog.select`.
        lock: kernels.lock.
        say: is told what was left out, and how to have it.

    Raises:
        UsageProblem: as `catalog.select`; or nothing is left.
    """
    chosen = catalog.select(kernels, patterns)
    meant = {name.strip() for one in patterns for name in one.split(",")} - {""}
    left = [
        kernel
        for kernel in chosen
        if isinstance(kernel.source, BuildSource)
        and meant
        and kernel.name not in meant
        and not _is_built(kernel, lock)
    ]
    if not left:
        return chosen
    names = [kernel.name for kernel in left]
    what = f"{', '.join(names)} would have to be built first, which takes minutes"
    hint = f"to build them: hookproof kernels fetch {' '.join(names)}"
    if len(left) == len(chosen):
        raise UsageProblem(what, where=",".join(patterns), hint=hint)
    say(f"left out: {what}; {hint}")
    return tuple(kernel for kernel in chosen if kernel not in left)


def _is_built(kernel: Kernel, lock: Path) -> bool:
    # Here, since those who choose among fetched kernels need none of it.
    from vm import images

    try:
        image, problems = images.find(kernel, lock)
    except UsageProblem:
        return True  # a wrong line is to be heard of, not passed over
    return image is not None and not problems
