# SPDX-License-Identifier: Apache-2.0
"""What a service finds when our own init has started it, on real kernels."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

from vm import accel, catalog, images
from vm.coldboot import ColdBoot, Resident
from vm.default import default_catalog, default_lock
from vm.guestroot import PYTHON, Contents
from vm.machine import Plan, Service
from vm.portmachine import PORT, PortMachine
from vm.virtme import Size
from vm.watch import Watch

pytestmark = pytest.mark.vm

#: The service: says between angle brackets what it finds, or what it misses.
LOOK: Final = f"""#!/bin/sh
for place in /dev /proc /sys /run /tmp /var/tmp /dev/shm /dev/pts /sys/fs/bpf /sys/fs/cgroup \
    /sys/kernel/security /sys/kernel/debug /sys/kernel/tracing
do grep -q "^[^ ]* $place " /proc/mounts || echo "<$place is not mounted>"
done
for name in fuse overlay
do grep -qw "$name" /proc/filesystems || echo "<no $name>"
done
for left in /modules/*; do test ! -e "$left" || echo "<$left is left>"; done
until test -c {PORT}; do sleep 0.1; done
echo "<$(hostname)>"
echo "<$(ifconfig lo | grep -o 'addr:127.0.0.1\\|UP LOOPBACK RUNNING' | tr '\\n' ' ')>"
echo "<$PATH $HOME>"
{PYTHON} -S -c 'import sys; sys.stdout.write("<%s>\\n" % sys.path[1])'
sh -c 'sleep 0.2 & exec true'
until ! pidof sleep >/dev/null; do sleep 0.1; done
grep -l 'State:.Z' /proc/[0-9]*/status
echo "<$*>"
exit 7
"""
FOUND: Final = [
    "hookproof",
    "addr:127.0.0.1 UP LOOPBACK RUNNING ",
    "/usr/sbin:/usr/bin:/sbin:/bin /root",
    "/usr/lib/hookproof",
    "two words",
]


@pytest.fixture(scope="module")
def scratch(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("machines")


@pytest.fixture(scope="module", params=["5.10", "6.12"])
def console(request: pytest.FixtureRequest, scratch: Path) -> Iterator[str]:
    """What the serial line said until the service had ended."""
    (kernel,) = catalog.select(catalog.read(default_catalog()), [request.param])
    image = images.ensure(kernel, lock=default_lock(), say=print)
    found = accel.choose("auto")
    look = scratch / "look"
    look.write_text(LOOK)
    look.chmod(0o755)
    plan = Plan(image, Service((), 0, ""), size=Size(memory=512))
    resident = Resident(("/bin/look", "two words"), Contents((), (str(look),)))
    boot = ColdBoot(plan, resident, found.accel)
    with pytest.MonkeyPatch.context() as patch:
        # The kernels are everybody's; a root with this service would be in the way of others.
        patch.setenv("HOOKPROOF_CACHE", str(scratch / "cache"))
        with PortMachine(
            plan,
            found,
            Watch.load(image.release),
            ram=scratch / f"{request.param}.ram",
            private=False,
            start=lambda folder: boot.start(folder, print),
        ) as machine:
            machine.console.wait_for(
                "the service ended, status 0x700",
                deadline=found.deadline(400, least=60),
                what="service's end",
            )
            yield machine.console.text


def test_the_guest_is_as_a_service_needs_it(console: str) -> None:
    assert re.findall(r"<([^<>]+)>", console) == FOUND


def test_nothing_failed_on_the_way(console: str) -> None:
    assert "hookproof: cannot" not in console
