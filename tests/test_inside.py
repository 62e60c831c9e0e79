# SPDX-License-Identifier: Apache-2.0
"""The tests of tests/inside, each kernel's in a machine of its own."""

from __future__ import annotations

import os
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from hookproof.logs import Slice
from hookproof.service import executor
from refagent import objects
from tests.inside.conftest import INSIDE, SEED
from vm import accel, catalog, command, images
from vm.default import default_catalog, default_lock
from vm.machine import Plan, VirtmeMachine
from vm.watch import Watch

pytestmark = pytest.mark.vm

ROOT = Path(__file__).resolve().parents[1]
#: Kernel → how many random sequences. 7.3 takes as long as the others together, and of two
#: processes the second is given the second.
KERNELS = {"6.12": 8, "7.3": 3, "5.10": 3}
#: The kernel else moves each system call's stack by a random offset, and what a call within the
#: same thread left behind is found at the next one's place only now and then.
WORDS = ("randomize_kstack_offset=off",)
#: In units of a payload's boot (vm/accel.py); about a quarter of it is used.
DEADLINE = (10_000.0, 600.0)


@pytest.mark.parametrize("name", KERNELS)
def test_the_agent_inside(name: str) -> None:
    objects.refresh()
    (kernel,) = catalog.select(catalog.read(default_catalog()), [name])
    image = images.ensure(kernel, default_lock(), say=lambda _line: None)
    service, calibration, watch = executor(), accel.choose("auto"), Watch.load(image.release)
    plan = Plan(image, replace(service, folders=(*service.folders, ROOT)), WORDS)
    variables = {
        INSIDE: KERNELS[name],
        SEED: os.environ.get(SEED, "1"),
        "PYTHONPATH": ROOT,
        "PYTEST_DISABLE_PLUGIN_AUTOLOAD": 1,
    }
    argv = ["env", *(f"{key}={value}" for key, value in variables.items()), sys.executable]
    # The folders above have the host's fixtures and plugins.
    argv += ["-m", "pytest", "-p", "no:cacheprovider", "--confcutdir=tests/inside"]
    argv += ["--color=no", "--durations=5", "tests/inside"]
    with VirtmeMachine(plan, calibration, watch) as machine:
        deadline = calibration.deadline(DEADLINE[0], least=DEADLINE[1])
        booted = Slice.of(machine.guest.request("log", deadline=deadline))
        said = command.run(machine, argv, ROOT, deadline=deadline)
        log = Slice.of(machine.guest.request("log", deadline=deadline))
    print(said.text)
    if said.status != 0:
        pytest.fail(f"on {name}, in the guest:\n{said.text}", pytrace=False)
    assert log.wrong(watch, since=booted.taint) == ""
