# SPDX-License-Identifier: Apache-2.0
"""Which kernels cannot have the host's root, and how that is said before anything boots."""

from __future__ import annotations

from pathlib import Path

import pytest

from vm import kconfig, virtme
from vm.accel import Accel, Calibration
from vm.errors import UsageProblem
from vm.kernel import DebianSource, Image, Kernel, LocalSource
from vm.machine import Plan, Service, VirtmeMachine
from vm.watch import Watch

DEBIAN = DebianSource("trixie-backports", "7.0.*", modules=False)
LOCAL = LocalSource(Path("/boot/vmlinuz"))
NEEDED = ("9P_FS", "NET_9P_VIRTIO", "VIRTIO_NET", "VIRTIO_PCI")
ALL_IN = "".join(f"CONFIG_{name}=y\n" for name in NEEDED)
MODULES = ALL_IN.replace("=y", "=m")
CLOUD = "# CONFIG_NET_9P is not set\nCONFIG_VIRTIO_NET=m\nCONFIG_VIRTIO_PCI=y\n"


def image(
    folder: Path, config: str | None, modules: bool, source: DebianSource | LocalSource = LOCAL
) -> Image:
    path: Path | None = None
    if config is not None:
        path = folder / "config"
        path.write_text(config)
    kernel = Kernel("7.0", source, where="kernels.txt:3")
    home = folder / "modules" if modules else None
    return Image(kernel, "7.0.13", "7.0.13-1", folder / "vmlinuz", home, path, "0")


@pytest.mark.parametrize(
    ("config", "modules", "source", "why"),
    [
        (ALL_IN, False, LOCAL, ""),
        (ALL_IN, False, DEBIAN, ""),
        (MODULES, True, DEBIAN, ""),
        (None, False, LOCAL, ""),
        (None, True, DEBIAN, ""),
        (None, False, DEBIAN, "it has no modules here, and 9p is one of them"),
        (
            ALL_IN.replace("9P_FS=y", "9P_FS=m"),
            False,
            LOCAL,
            "it has CONFIG_9P_FS=m and no modules here",
        ),
        (CLOUD, True, DEBIAN, "it has CONFIG_9P_FS=n, CONFIG_NET_9P_VIRTIO=n"),
        (
            CLOUD,
            False,
            DEBIAN,
            (
                "it has CONFIG_9P_FS=n, CONFIG_NET_9P_VIRTIO=n, CONFIG_VIRTIO_NET=m "
                "and no modules here"
            ),
        ),
    ],
)
def test_what_a_kernel_lacks(
    tmp_path: Path, config: str | None, modules: bool, source: DebianSource | LocalSource, why: str
) -> None:
    assert virtme.lack(image(tmp_path, config, modules, source)) == why


@pytest.mark.parametrize("name", NEEDED)
def test_each_of_them_counts(tmp_path: Path, name: str) -> None:
    without = image(tmp_path, ALL_IN.replace(f"{name}=y", f"{name}=n"), modules=True)
    assert virtme.lack(without) == f"it has CONFIG_{name}=n"


def test_the_machine_says_it_in_one_line_before_it_boots(tmp_path: Path, cache: Path) -> None:
    plan = Plan(image(tmp_path, None, False, DEBIAN), Service(("/bin/true",), 1, "ready"))
    calibration = Calibration(Accel.TCG, "", 0.1)
    with (
        pytest.raises(UsageProblem) as caught,
        VirtmeMachine(plan, calibration, Watch.load("7.0.13")),
    ):
        pytest.fail("it booted")
    assert str(caught.value) == (
        "kernels.txt:3: kernel '7.0' cannot have this host's root: it has no modules here, and "
        "9p is one of them; use --machine snapshot"
    )
    assert not cache.exists()


def test_reads_a_configuration(tmp_path: Path) -> None:
    path = tmp_path / "config"
    path.write_text(
        "#\n# CONFIG_A is not set\nCONFIG_B=y\nCONFIG_C=m\r\nCONFIG_D=0x10\n"
        'CONFIG_E="a,b=c"\nCONFIG_F=""\n  CONFIG_G=y\nnonsense\n'
    )
    assert kconfig.read(path) == {
        "CONFIG_B": "y",
        "CONFIG_C": "m",
        "CONFIG_D": "0x10",
        "CONFIG_E": "a,b=c",
        "CONFIG_F": "",
    }
    assert kconfig.read(None) is None
    assert kconfig.read(tmp_path / "none") is None
    path.write_bytes(b"\xff\0CONFIG_A=y\nCONFIG_B=y")
    assert kconfig.read(path) == {"CONFIG_B": "y"}
