# SPDX-License-Identifier: Apache-2.0
"""Has a module measure in a guest, in a virtme machine of its own."""

from __future__ import annotations

import importlib
import json
import sys
from pathlib import Path
from typing import Any, Final

from hookproof.bench.setup import Setup
from hookproof.service import executor
from vm import command
from vm.errors import HostProblem
from vm.machine import Plan, VirtmeMachine
from vm.watch import Watch

#: In units of a payload's boot (vm/accel.py); a round takes about a tenth of it.
_ROUND: Final = (2000.0, 300.0)


def measured(setup: Setup, name: str) -> Any:
    """What a module of `hookproof.bench` prints after its RESULTS, as JSON values.

    Args:
        setup: the kernel and the rounds, which are the argument of the module's `main`.
        name: the module's.

    Raises:
        Problem: the boot failed, or what runs in the guest did.
    """
    image, service = setup.image(setup.one), executor()
    mark = importlib.import_module(f"hookproof.bench.{name}").RESULTS
    start = f"import sys; sys.path[:0] = {[str(each) for each in service.folders]!r}; "
    start += f"from hookproof.bench import {name}; {name}.main()"
    argv = [sys.executable, "-I", "-S", "-c", start, str(setup.rounds)]
    deadline = setup.calibration.deadline(_ROUND[0] * (1 + setup.rounds), least=_ROUND[1])
    with VirtmeMachine(
        Plan(image, service), setup.calibration, Watch.load(image.release)
    ) as machine:
        said = command.run(machine, argv, Path("/"), deadline=deadline)
    lines = [each for each in said.text.splitlines() if each.startswith(mark)]
    if said.status != 0 or len(lines) != 1:
        last = said.text.rpartition("\n")[2]
        raise HostProblem(f"in the guest of {setup.one.name}: status {said.status}: {last}")
    return json.loads(lines[0].removeprefix(mark))
